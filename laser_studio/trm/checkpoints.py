"""Checkpoints: the official `step_N` with its `all_config.yaml` in, our own folder in and out.

A checkpoint is a stranger's file, so nothing in it is believed: containers are sniffed and their checksums verified before
they are opened, `torch.load` runs with `weights_only=True` and never in another way, and every name, shape and size is
compared with the architecture before a model is built. What fails is a `CheckpointError` in plain words. The debugger,
the lab and the studio call `load_checkpoint`; nothing else in the project reads model files.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from laser_studio.device import resolve_device
from laser_studio.errors import CheckpointError
from laser_studio.files import atomic_path, read_yaml
from laser_studio.trm.config import TRMConfig
from laser_studio.trm.model import TRM

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
OFFICIAL_CONFIG_FILE = "all_config.yaml"
FORMAT, VERSION = "laser-studio-trm", 1

_MAX_JSON_BYTES = 256 * 1024
_MAX_TENSORS = 10_000
_SLACK_BYTES = 64 * 1024
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# official name (after its prefixes) -> ours; the blocks' names differ in their first two parts only
_RENAMED = {
    "embed_tokens.embedding_weight": "embedding.tokens",
    "puzzle_emb.weights": "embedding.puzzles",
    "embed_pos.embedding_weight": "embedding.positions",
}
_KEPT = ("H_init", "L_init", "lm_head.weight", "q_head.weight", "q_head.bias")

# keys of a dict that holds the weights one level down
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "ema", "params")
_OTHER_FAMILIES = (
    ("HRM", "H_level."),
    ("URM", "dwconv"),
    ("nano-trm", "lenet."),
    ("lucidrains/tiny-recursive-model", "output_init_embed"),
    ("lucidrains/tiny-recursive-model", "to_halt_pred"),
)


def load_checkpoint(path_or_hub_ref: str | Path, device: str | torch.device = "auto", *, seq_len: int | None = None) -> TRM:
    """Load a TRM in evaluation mode.

    path_or_hub_ref: an official `step_N` file with `all_config.yaml` beside it, or the folder of both (the latest step is
    taken); or a folder written by `save_checkpoint`, or its `model.safetensors`. device: see `resolve_device`.
    seq_len: tokens of a puzzle, for rope and "none" models, whose tensors do not tell it; without it a `dataset.json`
    beside the file is asked, and else `model.config.seq_len` stays None and each batch gives it.

    `model.details` holds what is known about the checkpoint ("source", "file", the details saved with it), and under
    "warnings" a sentence per tensor that is not finite. Official parameters become fp32, as the official code keeps them.

    Raises `CheckpointError` for whatever cannot be used, `DeviceError` for the device.

    >>> load_checkpoint("assets/checkpoints/sudoku-6x6").config.vocab_size  # doctest: +SKIP
    8
    """
    if str(path_or_hub_ref).startswith("hf://"):
        raise CheckpointError(
            "hf:// references are not supported yet: download the checkpoint (with its all_config.yaml) and give its path"
        )
    target = resolve_device(device)
    path = Path(path_or_hub_ref)
    try:
        file = _find_weights(path)
        loaded = _read_own(file, seq_len) if file.suffix == ".safetensors" else _read_official(file, seq_len)
    except OSError as failure:
        raise CheckpointError(f"{_shown(path.name)} cannot be read: {failure.strerror or 'unknown fault of the disk'}") from None
    model = _build(loaded, _shown(file.name))
    return model.to(target)


def save_checkpoint(model: TRM, folder: str | Path, *, details: Mapping[str, Any] | None = None, half: bool = False) -> None:
    """Write `model.safetensors` and `config.json` into `folder`; a reader sees the old pair or the new one, never half a file.

    details: what to remember about the model (task, domain, accuracy …), as JSON; by default what the model was loaded
    with. `load_checkpoint` gives back every tensor bit for bit; with `half`, fp32 tensors go to disk as fp16 and come back as
    fp32 rounded that way. Raises `CheckpointError` where it cannot be written.
    """
    folder = Path(folder)
    if details is None:
        details = {key: value for key, value in model.details.items() if key != "warnings"}  # found anew by each load
    record = {"format": FORMAT, "version": VERSION, "architecture": asdict(model.config), "details": dict(details)}
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as failure:
        raise CheckpointError(f"details cannot be written as JSON: {failure}") from None
    # clone: safetensors refuses tensors that share memory, and a view would drag its whole storage along
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    try:
        # Both are written before either is renamed, so that old and new files mix only if the process dies between two renames.
        with atomic_path(folder / CONFIG_FILE) as config, atomic_path(folder / WEIGHTS_FILE) as weights:
            weights.write_bytes(save_safetensors(tensors, metadata={"format": FORMAT, "version": str(VERSION)}))
            config.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise CheckpointError(f"{_shown(folder.name)} cannot be written: {failure.strerror or 'unknown fault of the disk'}") from None


@dataclass
class _Loaded:
    """What a reader found: architecture, tensors under our names, facts for the user; `original` maps our names to the file's."""

    config: TRMConfig
    tensors: dict[str, Tensor]
    details: dict[str, Any]
    original: dict[str, str] = field(default_factory=dict)


# --- finding and sniffing -------------------------------------------------------------------------------------------


def _find_weights(path: Path) -> Path:
    name = _shown(path.name)
    if path.is_file():
        if path.name in (CONFIG_FILE, OFFICIAL_CONFIG_FILE):
            raise CheckpointError(f"{name} is only the configuration: give the folder it lies in, or the file with the weights")
        return path
    if not path.is_dir():
        raise CheckpointError(f"{name or 'the path'} does not exist: give a step_N file, a model.safetensors, or the folder of one")
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    steps = [(int(match[1]), file) for file in path.iterdir() if (match := re.fullmatch(r"step_(\d{1,18})", file.name)) and file.is_file()]
    if not steps:
        raise CheckpointError(
            f"{name} holds neither {WEIGHTS_FILE} nor a step_N file: if the weights have another name, give the file itself"
        )
    return max(steps)[1]


def _sniff(file: Path) -> bytes:
    """The first bytes of the file, once they are no known impostor."""
    name, size = _shown(file.name), file.stat().st_size
    if size == 0:
        raise CheckpointError(f"{name} is empty: download or copy it again")
    with file.open("rb") as stream:
        head = stream.read(512)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{name} is a web page, not a checkpoint: the download went to a page about the file; fetch the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{name} is a git-LFS pointer, not the weights themselves: run `git lfs pull` where it came from")
    return head


def _check_zip(file: Path) -> None:
    """Whole, uncompressed and undamaged: torch.load checks no checksum, and takes flipped bits for weights."""
    name, size = _shown(file.name), file.stat().st_size
    damaged = f"{name} is damaged or was cut short: download or copy it again"
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch.save never compresses; a compressed entry could unfold to any size
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > size:
                raise CheckpointError(f"{name} is a compressed archive, not a file as torch.save writes it: unpack it first")
            if not any(entry.filename.endswith("data.pkl") for entry in entries):
                raise CheckpointError(f"{name} is a zip archive, but not one that torch.save wrote: give the checkpoint itself")
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                raise CheckpointError(f"{name} is a TorchScript program, not weights: {_EXPORT}")
            if archive.testzip() is not None:
                raise CheckpointError(damaged)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise CheckpointError(damaged) from None


_EXPORT = "where you trust it, load it there and write the weights alone with torch.save(model.state_dict(), 'step_1')"


def _read_pickle(file: Path) -> Any:
    """The object in a torch.save archive, tensors on the CPU."""
    name, head = _shown(file.name), _sniff(file)
    if head[:1] == b"\x80":
        raise CheckpointError(f"{name} is a bare pickle (or older than PyTorch 1.6), which is not opened: {_EXPORT}")
    if head[:2] != b"PK":
        raise CheckpointError(f"{name} is not a checkpoint: neither what torch.save writes nor a {WEIGHTS_FILE}")
    _check_zip(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as failure:
        # The message itself advises the unsafe flag, in colour; only the name of the object is taken from it.
        found = re.search(r"GLOBAL ([\w.]{1,120})", str(failure))
        what = f"a Python object ({found[1]})" if found else "Python objects"
        raise CheckpointError(f"{name} holds {what} besides tensors, and opening it could run code: it is refused; {_EXPORT}") from None
    except MemoryError:
        raise CheckpointError(f"{name} does not fit into memory") from None
    except OSError:
        raise
    except Exception:  # whatever a malformed archive provokes inside torch: the user can do nothing with its words
        raise CheckpointError(f"{name} is damaged: torch cannot read it; download or copy it again") from None


# --- the official format --------------------------------------------------------------------------------------------


def _read_official(file: Path, seq_len: int | None) -> _Loaded:
    payload = _read_pickle(file)
    name = _shown(file.name)
    found = _official_tensors(payload, name, file.stat().st_size)
    arch = _read_arch(file.parent / OFFICIAL_CONFIG_FILE, name)
    tensors = {ours: tensor for ours, (_, tensor) in found.items()}
    if "embedding.tokens" not in tensors or tensors["embedding.tokens"].ndim != 2:
        raise CheckpointError(f"{name} lacks the token embedding (inner.embed_tokens.embedding_weight), so it is not a TRM")
    arch["vocab_size"] = tensors["embedding.tokens"].shape[0]
    puzzles = tensors.get("embedding.puzzles")
    arch["num_puzzle_identifiers"] = puzzles.shape[0] if puzzles is not None and puzzles.ndim == 2 else 1
    told = _told_length(tensors)
    # a mixer or a model with learned positions is refused without a length, and what it is comes from the tensors, prefix excluded
    config = _config(arch | {"seq_len": told or 1}, OFFICIAL_CONFIG_FILE)
    if told is not None:
        if told <= config.prefix_len:
            raise CheckpointError(f"{name}: {told} positions leave no room behind a prefix of puzzle_emb_len {config.prefix_len}")
        length: int | None = _agreed(told - config.prefix_len, seq_len, name)
    else:
        if config.mlp_t or config.pos_encodings == "learned":
            kind = "a mixer (mlp_t)" if config.mlp_t else "learned positions (embed_pos)"
            raise CheckpointError(f"{name} does not match its {OFFICIAL_CONFIG_FILE}: that says {kind}, but there are no such tensors")
        length = seq_len if seq_len is not None else _dataset_length(file.parent / "dataset.json")
    config = replace(config, seq_len=length)
    for ours, tensor in tensors.items():
        dtype = getattr(torch, config.forward_dtype) if ours in ("H_init", "L_init") else torch.float32
        tensors[ours] = tensor.to(dtype)
    details: dict[str, Any] = {"source": "official", "file": file.name}
    return _Loaded(config, tensors, details, {ours: theirs for ours, (theirs, _) in found.items()})


def _official_tensors(payload: Any, name: str, file_bytes: int) -> dict[str, tuple[str, Tensor]]:
    """{our name: (name in the file, tensor)}; raises for everything that is no plain state_dict of a TRM."""
    if not isinstance(payload, dict) or not payload:
        raise CheckpointError(f"{name} holds {_kind(payload)}, not a state_dict: {_EXPORT}")
    odd = [key for key in payload if not isinstance(key, str)]
    if odd:
        raise CheckpointError(f"{name} is not a state_dict: {len(odd)} of its keys are no text, the first is {_kind(odd[0])}")
    _refuse_other_families(payload, name)
    wrong = [f"{key} is {_kind(value)}" for key, value in payload.items() if not _is_plain_tensor(value)]
    if wrong:
        wrapped = next((key for key in _WRAPPERS if isinstance(payload.get(key), dict)), None)
        if wrapped is not None:
            raise CheckpointError(
                f"{name} keeps its weights under {wrapped!r}, which is not supported yet: write that dict alone with torch.save"
            )
        raise CheckpointError(f"{name} is not a state_dict of dense floating-point tensors: {_first(wrong)}")
    _bound_bytes(payload, name, file_bytes)
    found: dict[str, tuple[str, Tensor]] = {}
    unknown, twice = [], []
    for key, tensor in payload.items():
        ours = _our_name(_strip(key))
        if ours is None:
            unknown.append(key)
        elif ours in found:
            twice.append(key)
        else:
            found[ours] = (key, tensor)
    if unknown:
        raise CheckpointError(f"{name} has {len(unknown)} tensors that a TRM does not have: {_first(unknown)}")
    if twice:
        raise CheckpointError(f"{name} has {len(twice)} tensors twice under different prefixes: {_first(twice)}")
    return found


def _strip(key: str) -> str:
    """The name without what torch.compile, distribution wrappers and the loss head put in front of it."""
    while key.startswith(("_orig_mod.", "module.")):
        key = key.split(".", 1)[1]
    return key.removeprefix("model.").removeprefix("inner.")


def _our_name(stripped: str) -> str | None:
    if stripped in _KEPT:
        return stripped
    if stripped in _RENAMED:
        return _RENAMED[stripped]
    block = re.fullmatch(r"L_level\.(layers\.\d{1,4}\.(?:self_attn|mlp_t|mlp)\.\w{1,40}\.weight)", stripped, re.ASCII)
    return f"net.{block[1]}" if block else None


def official_name(name: str) -> str:
    """The official name (behind `inner.`) of one of our tensors."""
    back = {ours: theirs for theirs, ours in _RENAMED.items()}
    return back.get(name) or ("L_level." + name.removeprefix("net.") if name.startswith("net.") else name)


def _refuse_other_families(payload: Mapping[str, Any], name: str) -> None:
    inner: Mapping[Any, Any] = next((payload[key] for key in _WRAPPERS if isinstance(payload.get(key), dict)), {})
    names = [_strip(key) for key in (*payload, *inner) if isinstance(key, str)]
    family = next((family for family, mark in _OTHER_FAMILIES if any(mark in key for key in names)), None)
    if family is None and any(key in payload for key in ("pytorch-lightning_version", "hyper_parameters")):
        family = "nano-trm (or another Lightning model)"
    if family is not None:
        raise CheckpointError(f"{name} is a checkpoint of {family}, which is not supported yet: give one of the official TRM code")


def _read_arch(file: Path, weights: str) -> dict[str, Any]:
    """The `arch` section that configures the forward pass, as `TRMConfig` fields."""
    if not file.is_file():
        raise CheckpointError(
            f"no {OFFICIAL_CONFIG_FILE} beside {weights}: the tensors do not tell H_cycles, L_cycles, num_heads, "
            "halt_max_steps, expansion, rope or no positions, puzzle_emb_len, forward_dtype; put the one of the training run there"
        )
    try:
        record = read_yaml(file)
    except ValueError as problem:
        raise CheckpointError(f"{file.name} {problem}: use the file as the official trainer wrote it") from None
    arch = record.get("arch") if isinstance(record, dict) else None
    if not isinstance(arch, dict):
        raise CheckpointError(f"{file.name} has no `arch` section: use the file as the official trainer wrote it")
    arch = {
        key: value for key, value in arch.items() if key not in ("loss", "batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers")
    }
    module = str(arch.pop("name", "trm")).split("@")[0].split(".")[-1]
    if module != "trm":
        raise CheckpointError(
            f"{file.name} names the architecture {_shown(module)!r}, which is not supported yet: only the official `trm` is"
        )
    open_ends = [f"arch.{key} = {value}" for key, value in arch.items() if isinstance(value, str) and "${" in value]
    if open_ends:
        raise CheckpointError(f"{file.name} holds unresolved references: {_first(open_ends)}; write the numbers in their place")
    known = {item.name for item in fields(TRMConfig)}
    # A variant's extra switch may change the arithmetic without changing a shape; switched off it is harmless.
    strange = [str(key) for key, value in arch.items() if key not in known and value not in (None, False, 0, "")]
    if strange:
        raise CheckpointError(
            f"{file.name} has settings the official TRM does not have: {_first(strange)}; if they do not matter, remove them"
        )
    needed = [
        key for key in ("H_cycles", "L_cycles", "L_layers", "hidden_size", "num_heads", "expansion", "pos_encodings") if key not in arch
    ]
    if needed:
        raise CheckpointError(f"{file.name} lacks {', '.join('arch.' + key for key in needed)}, which the tensors do not tell")
    return {key: value for key, value in arch.items() if key in known}


def _told_length(tensors: Mapping[str, Tensor]) -> int | None:
    """Tokens including the prefix, where the tensors tell."""
    for name in ("net.layers.0.mlp_t.down_proj.weight", "embedding.positions"):
        if name in tensors and tensors[name].ndim == 2:
            return tensors[name].shape[0]
    return None


def _dataset_length(file: Path) -> int | None:
    if not file.is_file():
        return None
    length = _read_json(file).get("seq_len")
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise CheckpointError(f"{file.name} has no usable seq_len: correct it, or give seq_len")
    return length


# --- our own format -------------------------------------------------------------------------------------------------


def _read_own(file: Path, seq_len: int | None) -> _Loaded:
    name, config_file = _shown(file.name), file.parent / CONFIG_FILE
    head = _sniff(file)
    # The length of the header comes first and may look like any other start; the header itself, JSON, begins at byte 8.
    if head[8:9] != b"{" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise CheckpointError(f"{name} is called safetensors but holds a pickle: it is not opened; {_EXPORT}")
    if not config_file.is_file():
        raise CheckpointError(f"no {CONFIG_FILE} beside {name}: put the one that was saved with it there")
    record = _read_json(config_file)
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{CONFIG_FILE} beside {name} was not written by LASER Studio: give an official step_N with {OFFICIAL_CONFIG_FILE}"
        )
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{CONFIG_FILE} is of format version {_shown(str(record.get('version')))}, this program reads {VERSION}: update it"
        )
    architecture, details = record.get("architecture"), record.get("details", {})
    if not isinstance(architecture, dict) or not isinstance(details, dict):
        raise CheckpointError(f"{CONFIG_FILE} lacks its architecture or details: take the file that was saved with {name}")
    config = _config(architecture, CONFIG_FILE)
    if seq_len is not None:
        config = replace(config, seq_len=seq_len if config.seq_len is None else _agreed(config.seq_len, seq_len, name))
    try:
        tensors = load_safetensors(file.read_bytes())  # read, not mapped: a mapped file that shrinks kills the process
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError):
        raise CheckpointError(f"{name} is damaged or was cut short: download or copy it again") from None
    wrong = [key for key, tensor in tensors.items() if not _is_plain_tensor(tensor)]
    if wrong:
        raise CheckpointError(f"{name} holds tensors that are not floating-point: {_first(wrong)}")
    # Halves are a saving of disk only: the model computes as it was trained.
    tensors = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}
    return _Loaded(config, tensors, {"source": "laser-studio", **details, "file": file.name})


def _read_json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{file.name} is larger than {_MAX_JSON_BYTES // 1024} KiB, so it is no description of a model")
    try:
        record = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file.name} is not JSON: use the file as it was written") from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{file.name} is not a JSON object: use the file as it was written")
    return record


# --- checking and building ------------------------------------------------------------------------------------------


def _config(values: Mapping[Any, Any], origin: str) -> TRMConfig:
    try:
        return TRMConfig(**{str(key): value for key, value in values.items()})
    except CheckpointError as failure:
        raise CheckpointError(f"{origin}: {str(failure).removeprefix('TRMConfig: ')}") from None


def _build(loaded: _Loaded, name: str) -> TRM:
    with torch.device("meta"):  # shapes without memory: nothing is drawn at random, so nothing random can be left over
        model = TRM(loaded.config)
    expected = model.state_dict()
    called = loaded.original.get
    missing = [official_name(key) if loaded.original else key for key in expected if key not in loaded.tensors]
    extra = [called(key, key) for key in loaded.tensors if key not in expected]
    if missing or extra:
        parts = [f"{len(keys)} {word}: {_first(keys)}" for keys, word in ((missing, "missing"), (extra, "too many")) if keys]
        raise CheckpointError(f"{name} does not match its configuration, tensors are {'; '.join(parts)}")
    misshapen = [
        f"{called(key, key)} is {_shape(loaded.tensors[key])}, the configuration says {_shape(tensor)}"
        for key, tensor in expected.items()
        if loaded.tensors[key].shape != tensor.shape
    ]
    if misshapen:
        raise CheckpointError(f"{name} does not match its configuration: {_first(misshapen)}")
    tensors = _with_own_memory(loaded.tensors)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.details = loaded.details | {"warnings": _warnings(tensors)}
    return model.eval()


def _with_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which none shares a storage (two tied parameters would write into one another) or pins a larger one."""
    own, taken = {}, set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in taken and storage.nbytes() == tensor.numel() * tensor.element_size()
        taken.add(storage.data_ptr())
        tensor = tensor.detach()
        # Only where needed: the puzzle embedding of an ARC model alone has 2 GB.
        own[key] = tensor if alone and tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)
    return own


def _warnings(tensors: Mapping[str, Tensor]) -> list[str]:
    counts = {key: int(tensor.numel() - tensor.isfinite().sum()) for key, tensor in tensors.items()}
    return [f"{key} has {count} values that are not finite" for key, count in counts.items() if count]


def _is_plain_tensor(value: Any) -> bool:
    # The order matters: nothing but the layout of a sparse tensor is safe to ask for.
    plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided
    return plain and value.device.type == "cpu" and not value.is_quantized and value.dtype in _FLOATS


def _bound_bytes(tensors: Mapping[str, Tensor], name: str, file_bytes: int) -> None:
    """Refuse more bytes than the file can hold: a stride of 0 lets a few bytes claim terabytes, which the first copy would take."""
    if len(tensors) > _MAX_TENSORS:
        raise CheckpointError(f"{name} has {len(tensors)} tensors; a TRM has fewer than {_MAX_TENSORS}")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > file_bytes * 1.05 + _SLACK_BYTES:
        raise CheckpointError(f"{name} claims {claimed:,} bytes of tensors in a file of {file_bytes:,}: it is not an honest checkpoint")


def _agreed(told: int, asked: int | None, name: str) -> int:
    if asked is not None and asked != told:
        raise CheckpointError(f"{name} was trained on sequences of {told} tokens, seq_len {asked} was asked for: leave seq_len out")
    return told


# --- words ----------------------------------------------------------------------------------------------------------


def _shown(text: str, longest: int = 80) -> str:
    """A stranger's text made fit for a message: one line, printable, not long."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def _first(items: Iterable[str], count: int = 5) -> str:
    listed = list(items)
    more = f" … and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(_shown(item, 160) for item in listed[:count]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device.type}"
        return f"a {str(value.layout).removeprefix('torch.')} {str(value.dtype).removeprefix('torch.')} tensor{where}"
    return f"of type {_shown(type(value).__name__, 40)}"
