"""What every source of puzzles is: a sequence whose entries are known at once, and whose puzzles are read when they are wanted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.registry import get_domain, parse_puzzle

MAX_ENTRIES = 2_000_000  # of one collection; the largest public set has 3.8 million, in one split
MAX_ID = 120  # characters

_BANDS = ((0, "rating 0"), (10, "rating under 10"), (50, "rating under 50"), (math.inf, "rating 50 and more"))


@dataclass(frozen=True)
class Entry:
    """What is known of a puzzle before it is read. difficulty: in the words of its source; rating: its number, where it has one."""

    id: str
    split: str = ""
    difficulty: str = ""
    rating: float | None = None
    source: str = ""  # which book or site a puzzle is from

    @property
    def band(self) -> str:
        """The difficulty to filter by: the source's word, else the band its rating lies in; empty where neither is known."""
        if self.difficulty or self.rating is None:
            return self.difficulty
        if self.rating == 0:
            return _BANDS[0][1]
        return next(words for limit, words in _BANDS[1:] if self.rating < limit)


class Collection(ABC):
    """Puzzles in order. `title` is what users read; entries are cheap, `puzzle` reads and checks one and may take a moment."""

    kind: ClassVar[str]  # of the reader, such as "csv"

    def __init__(self, title: str) -> None:
        self.title = title

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def entry(self, index: int) -> Entry:
        """What is known of a puzzle without reading it."""

    @abstractmethod
    def _read(self, index: int) -> Puzzle:
        """The puzzle itself. Raises `PuzzleError` without saying which one it is."""

    def puzzle(self, index: int) -> Puzzle:
        """One puzzle under its entry's id. Raises `PuzzleError`, which names it."""
        entry = self.entry(index)
        try:
            puzzle = self._read(index)
        except PuzzleError as problem:
            raise PuzzleError(f"{entry.id}: {problem}") from None
        return replace(puzzle, name=entry.id)

    def find(self, puzzle_id: str) -> int | None:
        """The place of the puzzle of that id; None where there is none."""
        return self._by_id.get(puzzle_id)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, in the order they are met."""
        return tuple(dict.fromkeys(self.entry(index).split for index in range(len(self))))

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """The difficulties there are: bands of ratings in ascending order, words in the order they are met."""
        met = dict.fromkeys(self.entry(index).band for index in range(len(self)))
        ranks = {words: rank for rank, (_, words) in enumerate(_BANDS)}
        return tuple(sorted((band for band in met if band), key=lambda band: ranks.get(band, -1)))

    @cached_property
    def _by_id(self) -> dict[str, int]:
        places: dict[str, int] = {}
        for index in range(len(self)):
            places.setdefault(self.entry(index).id, index)
        return places


class Texts(Collection):
    """Puzzles that a file holds as texts. domain: the kind all of them are; None: by their characters."""

    def __init__(self, title: str, domain: str | None) -> None:
        super().__init__(title)
        self._domain = domain

    def _parsed(self, text: str) -> Puzzle:
        return get_domain(self._domain).parse(text) if self._domain is not None else parse_puzzle(text)

    def _reads(self, text: str) -> bool:
        try:
            self._parsed(text)
        except PuzzleError:
            return False
        return True


class Fixed(Collection):
    """A few puzzles that are read already, under their own names."""

    kind: ClassVar[str] = "list"

    def __init__(self, title: str, puzzles: Sequence[Puzzle], entries: Sequence[Entry] | None = None) -> None:
        super().__init__(title)
        self._puzzles = tuple(puzzles)
        self._entries = tuple(entries) if entries is not None else tuple(_entry(puzzle, n) for n, puzzle in enumerate(puzzles, 1))

    def __len__(self) -> int:
        return len(self._puzzles)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        return self._entries[index]

    def _read(self, index: int) -> Puzzle:
        return self._puzzles[index]


def _entry(puzzle: Puzzle, number: int) -> Entry:
    return Entry(puzzle.name or f"puzzle-{number:04d}", difficulty=puzzle.difficulty)


def bounded(count: int, what: str) -> int:
    """A count of puzzles that a collection may have. Raises `PuzzleError`."""
    if count > MAX_ENTRIES:
        raise PuzzleError(f"{what} has {count:,} puzzles, at most {MAX_ENTRIES:,} are opened: split it")
    return count


def named(text: str, number: int) -> str:
    """An id from what a file says, printable and bounded; else one by its number."""
    kept = "".join(character if character.isprintable() else "?" for character in text.strip()[:MAX_ID])
    return kept or f"puzzle-{number:04d}"
