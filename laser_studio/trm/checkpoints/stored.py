"""From the places a listing names to tensors: bytes of the file are read straight into memory of our own, one tensor at a time.

Nothing is mapped: a mapped file that is cut short kills the process. Nothing is read that was not asked for, so rows of an
embedding of gigabytes cost what the rows cost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.untrusted.descriptions import ITEM_BYTES, span
from laser_studio.untrusted.faults import shown
from laser_studio.untrusted.listing import Listing, StoredTensor, identity

DTYPES = {name: getattr(torch, name) for name in ITEM_BYTES}


def read_tensors(file: Path, listing: Listing, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The named tensors of a file (default: all), contiguous, on the CPU, each in memory of its own.

    Raises `CheckpointError` where the file is no longer the one that was listed or does not fit into memory, `OSError` where the
    disk is at fault.
    """
    with _opened(file, listing) as stream:
        return {name: _read(stream, listing.tensors[name], file) for name in (listing.tensors if names is None else names)}


def read_rows_of(file: Path, listing: Listing, name: str, rows: Sequence[int]) -> Tensor:
    """Rows of one tensor, shape (rows, …), each of them there: only they are read. Raises `CheckpointError`, `OSError`."""
    stored = listing.tensors[name]
    shape, stride, item = stored.shape[1:], stored.stride[1:], ITEM_BYTES[stored.dtype]
    size = span(shape, stride) * item
    with _opened(file, listing) as stream:
        read = [
            _read(stream, StoredTensor(name, stored.dtype, shape, stride, stored.start + row * stored.stride[0] * item, size), file)
            for row in rows
        ]
    return torch.stack(read) if read else torch.empty((0, *shape), dtype=DTYPES[stored.dtype])


@contextmanager
def _opened(file: Path, listing: Listing) -> Iterator[FileIO]:
    with FileIO(file) as stream:
        if identity(os.fstat(stream.fileno())) != listing.identity:
            raise CheckpointError(f"{shown(file.name)} was changed while it was read: try again")
        yield stream


def _read(stream: FileIO, stored: StoredTensor, file: Path) -> Tensor:
    try:
        raw = torch.empty(stored.size, dtype=torch.uint8)
        view = raw.numpy().data
        stream.seek(stored.start)
        done = 0
        while done < stored.size:
            got = stream.readinto(view[done:])
            if not got:
                raise CheckpointError(f"{shown(file.name)} was cut short while it was read: try again")
            done += got
        if stored.dtype == "bool":
            flat = raw != 0  # a byte of a bool tensor is 0 or 1; in a file it may be anything
        else:
            flat = raw.view(DTYPES[stored.dtype]) if stored.size else torch.empty(0, dtype=DTYPES[stored.dtype])
        if not stored.size:
            return flat.reshape(stored.shape)
        if stored.stride == _dense(stored.shape):
            return flat.reshape(stored.shape)
        return flat.as_strided(stored.shape, stored.stride).clone(memory_format=torch.contiguous_format)
    except (MemoryError, RuntimeError):  # torch raises a RuntimeError where memory runs out
        raise CheckpointError(f"{shown(file.name)} does not fit into memory") from None


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= size
    return tuple(reversed(stride))
