"""The container torch.save writes since 1.6: a zip archive, stored without compression, checked against its checksums."""

from __future__ import annotations

import io
import zipfile
from typing import Any, BinaryIO

from laser_studio.untrusted.descriptions import Extent
from laser_studio.untrusted.faults import Refused
from laser_studio.untrusted.pickled import read_pickle

MAX_ENTRIES = 20_000
MAX_PICKLE = 64 << 20  # bytes of data.pkl; a real one has some hundred per tensor
_CHUNK = 1 << 20
_LOCAL_HEADER = 30  # bytes in front of an entry's name


def read_zip(file: BinaryIO, size: int) -> tuple[Any, dict[str, Extent]]:
    """(the unpickled object, storages by key). Raises `Refused`, `MemoryError`."""
    try:
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise Refused("script")
            entries = _checked(archive.infolist(), size)
            root = _root(entries)
            _verify(archive, entries)
            if (order := entries.get(f"{root}byteorder")) is not None and archive.read(order)[:16].strip() != b"little":
                raise Refused("endian")
            payload = read_pickle(io.BytesIO(archive.read(entries[f"{root}data.pkl"])))
            places = {
                name.removeprefix(f"{root}data/"): _extent(file, entry, size)
                for name, entry in entries.items()
                if name.startswith(f"{root}data/")
            }
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, OverflowError, IndexError):
        raise Refused("damaged") from None
    return payload, places


def _checked(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, once they are stored as they are, hold no more than the file, and no two have one name."""
    if len(infos) > MAX_ENTRIES:
        raise Refused("much", f"{MAX_ENTRIES:,} entries")
    # torch.save never compresses; a compressed entry could unfold to any size
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in infos):
        raise Refused("compressed")
    if sum(entry.file_size for entry in infos) > size:
        raise Refused("damaged")
    entries = {entry.filename: entry for entry in infos}
    if len(entries) != len(infos):
        raise Refused("damaged")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder in the archive that everything of torch.save lies in, with its slash."""
    found = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if not found:
        raise Refused("archive")
    if len(found) > 1:
        raise Refused("damaged")
    root = found[0].removesuffix("data.pkl")
    if entries[found[0]].file_size > MAX_PICKLE:
        raise Refused("much", f"{MAX_PICKLE >> 20} MiB of names and structure")
    return root


def _verify(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Read every entry to its end, where zipfile compares its CRC: torch.load does not, and takes flipped bits for weights."""
    for entry in entries.values():
        with archive.open(entry) as stream:
            while stream.read(_CHUNK):
                pass


def _extent(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> Extent:
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = entry.header_offset + _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > size:
        raise Refused("damaged")
    return Extent(start, entry.file_size)
