"""The trusted side: starts the child on a file, keeps the clock, and checks whatever comes back before anyone sees it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from laser_studio.errors import CheckpointError
from laser_studio.settings import setting, settings
from laser_studio.untrusted import child
from laser_studio.untrusted.descriptions import ITEM_BYTES, span, whole_numbers
from laser_studio.untrusted.faults import SENTENCES, shown
from laser_studio.untrusted.flatten import MAX_NAME, MAX_TENSORS

_NAMES_PER_BYTE = 2.05  # weights and an average of them that has not moved yet may be the same storages; more names are no honest use
_SLACK_BYTES = 64 * 1024
_AT_ONCE = threading.BoundedSemaphore(4)  # children
_CONTAINERS = ("zip", "legacy", "safetensors")


@settings(CheckpointError)
class Limits:
    """What looking into one file may take. CPU and clock grow with the file, whose checksums are read through."""

    memory: int = setting(default=512 << 20, low=64 << 20, high=1 << 36, unit="bytes", help="Address space of the process that looks in.")
    cpu_secs: int = setting(default=2, low=1, high=3_600, unit="s", help="CPU time for a small file.")
    clock_secs: int = setting(default=20, low=1, high=3_600, unit="s", help="Time on the wall for a small file.")
    cpu_rate: int = setting(default=100 << 20, low=1 << 20, high=1 << 40, unit="bytes/s", help="A further second of CPU time for so many.")
    clock_rate: int = setting(default=10 << 20, low=1 << 20, high=1 << 40, unit="bytes/s", help="A further second on the wall for so many.")
    answer: int = setting(default=16 << 20, low=1 << 10, high=1 << 30, unit="bytes", help="Longest answer that is taken.")


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense, strided, real tensor in a file: its elements, `stride` apart, in `size` bytes from byte `start` on."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    size: int

    @property
    def bytes(self) -> int:
        """Bytes of the tensor on its own."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Listing:
    """What is in a file. root: "of type dict" or what else the outermost object is; odd: tensors that are never built, and what
    they are; facts: the rest, nested as in the file, without tensors; identity: tells the file from another under the same name."""

    container: str
    root: str
    tensors: Mapping[str, StoredTensor]
    odd: Mapping[str, str]
    facts: Any
    identity: tuple[int, int, int]


def list_tensors(file: Path, *, name: str | None = None, limits: Limits = LIMITS) -> Listing:
    """Look into a checkpoint without loading it; takes some 40 ms, and a second per gigabyte for its checksums.

    name: what messages call the file, by default its own name. Raises `CheckpointError` for what must not or cannot be opened,
    `OSError` where the disk is at fault.
    """
    called = shown(name or file.name)
    with file.open("rb") as stream:
        sniff(stream, called)
        state = os.fstat(stream.fileno())
        limits_now = (limits.memory, limits.cpu_secs + state.st_size // limits.cpu_rate)
        clock = limits.clock_secs + state.st_size / limits.clock_rate
        kind = "safetensors" if file.suffix == ".safetensors" else "any"
        reply = _ask(stream, [*map(str, limits_now), kind], clock, limits.answer)
    if "refused" in reply:
        code, what = reply["refused"], reply.get("what", "")
        raise CheckpointError(f"{called} {SENTENCES.get(code, SENTENCES['crashed']).format(shown(str(what), 240))}")
    try:
        return _believed(reply, state, called)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{called} {SENTENCES['crashed']}") from None


def sniff(stream: BinaryIO, called: str) -> None:
    """Refuse what is no model file at its first bytes. Raises `CheckpointError`."""
    head = stream.read(512)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    fault = ""
    if not head:
        fault = "empty"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        fault = "page"
    elif start.startswith(b"version https://git-lfs"):
        fault = "pointer"
    if fault:
        raise CheckpointError(f"{called} {SENTENCES[fault]}")


def _ask(stream: BinaryIO, arguments: list[str], clock_secs: float, longest: int) -> dict[str, Any]:
    """The child's answer as it comes, or what became of the child as a refusal. A few at a time: many visitors share one memory."""
    stream.seek(0)
    environment = {key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ}  # Windows cannot start a process without it
    command = [sys.executable, "-I", "-S", "-B", child.__file__, *arguments]
    with (
        _AT_ONCE,
        subprocess.Popen(
            command, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, close_fds=True
        ) as process,
    ):
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        clock = threading.Timer(clock_secs, stop)
        clock.daemon = True
        clock.start()
        try:
            text = process.stdout.read(longest + 1)
        finally:
            clock.cancel()
            process.kill()  # harmless where it has ended; one that answers too much, or is interrupted, is not waited for
            status = process.wait()
    if late.is_set() or status == -_SIGXCPU:
        return {"refused": "time"}
    if len(text) > longest:
        return {"refused": "much", "what": f"{longest >> 20} MiB of names and structure"}
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return {"refused": "crashed"}
    return reply if isinstance(reply, dict) else {"refused": "crashed"}


_SIGXCPU = 24  # of Linux and macOS; elsewhere there is no such limit


def _believed(reply: dict[str, Any], state: os.stat_result, called: str) -> Listing:
    """The answer, checked field by field: bytes inside the file, and all tensors together no more than it has."""
    if reply["container"] not in _CONTAINERS or not isinstance(reply["odd"], dict) or len(reply["tensors"]) > MAX_TENSORS:
        raise ValueError(reply["container"])
    tensors = {}
    for name, dtype, shape, stride, start, size in reply["tensors"]:
        shape, stride, where = whole_numbers(shape), whole_numbers(stride), whole_numbers([start, size])
        if not isinstance(name, str) or len(name) > MAX_NAME or dtype not in ITEM_BYTES:
            raise ValueError(name)
        if shape is None or stride is None or len(shape) != len(stride) or where is None:
            raise ValueError(name)
        tensor = tensors[name] = StoredTensor(name, dtype, shape, stride, *where)
        if size != span(shape, stride) * ITEM_BYTES[dtype] or start + size > state.st_size or tensor.bytes > state.st_size:
            raise ValueError(name)
    claimed = sum(tensor.bytes for tensor in tensors.values())
    if claimed > state.st_size * _NAMES_PER_BYTE + _SLACK_BYTES:
        what = f"{claimed:,} bytes of tensors in a file of {state.st_size:,}"
        raise CheckpointError(f"{called} {SENTENCES['claims'].format(what)}")
    odd = {name: shown(str(kind)) for name, kind in reply["odd"].items()}
    return Listing(reply["container"], shown(str(reply["root"])), tensors, odd, reply["facts"], identity(state))


def identity(state: os.stat_result) -> tuple[int, int, int]:
    """What tells a file from another under the same name."""
    return state.st_ino, state.st_size, state.st_mtime_ns
