"""Puzzles as official tokens in a NumPy file: (N, T) integers, one puzzle a row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc_rules import LARGEST_GRID
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.registry import get_domain
from laser_studio.puzzles.sources.collection import Collection, Entry, bounded
from laser_studio.puzzles.sources.files import short
from laser_studio.puzzles.sudoku_rules import BOX_SHAPES

MAGIC = b"\x93NUMPY"
MAX_TOKENS = 64 * 64  # of one puzzle, the largest board a maze may have
SIDES = tuple(BOX_SHAPES)  # of Sudoku
SAMPLE = 1_000  # rows whose tokens tell the kind


class NpyFile(Collection):
    """Rows of tokens. The kind is told by their number and by the largest token, or said."""

    kind: ClassVar[str] = "npy"

    def __init__(self, array: NDArray[Any], title: str, domain: str | None = None) -> None:
        """Raises `PuzzleError` for an array that no kind of puzzle has."""
        super().__init__(title)
        self._array = _rows(array, title)
        self.domain, self.side = kind_of(self._array, title, domain)
        bounded(len(self._array), title)
        self.puzzle(0)

    def __len__(self) -> int:
        return len(self._array)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        return Entry(f"row-{index + 1:05d}")

    def _read(self, index: int) -> Puzzle:
        domain = get_domain(self.domain)
        return domain.with_solution(domain.from_tokens(self._array[index], None, (self.side, self.side)))


def array_in(data: bytes, title: str) -> NDArray[Any]:
    """The array of an npy file. Raises `PuzzleError`; Python objects in it are never made."""
    if not data.startswith(MAGIC):
        raise PuzzleError(f"{title} is no NumPy file: save it with numpy.save")
    stream = io.BytesIO(data)
    shape, fortran, dtype = _head(stream, title)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    # The header is only a claim: nothing is made of it that the file does not hold.
    if count * dtype.itemsize != len(data) - stream.tell():
        raise PuzzleError(
            f"{title} is damaged: it claims {count:,} numbers and has room for {(len(data) - stream.tell()) // dtype.itemsize:,}"
        )
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def array_at(path: Path) -> NDArray[Any]:
    """The array of an npy file, mapped rather than read. Raises `PuzzleError`."""
    name = short(path.name)
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise PuzzleError(f"{name} is no NumPy file: save it with numpy.save")
            file.seek(0)
            shape, fortran, dtype = _head(file, name)
            offset = file.tell()
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if count * dtype.itemsize != path.stat().st_size - offset:
            raise PuzzleError(f"{name} is damaged: its length is not what its head says")
        if not count:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
    except OSError as failure:
        raise PuzzleError(f"{name} cannot be read: {failure.strerror or 'no such file'}") from None


def _head(stream: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = reads[version](stream)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError, UnicodeDecodeError):
        raise PuzzleError(f"{name} is damaged: its head cannot be read") from None
    if dtype.hasobject or dtype.kind not in "iu":
        raise PuzzleError(f"{name} holds {str(dtype)[:20]}: tokens are whole numbers, such as uint8")
    if len(shape) > 3 or any(length < 0 for length in shape):
        raise PuzzleError(f"{name} has {len(shape)} axes: puzzles are (N, T), or (N, height, width)")
    return shape, fortran, dtype


def _rows(array: NDArray[Any], title: str) -> NDArray[Any]:  # -> (N, T)
    if array.dtype.kind not in "iu":
        raise PuzzleError(f"{title} holds {str(array.dtype)[:20]}: tokens are whole numbers, such as uint8")
    if array.ndim == 1:
        array = array[None]
    elif array.ndim == 3:
        array = array.reshape(len(array), -1)
    if array.ndim != 2 or not array.size:
        raise PuzzleError(f"{title} has shape {array.shape}: puzzles are (N, T) with N and T at least 1")
    if array.shape[1] > MAX_TOKENS:
        raise PuzzleError(f"{title}: {array.shape[1]:,} tokens a puzzle are too many (at most {MAX_TOKENS:,})")
    return array


def kind_of(array: NDArray[Any], title: str, domain: str | None = None, vocab_size: int | None = None) -> tuple[str, int]:
    """(domain, side) of rows of tokens (N, T). Raises `PuzzleError` where no kind of puzzle has such rows."""
    count = array.shape[1]
    side = round(count**0.5)
    if side * side != count:
        raise PuzzleError(f"{title}: {count} tokens a puzzle are no square board")
    sample = np.asarray(array[:SAMPLE])
    most = int(sample.max()) if sample.size else 0
    first = sample[0] if len(sample) else np.zeros(1)
    maze = bool((first > 0).all()) and all((first == token).sum() == 1 for token in (3, 4))  # full, with one start and one goal
    fits = {
        "sudoku": side in SIDES and (vocab_size in (None, side + 2)) and 0 < most <= side + 1,
        "maze": vocab_size in (None, 6) and most <= 5 and maze,
        "arc": vocab_size in (None, 12) and most <= 11 and side <= LARGEST_GRID,
    }
    order = ("maze", "sudoku", "arc") if maze else ("sudoku", "arc")
    for name in (domain,) if domain is not None else order:
        if fits.get(name or ""):
            return str(name), side
    raise PuzzleError(
        f"{title}: {count} tokens a puzzle, up to {most}, are no kind of puzzle here: Sudoku (16, 36, 81 or 256 tokens, up to side + 1), "
        "maze (up to 5, one start and one goal) or ARC (up to 11)"
    )
