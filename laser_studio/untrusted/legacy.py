"""The container torch.save wrote before 1.6: five pickles in a row, then the storages. It has no checksums."""

from __future__ import annotations

from typing import Any, BinaryIO

from laser_studio.untrusted.descriptions import ITEM_BYTES, Extent, Storage
from laser_studio.untrusted.faults import Refused
from laser_studio.untrusted.flatten import MAX_TENSORS
from laser_studio.untrusted.pickled import Reader, read_pickle

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ITEM_BYTES = ITEM_BYTES | {"complex64": 8, "complex128": 16, "bytes": 1}


class _Remembering(Reader):
    """Keeps the storages by key: the file lists their keys behind the object, and their bytes in that order."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: Any) -> Storage:
        """A storage; the same key always means the same type and number of elements."""
        storage = super().persistent_load(pid)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.elements) != (storage.dtype, storage.elements) or len(self.storages) > MAX_TENSORS:
            raise Refused("damaged")
        return storage


def read_legacy(file: BinaryIO, size: int) -> tuple[Any, dict[str, Extent]]:
    """(the unpickled object, storages by key). Raises `Refused`, `MemoryError`."""
    file.seek(0)
    if read_pickle(file) != _MAGIC:
        raise Refused("bare")
    if read_pickle(file) != _PROTOCOL:
        raise Refused("damaged")
    system = read_pickle(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("endian")
    try:
        reader = _Remembering(file)
        payload = reader.load()
    except (Refused, MemoryError):
        raise
    except Exception:
        raise Refused("damaged") from None
    return payload, _places(file, size, read_pickle(file), reader.storages)


def _places(file: BinaryIO, size: int, keys: Any, storages: dict[str, Storage]) -> dict[str, Extent]:
    if not isinstance(keys, list) or len(keys) > MAX_TENSORS:
        raise Refused("damaged")
    places: dict[str, Extent] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        elements = int.from_bytes(file.read(8), "little")
        if storage is None or key in places or storage.dtype not in _ITEM_BYTES or elements != storage.elements:
            raise Refused("damaged")
        extent = Extent(file.tell(), elements * _ITEM_BYTES[storage.dtype])
        if extent.start + extent.size > size:
            raise Refused("damaged")
        places[key] = extent
        file.seek(extent.start + extent.size)
    return places
