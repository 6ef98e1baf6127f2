"""Symmetries of the puzzles as random draws: an order of the cells and new names for the tokens, one of each per puzzle.

What an image of a puzzle under a symmetry asks for is the image of its solution, so both are turned alike. Everything is drawn
from the generator that is passed in; which side of the split a puzzle is on no symmetry changes (see `puzzles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from laser_studio.puzzles.sudoku_rules import BOX_SHAPES


class Symmetry(Protocol):
    """Random symmetric images of puzzles of one kind."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """(count, T) int64: which cell each cell takes its token from; (count, vocab) int64: the new name of each token, or None."""
        ...


@dataclass(frozen=True)
class SudokuSymmetry:
    """Names of the digits, order of rows within a band and of bands, likewise of columns, and transposition of square boxes."""

    size: int

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        box_rows, box_columns = BOX_SHAPES[self.size]
        rows = self._lines(count, box_rows, generator)
        columns = self._lines(count, box_columns, generator)
        cells = rows[:, :, None] * self.size + columns[:, None, :]
        if box_rows == box_columns:
            turned = torch.rand(count, generator=generator) < 0.5
            cells = torch.where(turned[:, None, None], cells.transpose(1, 2), cells)
        digits = torch.rand(count, self.size, generator=generator).argsort(1) + 2  # tokens 0 and 1 are padding and blank
        names = torch.cat((torch.tensor([[0, 1]]).expand(count, 2), digits), dim=1)
        return cells.flatten(1), names

    def _lines(self, count: int, band: int, generator: torch.Generator) -> Tensor:  # (count, size)
        bands = torch.rand(count, self.size // band, generator=generator).argsort(1)
        within = torch.rand(count, self.size // band, band, generator=generator).argsort(2)
        return (bands[:, :, None] * band + within).flatten(1)


@dataclass(frozen=True)
class SquareSymmetry:
    """The eight turns and mirror images of a square board."""

    size: int

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        cells = torch.arange(self.size**2).view(self.size, self.size)
        images = torch.stack([side.rot90(turns).flatten() for side in (cells, cells.T) for turns in range(4)])
        return images[torch.randint(8, (count,), generator=generator)], None


def apply(tokens: Tensor, cells: Tensor, names: Tensor | None) -> Tensor:
    """The image of tokens (B, T) under what `draw` gave."""
    moved = tokens.gather(1, cells)
    return moved if names is None else names.gather(1, moved)
