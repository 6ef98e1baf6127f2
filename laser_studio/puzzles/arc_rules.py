"""ARC grids as arrays: boards of tokens with end markers, the eight turns of a grid, new names for its colours.

Boards are laid out as the data of the published TRM are. Which tasks there are and how they are trained on is not known here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.uint8]  # (height, width), colours 0 to 9

LARGEST_GRID = 30  # cells on a side
COLOURS = 10
PADDING, END = 0, 1  # tokens; colour c is token c + 2
VOCAB_SIZE = COLOURS + 2
TURNS = 8


def to_board(grid: Grid, size: int, top: int = 0, left: int = 0) -> Grid:
    """The tokens (size, size) of a board on which the grid stands at (top, left).

    Along its lower and its right edge, where the board goes on there, end markers tell how large the grid is; all else is padding.
    """
    board = np.full((size, size), PADDING, dtype=np.uint8)
    bottom, right = top + grid.shape[0], left + grid.shape[1]
    board[top:bottom, left:right] = grid + 2
    board[bottom : bottom + 1, left:right] = END
    board[top:bottom, right : right + 1] = END
    return board


def image(grid: Grid, turn: int, colours: Grid) -> Grid:
    """The grid with new colours, turned: colours[c] stands for c; turn: 0 to 7, 0 changes nothing, from 4 on it is transposed first."""
    named = colours[grid]
    return np.rot90(named.T if turn >= TURNS // 2 else named, turn % 4)


def random_image(rng: np.random.Generator) -> tuple[int, Grid]:
    """A turn and an order of the colours, drawn evenly. Black (0) stays black: to most tasks it is the background."""
    return int(rng.integers(TURNS)), np.concatenate(([0], 1 + rng.permutation(COLOURS - 1))).astype(np.uint8)
