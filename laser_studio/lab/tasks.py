"""The tasks a TRM can be trained on: which puzzles, of which size, drawn how. What to train with is in `recipes`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from laser_studio.errors import TrainingError
from laser_studio.lab.augment import SquareSymmetry, SudokuSymmetry, Symmetry
from laser_studio.lab.data import PuzzleSet, maze_set, sudoku_set
from laser_studio.puzzles.sudoku_rules import Split

SMALLEST_MAZE, LARGEST_MAZE = 7, 41  # cells on a side; all 5×5 mazes are images of one, which leaves nothing to hold out

Draw = Callable[[int, int, Split, tuple[int, int], int], PuzzleSet]


@dataclass(frozen=True)
class Task:
    """One kind of puzzle at one size.

    `measure` names the figure its difficulty is told by, and `judged` is the inclusive range of it that a model is judged on.
    """

    name: str
    domain: str
    size: int
    vocab_size: int
    measure: str
    judged: tuple[int, int]
    draw: Draw
    symmetry: Symmetry

    @property
    def seq_len(self) -> int:
        """Tokens of a puzzle."""
        return self.size**2

    def puzzles(self, count: int, seed: int, split: Split, *, within: tuple[int, int] | None = None, size: int | None = None) -> PuzzleSet:
        """`count` distinct puzzles; within: range of the measure, by default `judged`; size: of smaller mazes on a board of this one."""
        return self.draw(count, seed, split, within or self.judged, size or self.size)


GIVENS = {4: (4, 10), 6: (14, 24), 9: (26, 45)}  # of the Sudoku puzzles a model is judged on


def get_task(name: str) -> Task:
    """The task of that name: sudoku-4x4, sudoku-6x6, sudoku-9x9, or maze-NxN with N odd. Raises `TrainingError`."""
    found = re.fullmatch(r"(sudoku|maze)-(\d{1,3})(?:x(\d{1,3}))?", name.strip().lower())
    size = int(found[2]) if found and found[3] in (None, found[2]) else 0
    if found and found[1] == "sudoku" and size in GIVENS:
        return _sudoku(size)
    if found and found[1] == "maze" and size % 2 and SMALLEST_MAZE <= size <= LARGEST_MAZE:
        return _maze(size)
    known = ", ".join(f"sudoku-{n}x{n}" for n in GIVENS)
    raise TrainingError(f"unknown task {name[:40]!r}: choose {known}, or maze-NxN with N odd, {SMALLEST_MAZE} to {LARGEST_MAZE}")


def _sudoku(size: int) -> Task:
    def draw(count: int, seed: int, split: Split, givens: tuple[int, int], _: int) -> PuzzleSet:
        return sudoku_set(size, count, seed, split, givens)

    return Task(f"sudoku-{size}x{size}", "sudoku", size, size + 2, "givens", GIVENS[size], draw, SudokuSymmetry(size))


def _maze(size: int) -> Task:
    def draw(count: int, seed: int, split: Split, steps: tuple[int, int], inner: int) -> PuzzleSet:
        return maze_set(inner, count, seed, split, steps, board=size)

    return Task(f"maze-{size}x{size}", "maze", size, 6, "path", (4, size**2), draw, SquareSymmetry(size))
