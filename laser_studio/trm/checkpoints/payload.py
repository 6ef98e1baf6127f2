"""Opening a stranger's file of weights: tensors by name and the plain facts beside them. Nothing else in the project opens one.

What is in the file is found out by a child process with limits (`laser_studio.untrusted`, docs/safety.md); this process then reads
the bytes of the tensors. `read_payload` gives what a file holds; a tensor too large to be part of a network (the puzzle embedding
of an ARC model) is left in the file and stands on the meta device, and `read_rows` reads the rows of it that are wanted. What the
names mean is decided elsewhere. Whatever cannot be used is a `CheckpointError` in plain words.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.stored import DTYPES, read_rows_of, read_tensors
from laser_studio.trm.checkpoints.words import EXPORT, shape_in_words, shown
from laser_studio.untrusted.listing import Listing, identity, list_tensors

LARGE_BYTES = 32 << 20  # the largest matrix of a TRM of width 512 has 6 MB, of width 1,024 23 MB
_FLOATS = ("float32", "bfloat16", "float16", "float64")
_KEPT_LISTINGS = 8


@dataclass(frozen=True)
class Payload:
    """What a file holds.

    tensors: by name, nested dicts flattened with dots ("state_dict.model.inner.H_init"); dense, floating-point, on the CPU; one of
    more than `LARGE_BYTES` has its shape and dtype but lies on the meta device: `read_rows` reads it. facts: numbers, texts, lists and
    dicts of such beside the tensors, nested as in the file. others: names of what is neither, with what it is. warnings: what the user
    should know about the file.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_payload(file: Path) -> Payload:
    """Everything in `file` but what is too large. Raises `CheckpointError`, and `OSError` as it comes."""
    listing = _listed(file)
    if not isinstance(listing.facts, dict) or not (listing.facts or listing.tensors or listing.odd):
        raise CheckpointError(f"{shown(file.name)} holds {listing.root}, not a state_dict: {EXPORT}")
    floats = {name: stored for name, stored in listing.tensors.items() if stored.dtype in _FLOATS}
    read = read_tensors(file, listing, [name for name, stored in floats.items() if stored.bytes <= LARGE_BYTES])
    tensors = {
        name: read[name] if name in read else torch.empty(stored.shape, dtype=DTYPES[stored.dtype], device="meta")
        for name, stored in floats.items()
    }
    whole = {name: f"a strided {stored.dtype} tensor" for name, stored in listing.tensors.items() if name not in floats}
    unsure = (f"{shown(file.name)} is of a format without checksums: damage to its weights would go unnoticed",)
    return Payload(tensors, listing.facts, {**whole, **listing.odd}, unsure if listing.container == "legacy" else ())


def read_rows(file: Path, tensor_name: str, rows: Sequence[int] | None = None) -> Tensor:
    """Rows of a two-dimensional tensor, (len(rows), D), in the file's dtype; None: all. Only their bytes are read.

    Raises `CheckpointError` where there is no such tensor or row.
    """
    listing, name = _listed(file), shown(file.name)
    if (stored := listing.tensors.get(tensor_name)) is None:
        raise CheckpointError(f"{name} has no tensor {shown(tensor_name)}")
    if len(stored.shape) != 2:
        raise CheckpointError(f"{name}: {shown(tensor_name)} is {shape_in_words(stored.shape)}, rows can be read of a matrix only")
    if rows is None:
        return read_tensors(file, listing, [tensor_name])[tensor_name]
    if wrong := [row for row in rows if not 0 <= row < stored.shape[0]]:
        raise CheckpointError(f"{name}: {shown(tensor_name)} has rows 0 to {stored.shape[0] - 1}, not {wrong[0]}")
    return read_rows_of(file, listing, tensor_name, rows)


_listings: OrderedDict[tuple[str, tuple[int, int, int]], Listing] = OrderedDict()
_guard = threading.Lock()


def _listed(file: Path) -> Listing:
    """The listing of a file, kept for the newest few: looking through gigabytes once is enough while they do not change."""
    key = (os.path.realpath(file) + "\0" + file.suffix, identity(file.stat()))
    with _guard:
        if key in _listings:
            return _listings[key]
    listing = list_tensors(file)
    with _guard:
        _listings[(key[0], listing.identity)] = listing
        while len(_listings) > _KEPT_LISTINGS:
            _listings.popitem(last=False)
    return listing
