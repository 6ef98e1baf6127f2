"""The records of the puzzle layer: a puzzle, what is wrong with one, and how an answer compares. No rules live here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from laser_studio.errors import PuzzleError

Cells = tuple[int, ...]  # the values of a board, row by row, in the words of its domain
Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Picture:
    """A small grid of cell values, row by row: one side of a demonstration."""

    height: int
    width: int
    cells: Cells

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or len(self.cells) != self.height * self.width:
            raise PuzzleError(f"a grid: {len(self.cells)} values do not fill {self.height} × {self.width} cells")
        object.__setattr__(self, "cells", tuple(int(value) for value in self.cells))


@dataclass(frozen=True)
class Puzzle:
    """One puzzle: `height` × `width` cells, and the solution where it is known.

    `cells` and `solution` are domain values, row by row. Sudoku: 0 blank, 1..n. Maze: 0 wall, 1 open, 2 start, 3 goal,
    4 path (in solutions and answers only). ARC: 0 to 9 colours, 10 end marker, 11 outside the grid. `name` identifies it within its set;
    `difficulty` is empty when unknown. Where each task has a rule of its own (ARC), `task` is its name, augmentation included,
    `identifier` the row of the puzzle embedding that stands for it where the set tells it, and `demonstrations` are (input, output) of
    the rule at work.
    Raises `PuzzleError` where the counts of cells do not match the shape. Equal puzzles have equal hashes.
    """

    domain: str
    height: int
    width: int
    cells: Cells
    solution: Cells | None = None
    name: str = ""
    difficulty: Difficulty | Literal[""] = ""
    task: str = ""
    identifier: int | None = None
    demonstrations: tuple[tuple[Picture, Picture], ...] = ()

    def __post_init__(self) -> None:
        for what, values in (("cells", self.cells), ("solution", self.solution)):
            if values is None:
                continue
            if self.height < 1 or self.width < 1 or len(values) != self.height * self.width:
                raise PuzzleError(f"{what}: {len(values)} values do not fill {self.height} × {self.width} cells")
            # Plain ints, whatever came in (NumPy scalars, lists): the record is hashed and written as JSON.
            object.__setattr__(self, what, tuple(int(value) for value in values))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in cells."""
        return self.height, self.width


@dataclass(frozen=True)
class CellIssue:
    """One cell that breaks a rule of its domain. `row` and `column` count from 0; the message counts from 1."""

    row: int
    column: int
    message: str


@dataclass(frozen=True)
class Comparison:
    """How an answer compares with the solution, or with the rules where no solution is known.

    `right` of `total` cells that were not given are right; `wrong` has one flag per cell, row by row;
    `solved` is None only where nobody can say.
    """

    right: int
    total: int
    wrong: tuple[bool, ...]
    solved: bool | None
