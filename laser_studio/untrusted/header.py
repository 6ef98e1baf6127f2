"""The header of a safetensors file: JSON that says where each tensor lies. The bytes behind it must be used up exactly once."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

from laser_studio.untrusted.descriptions import ITEM_BYTES, Described, Extent, Odd, whole_numbers
from laser_studio.untrusted.faults import Refused
from laser_studio.untrusted.flatten import MAX_NAME, MAX_TENSORS, MAX_TEXT

MAX_HEADER = 8 << 20  # bytes
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, Described | Odd], dict[str, Extent], dict[str, str]]:
    """(tensors by name, the extent of each under the same name, metadata). Raises `Refused`, `MemoryError`."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise Refused("damaged")
    if length > MAX_HEADER:
        raise Refused("much", f"{MAX_HEADER >> 20} MiB of names and structure")
    try:
        record = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise Refused("damaged") from None
    if not isinstance(record, dict):
        raise Refused("damaged")
    metadata = _metadata(record.pop("__metadata__", {}))
    if len(record) > MAX_TENSORS:
        raise Refused("much", f"{MAX_TENSORS:,} tensors")
    tensors: dict[str, Described | Odd] = {}
    places: dict[str, Extent] = {}
    for name, entry in record.items():
        if len(name) > MAX_NAME:
            raise Refused("keys", f"a name has more than {MAX_NAME:,} characters")
        tensors[name], places[name] = _tensor(name, entry, 8 + length)
    _used_once(list(places.values()), 8 + length, size)
    return tensors, places, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise Refused("twice", name)
        record[name] = value
    return record


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Refused("damaged")
    return {key: item for key, item in value.items() if len(item) <= MAX_TEXT}


def _tensor(name: str, entry: Any, base: int) -> tuple[Described | Odd, Extent]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused("damaged")
    kind, shape, offsets = entry["dtype"], whole_numbers(entry["shape"]), whole_numbers(entry["data_offsets"])
    if not isinstance(kind, str) or shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Refused("damaged")
    extent = Extent(base + offsets[0], offsets[1] - offsets[0])
    dtype = _DTYPES.get(kind)
    if dtype is None:
        return Odd(f"a strided {kind[:20]} tensor"), extent
    if math.prod(shape) * ITEM_BYTES[dtype] != extent.size:
        raise Refused("claims", f"{name} is {'×'.join(map(str, shape))} {dtype} in {extent.size:,} bytes")
    stride = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
    return Described(name, dtype, 0, shape, stride), extent


def _used_once(extents: list[Extent], base: int, size: int) -> None:
    """No byte behind the header is unused or belongs to two tensors: a file cut short, or with something hidden in it, shows here."""
    end = base
    for extent in sorted(extents):
        if extent.start != end:
            raise Refused("damaged")
        end += extent.size
    if end != size:
        raise Refused("damaged")
