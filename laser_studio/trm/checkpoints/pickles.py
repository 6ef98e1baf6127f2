"""The pickle inside a torch.save archive, read as a description: which tensors there are, how large and where. It cannot run code.

Only a closed list of names is known here, and each stands for a function of this module that notes what it was given. Any other
name is refused before it is looked up. What is described is checked and read in `payload`.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class UnreadableError(Exception):
    """The pickle names `what`, which is not on the list."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True)
class Described:
    """A dense tensor: its storage's entry, and how it lies there, counted in elements. `numel`: what the storage holds of its dtype."""

    key: str
    numel: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def kind(self) -> str:
        """In words."""
        return f"a strided {str(self.dtype).removeprefix('torch.')} tensor"


@dataclass(frozen=True)
class Odd:
    """A tensor of another kind, which is never built."""

    kind: str


class _Storage(NamedTuple):
    key: str
    numel: int
    dtype: torch.dtype
    device: str


def describe(data: bytes) -> Any:
    """The object pickled in `data`, its tensors as `Described` or `Odd`. Raises `UnreadableError`, and what damage provokes."""
    return _Describer(io.BytesIO(data)).load()


class _Describer(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None and module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if found is None:
            raise UnreadableError(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, device, numel = pid
        if kind != "storage" or not isinstance(key, str) or not isinstance(numel, int) or not isinstance(dtype, _StorageType):
            raise pickle.UnpicklingError("not a storage")
        return _Storage(key, numel, dtype.dtype, str(device))


@dataclass(frozen=True)
class _StorageType:
    dtype: torch.dtype

    def __call__(self, *_: Any) -> Any:
        raise pickle.UnpicklingError("a storage outside an archive")


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Described | Odd:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if not all(type(number) is int for number in (offset, *size, *stride)) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a shape")
    if storage.device == "meta":
        return Odd(f"a strided {str(storage.dtype).removeprefix('torch.')} tensor on meta")
    return Described(storage.key, storage.numel, storage.dtype, offset, tuple(size), tuple(stride))


def _tensor_of(storage: Any, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> Described | Odd:
    # of an untyped storage, which counts bytes
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _tensor(storage._replace(dtype=dtype, numel=storage.numel // dtype.itemsize), offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, Described | Odd):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


def _odd(kind: str) -> Callable[..., Odd]:
    return lambda *_: Odd(kind)


def _meta(dtype: Any, *_: Any) -> Odd:
    return Odd(f"a strided {str(dtype).removeprefix('torch.')} tensor on meta")


def _sparse(layout: Any, *_: Any) -> Odd:
    return Odd(f"a {str(layout).removeprefix('torch.')} tensor"[:80])


def _layout(name: Any) -> str:
    return str(name)[:40]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1") if encoding == "latin1" else b""


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _odd("a tensor subclass"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _odd("a nested tensor"),
    ("torch._utils", "_rebuild_qtensor"): _odd("a quantised tensor"),
    ("torch.serialization", "_get_layout"): _layout,
    ("_codecs", "encode"): _encode,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): _size,
    **{
        ("torch", f"{name}Storage"): _StorageType(dtype)
        for name, dtype in {
            "Float": torch.float32,
            "Double": torch.float64,
            "Half": torch.float16,
            "BFloat16": torch.bfloat16,
            "Long": torch.int64,
            "Int": torch.int32,
            "Short": torch.int16,
            "Char": torch.int8,
            "Byte": torch.uint8,
            "Bool": torch.bool,
            "ComplexFloat": torch.complex64,
            "ComplexDouble": torch.complex128,
        }.items()
    },
    ("torch.storage", "UntypedStorage"): _StorageType(torch.uint8),
}
