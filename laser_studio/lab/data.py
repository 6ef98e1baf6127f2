"""Training and evaluation sets as token arrays, drawn from seeds. Who trains calls this; puzzle rules are in `puzzles`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laser_studio.puzzles.sudoku_rules import Split, dig, random_solution


@dataclass(frozen=True)
class PuzzleSet:
    """inputs, labels: (N, T) int64 token ids; `digits`: the number of interchangeable symbols, whose tokens start at 2."""

    inputs: Tensor
    labels: Tensor
    digits: int

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> PuzzleSet:
        """The first `count` puzzles, or all where there are fewer."""
        return PuzzleSet(self.inputs[:count], self.labels[:count], self.digits)


def sudoku_set(size: int, count: int, seed: int, split: Split, givens: tuple[int, int]) -> PuzzleSet:
    """`count` distinct Sudoku puzzles with one solution each, the number of givens drawn from the inclusive range."""
    rng = np.random.default_rng([seed, size, split == "held-out"])
    pairs: dict[tuple[int, ...], tuple[int, ...]] = {}
    while len(pairs) < count:
        solution = random_solution(size, rng, split)
        pairs[dig(solution, int(rng.integers(givens[0], givens[1] + 1)), rng)] = solution
    return PuzzleSet(torch.tensor(list(pairs)) + 1, torch.tensor(list(pairs.values())) + 1, size)


def relabel_digits(inputs: Tensor, labels: Tensor, digits: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rename the digits of each puzzle by a random permutation of its own; pad and blank stay. Shapes (B, T)."""
    order = torch.rand(len(inputs), digits, generator=generator).argsort(dim=1) + 2
    table = torch.cat((torch.tensor([[0, 1]]).expand(len(inputs), 2), order), dim=1)  # (B, vocab)
    return table.gather(1, inputs), table.gather(1, labels)
