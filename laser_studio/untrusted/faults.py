"""What can be wrong with a model file, as codes the child sends and as sentences the user reads. Standard library only."""

from __future__ import annotations

EXPORT = "where you trust it, load it there and write the weights alone with torch.save(model.state_dict(), 'step_1')"
AGAIN = "download or copy it again"

# code -> what follows the file's name; {} is what the child found, made fit for a message by the parent
SENTENCES = {
    "empty": f"is empty: {AGAIN}",
    "page": "is a web page, not a checkpoint: the download went to a page about the file; fetch the file itself",
    "pointer": "is a git-LFS pointer, not the weights themselves: run `git lfs pull` where it came from",
    "unknown": "is not a checkpoint: neither what torch.save writes nor a model.safetensors",
    "damaged": f"is damaged or was cut short: {AGAIN}",
    "compressed": "is a compressed archive, not a file as torch.save writes it: unpack it first",
    "archive": "is a zip archive, but not one that torch.save wrote: give the checkpoint itself",
    "script": f"is a TorchScript program, not weights: {EXPORT}",
    "bare": f"is a bare pickle, not a file as torch.save writes it, and is not opened: {EXPORT}",
    "disguised": f"is called safetensors but holds a pickle: it is not opened; {EXPORT}",
    "object": f"holds a Python object ({{}}) besides tensors, and opening it could run code: it is refused; {EXPORT}",
    "endian": f"was written on a big-endian machine, which is not read here: {EXPORT}",
    "loop": "holds a dict or list that contains itself, so it is no checkpoint as a trainer writes it",
    "deep": "nests dicts and lists deeper than {}, so it is no checkpoint as a trainer writes it",
    "much": "holds more than {}, so it is no checkpoint as a trainer writes it",
    "keys": "is not a state_dict: {}",
    "twice": "names the tensor {} twice, so it is not clear which one counts: write it anew",
    "claims": "claims more than it holds: {}; it is not an honest checkpoint",
    "memory": "needs more memory than a description of weights may take: it is not an honest checkpoint",
    "time": "takes longer to look through than a file of its size may: it is not an honest checkpoint, or the disk is very slow",
    "crashed": f"could not be looked through, the process that read it ended at once: it is damaged or made to do harm; {AGAIN}",
}


class Refused(Exception):  # noqa: N818 - not an error of the program: the file is what is wrong
    """A file that is not opened. code: a key of `SENTENCES`; what: fills its {}."""

    def __init__(self, code: str, what: str = "") -> None:
        super().__init__(code, what)
        self.code, self.what = code, what


def shown(text: str, longest: int = 80) -> str:
    """A stranger's text made fit for a message: one line, printable, not long."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"
