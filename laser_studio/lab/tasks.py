"""The tasks a TRM can be trained on: which puzzles, of which size, drawn how. What to train with is in `recipes`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from laser_studio.errors import TrainingError
from laser_studio.lab import arc
from laser_studio.lab.augment import SquareSymmetry, SudokuSymmetry, Symmetry
from laser_studio.lab.data import Part, PuzzleSet, maze_set, sudoku_set
from laser_studio.puzzles import arc_rules
from laser_studio.puzzles.sudoku_rules import Split

SMALLEST_MAZE, LARGEST_MAZE = 7, 41  # cells on a side; all 5×5 mazes are images of one, which leaves nothing to hold out
SMALLEST_ARC = 3  # no ARC task fits a smaller board


class Draw(Protocol):
    """How a task gets its puzzles; the arguments are those of `Task.puzzles`."""

    def __call__(
        self, count: int, seed: int, part: Part, *, within: tuple[int, int], size: int, augmentations: int
    ) -> PuzzleSet:  # pragma: no cover
        ...


@dataclass(frozen=True)
class Task:
    """One kind of puzzle at one size.

    `measure` names the figure its difficulty is told by, and `judged` is the inclusive range of it that a model is judged on.
    rules: how many rules it consists of where each has an identifier, a row of the puzzle embedding, of its own; 0 where all puzzles
    follow one.
    """

    name: str
    domain: str
    size: int
    vocab_size: int
    measure: str
    judged: tuple[int, int]
    draw: Draw
    symmetry: Symmetry | None = None
    rules: int = 0

    @property
    def seq_len(self) -> int:
        """Tokens of a puzzle."""
        return self.size**2

    def identifiers(self, augmentations: int = 0) -> int:
        """Rows of the puzzle embedding: one, and one for each rule and each of its fixed images."""
        return 1 + self.rules * (1 + augmentations)

    def puzzles(
        self,
        count: int,
        seed: int,
        part: Part,
        *,
        within: tuple[int, int] | None = None,
        size: int | None = None,
        augmentations: int = 0,
    ) -> PuzzleSet:
        """`count` distinct puzzles, or all where the task has only so many, which are ARC's; there 0 means all.

        within: range of the measure, by default `judged`; size: of smaller mazes on a board of this one; augmentations: fixed images of
        each ARC task.
        """
        return self.draw(count, seed, part, within=within or self.judged, size=size or self.size, augmentations=augmentations)


GIVENS = {4: (4, 10), 6: (14, 24), 9: (26, 45)}  # of the Sudoku puzzles a model is judged on


def get_task(name: str) -> Task:
    """The task of that name: sudoku-4x4, sudoku-6x6, sudoku-9x9, maze-NxN with N odd, or arc-N. Raises `TrainingError`."""
    found = re.fullmatch(r"(sudoku|maze|arc)-(\d{1,3})(?:x(\d{1,3}))?", name.strip().lower())
    size = int(found[2]) if found and found[3] in (None, found[2]) else 0
    if found and found[1] == "sudoku" and size in GIVENS:
        return _sudoku(size)
    if found and found[1] == "maze" and size % 2 and SMALLEST_MAZE <= size <= LARGEST_MAZE:
        return _maze(size)
    if found and found[1] == "arc" and SMALLEST_ARC <= size <= arc_rules.LARGEST_GRID:
        return _arc(size)
    known = ", ".join(f"sudoku-{n}x{n}" for n in GIVENS)
    raise TrainingError(
        f"unknown task {name[:40]!r}: choose {known}, maze-NxN with N odd, {SMALLEST_MAZE} to {LARGEST_MAZE}, "
        f"or arc-N with N {SMALLEST_ARC} to {arc_rules.LARGEST_GRID}"
    )


def _side(part: Part, seed: int) -> tuple[Split, int]:
    """The side of a generated task's split, and the seed: what weights are chosen by is held out too, and drawn apart."""
    return ("held-out", seed + 1) if part == "validation" else (part, seed)


def _sudoku(size: int) -> Task:
    def draw(count: int, seed: int, part: Part, *, within: tuple[int, int], **_: int) -> PuzzleSet:
        split, seed = _side(part, seed)
        return sudoku_set(size, count, seed, split, within)

    return Task(f"sudoku-{size}x{size}", "sudoku", size, size + 2, "givens", GIVENS[size], draw, SudokuSymmetry(size))


def _maze(board: int) -> Task:
    def draw(count: int, seed: int, part: Part, *, within: tuple[int, int], size: int, **_: int) -> PuzzleSet:
        split, seed = _side(part, seed)
        return maze_set(size, count, seed, split, within, board=board)

    return Task(f"maze-{board}x{board}", "maze", board, 6, "path", (4, board**2), draw, SquareSymmetry(board))


def _arc(board: int) -> Task:
    def draw(count: int, seed: int, part: Part, *, within: tuple[int, int], augmentations: int, **_: int) -> PuzzleSet:
        return arc.arc_set(board, part, count, seed, within, augmentations)

    rules = len(arc.subset(board))
    return Task(f"arc-{board}", "arc", board, arc_rules.VOCAB_SIZE, "side", (1, board), draw, rules=rules)
