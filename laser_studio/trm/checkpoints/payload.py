"""Opening a stranger's file of weights: tensors by name and the plain facts beside them. Nothing else in the project opens one.

`read_payload` gives what a file holds; a tensor too large to be part of a network (the puzzle embedding of an ARC model) is left
in the file and stands on the meta device, and `read_rows` reads the rows of it that are wanted. What the names mean is decided
elsewhere. Whatever cannot be used is a `CheckpointError` in plain words.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.pickles import Described, Odd, UnreadableError, describe
from laser_studio.trm.checkpoints.safetensor_files import read_header
from laser_studio.trm.checkpoints.words import EXPORT, kind_in_words, shape_in_words, shown

LARGE_BYTES = 32 << 20  # the largest matrix of a TRM of width 512 has 6 MB, of width 1,024 23 MB
# What training keeps beside the weights, under these names at the top; it is neither read nor taken for weights.
TRAINING_STATE = (
    "optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "lr_scheduler", "lr_schedulers",
    "scheduler", "scheduler_state_dict", "scaler", "grad_scaler", "rng", "rng_state", "rng_states", "cuda_rng_state", "loops",
    "carry", "train_state", "averaging_state",
)  # fmt: skip

_MOST_TENSORS, _MOST_NODES, _MOST_DEPTH = 10_000, 200_000, 8
_SLACK_BYTES = 64 * 1024
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Payload:
    """What a file holds.

    tensors: by name, nested dicts flattened with dots ("state_dict.model.inner.H_init"); dense, floating-point, on the CPU; one of
    more than `LARGE_BYTES` has its shape and dtype but lies on the meta device: `read_rows` reads it. facts: numbers, texts, lists and
    dicts of such beside the tensors, nested as in the file. others: names of what is neither, with what it is.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)


def read_payload(file: Path) -> Payload:
    """Everything in `file` but what is too large. Raises `CheckpointError`, and `OSError` as it comes."""
    head = sniff(file)
    if is_safetensors(head):
        return _read_safetensors(file)
    with _opened(file) as archive:
        found = _describe(archive, file)
        _bound_bytes(found.tensors, file)
        storages: dict[str, bytearray] = {}
        tensors = {name: _materialised(archive, file, each, storages) for name, each in found.tensors.items()}
    return Payload(tensors, found.facts, found.others)


def read_rows(file: Path, tensor_name: str, rows: Sequence[int] | None = None) -> Tensor:
    """Rows of a two-dimensional tensor, (len(rows), D), in the file's dtype; None: all. Only their bytes are read.

    Raises `CheckpointError` where there is no such tensor or row.
    """
    name = shown(file.name)
    if is_safetensors(sniff(file)):
        header = read_header(file)
        if tensor_name not in header:
            raise CheckpointError(f"{name} has no tensor {shown(tensor_name)}")
        dtype, shape, start = header[tensor_name].dtype, header[tensor_name].shape, header[tensor_name].start
    else:
        with _opened(file) as archive:
            each = _describe(archive, file).tensors.get(tensor_name)
            if each is None:
                raise CheckpointError(f"{name} has no tensor {shown(tensor_name)}")
            _check_reach(archive, each)
            if each.stride != torch.empty(each.size, device="meta").stride():
                raise CheckpointError(f"{name}: {shown(tensor_name)} does not lie in one piece, so its rows cannot be read")
            dtype, shape = each.dtype, each.size
            start = _place(archive, file, each.key) + each.offset * dtype.itemsize
    if len(shape) != 2:
        raise CheckpointError(f"{name}: {shown(tensor_name)} is {shape_in_words(shape)}, rows can be read of a matrix only")
    count, width = shape
    wanted = range(count) if rows is None else rows
    if wrong := [row for row in wanted if not 0 <= row < count]:
        raise CheckpointError(f"{name}: {shown(tensor_name)} has rows 0 to {count - 1}, not {wrong[0]}")
    pitch = width * dtype.itemsize
    read = bytearray(len(wanted) * pitch)
    with file.open("rb") as stream:
        if rows is None:
            stream.seek(start)
            _fill(stream, memoryview(read), name)
        else:
            for place, row in enumerate(rows):
                stream.seek(start + row * pitch)
                _fill(stream, memoryview(read)[place * pitch : (place + 1) * pitch], name)
    if not read:
        return torch.empty((len(wanted), width), dtype=dtype)
    return torch.frombuffer(read, dtype=dtype).view(len(wanted), width)


# --- sniffing -------------------------------------------------------------------------------------------------------


def sniff(file: Path) -> bytes:
    """The first bytes of the file, once they are no known impostor."""
    name, size = shown(file.name), file.stat().st_size
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


def is_safetensors(head: bytes) -> bool:
    """The length of the header comes first and may look like any other start; the header itself, JSON, begins at byte 8."""
    return head[8:10] == b'{"' or head[8:10] == b"{}"


# --- the containers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    tensors: dict[str, Described]
    facts: dict[str, Any]
    others: dict[str, str]


class _Archive:
    """The zip that torch.save wrote: whole, uncompressed, and its entries by their name behind the first folder."""

    def __init__(self, file: Path) -> None:
        name, size = shown(file.name), file.stat().st_size
        self.zip = zipfile.ZipFile(file)
        try:
            entries = self.zip.infolist()
            # torch.save never compresses; a compressed entry could unfold to any size
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > size:
                raise CheckpointError(f"{name} is a compressed archive, not a file as torch.save writes it: unpack it first")
            self.entries = {entry.filename.partition("/")[2]: entry for entry in entries}
            if "data.pkl" not in self.entries:
                raise CheckpointError(f"{name} is a zip archive, but not one that torch.save wrote: give the checkpoint itself")
            if "constants.pkl" in self.entries:
                raise CheckpointError(f"{name} is a TorchScript program, not weights: {EXPORT}")
            if "byteorder" in self.entries and self.zip.read(self.entries["byteorder"]) != b"little":
                raise CheckpointError(f"{name} was written on a machine of another byte order: {EXPORT}")
        except BaseException:
            self.zip.close()
            raise


class _opened:  # noqa: N801 - used as a function
    """`with _opened(file) as archive`: faults of the container become one message."""

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, shown(file.name)
        self.damaged = f"{self.name} is damaged or was cut short: download or copy it again"

    def __enter__(self) -> _Archive:
        with self.file.open("rb") as stream:
            head = stream.read(2)
        if head[:1] == b"\x80":
            raise CheckpointError(f"{self.name} is a bare pickle (or older than PyTorch 1.6), which is not opened: {EXPORT}")
        if head != b"PK":
            raise CheckpointError(f"{self.name} is not a checkpoint: neither what torch.save writes nor safetensors")
        try:
            self.archive = _Archive(self.file)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError):
            raise CheckpointError(self.damaged) from None
        return self.archive

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.archive.zip.close()
        if isinstance(error, CheckpointError | OSError):
            return
        if isinstance(error, MemoryError):
            raise CheckpointError(f"{self.name} does not fit into memory") from None
        if isinstance(error, Exception):  # whatever a malformed archive provokes: the user can do nothing with its words
            raise CheckpointError(self.damaged) from None


def _describe(archive: _Archive, file: Path) -> _Found:
    """Names, shapes and places of all tensors, and the facts; no tensor is read."""
    name = shown(file.name)
    try:
        root = describe(archive.zip.read(archive.entries["data.pkl"]))
    except UnreadableError as failure:
        what = f"a Python object ({shown(failure.what, 120)})"
        raise CheckpointError(f"{name} holds {what} besides tensors, and opening it could run code: it is refused; {EXPORT}") from None
    if not isinstance(root, dict) or not root:
        what = "a tensor" if isinstance(root, Described | Odd) else kind_in_words(root)
        raise CheckpointError(f"{name} holds {what}, not a state_dict: {EXPORT}")
    if odd := [key for key in root if not isinstance(key, str)]:
        raise CheckpointError(f"{name} is not a state_dict: {len(odd)} of its keys are no text, the first is {kind_in_words(odd[0])}")
    tensors: dict[str, Described] = {}
    others: dict[str, str] = {}
    for nodes, (path, value) in enumerate(_leaves(root, name)):
        if nodes > _MOST_NODES:
            raise CheckpointError(f"{name} holds more than {_MOST_NODES:,} things: it is not an honest checkpoint")
        if isinstance(value, Odd) or (isinstance(value, Described) and value.dtype not in _FLOATS):
            others[path] = value.kind
        elif isinstance(value, Described):
            tensors[path] = value
            if len(tensors) > _MOST_TENSORS:
                raise CheckpointError(f"{name} has more than {_MOST_TENSORS:,} tensors; a TRM has fewer")
        elif not isinstance(value, str | int | float | bool | None):
            others[path] = kind_in_words(value)
    facts = {key: plain for key, value in root.items() if key not in TRAINING_STATE and (plain := _plain(value)) is not None}
    return _Found(tensors, facts, others)


def _leaves(value: Any, name: str, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _MOST_DEPTH:
        raise CheckpointError(f"{name} is nested more than {_MOST_DEPTH} levels deep: it is not an honest checkpoint")
    children: Any
    if isinstance(value, dict):
        children = ((str(key), child) for key, child in value.items() if depth or key not in TRAINING_STATE)
    elif isinstance(value, list | tuple | set):
        children = ((str(place), child) for place, child in enumerate(value))
    else:
        yield path, value
        return
    for key, child in children:
        yield from _leaves(child, name, f"{path}.{key}" if path else key, depth + 1)


def _plain(value: Any, depth: int = 0) -> Any:
    """Numbers, texts and what holds nothing else; None for the rest. Depth and number were bounded by `_leaves`."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        kept = {str(key): plain for key, child in value.items() if (plain := _plain(child, depth + 1)) is not None}
        return kept or None
    if isinstance(value, list | tuple):
        listed = [_plain(child, depth + 1) for child in value]
        return listed if listed and None not in listed else None
    return None


def _bound_bytes(tensors: Mapping[str, Described], file: Path) -> None:
    """Refuse more bytes than the file can hold: a stride of 0 lets a few bytes claim terabytes, which the first copy would take."""
    size = file.stat().st_size
    claimed = sum(math.prod(each.size) * each.dtype.itemsize for each in tensors.values())
    if claimed > size * 1.05 + _SLACK_BYTES:
        raise CheckpointError(
            f"{shown(file.name)} claims {claimed:,} bytes of tensors in a file of {size:,}: it is not an honest checkpoint"
        )


def _materialised(archive: _Archive, file: Path, each: Described, storages: dict[str, bytearray]) -> Tensor:
    entry = _check_reach(archive, each)
    if math.prod(each.size) * each.dtype.itemsize > LARGE_BYTES:
        return torch.empty(each.size, dtype=each.dtype, device="meta")
    if each.key not in storages:
        data = bytearray(entry.file_size)
        with file.open("rb") as stream:
            stream.seek(_place(archive, file, each.key))
            _fill(stream, memoryview(data), shown(file.name))
        if zlib.crc32(data) != entry.CRC:  # torch.load checks no checksum, and takes flipped bits for weights
            raise zipfile.BadZipFile
        storages[each.key] = data
    data = storages[each.key]
    if not data:
        return torch.empty(each.size, dtype=each.dtype)
    whole = torch.frombuffer(data, dtype=each.dtype, count=len(data) // each.dtype.itemsize)
    return whole.as_strided(each.size, each.stride, each.offset)


def _check_reach(archive: _Archive, each: Described) -> zipfile.ZipInfo:
    """The entry of a tensor's storage, once the tensor lies within it."""
    entry = archive.entries[f"data/{each.key}"]
    if each.numel * each.dtype.itemsize > entry.file_size:
        raise ValueError("a storage is larger than its entry")
    reach: int = each.offset + sum([(size - 1) * stride for size, stride in zip(each.size, each.stride, strict=True)])
    if min(each.offset, *each.size, *each.stride, 0) < 0 or (math.prod(each.size) and reach >= each.numel):
        raise ValueError("a tensor reaches beyond its storage")
    return entry


def _place(archive: _Archive, file: Path, key: str) -> int:
    """Where the bytes of a storage begin in the file: behind the entry's own header, whose length only it tells."""
    entry = archive.entries[f"data/{key}"]
    with file.open("rb") as stream:
        stream.seek(entry.header_offset)
        header = stream.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _read_safetensors(file: Path) -> Payload:
    header, tensors, others = read_header(file), {}, {}
    with file.open("rb") as stream:
        for name, each in header.items():
            if each.dtype not in _FLOATS:
                others[name] = f"a strided {str(each.dtype).removeprefix('torch.')} tensor"
                continue
            size = math.prod(each.shape) * each.dtype.itemsize
            if size > LARGE_BYTES:
                tensors[name] = torch.empty(each.shape, dtype=each.dtype, device="meta")
                continue
            data = bytearray(size)
            stream.seek(each.start)
            _fill(stream, memoryview(data), shown(file.name))
            tensors[name] = torch.frombuffer(data, dtype=each.dtype).view(each.shape) if data else torch.empty(each.shape, dtype=each.dtype)
    return Payload(tensors, {}, others)


def _fill(stream: Any, target: memoryview, name: str) -> None:
    while target:
        count = stream.readinto(target)
        if not count:
            raise CheckpointError(f"{name} is damaged or was cut short: download or copy it again")
        target = target[count:]
