"""Mazes as a domain: drawings, official tokens, messages, difficulty. The mathematics is in `maze_rules`."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.domain import Domain
from laser_studio.puzzles.maze_rules import (
    GOAL,
    OPEN,
    PATH,
    START,
    WALL,
    distances,
    marked,
    random_maze,
    shortest_paths,
)
from laser_studio.puzzles.puzzle import CellIssue, Cells, Difficulty, Puzzle
from laser_studio.puzzles.sudoku_rules import Split
from laser_studio.puzzles.text import clean, shown

CHARACTERS = "# SGo"  # CHARACTERS[value] is how a cell is written, in the order of the official tokens 1 to 5
ALSO = {"█": WALL, ".": OPEN, "_": OPEN, "s": START, "g": GOAL, "O": PATH}
VALUES = {character: value for value, character in enumerate(CHARACTERS)} | ALSO
MAX_SIDE = 64  # cells


class Maze(Domain):
    """Mazes in which a shortest path leads from S to G, in steps up, down, left and right.

    Cell values: 0 wall, 1 open, 2 start, 3 goal, 4 path. Tokens: 0 padding, then `# SGo` as 1 to 5, so 6 in all, as in
    the official TRM data. A solution is the maze with `o` on the cells between S and G.
    """

    name: ClassVar[str] = "maze"
    title: ClassVar[str] = "maze"
    # From 9 on, every difficulty has many mazes on both sides of the split; a hard 7×7 one would need a path through all rooms.
    generated_sizes: ClassVar[tuple[int, ...]] = tuple(range(9, MAX_SIDE, 2))

    # Text

    def parse(self, text: str) -> Puzzle:
        """Read a drawing: `#` wall, space (or `.`) open, S start, G goal, one line per row, up to 64 × 64 cells.

        `o` marks are taken as the solution, and must be a shortest path. A JSON list of rows and the official one-line
        form of a square maze (more than 64 characters) are read too. An unreachable goal parses; `validate` labels it.
        Raises `PuzzleError` with row and column.
        """
        rows = _rows(clean(text))
        _check_shape(rows)
        cells: list[int] = []
        for number, row in enumerate(rows, 1):
            for column, character in enumerate(row, 1):
                if character not in VALUES:
                    raise PuzzleError(f"row {number}, column {column}: {shown(character)} is no maze cell; use # (wall), space, S, G and o")
                cells.append(VALUES[character])
        width = len(rows[0])
        for value, what in ((START, "start (S)"), (GOAL, "goal (G)")):
            found = [cell for cell, other in enumerate(cells) if other == value]
            if not found:
                raise PuzzleError(f"the maze has no {what}: a maze has exactly one")
            if len(found) > 1:
                raise PuzzleError(f"{_place(found[1], width)}: a second {what}; a maze has exactly one")
        bare = tuple(OPEN if value == PATH else value for value in cells)
        puzzle = Puzzle(self.name, len(rows), width, bare)
        if PATH not in cells:
            return puzzle
        if not self.judge(puzzle, tuple(cells))[1]:
            where = _place(cells.index(PATH), width)
            raise PuzzleError(f"{where}: the path marks (o) are not a shortest path from S to G; correct them or leave them out")
        return Puzzle(self.name, len(rows), width, bare, tuple(cells))

    def format_cells(self, cells: Cells, shape: tuple[int, int]) -> str:
        """The drawing, one line per row; `?` for a value of no cell."""
        width = shape[1]
        symbols = [CHARACTERS[value] if 0 <= value < len(CHARACTERS) else "?" for value in cells]
        return "\n".join("".join(symbols[start : start + width]) for start in range(0, len(cells), width))

    def recognises(self, text: str) -> bool:
        """A maze has a start, or at least walls."""
        return any(character in text for character in "#█Ss")

    # Tokens

    def vocab_size(self, puzzle_or_size: Puzzle | int) -> int:
        """6: padding and five kinds of cell, whatever the size."""
        return len(CHARACTERS) + 1

    def _largest_value(self, count: int) -> int:
        return PATH

    # Rules

    def validate(self, puzzle: Puzzle) -> list[CellIssue]:
        """Cells no maze has, a start or goal too many, and a goal that no path reaches (labelled at the goal)."""
        issues = []
        seen = set()
        for cell, value in enumerate(puzzle.cells):
            message = ""
            if not WALL <= value <= PATH:
                message = f"{value} is no cell value of a maze (0 to {PATH})"
            elif value == PATH:
                message = "a path mark belongs in the answer, not in the maze"
            elif value in (START, GOAL):
                if value in seen:
                    message = f"a second {'start (S)' if value == START else 'goal (G)'}; a maze has exactly one"
                seen.add(value)
            if message:
                issues.append(CellIssue(*divmod(cell, puzzle.width), message))
        if len(seen) < 2:
            missing = "start (S)" if START not in seen else "goal (G)"
            issues.append(CellIssue(0, 0, f"the maze has no {missing}: a maze has exactly one"))
        elif not issues and not self.solutions(puzzle, 1):
            issues.append(CellIssue(*divmod(puzzle.cells.index(GOAL), puzzle.width), "no path leads from the start (S) to this goal (G)"))
        return issues

    def given(self, puzzle: Puzzle) -> tuple[bool, ...]:
        """Walls, start and goal; the open cells are what an answer decides."""
        return tuple(value != OPEN for value in puzzle.cells)

    def solutions(self, puzzle: Puzzle, limit: int) -> list[Cells]:
        """The maze with a shortest path marked, for up to `limit` shortest paths, by breadth-first search."""
        ends = _ends(puzzle)
        if ends is None:
            return []
        paths = shortest_paths(puzzle.cells, puzzle.height, puzzle.width, *ends, limit)
        return [marked(puzzle.cells, path) for path in paths]

    def judge(self, puzzle: Puzzle, answer: Cells) -> tuple[tuple[bool, ...], bool | None]:
        """Wrong: a changed wall, start or goal, and a path mark that no shortest path passes. Solved: one shortest path marked."""
        ends = _ends(puzzle)
        on_a_path: set[int] = set()
        length = 0
        if ends is not None:
            from_start = distances(puzzle.cells, puzzle.height, puzzle.width, ends[0])
            if ends[1] in from_start:
                length = from_start[ends[1]]
                to_goal = distances(puzzle.cells, puzzle.height, puzzle.width, ends[1])
                on_a_path = {cell for cell, steps in from_start.items() if steps + to_goal[cell] == length}
        wrong = tuple(
            value != given if given != OPEN else not (value == OPEN or (value == PATH and cell in on_a_path))
            for cell, (given, value) in enumerate(zip(puzzle.cells, answer, strict=True))
        )
        if ends is None or not length or any(wrong):
            return wrong, False
        # With every mark on some shortest path, length - 1 marks that connect S to G are exactly one of them.
        walkable = tuple(OPEN if value in (PATH, START, GOAL) else WALL for value in answer)
        reached = distances(walkable, puzzle.height, puzzle.width, ends[0])
        return wrong, answer.count(PATH) == length - 1 and reached.get(ends[1]) == length

    # Making puzzles

    def measures(self, puzzle: Puzzle) -> dict[str, int]:
        """path: steps of a shortest path from S to G; 0 where there is none."""
        ends = _ends(puzzle)
        if ends is None:
            return {"path": 0}
        return {"path": distances(puzzle.cells, puzzle.height, puzzle.width, ends[0]).get(ends[1], 0)}

    def generate(self, seed: int, *, size: int, difficulty: Difficulty = "medium", split: Split = "held-out") -> Puzzle:
        """A perfect maze of odd size (see `maze_rules.carve`) with start and goal in two of its rooms.

        Difficulty is the length of the one path, in steps, against the size n of the maze: easy 4 to n, medium up to 2n,
        hard beyond. Mazes without such a pair of rooms, or of the other split, are thrown away.
        """
        rng = self._generator(seed, size, difficulty, split)
        cells, solution = random_maze(size, _path_steps(size, difficulty), rng, split)
        return Puzzle(self.name, size, size, cells, solution, f"{difficulty}-seed-{seed}", difficulty)

    # Drawing

    def symbol(self, value: int) -> str:
        """A full block for walls, nothing for open cells, S, G, and a dot on the path."""
        return ("█", "", "S", "G", "•")[value] if WALL <= value <= PATH else "?"


def _path_steps(size: int, difficulty: Difficulty) -> tuple[int, int]:
    """Inclusive range of the path's length, in steps, that makes a generated maze of this difficulty."""
    return {"easy": (4, size), "medium": (size + 1, 2 * size), "hard": (2 * size + 1, size**2)}[difficulty]


def _place(cell: int, width: int) -> str:
    row, column = divmod(cell, width)
    return f"row {row + 1}, column {column + 1}"


def _ends(puzzle: Puzzle) -> tuple[int, int] | None:
    """The cells of start and goal, or None unless there is exactly one of each."""
    if puzzle.cells.count(START) != 1 or puzzle.cells.count(GOAL) != 1:
        return None
    return puzzle.cells.index(START), puzzle.cells.index(GOAL)


def _rows(text: str) -> list[str]:
    """The rows of a drawing, of a JSON list of rows, or of the official one-line form."""
    if text.lstrip().startswith("["):
        return _json_rows(text)
    rows = text.split("\n")
    # Empty lines around a drawing are how it was pasted; an all-space line is a row when it is as long as the others.
    width = max(map(len, rows))
    while rows and len(rows[-1]) != width and not rows[-1].strip():
        rows.pop()
    while rows and len(rows[0]) != width and not rows[0].strip():
        rows.pop(0)
    if len(rows) == 1 and len(rows[0]) > MAX_SIDE:
        side = round(len(rows[0]) ** 0.5)
        if side**2 == len(rows[0]):
            return [rows[0][start : start + side] for start in range(0, side**2, side)]
    return rows


def _json_rows(text: str) -> list[str]:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise PuzzleError("the text starts like a JSON list but is none: check brackets and commas") from None
    rows = []
    for number, row in enumerate(data, 1):
        if isinstance(row, list) and all(isinstance(cell, str) and len(cell) == 1 for cell in row):
            row = "".join(row)
        if not isinstance(row, str):
            raise PuzzleError(f"row {number}: a row of a maze is a string of # (wall), space, S, G and o")
        rows.append(row)
    if not rows:
        raise PuzzleError("the puzzle is empty: type or paste its cells")
    return rows


def _check_shape(rows: list[str]) -> None:
    """Raises `PuzzleError` unless all rows have the same, possible length."""
    limit = f"a maze has at most {MAX_SIDE} × {MAX_SIDE} cells"
    if len(rows) > MAX_SIDE:
        raise PuzzleError(f"{len(rows)} rows: row {MAX_SIDE + 1} is one too many, {limit}")
    for number, row in enumerate(rows, 1):
        if len(row) > MAX_SIDE:
            raise PuzzleError(f"row {number} has {len(row)} cells: column {MAX_SIDE + 1} is one too many, {limit}")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            column = min(len(row), width) + 1
            problem = f"lacks column {column}" if len(row) < width else f"goes on at column {column}"
            raise PuzzleError(f"row {number} {problem}: it has {len(row)} cells, row 1 has {width}; all rows must be equally long")
    if not width:
        raise PuzzleError("row 1 has no cells")
