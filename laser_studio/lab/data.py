"""Training and evaluation sets as token arrays, drawn from seeds. Who trains calls this; puzzle rules are in `puzzles`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laser_studio.errors import TrainingError
from laser_studio.lab.augment import SquareSymmetry, SudokuSymmetry, Symmetry, apply
from laser_studio.puzzles.maze_rules import WALL, random_maze
from laser_studio.puzzles.puzzle import Cells
from laser_studio.puzzles.sudoku_rules import Split, random_puzzle

FRUITLESS = 10_000  # draws without a new puzzle after which there are taken to be no more


@dataclass(frozen=True)
class PuzzleSet:
    """inputs, labels: (N, T) int64 token ids; symmetry: what turns its puzzles into others as good."""

    inputs: Tensor
    labels: Tensor
    symmetry: Symmetry

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> PuzzleSet:
        """The first `count` puzzles, or all where there are fewer."""
        return PuzzleSet(self.inputs[:count], self.labels[:count], self.symmetry)

    def sample(self, count: int, generator: torch.Generator, *, augment: bool) -> tuple[Tensor, Tensor]:
        """inputs and labels (count, T), drawn with replacement; with `augment`, a random symmetric image of each."""
        picked = torch.randint(len(self), (count,), generator=generator)
        inputs, labels = self.inputs[picked], self.labels[picked]
        if augment:
            cells, names = self.symmetry.draw(count, generator)
            inputs, labels = apply(inputs, cells, names), apply(labels, cells, names)
        return inputs, labels


def sudoku_set(size: int, count: int, seed: int, split: Split, givens: tuple[int, int]) -> PuzzleSet:
    """`count` distinct Sudoku puzzles with one solution each, the number of givens drawn from the inclusive range."""
    rng = np.random.default_rng([seed, size, split == "held-out"])
    return _distinct(lambda: random_puzzle(size, givens, rng, split), count, SudokuSymmetry(size))


def maze_set(size: int, count: int, seed: int, split: Split, steps: tuple[int, int], *, board: int | None = None) -> PuzzleSet:
    """`count` distinct perfect mazes of size × size cells whose path has a number of steps in the inclusive range.

    board: size of a larger board, all wall, on which each stands at a random place.
    """
    board = size if board is None else board
    rng = np.random.default_rng([seed, size, board, split == "held-out"])

    def draw() -> tuple[Cells, Cells]:
        cells, solution = random_maze(size, steps, rng, split)
        if board == size:
            return cells, solution
        top, left = rng.integers(0, board - size + 1, size=2).tolist()
        return _on_board(cells, size, board, top, left), _on_board(solution, size, board, top, left)

    return _distinct(draw, count, SquareSymmetry(board))


def _distinct(draw: Callable[[], tuple[Cells, Cells]], count: int, symmetry: Symmetry) -> PuzzleSet:
    """`count` different puzzles of those that `draw` gives, as tokens. Raises `TrainingError` where there seem to be fewer."""
    pairs: dict[Cells, Cells] = {}
    known = 0  # draws in a row that gave nothing new
    while len(pairs) < count:
        cells, solution = draw()
        known = known + 1 if cells in pairs else 0
        pairs[cells] = solution
        if known > FRUITLESS:
            raise TrainingError(f"only {len(pairs):,} different puzzles of this kind were found, {count:,} are wanted")
    return PuzzleSet(torch.tensor(list(pairs)) + 1, torch.tensor(list(pairs.values())) + 1, symmetry)


def _on_board(cells: Cells, size: int, board: int, top: int, left: int) -> Cells:
    wide = np.full((board, board), WALL)
    wide[top : top + size, left : left + size] = np.asarray(cells).reshape(size, size)
    return tuple(wide.ravel().tolist())
