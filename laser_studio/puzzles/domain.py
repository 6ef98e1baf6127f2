"""What every kind of puzzle can do, as one interface. The kinds themselves are in modules of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.puzzle import DIFFICULTIES, CellIssue, Cells, Comparison, Difficulty, Puzzle
from laser_studio.puzzles.sudoku_rules import Split

INVALID = -1  # the cell value of a token that stands for no cell of the domain


class Domain(ABC):
    """One kind of puzzle: text and tokens both ways, rules, generator, solver, and what a board needs to be drawn.

    To add a kind:

    1. Subclass `Domain` in a module of its own. Set `name` and `title`, and number the cell values from 0; the
       default `encode` and `decode` write value v as token v + 1 with 0 as padding, as the official data sets do for
       Sudoku and mazes. Override `token` and `decode` where tokens differ.
    2. Write the abstract methods. Everything a user typed raises `PuzzleError` with the place and the way out; a puzzle
       that can be read but breaks a rule parses, and `validate` says where.
    3. Write `generate` so that a seed gives the same puzzle everywhere, and so that the two splits share nothing a
       model could have learnt by heart: decide the split by a digest of what is left when symmetries are removed.
    4. Register one instance in `registry.py`, and its bundled set in `bundled.py`.
    5. In tests/puzzles, add it to the tables of `test_domains.py`: round trips, solver, generator and splits come with them.

    A domain holds no state: one instance serves every thread.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # as users read it
    generated_sizes: ClassVar[tuple[int, ...]]  # the sizes `generate` can make, the usual one first
    blank: ClassVar[int | None] = None  # the value of a cell that is still to be filled in, where there is one

    # Text

    @abstractmethod
    def parse(self, text: str) -> Puzzle:
        """The puzzle a text describes, without a solution unless the text holds it. Raises `PuzzleError`."""

    @abstractmethod
    def format_cells(self, cells: Cells, shape: tuple[int, int]) -> str:
        """Cells as text, one line per row."""

    def format(self, puzzle: Puzzle) -> str:
        """The puzzle as text that `parse` reads back (solution, name and difficulty are not part of it)."""
        return self.format_cells(puzzle.cells, puzzle.shape)

    @abstractmethod
    def recognises(self, text: str) -> bool:
        """Whether a text looks like this kind, judged by its characters; `parse` may still refuse it."""

    # Tokens

    @abstractmethod
    def vocab_size(self, puzzle_or_size: Puzzle | int) -> int:
        """The number of token ids a model needs for this puzzle, or for puzzles of this size; padding included."""

    def encode(self, puzzle: Puzzle) -> NDArray[np.int64]:
        """The official tokens of the puzzle, shape (height · width,). Raises `PuzzleError` for values without a token."""
        return self._tokens(puzzle, puzzle.cells)

    def encode_solution(self, puzzle: Puzzle) -> NDArray[np.int64] | None:
        """The official tokens of the solution, shape (height · width,), or None where it is not known."""
        return None if puzzle.solution is None else self._tokens(puzzle, puzzle.solution)

    def _tokens(self, puzzle: Puzzle, cells: Cells) -> NDArray[np.int64]:
        # An id beyond the vocabulary would kill a CUDA context, so it must not leave this layer.
        largest = self._largest_value(len(cells))
        for cell, value in enumerate(cells):
            if not 0 <= value <= largest:
                row, column = divmod(cell, puzzle.width)
                raise PuzzleError(f"row {row + 1}, column {column + 1}: {value} is no cell value of a {self.title} (0 to {largest})")
        return np.asarray([self.token(value) for value in cells], dtype=np.int64)

    def token(self, value: int) -> int:
        """The token of a cell value; of a value of no cell (-1), padding."""
        return value + 1

    def decode(self, ids: ArrayLike, shape: tuple[int, int] | None = None) -> Cells:
        """Cell values of tokens, row by row; padding and ids of no cell give -1.

        ids: (height · width,) integers. `shape` is (height, width), checked where given. Raises `PuzzleError`
        for a count of tokens that is no board.
        """
        tokens = np.asarray(ids).reshape(-1)
        if shape is not None and tokens.size != shape[0] * shape[1]:
            raise PuzzleError(f"{tokens.size} tokens do not fill {shape[0]} × {shape[1]} cells")
        largest = self._largest_value(tokens.size)
        return tuple(token - 1 if 1 <= token <= largest + 1 else INVALID for token in tokens.tolist())

    @abstractmethod
    def _largest_value(self, count: int) -> int:
        """The largest value of a cell on a board of `count` cells. Raises `PuzzleError` where there is no such board."""

    # Rules

    @abstractmethod
    def validate(self, puzzle: Puzzle) -> list[CellIssue]:
        """What is wrong with the puzzle itself, at most one issue per cell; empty when nothing is.

        Sound issues only: a puzzle without an issue may still have no solution, or several.
        """

    @abstractmethod
    def given(self, puzzle: Puzzle) -> tuple[bool, ...]:
        """Per cell: whether the puzzle fixes it, so that an answer must keep it."""

    @abstractmethod
    def solutions(self, puzzle: Puzzle, limit: int) -> list[Cells]:
        """Up to `limit` solutions, always the same ones. Raises `PuzzleError` where the search would take too long."""

    def solve(self, puzzle: Puzzle) -> Cells | None:
        """A solution, or None where there is none. Raises `PuzzleError` where the search would take too long."""
        found = self.solutions(puzzle, 1)
        return found[0] if found else None

    def with_solution(self, puzzle: Puzzle) -> Puzzle:
        """The puzzle with its solution filled in where exactly one exists; otherwise, or if too hard to tell, as it came."""
        if puzzle.solution is not None:
            return puzzle
        try:
            found = self.solutions(puzzle, 2)
        except PuzzleError:
            return puzzle
        if len(found) != 1:
            return puzzle
        return replace(puzzle, solution=found[0])

    @abstractmethod
    def judge(self, puzzle: Puzzle, answer: Cells) -> tuple[tuple[bool, ...], bool | None]:
        """By the rules alone: the cells that certainly break one (or a given), and whether the answer solves the puzzle.

        None for the second where the rules cannot tell.
        """

    def compare(self, puzzle: Puzzle, answer: Sequence[int]) -> Comparison:
        """How an answer (cell values, row by row; -1 for invalid) compares.

        An answer that solves the puzzle by the rules has no wrong cell, even where it differs from the known solution
        (a puzzle may have several). Otherwise wrong means: differs from the known solution; without one: breaks a rule
        or a given. Raises `PuzzleError` for an answer of another length.
        """
        cells = tuple(answer)
        if len(cells) != len(puzzle.cells):
            raise PuzzleError(f"an answer of {len(cells)} cells cannot be compared with a puzzle of {len(puzzle.cells)}")
        wrong, solved = self.judge(puzzle, cells)
        if not solved and puzzle.solution is not None:
            wrong = tuple(value != wanted for value, wanted in zip(cells, puzzle.solution, strict=True))
            solved = not any(wrong)
        given = self.given(puzzle)
        right = sum(not g and not w and value != self.blank for g, w, value in zip(given, wrong, cells, strict=True))
        return Comparison(right, len(cells) - sum(given), wrong, solved)

    # Fitting

    def fitted(self, puzzle: Puzzle, side: int) -> Puzzle:
        """The same puzzle for a board of side × side cells, where the kind has boards larger than what stands on them; else as it came.

        Raises `PuzzleError` for a puzzle that is larger than the board.
        """
        return puzzle

    def from_tokens(self, inputs: ArrayLike, labels: ArrayLike | None, shape: tuple[int, int]) -> Puzzle:
        """The puzzle that rows of a data set are: tokens of the puzzle and, where there are any, of its solution.

        Raises `PuzzleError` for tokens of no cell, before any model sees them.
        """
        tokens = np.asarray(inputs).reshape(-1)
        cells = self.decode(tokens, shape)
        if INVALID in cells:
            row, column = divmod(cells.index(INVALID), shape[1])
            token = int(tokens[cells.index(INVALID)])
            raise PuzzleError(f"row {row + 1}, column {column + 1}: token {token} is no cell of a {self.title} {shape[0]}×{shape[1]}")
        puzzle = Puzzle(self.name, *shape, cells)
        if labels is None:
            return puzzle
        solution = self.decode(labels, shape)
        return replace(puzzle, solution=solution) if self.judge(puzzle, solution)[1] else self.with_solution(puzzle)

    # Making puzzles

    @abstractmethod
    def measures(self, puzzle: Puzzle) -> dict[str, int]:
        """The figures its difficulty is judged by, such as the number of givens."""

    @abstractmethod
    def generate(self, seed: int, *, size: int, difficulty: Difficulty = "medium", split: Split = "held-out") -> Puzzle:
        """A puzzle with exactly one solution, which it carries; the same for the same arguments.

        Raises `PuzzleError` for a size, difficulty or seed there is no generator for.
        """

    def _generator(self, seed: int, size: int, difficulty: str, split: str) -> np.random.Generator:
        """The private random source of one generated puzzle, after checking what `generate` was given."""
        if size not in self.generated_sizes:
            raise PuzzleError(f"no {self.title} of size {size} can be generated: choose one of {_listed(self.generated_sizes)}")
        if difficulty not in DIFFICULTIES:
            raise PuzzleError(f"unknown difficulty {str(difficulty)[:40]!r}: choose one of {', '.join(DIFFICULTIES)}")
        if split not in ("train", "held-out"):
            raise PuzzleError(f"unknown split {str(split)[:40]!r}: choose train or held-out")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise PuzzleError("the seed of a puzzle is a whole number, 0 or more")
        return np.random.default_rng([int(seed), size, DIFFICULTIES.index(difficulty), split == "held-out"])

    # Drawing

    @abstractmethod
    def symbol(self, value: int) -> str:
        """What a cell of this value shows: plain text, empty for a blank, `?` for a value of no cell."""

    def blocks(self, puzzle: Puzzle) -> tuple[int, int] | None:
        """(rows, columns) of the boxes to outline on the board, or None where there are none."""
        return None


def _listed(sizes: Sequence[int]) -> str:
    """4, 6, 9; or 7, 9 … 63 for a long list."""
    ordered = sorted(sizes)
    return ", ".join(map(str, ordered)) if len(ordered) < 6 else f"{ordered[0]}, {ordered[1]} … {ordered[-1]}"
