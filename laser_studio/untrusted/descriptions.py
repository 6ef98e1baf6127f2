"""What stands for a tensor inside the child: numbers that tell where its bytes lie. Nothing here holds data or runs code."""

from __future__ import annotations

import math
from typing import NamedTuple

from laser_studio.untrusted.faults import Refused

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40

ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


class Extent(NamedTuple):
    """A storage: where its bytes lie in the file, and how many there are."""

    start: int
    size: int


class Storage:
    """A storage that a pickle names, with the type of its elements."""

    __slots__ = ("dtype", "elements", "key")

    def __init__(self, key: str, dtype: str, elements: int) -> None:
        self.key, self.dtype, self.elements = key, dtype, elements


class Described:
    """A dense, strided, real tensor: `offset`, `shape` and `stride` count elements of `dtype`."""

    __slots__ = ("dtype", "key", "offset", "shape", "stride")

    def __init__(self, key: str, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.key, self.dtype, self.offset, self.shape, self.stride = key, dtype, offset, shape, stride


class Odd:
    """A tensor of another kind, which is never built; `kind` goes on "is …"."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last that a tensor touches."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def whole_numbers(value: object) -> tuple[int, ...] | None:
    """A tuple or list of whole numbers ≥ 0 as a tuple; None for anything else. A bool is no number here."""
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS:
        return None
    return tuple(value) if all(type(item) is int and 0 <= item <= MAX_ELEMENTS for item in value) else None


def placed(name: str, tensor: Described, storage: Extent) -> tuple[str, str, tuple[int, ...], tuple[int, ...], int, int]:
    """(name, dtype, shape, stride, first byte in the file, bytes from the first to the last element). Raises `Refused` where the
    tensor claims more than its storage has: a stride of 0 lets a few bytes stand for terabytes."""
    item, elements = ITEM_BYTES[tensor.dtype], math.prod(tensor.shape)
    reach = span(tensor.shape, tensor.stride)
    if elements * item > storage.size or (tensor.offset + reach) * item > storage.size:
        shape = "×".join(map(str, tensor.shape))
        raise Refused("claims", f"{name} is {shape} {tensor.dtype} in a storage of {storage.size:,} bytes")
    return name, tensor.dtype, tensor.shape, tensor.stride, storage.start + tensor.offset * item, reach * item
