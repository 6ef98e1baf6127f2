"""Sudoku as mathematics: geometry, solving, counting solutions, generating. Grids are flat tuples of ints, 0 for blank.

No text, tokens or drawing here; `sudoku` adds those. The split into training and held-out solutions lives here too,
because it must be the same wherever puzzles are made.
"""

from __future__ import annotations

import hashlib
import itertools
from functools import cache
from typing import Literal

import numpy as np

Grid = tuple[int, ...]
Split = Literal["train", "held-out"]

BOX_SHAPES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 16: (4, 4)}  # size -> (rows, columns) of a box


@cache
def units_of_cells(size: int) -> tuple[tuple[int, int, int], ...]:
    """(row, column, box) index of each cell of a size × size board, row by row."""
    box_rows, box_columns = BOX_SHAPES[size]
    across = size // box_columns
    return tuple((r, c, r // box_rows * across + c // box_columns) for r in range(size) for c in range(size))


class SearchTooLongError(Exception):
    """The search spent its budget of guesses; whether there are more solutions is not known."""


class Search:
    """Depth-first search with bit masks, always at the cell with the fewest candidates.

    `guesses` counts the cells where more than one candidate had to be tried: a plain measure of difficulty.
    With a `budget`, a search that would guess more often raises `SearchTooLongError`.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator | None = None, *, budget: int | None = None) -> None:
        self.size = round(len(grid) ** 0.5)
        self.units = units_of_cells(self.size)
        self.grid = list(grid)
        self.rng = rng
        self.guesses = 0
        self.budget = budget
        self.rows, self.columns, self.boxes = ([0] * self.size for _ in range(3))
        self.consistent = all(self._place(cell, digit) for cell, digit in enumerate(grid) if digit)
        self.blanks = [cell for cell, digit in enumerate(grid) if not digit]

    def solutions(self, limit: int) -> list[Grid]:
        """Up to `limit` solutions."""
        found: list[Grid] = []
        if self.consistent:
            self._descend(found, limit)
        return found

    def _place(self, cell: int, digit: int) -> bool:
        r, c, b = self.units[cell]
        bit = 1 << digit
        if (self.rows[r] | self.columns[c] | self.boxes[b]) & bit:
            return False
        self.rows[r] |= bit
        self.columns[c] |= bit
        self.boxes[b] |= bit
        self.grid[cell] = digit
        return True

    def _lift(self, cell: int) -> None:
        r, c, b = self.units[cell]
        bit = ~(1 << self.grid[cell])
        self.rows[r] &= bit
        self.columns[c] &= bit
        self.boxes[b] &= bit
        self.grid[cell] = 0

    def _descend(self, found: list[Grid], limit: int) -> None:
        if not self.blanks:
            found.append(tuple(self.grid))
            return
        full = (2 << self.size) - 2
        best, best_options, fewest = -1, 0, self.size + 1
        for index, cell in enumerate(self.blanks):
            r, c, b = self.units[cell]
            options = full & ~(self.rows[r] | self.columns[c] | self.boxes[b])
            count = options.bit_count()
            if count < fewest:
                best, best_options, fewest = index, options, count
                if count <= 1:
                    break
        if fewest == 0:
            return
        self.guesses += fewest > 1
        if self.budget is not None and self.guesses > self.budget:
            raise SearchTooLongError
        digits = [digit for digit in range(1, self.size + 1) if best_options >> digit & 1]
        if self.rng is not None:
            self.rng.shuffle(digits)
        cell = self.blanks.pop(best)
        for digit in digits:
            self._place(cell, digit)
            self._descend(found, limit)
            self._lift(cell)
            if len(found) >= limit:
                break
        self.blanks.insert(best, cell)


def solve(grid: Grid) -> Grid | None:
    """A solution, or None where there is none."""
    found = Search(grid).solutions(1)
    return found[0] if found else None


def count_solutions(grid: Grid, limit: int = 2) -> int:
    """The number of solutions, counted up to `limit`."""
    return len(Search(grid).solutions(limit))


def guesses_to_prove(grid: Grid) -> int:
    """How often a search that only ever fills in forced cells must guess to prove that a puzzle has one solution.

    The proof visits every branch, so the count does not depend on how the digits are named.
    """
    search = Search(grid)
    search.solutions(2)
    return search.guesses


def relabelled(grid: Grid) -> Grid:
    """The same grid with digits renamed in order of first appearance: equal for grids that differ by a relabelling."""
    names: dict[int, int] = {0: 0}
    return tuple(names.setdefault(digit, len(names)) for digit in grid)


def split_of(cells: Grid, solution: Grid) -> Split:
    """Which side of the split a puzzle belongs to; the same for all puzzles that a symmetry turns into one another.

    Symmetries: any renaming of the digits, any order of rows within a band, of bands, of columns within a stack, of
    stacks, and transposition where boxes are square. From 6×6 on the solution alone decides, so that no symmetric image of a
    held-out solution was ever trained on. 4×4 has two solutions up to symmetry: there the puzzle decides. Training takes
    about four fifths.
    """
    key = _canonical_puzzle(cells, solution) if len(cells) == 16 else _solution_key(solution)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return "held-out" if int.from_bytes(digest) % 5 == 0 else "train"


def _solution_key(solution: Grid) -> tuple[object, ...]:
    """What no symmetry changes: how the digits of each two rows, and of each two columns, permute into one another.

    Renaming digits conjugates such a permutation, and another order of the columns leaves it as it is: its cycles stay.
    """
    size = round(len(solution) ** 0.5)
    box_rows, box_columns = BOX_SHAPES[size]
    rows = [solution[start : start + size] for start in range(0, size**2, size)]
    columns = [solution[start::size] for start in range(size)]
    sides = [_cycle_types(rows, box_rows), _cycle_types(columns, box_columns)]
    return tuple(sorted(sides) if box_rows == box_columns else sides)


def _cycle_types(lines: list[Grid], band: int) -> list[tuple[bool, list[int]]]:
    """Of each two lines: whether they share a band, and the lengths of the cycles that lead from one to the other."""
    return sorted(
        (first // band == second // band, _cycles(dict(zip(lines[first], lines[second], strict=True))))
        for second in range(len(lines))
        for first in range(second)
    )


def _cycles(permutation: dict[int, int]) -> list[int]:
    lengths = []
    while permutation:
        start, here = permutation.popitem()
        length = 1
        while here != start:
            here = permutation.pop(here)
            length += 1
        lengths.append(length)
    return sorted(lengths)


def _canonical_puzzle(cells: Grid, solution: Grid) -> tuple[object, ...]:
    """The least of all images of a 4×4 puzzle under its symmetries, digits renamed in order of appearance in the solution."""
    return min(
        (relabelled(tuple(solution[cell] for cell in order)), tuple(cells[cell] > 0 for cell in order)) for order in _cell_orders_4x4()
    )


@cache
def _cell_orders_4x4() -> tuple[tuple[int, ...], ...]:
    """All 128 orders of the cells of a 4×4 board that turn solutions into solutions."""
    lines = [
        tuple(2 * band + line for band, order in zip(bands, orders, strict=True) for line in order)
        for bands in ((0, 1), (1, 0))
        for orders in itertools.product(((0, 1), (1, 0)), repeat=2)
    ]
    upright = [tuple(4 * row + column for row in rows for column in columns) for rows in lines for columns in lines]
    turned = [tuple(4 * row + column for column in columns for row in rows) for rows in lines for columns in lines]
    return tuple(upright + turned)


def random_puzzle(size: int, givens: tuple[int, int], rng: np.random.Generator, split: Split) -> tuple[Grid, Grid]:
    """A puzzle of that side of the split and its only solution, dug for a number of givens drawn from the inclusive range."""
    while True:
        solution = random_solution(size, rng)
        if size > 4 and split_of(solution, solution) != split:
            continue
        cells = dig(solution, int(rng.integers(givens[0], givens[1] + 1)), rng)
        if size > 4 or split_of(cells, solution) == split:
            return cells, solution


def random_solution(size: int, rng: np.random.Generator) -> Grid:
    """A full valid grid."""
    return Search((0,) * size**2, rng).solutions(1)[0]


def dig(solution: Grid, givens: int, rng: np.random.Generator) -> Grid:
    """Blank cells of a solution in random order while exactly one solution remains, down to `givens` where that is possible."""
    grid = list(solution)
    left = len(grid)
    for cell in rng.permutation(len(grid)).tolist():
        if left <= givens:
            break
        digit, grid[cell] = grid[cell], 0
        if count_solutions(tuple(grid)) == 1:
            left -= 1
        else:
            grid[cell] = digit
    return tuple(grid)
