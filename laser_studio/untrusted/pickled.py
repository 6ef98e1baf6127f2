"""Reading the pickle of a checkpoint without running any of it: a closed list of names, each of which makes a description.

A pickle is a program; what it can do is what `find_class` hands it. Here that is a dozen objects of this module, which look at
numbers and remember them. Every other name ends the reading, and the user is told it. torch itself is not imported.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

from laser_studio.untrusted.descriptions import ITEM_BYTES, Described, Odd, Storage, whole_numbers
from laser_studio.untrusted.faults import Refused

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8", "QInt32Storage": "qint32", "QUInt8Storage": "quint8",
}  # fmt: skip
_DTYPES = (
    "float64", "double", "float32", "float", "float16", "half", "bfloat16", "int64", "long", "int32", "int", "int16", "short", "int8",
    "uint8", "bool", "complex64", "complex128", "complex32", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "quint8", "qint8", "qint32",
)  # fmt: skip
_SPELLED = {"double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32", "short": "int16"}


class _Name:
    """A name of torch that is only compared: a dtype or the type of a storage."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text

    def __setstate__(self, state: object) -> None:
        raise Refused("damaged")


class _Maker:
    """A callable that a pickle may call. It has no attributes to write to, so that no opcode can change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)

    def __setstate__(self, state: object) -> None:
        raise Refused("damaged")


class Plain(dict[Any, Any]):
    """An OrderedDict or Counter; the attributes a state_dict carries along (`_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _mapping(*given: Any) -> Plain:
    if given and not isinstance(given[0], (dict, list, tuple)):
        raise Refused("damaged")
    return Plain(*given[:1])


def _strided(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Described | Odd:
    shape, stride = whole_numbers(shape), whole_numbers(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < 1 << 62:
        raise Refused("damaged")
    if shape is None or stride is None or len(shape) != len(stride):
        raise Refused("damaged")
    if storage.dtype not in ITEM_BYTES:
        return Odd(f"a strided {storage.dtype} tensor")
    return Described(storage.key, storage.dtype, offset, shape, stride)


def _strided_of_dtype(storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *_: Any) -> Odd:
    # torch writes this form only for types that have no storage class of their own: float8, unsigned integers
    return Odd(f"a strided {_dtype(dtype)} tensor")


def _parameter(data: Any, *_: Any) -> Described | Odd:
    if not isinstance(data, (Described, Odd)):
        raise Refused("damaged")
    return data


def _of_type(make: Any, kind: Any, given: Any, *_: Any) -> Described | Odd:
    """A tensor with attributes, which are dropped."""
    if not isinstance(make, _Maker) or not isinstance(kind, _Name) or not isinstance(given, tuple):
        raise Refused("damaged")
    return _parameter(make(*given))


def _sparse(layout: Any, data: Any, *_: Any) -> Odd:
    # Its indices are never looked at: wrong ones crash the first product.
    parts = data if isinstance(data, tuple) else ()
    dtype = next((part.dtype for part in reversed(parts) if isinstance(part, Described)), "")
    return Odd(" ".join(f"a {layout if isinstance(layout, str) else 'sparse'} {dtype}".split()) + " tensor")


def _meta(dtype: Any, *_: Any) -> Odd:
    return Odd(f"a strided {_dtype(dtype)} tensor on meta")


def _dtype(value: Any) -> str:
    if not isinstance(value, _Name) or value.kind != "dtype":
        raise Refused("damaged")
    return value.text


def _layout(name: Any) -> str:
    return str(name).removeprefix("torch.")[:40] if isinstance(name, str) else "sparse"


def _text(*given: Any) -> str:
    return ":".join(str(item) for item in given if isinstance(item, (str, int)))[:80]


def _items(*given: Any) -> list[Any]:
    return list(given[0]) if given and isinstance(given[0], (list, tuple)) else []


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": _Maker(_mapping),
    "collections.Counter": _Maker(_mapping),
    "builtins.set": _Maker(_items),
    "__builtin__.set": _Maker(_items),
    "_codecs.encode": _Maker(lambda *_: None),  # how a pickle of protocol 2 writes bytes, which no reader here needs
    "torch.Size": _Maker(_items),
    "torch.device": _Maker(_text),
    "torch._utils._rebuild_tensor": _Maker(_strided),
    "torch._utils._rebuild_tensor_v2": _Maker(_strided),
    "torch._utils._rebuild_tensor_v3": _Maker(_strided_of_dtype),
    "torch._utils._rebuild_parameter": _Maker(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Maker(_parameter),
    "torch._tensor._rebuild_from_type_v2": _Maker(_of_type),
    "torch.Tensor": _Name("type", "Tensor"),
    "torch.nn.parameter.Parameter": _Name("type", "Parameter"),
    "torch._utils._rebuild_sparse_tensor": _Maker(_sparse),
    "torch._utils._rebuild_meta_tensor_no_storage": _Maker(_meta),
    "torch._utils._rebuild_qtensor": _Maker(lambda *_: Odd("a quantised tensor")),
    "torch.serialization._get_layout": _Maker(_layout),
    "torch.storage.UntypedStorage": _Name("storage", "bytes"),
    **{f"torch.{name}": _Name("storage", dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{name}": _Name("dtype", _SPELLED.get(name, name)) for name in _DTYPES},
    **{f"torch.{name}": _Maker(lambda *_: None) for name in ("per_tensor_affine", "per_channel_affine")},
}


class Reader(pickle.Unpickler):
    """Unpickles descriptions; whatever is not on the list raises `Refused`."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name of the closed list."""
        known = _KNOWN.get(f"{module}.{name}")
        if known is None:
            raise Refused("object", f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> Storage:
        """A storage, as torch.save names it: ("storage", type, key, device, elements)."""
        if not isinstance(pid, tuple) or not pid:
            raise Refused("damaged")
        if pid[0] == "module":
            raise Refused("object", "torch.nn.Module")
        if len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise Refused("damaged")
        kind, key, elements = pid[1], pid[2], pid[4]
        if not isinstance(kind, _Name) or kind.kind != "storage" or not isinstance(key, str) or type(elements) is not int or elements < 0:
            raise Refused("damaged")
        return Storage(key, kind.text, elements)


def read_pickle(stream: BinaryIO) -> Any:
    """The next object of a stream, with descriptions in place of tensors. Raises `Refused`, `MemoryError`."""
    try:
        return Reader(stream).load()
    except (Refused, MemoryError):
        raise
    except Exception:  # what malformed opcodes provoke is of many types, and says nothing to a user
        raise Refused("damaged") from None
