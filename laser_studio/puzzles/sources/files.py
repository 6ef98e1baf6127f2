"""Bytes and text of puzzle files, bounded and judged by their first bytes before anything is made of them."""

from __future__ import annotations

from pathlib import Path

from laser_studio.errors import PuzzleError

MAX_FILE_BYTES = 256 << 20  # read whole, as text; the largest split of the public sets in one file has 80 MB

_SIGNS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page, not a puzzle file: download the raw file"),
    (b"<html", "a web page, not a puzzle file: download the raw file"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"PAR1", "a parquet file: export it as CSV"),
    (b"\x89PNG", "a picture, not a puzzle file"),
    (b"\x80\x04", "a Python pickle, which is never opened: save it as npy, csv or json"),
)


def read_bytes(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """A file whole. Raises `PuzzleError`; its name is told, its folder is not."""
    try:
        if path.stat().st_size > limit:
            raise PuzzleError(f"{short(path.name)} is larger than {limit >> 20} MB: split it")
        return path.read_bytes()
    except OSError as failure:
        raise PuzzleError(f"{short(path.name)} cannot be read: {failure.strerror or 'no such file'}") from None


def as_text(data: bytes, name: str) -> str:
    """The text of a file, without byte-order mark. Raises `PuzzleError` for what is none."""
    if not data.strip():
        raise PuzzleError(f"{name} is empty: it has no puzzle")
    for sign, words in _SIGNS:
        if data[: len(sign)].lower() == sign.lower():
            raise PuzzleError(f"{name} is {words}")
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return decoded(data, encoding, name)
    return decoded(data, "utf-8-sig", name)


def decoded(data: bytes, encoding: str, name: str) -> str:
    """Bytes as text. Raises `PuzzleError`."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise PuzzleError(f"{name} is no UTF-8 text: save it as plain text, CSV or JSON") from None


def short(name: str) -> str:
    """A file's name fit for a message: printable and at most 60 characters."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])
