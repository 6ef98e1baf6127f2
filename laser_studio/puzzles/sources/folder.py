"""Data sets in the official layout: `train|test/{dataset.json, all__inputs.npy, all__labels.npy, …}` with `identifiers.json` beside them.

Arrays are mapped, not read: a folder of ARC with a thousand images of each task has gigabytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc import Arc, grid_on
from laser_studio.puzzles.puzzle import Picture, Puzzle
from laser_studio.puzzles.registry import get_domain
from laser_studio.puzzles.sources.collection import MAX_ID, Collection, Entry, bounded
from laser_studio.puzzles.sources.files import as_text, read_bytes
from laser_studio.puzzles.sources.npy_file import MAX_TOKENS, array_at, kind_of

SPLITS = ("train", "test")
MAX_IDENTIFIERS_BYTES = 128 << 20
MAX_DEMONSTRATIONS = 32


@dataclass(frozen=True)
class _Part:
    """One split. puzzle_starts: first row of each puzzle, and the end; identifiers: of each puzzle."""

    split: str
    inputs: NDArray[Any]
    labels: NDArray[Any] | None
    puzzle_starts: NDArray[Any]
    identifiers: NDArray[Any]
    ignored: int | None

    def puzzle_of(self, row: int) -> int:
        """Which puzzle a row is an example of."""
        return int(np.searchsorted(self.puzzle_starts, row, side="right")) - 1


class Folder(Collection):
    """A data set folder; the test split first, since models were trained on the other."""

    kind: ClassVar[str] = "folder"

    def __init__(self, path: Path, title: str) -> None:
        """Raises `PuzzleError` where the folder is no data set, naming what is missing."""
        super().__init__(title)
        places = {split: path / split for split in SPLITS if (path / split / "dataset.json").is_file()}
        if not places and (path / "dataset.json").is_file():
            places = {path.name: path}
        if not places:
            raise PuzzleError(f"{title} is no data set: it needs train/ or test/ with dataset.json and all__inputs.npy")
        parts = [_part(split, place) for split, place in places.items()]
        self._parts = sorted(parts, key=lambda part: part.split != "test")
        vocab = {_details(place).get("vocab_size") for place in places.values()}
        vocab_size = next(iter(vocab)) if len(vocab) == 1 else None
        self.domain, self.side = kind_of(self._parts[0].inputs, title, vocab_size=vocab_size if isinstance(vocab_size, int) else None)
        if any(part.inputs.shape[1] != self.side**2 for part in self._parts):
            raise PuzzleError(f"{title}: its splits have puzzles of different lengths")
        self._ends = np.cumsum([len(part.inputs) for part in self._parts])
        bounded(len(self), title)
        self._names = _names(path if (path / "identifiers.json").is_file() else path.parent)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """See `Collection.splits`."""
        return tuple(part.split for part in self._parts)

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """None: the official layout has no difficulty."""
        return ()

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        part, row = self._place(index)
        if self.domain != "arc":
            return Entry(f"{part.split}/{row:06d}", part.split)
        puzzle = part.puzzle_of(row)
        name = self._named(int(part.identifiers[puzzle]))
        return Entry(f"{part.split}/{name}:{row - int(part.puzzle_starts[puzzle]) + 1}"[:MAX_ID], part.split)

    def find(self, puzzle_id: str) -> int | None:
        """See `Collection.find`; rows of Sudoku and mazes are found by their number."""
        split, _, rest = puzzle_id.partition("/")
        start = 0
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            if part.split == split and rest.isdecimal() and len(rest) <= 9 and int(rest) < len(part.inputs) and self.domain != "arc":
                return start + int(rest)
            start = end
        return super().find(puzzle_id) if self.domain == "arc" else None

    def _place(self, index: int) -> tuple[_Part, int]:
        at = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[at], index - (int(self._ends[at - 1]) if at else 0)

    def _named(self, identifier: int) -> str:
        return self._names[identifier] if 0 <= identifier < len(self._names) else f"#{identifier}"

    def _read(self, index: int) -> Puzzle:
        part, row = self._place(index)
        domain, shape = get_domain(self.domain), (self.side, self.side)
        labels = part.labels[row] if part.labels is not None else None
        if labels is not None and part.ignored is not None:
            labels = np.where(np.asarray(labels, dtype=np.int64) == part.ignored, 0, labels)
        if labels is not None and not np.any(labels):
            labels = None
        puzzle = domain.from_tokens(part.inputs[row], labels, shape)
        if self.domain != "arc":
            return puzzle
        identifier = int(part.identifiers[part.puzzle_of(row)])
        task = self._named(identifier)
        return replace(puzzle, task=task, identifier=identifier, demonstrations=self._demonstrations(identifier, part, row))

    def _demonstrations(self, identifier: int, shown: _Part, row: int) -> tuple[tuple[Picture, Picture], ...]:
        """The other pairs of the same task and image, from the training split."""
        found: list[tuple[Picture, Picture]] = []
        arc, shape = Arc(), (self.side, self.side)
        for part in self._parts:
            if part.split == "test" or part.labels is None:
                continue
            for puzzle in np.flatnonzero(part.identifiers == identifier).tolist():
                for other in range(int(part.puzzle_starts[puzzle]), int(part.puzzle_starts[puzzle + 1])):
                    if (part is shown and other == row) or len(found) >= MAX_DEMONSTRATIONS:
                        continue
                    sides = [grid_on(arc.decode(tokens[other], shape), shape) for tokens in (part.inputs, part.labels)]
                    if sides[0] is not None and sides[1] is not None:
                        found.append((sides[0], sides[1]))
        return tuple(found)


def _part(split: str, folder: Path) -> _Part:
    details = _details(folder)
    inputs = array_at(folder / "all__inputs.npy")
    if inputs.ndim != 2 or not inputs.size or inputs.shape[1] > MAX_TOKENS:
        raise PuzzleError(f"{split}/all__inputs.npy has shape {inputs.shape}: puzzles are (N, T), T at most {MAX_TOKENS:,}")
    labels = array_at(folder / "all__labels.npy") if (folder / "all__labels.npy").is_file() else None
    if labels is not None and labels.shape != inputs.shape:
        raise PuzzleError(
            f"{split}/all__labels.npy has shape {labels.shape}, all__inputs.npy {inputs.shape}: they belong to different sets"
        )
    starts = array_at(folder / "all__puzzle_indices.npy") if (folder / "all__puzzle_indices.npy").is_file() else np.arange(len(inputs) + 1)
    if starts.ndim != 1 or len(starts) < 2 or starts[0] != 0 or starts[-1] != len(inputs) or np.any(np.diff(starts.astype(np.int64)) < 0):
        raise PuzzleError(f"{split}/all__puzzle_indices.npy does not count from 0 to the {len(inputs):,} rows of all__inputs.npy")
    file = folder / "all__puzzle_identifiers.npy"
    identifiers = array_at(file) if file.is_file() else np.zeros(len(starts) - 1, dtype=np.int32)
    if identifiers.shape != (len(starts) - 1,):
        raise PuzzleError(f"{split}/all__puzzle_identifiers.npy has shape {identifiers.shape}, there are {len(starts) - 1:,} puzzles")
    ignored = details.get("ignore_label_id")
    return _Part(split, inputs, labels, starts, identifiers, ignored if isinstance(ignored, int) else None)


def _details(folder: Path) -> dict[str, Any]:
    try:
        details = json.loads(as_text(read_bytes(folder / "dataset.json", limit=1 << 20), "dataset.json"))
    except (ValueError, RecursionError):
        raise PuzzleError("dataset.json is not valid JSON") from None
    if not isinstance(details, dict):
        raise PuzzleError("dataset.json is no JSON object")
    return details


def _names(folder: Path) -> list[str]:
    """The names of `identifiers.json`, by number; none where there is no such file."""
    file = folder / "identifiers.json"
    if not file.is_file():
        return []
    try:
        names = json.loads(as_text(read_bytes(file, limit=MAX_IDENTIFIERS_BYTES), "identifiers.json"))
    except (ValueError, RecursionError):
        raise PuzzleError("identifiers.json is not valid JSON") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PuzzleError("identifiers.json is no list of names")
    return names
