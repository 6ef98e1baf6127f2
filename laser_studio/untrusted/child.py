"""The process that looks into a stranger's file: `python -I -S -B child.py`, the file on its standard input, the answer on its output.

It limits itself before it looks: memory, CPU time, no file may grow, no process may start. Then an audit hook ends it at the first
attempt to open, import, execute or connect anything. It knows no path and inherits no environment. The parent (`listing`) keeps
the clock, and believes nothing of the answer.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from laser_studio.untrusted.descriptions import Described, Extent, placed
from laser_studio.untrusted.faults import Refused
from laser_studio.untrusted.flatten import Flat, flatten
from laser_studio.untrusted.header import read_header
from laser_studio.untrusted.legacy import read_legacy
from laser_studio.untrusted.zipped import read_zip

LOCKED = 77  # exit status of a child that tried what it may not


def limit(memory: int, seconds: int) -> None:
    """Let the system end this process when it goes beyond; where it has no such limits (Windows) the parent's clock remains."""
    try:
        import resource
    except ImportError:
        return
    limits = [
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (getattr(resource, "RLIMIT_NPROC", None), 0),
    ]
    for kind, most in limits:
        try:
            if kind is not None:
                # at the softer limit of CPU time the system says why it ends the process, at the harder it just does
                resource.setrlimit(kind, (most, most + 1 if kind == resource.RLIMIT_CPU else most))
        except (ValueError, OSError):  # a system that knows the name but not the limit
            continue


def lock() -> None:
    """From here on this process reads what it has open, calculates and answers; anything else ends it."""
    for encoding in ("cp437", "utf-8", "latin-1", "ascii"):  # what zipfile and pickle would import when they need it
        codecs.lookup(encoding)

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            os._exit(LOCKED)

    sys.addaudithook(watch)


_FORBIDDEN = (
    "import", "open", "exec", "compile", "marshal.", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "tempfile.", "glob.", "mmap.",
    "pty.", "signal.", "sys.set", "sys._", "code.", "pickle.", "fcntl.", "urllib.", "webbrowser.", "function.", "cpython.",
)  # fmt: skip


def describe(file: BinaryIO, size: int, safetensors: bool) -> dict[str, Any]:
    """What is in the file, as plain JSON values. Raises `Refused`, `MemoryError`.

    safetensors: whether the file is called that, so that anything else in it is a disguise.
    """
    head = file.read(16)
    # The length of a safetensors header comes first and may look like any other start; the header itself begins at byte 8.
    if head[8:9] == b"{" and (safetensors or head[:2] != b"PK"):
        tensors, places, metadata = read_header(file, size)
        odd = {name: one.kind for name, one in tensors.items() if not isinstance(one, Described)}
        whole = {name: one for name, one in tensors.items() if isinstance(one, Described)}
        return _answer("safetensors", "of type dict", Flat(whole, odd, metadata), places)
    pickled = head[:2] == b"PK" or head[:1] == b"\x80"
    if safetensors:
        raise Refused("disguised" if pickled else "damaged")
    if not pickled:
        raise Refused("unknown")
    container = "zip" if head[:2] == b"PK" else "legacy"
    payload, places = (read_zip if container == "zip" else read_legacy)(file, size)
    return _answer(container, _kind(payload), flatten(payload), places)


def _answer(container: str, root: str, flat: Flat, places: dict[str, Extent]) -> dict[str, Any]:
    tensors = []
    for name, tensor in flat.tensors.items():
        if (place := places.get(tensor.key)) is None:
            raise Refused("damaged")
        tensors.append(placed(name, tensor, place))
    return {"container": container, "root": root, "tensors": tensors, "odd": flat.odd, "facts": flat.facts}


def _kind(payload: Any) -> str:
    if isinstance(payload, Described):
        return f"a strided {payload.dtype} tensor"
    kind = getattr(payload, "kind", None)
    return kind if isinstance(kind, str) else f"of type {'dict' if isinstance(payload, dict) else type(payload).__name__}"


def main() -> None:
    """Look into standard input and write one JSON object."""
    memory, seconds, safetensors = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "safetensors"
    file, out = sys.stdin.buffer, sys.stdout.buffer
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    limit(memory, seconds)
    lock()
    answer: dict[str, Any]
    try:
        answer = describe(file, size, safetensors)
        text = json.dumps(answer, separators=(",", ":"), default=lambda _: None).encode()
    except Refused as refused:
        text = json.dumps({"refused": refused.code, "what": refused.what[:2_000]}).encode()
    except (MemoryError, RecursionError):
        text = b'{"refused": "memory", "what": ""}'
    out.write(text)
    out.flush()
    os._exit(0)  # nothing is tidied up: taking deep structures apart could take long


if __name__ == "__main__":
    main()
