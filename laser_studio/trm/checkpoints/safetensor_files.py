"""The header of a safetensors file, checked by hand so that single rows can be read at their place in the file.

The format: eight bytes of length, a JSON object of {name: {dtype, shape, data_offsets}}, then the bytes, without gaps.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.words import shown

_MOST_HEADER_BYTES = 8 << 20
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor in the file; start: where its bytes begin, counted from the file's."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


def read_header(file: Path) -> dict[str, Entry]:
    """What the file holds. Raises `CheckpointError` where header and file do not fit one another."""
    damaged = CheckpointError(f"{shown(file.name)} is damaged or was cut short: download or copy it again")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES):
            raise damaged
        text = stream.read(length)
    try:
        record = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
        entries = {name: _entry(each, 8 + length) for name, each in record.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    end = 0
    for entry in sorted(entries.values(), key=lambda each: each.start):
        if entry.start != 8 + length + end:
            raise damaged
        end += math.prod(entry.shape) * entry.dtype.itemsize
    if 8 + length + end != size:
        raise damaged
    return entries


def _entry(record: dict[str, Any], base: int) -> Entry:
    dtype, shape, (start, end) = _DTYPES[record["dtype"]], tuple(record["shape"]), record["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError("shape and bytes do not fit")
    return Entry(dtype, shape, base + start)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name twice")
    return record
