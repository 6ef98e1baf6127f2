"""Training and evaluation sets as token arrays, drawn from seeds. Who trains calls this; puzzle rules are in `puzzles`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from laser_studio.errors import TrainingError
from laser_studio.lab.augment import SquareSymmetry, SudokuSymmetry, Symmetry, apply
from laser_studio.lab.losses import IGNORED
from laser_studio.puzzles.maze_rules import WALL, random_maze
from laser_studio.puzzles.puzzle import Cells
from laser_studio.puzzles.sudoku_rules import Split, random_puzzle

Part = Literal["train", "validation", "held-out"]  # what is learnt from, what weights are chosen by, what the chosen ones are judged by

FRUITLESS = 10_000  # draws without a new puzzle after which there are taken to be no more


@dataclass(frozen=True)
class PuzzleSet:
    """inputs, labels: (N, T) token ids, int64 or uint8; a label of 0, the padding, is no target, as in the official data.

    symmetry: what turns its puzzles into others as good; None: nothing does. identifiers: (N,) int64, the row of the puzzle
    embedding that belongs to each; None: row 0 to all.
    """

    inputs: Tensor
    labels: Tensor
    symmetry: Symmetry | None
    identifiers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> PuzzleSet:
        """The first `count` puzzles, or all where there are fewer."""
        identifiers = None if self.identifiers is None else self.identifiers[:count]
        return PuzzleSet(self.inputs[:count], self.labels[:count], self.symmetry, identifiers)

    def sample(self, count: int, generator: torch.Generator, *, augment: bool) -> dict[str, Tensor]:
        """A batch as `batch` gives it, drawn with replacement; with `augment`, a random symmetric image of each puzzle."""
        picked = torch.randint(len(self), (count,), generator=generator)
        moves = self.symmetry.draw(count, generator) if augment and self.symmetry is not None else None
        return self.batch(picked, moves)

    def batch(self, picked: Tensor | slice, moves: tuple[Tensor, Tensor | None] | None = None) -> dict[str, Tensor]:
        """The picked puzzles as a model and its loss take them, all int64.

        inputs, labels: (B, T), labels `IGNORED` where there is no target; puzzle_identifiers: (B,). moves: what a symmetry drew for each.
        """
        inputs, labels = self.inputs[picked].long(), self.labels[picked].long()
        if moves is not None:
            inputs, labels = apply(inputs, *moves), apply(labels, *moves)
        rows = torch.zeros(len(inputs), dtype=torch.long) if self.identifiers is None else self.identifiers[picked]
        return {"inputs": inputs, "labels": labels.masked_fill(labels == 0, IGNORED), "puzzle_identifiers": rows}


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
