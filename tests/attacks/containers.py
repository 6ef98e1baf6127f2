"""Broken and foreign containers: cut short, flipped, unfolding, or something else altogether."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import torch
from torch import nn

from tests.attacks.pickles import Payload, weights


def empty(file: Path, proof: Path) -> None:
    file.write_bytes(b"")


def web_page(file: Path, proof: Path) -> None:
    file.write_bytes(b"<!DOCTYPE html><html><script>alert(1)</script>")


def lfs_pointer(file: Path, proof: Path) -> None:
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def zeros(file: Path, proof: Path) -> None:
    file.write_bytes(bytes(4096))


def cut_short(file: Path, proof: Path) -> None:
    torch.save(weights(), file)
    file.write_bytes(file.read_bytes()[:-200])


def legacy_cut_short(file: Path, proof: Path) -> None:
    torch.save(weights(), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-200])


def bit_flip(file: Path, proof: Path) -> None:
    """One bit of a weight: torch.load notices nothing."""
    torch.save(weights(), file)
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/1"))
    whole[entry.header_offset + 30 + len(entry.filename) + 400] ^= 4
    file.write_bytes(whole)


def deflate_bomb(file: Path, proof: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)


def overlapping_bomb(file: Path, proof: Path) -> None:
    """A hundred entries in the directory that all mean the same megabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1 << 20))
        first = archive.infolist()[1]
        for index in range(1, 100):
            copy = zipfile.ZipInfo(f"archive/data/{index}")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = first.header_offset, 1 << 20, 1 << 20, first.CRC
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
            archive._didModify = True  # type: ignore[attr-defined]
    file.write_bytes(buffer.getvalue())


def one_name_twice(file: Path, proof: Path) -> None:
    """Two pickles of one name: a checker may look at one, a loader at the other."""
    import warnings

    torch.save(weights(), file)
    inner = io.BytesIO()
    torch.save(Payload(proof), inner)
    with zipfile.ZipFile(inner) as other, warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name, other.read(next(name for name in other.namelist() if name.endswith("data.pkl"))))


def two_pickles(file: Path, proof: Path) -> None:
    torch.save(weights(), file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02}.")


def directory_disagrees(file: Path, proof: Path) -> None:
    """The directory at the end names what the entry itself calls otherwise."""
    torch.save(weights(), file)
    whole = file.read_bytes()
    place = whole.rindex(b"data/1")
    file.write_bytes(whole[:place] + b"data/9" + whole[place + 6 :])


def encrypted(file: Path, proof: Path) -> None:
    torch.save(weights(), file)
    whole = bytearray(file.read_bytes())
    place = whole.rindex(b"PK\x01\x02")
    whole[place + 8 : place + 10] = struct.pack("<H", struct.unpack("<H", whole[place + 8 : place + 10])[0] | 1)
    file.write_bytes(whole)


def other_archive(file: Path, proof: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")


def way_up(file: Path, proof: Path) -> None:
    """An entry whose name leads out of the archive; nothing is ever unpacked, and the pickle does not name it."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02].")
        archive.writestr(f"../../../../../../{proof}", b"here I am")


def big_endian(file: Path, proof: Path) -> None:
    torch.save(weights(), file)
    whole = file.read_bytes().replace(b"byteorder", b"byteord_r")
    file.write_bytes(whole)
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/byteorder", b"big")


def torch_script(file: Path, proof: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(file))
