"""Sudoku as a domain: text, official tokens, messages, difficulty. The mathematics is in `sudoku_rules`."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.domain import Domain
from laser_studio.puzzles.puzzle import CellIssue, Cells, Difficulty, Puzzle
from laser_studio.puzzles.sudoku_rules import (
    BOX_SHAPES,
    Search,
    SearchTooLongError,
    Split,
    guesses_to_prove,
    random_puzzle,
    units_of_cells,
)
from laser_studio.puzzles.text import clean, shown

SIZES = {size**2: size for size in BOX_SHAPES}  # number of cells -> size
BLANKS = frozenset("0._*xX")
RULES = "-+="  # drawn between boxes; `|` and box-drawing characters may also stand inside a row
SYMBOLS = "123456789ABCDEFG"  # SYMBOLS[d - 1] is how digit d is written; letters from 10 on
CELLS = BLANKS | frozenset(SYMBOLS + SYMBOLS.lower())  # every way to write a cell in one character
SEARCH_BUDGET = 20_000  # guesses, about two seconds; real puzzles need a few hundred, known traps for such searches up to 10,000


@dataclass(frozen=True)
class Band:
    """What makes a difficulty: inclusive ranges of the number of givens and of `guesses_to_prove`."""

    givens: tuple[int, int]
    guesses: tuple[int, int]

    def holds(self, measures: dict[str, int]) -> bool:
        """Whether a puzzle of these measures has this difficulty."""
        pairs = ((self.givens, measures["givens"]), (self.guesses, measures["guesses"]))
        return all(low <= value <= high for (low, high), value in pairs)


# Easy puzzles follow from forced cells alone. At 4×4 they all do, so only the givens tell. At 6×6 easy and medium lie within
# the 14 to 24 givens the demo is judged by, hard partly below. No range of givens is below what digging reaches in a few tries.
BANDS: dict[int, dict[Difficulty, Band]] = {
    4: {"easy": Band((8, 10), (0, 0)), "medium": Band((6, 7), (0, 0)), "hard": Band((4, 5), (0, 0))},
    6: {"easy": Band((19, 24), (0, 0)), "medium": Band((15, 18), (0, 1)), "hard": Band((11, 14), (0, 99))},
    9: {"easy": Band((36, 45), (0, 0)), "medium": Band((29, 35), (1, 9)), "hard": Band((23, 28), (10, 9_999))},
}


@dataclass(frozen=True)
class _Mark:
    """One cell as it was written, and where: "line 2, column 5"."""

    text: str
    where: str


class Sudoku(Domain):
    """Sudoku of 4×4, 6×6 (boxes of 2 rows × 3 columns), 9×9 and 16×16.

    Cell values: 0 blank, 1..n. Tokens: 0 padding, 1 blank, d + 1, so n + 2 in all (11 for 9×9), as in the official
    TRM data. 16×16 can be read, drawn, compared and solved where the search allows, but not generated.
    """

    name: ClassVar[str] = "sudoku"
    title: ClassVar[str] = "Sudoku"
    generated_sizes: ClassVar[tuple[int, ...]] = (6, 4, 9)
    blank: ClassVar[int | None] = 0

    # Text

    def parse(self, text: str) -> Puzzle:
        """Read a Sudoku of 16, 36, 81 or 256 cells.

        Digits in one line or in rows; blanks as `0 . _ * x`, as empty CSV fields, or as spaces where the rows are full
        width; spaces, commas, `|` and rules of `-`, `+` or `=` between boxes; numbers up to 16 between spaces or
        commas, or the letters A to G for 10 to 16; nested JSON lists (0 or null for blank).
        Clashing digits parse; `validate` labels them. Raises `PuzzleError` with the place of what cannot be read.
        """
        text = clean(text)
        rows = _json_rows(text) if text.lstrip().startswith("[") else _text_rows(text)
        marks = [mark for row in rows for mark in row]
        size = SIZES.get(len(marks))
        if size is None:
            raise PuzzleError(f"{len(marks)} cells: a Sudoku has 16, 36, 81 or 256")
        if len(rows) > 1:
            for row in rows:
                if len(row) != size:
                    raise PuzzleError(f"{row[0].where.split(',')[0]} has {len(row)} cells: a row of a {size}×{size} Sudoku has {size}")
        return Puzzle(self.name, size, size, tuple(_digit(mark, size) for mark in marks))

    def format_cells(self, cells: Cells, shape: tuple[int, int]) -> str:
        """One line per row, `.` for blanks, letters from 10 on."""
        width = shape[1]
        symbols = [self.symbol(value) or "." for value in cells]
        return "\n".join("".join(symbols[start : start + width]) for start in range(0, len(cells), width))

    def recognises(self, text: str) -> bool:
        """Sudoku is the kind without walls: digits, blanks and separators."""
        return not any(character in text for character in "#█Ss")

    # Tokens

    def vocab_size(self, puzzle_or_size: Puzzle | int) -> int:
        """n + 2: padding, blank and n digits."""
        return (puzzle_or_size if isinstance(puzzle_or_size, int) else puzzle_or_size.width) + 2

    def _largest_value(self, count: int) -> int:
        if count not in SIZES:
            raise PuzzleError(f"{count} tokens: a Sudoku has 16, 36, 81 or 256")
        return SIZES[count]

    # Rules

    def validate(self, puzzle: Puzzle) -> list[CellIssue]:
        """One issue per clashing cell, and per blank cell that no digit fits."""
        size = self._size(puzzle)
        clashes, stuck = _clashes(puzzle.cells, size), _stuck(puzzle.cells, size)
        issues = []
        for cell, (value, unit) in enumerate(zip(puzzle.cells, units_of_cells(size), strict=True)):
            row, column, _ = unit
            message = ""
            if not 0 <= value <= size:
                message = f"{value} is no digit of a {size}×{size} Sudoku (1 to {size})"
            elif clashes[cell]:
                places = " and ".join(f"{kind} {unit[index] + 1}" for index, kind in sorted(clashes[cell]))
                message = f"{self.symbol(value)} stands more than once in {places}"
            elif value == 0 and stuck[cell]:
                message = "no digit fits here: each stands already in its row, column or box"
            if message:
                issues.append(CellIssue(row, column, message))
        return issues

    def given(self, puzzle: Puzzle) -> tuple[bool, ...]:
        """The cells that are not blank."""
        return tuple(value != 0 for value in puzzle.cells)

    def solutions(self, puzzle: Puzzle, limit: int) -> list[Cells]:
        """Depth-first search at the cell with the fewest candidates, digits in ascending order."""
        size = self._size(puzzle)
        if any(not 0 <= value <= size for value in puzzle.cells):
            return []
        try:
            return Search(puzzle.cells, budget=SEARCH_BUDGET).solutions(limit)
        except SearchTooLongError:
            raise PuzzleError(f"no answer after {SEARCH_BUDGET:,} guesses: this Sudoku is too hard for the built-in solver") from None

    def judge(self, puzzle: Puzzle, answer: Cells) -> tuple[tuple[bool, ...], bool | None]:
        """Wrong: a given that was changed, a value that is no digit, and every filled-in cell of a clash."""
        size = self._size(puzzle)
        clashes = _clashes(answer, size)
        wrong = tuple(
            (value != given if given else not 0 <= value <= size) or bool(clashes[cell])
            for cell, (given, value) in enumerate(zip(puzzle.cells, answer, strict=True))
        )
        solved = not any(wrong) and all(answer)
        # A given that was kept is not the answer's mistake, unless the givens clash among themselves.
        own = _clashes(puzzle.cells, size)
        blamed = tuple(
            w and not (given and value == given and not own[cell])
            for cell, (w, given, value) in enumerate(zip(wrong, puzzle.cells, answer, strict=True))
        )
        return blamed, solved

    def _size(self, puzzle: Puzzle) -> int:
        if puzzle.height != puzzle.width or puzzle.width not in BOX_SHAPES:
            raise PuzzleError(f"a Sudoku of {puzzle.height} × {puzzle.width} cells: sizes are 4, 6, 9 and 16")
        return puzzle.width

    # Making puzzles

    def measures(self, puzzle: Puzzle) -> dict[str, int]:
        """givens: the number of filled cells; guesses: `guesses_to_prove` (4×4, 6×6, 9×9 with one solution)."""
        return {"givens": sum(self.given(puzzle)), "guesses": guesses_to_prove(puzzle.cells)}

    def generate(self, seed: int, *, size: int, difficulty: Difficulty = "medium", split: Split = "held-out") -> Puzzle:
        """A random solution of the split, dug out until the puzzle lies in the band of its difficulty (`BANDS`).

        What was dug too little or guesses too often is thrown away, solution and all.
        """
        rng = self._generator(seed, size, difficulty, split)
        band = BANDS[size][difficulty]
        while True:
            cells, solution = random_puzzle(size, band.givens, rng, split)
            puzzle = Puzzle(self.name, size, size, cells, solution, f"{difficulty}-seed-{seed}", difficulty)
            if band.holds(self.measures(puzzle)):
                return puzzle

    # Drawing

    def symbol(self, value: int) -> str:
        """The digit, a letter from 10 on, nothing for a blank."""
        if value == 0:
            return ""
        return SYMBOLS[value - 1] if 1 <= value <= len(SYMBOLS) else "?"

    def blocks(self, puzzle: Puzzle) -> tuple[int, int] | None:
        """(rows, columns) of a box: (2, 3) for 6×6."""
        return BOX_SHAPES[self._size(puzzle)]


def _clashes(cells: Cells, size: int) -> list[set[tuple[int, str]]]:
    """Per cell: the units, as (index into its unit triple, kind), in which its digit stands more than once."""
    units = units_of_cells(size)
    found: list[set[tuple[int, str]]] = [set() for _ in cells]
    for index, kind in enumerate(("row", "column", "box")):
        holders: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for cell, value in enumerate(cells):
            if 1 <= value <= size:
                holders[units[cell][index], value].append(cell)
        for together in holders.values():
            if len(together) > 1:
                for cell in together:
                    found[cell].add((index, kind))
    return found


def _stuck(cells: Cells, size: int) -> list[bool]:
    """Per cell: whether each digit stands already in its row, column or box."""
    seen: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    units = units_of_cells(size)
    for value, unit in zip(cells, units, strict=True):
        if 1 <= value <= size:
            for kind, index in enumerate(unit):
                seen[kind, index].add(value)
    return [len(seen[0, row] | seen[1, column] | seen[2, box]) == size for row, column, box in units]


def _digit(mark: _Mark, size: int) -> int:
    """The value of a mark on a board of that size."""
    if mark.text in BLANKS:
        return 0
    value = int(mark.text) if mark.text.isdecimal() else SYMBOLS.index(mark.text.upper()) + 1
    if value > size:
        raise PuzzleError(f"{mark.where}: {mark.text} is too big for a {size}×{size} Sudoku (1 to {size})")
    return value


def _is_line_art(character: str) -> bool:
    return character == "|" or "\u2500" <= character <= "\u257f"  # the Unicode block of box-drawing characters


def _is_rule(line: str) -> bool:
    drawn = [character for character in line if not character.isspace()]
    return bool(drawn) and all(character in RULES or _is_line_art(character) for character in drawn)


def _text_rows(text: str) -> list[list[_Mark]]:
    """The marks of each line that has any.

    The same characters can be read in several ways; the first way that gives as many cells as a Sudoku has is taken, and
    where none does, the first way that makes sense of the text is what the error message counts. Ways in which gaps are
    blanks go first: read as mere separators, a 9×9 with 36 givens would pass for a full 6×6.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip() and not _is_rule(line)]
    first = None
    for read in (_gaps_are_blanks, _empty_fields_are_blanks, _numbers, _characters):
        rows = read(lines)
        if rows is not None and sum(map(len, rows)) in SIZES:
            return [row for row in rows if row]
        first = first or rows
    return first or [[]]


def _gaps_are_blanks(lines: list[tuple[int, str]]) -> list[list[_Mark]] | None:
    """n lines of exactly n characters, blanks left as spaces."""
    bare = [(number, "".join(" " if c == "\t" else c for c in line if not _is_line_art(c))) for number, line in lines]
    widths = {len(line) for _, line in bare}
    if widths != {len(bare)} or len(bare) not in BOX_SHAPES or not any(" " in line for _, line in bare):
        return None
    return _characters([(number, line.replace(" ", ".")) for number, line in bare])


def _empty_fields_are_blanks(lines: list[tuple[int, str]]) -> list[list[_Mark]] | None:
    """Fields between commas, semicolons or tabs, of which some are empty."""
    separator = next((mark for mark in ",;\t" if any(mark in line for _, line in lines)), None)
    if separator is None:
        return None
    rows = []
    for number, line in lines:
        row, column = [], 1
        for field in line.split(separator):
            text = field.strip(' "')
            start = column + len(field) - len(field.lstrip(' "'))
            row.append(_Mark(text or ".", f"line {number}, column {start}"))
            column += len(field) + 1
        rows.append(row)
    return rows if all(_is_number_or_cell(mark.text) for row in rows for mark in row) else None


def _numbers(lines: list[tuple[int, str]]) -> list[list[_Mark]] | None:
    """Cells of one or two characters between separators: how 10 to 16 are written in digits."""
    rows = []
    for number, line in lines:
        row, column = [], 1
        for word in "".join(" " if _is_separator(c) else c for c in line).split(" "):
            if word:
                row.append(_Mark(word, f"line {number}, column {column}"))
            column += len(word) + 1
        rows.append(row)
    words = [mark.text for row in rows for mark in row]
    if {len(word) for word in words} != {1, 2}:
        return None
    return rows if all(map(_is_number_or_cell, words)) else None


def _is_number_or_cell(word: str) -> bool:
    return word in CELLS or (len(word) == 2 and word.isascii() and word.isdecimal())


def _characters(lines: list[tuple[int, str]]) -> list[list[_Mark]]:
    """Every character that is no separator is a cell."""
    rows = []
    for number, line in lines:
        row = []
        for column, character in enumerate(line, 1):
            if _is_separator(character):
                continue
            where = f"line {number}, column {column}"
            if character in RULES:
                raise PuzzleError(f"{where}: {shown(character)} may only stand in rules between rows; write blanks as 0 . _ * or x")
            if character not in CELLS:
                raise PuzzleError(f"{where}: {shown(character)} is no digit; write blanks as 0 . _ * or x")
            row.append(_Mark(character, where))
        rows.append(row)
    return rows


def _is_separator(character: str) -> bool:
    return character.isspace() or character in ',;"' or _is_line_art(character)


def _json_rows(text: str) -> list[list[_Mark]]:
    """The marks of a JSON list of cells, or of rows; a row is a list of cells or a string."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise PuzzleError("the text starts like a JSON list but is none: check brackets and commas") from None
    if not any(isinstance(item, list) for item in data):
        if data and all(isinstance(item, str) and len(item) > 1 for item in data):
            return _text_rows("\n".join(data))
        return [[_json_mark(item, f"cell {index}") for index, item in enumerate(data, 1)]]
    rows = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, list):
            raise PuzzleError(f"row {number}: expected a list of cells like the other rows")
        rows.append([_json_mark(item, f"row {number}, column {column}") for column, item in enumerate(row, 1)])
        if not row:
            raise PuzzleError(f"row {number} has no cells")
    return rows


def _json_mark(item: Any, where: str) -> _Mark:
    if item is None or item == "" or item == " ":
        return _Mark(".", where)
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= len(SYMBOLS):
        return _Mark(str(item), where)
    if isinstance(item, str) and (item in CELLS or item in map(str, range(10, len(SYMBOLS) + 1))):
        return _Mark(item, where)
    kind = "a list" if isinstance(item, list) else "an object" if isinstance(item, dict) else ascii(item)[:40]
    raise PuzzleError(f"{where}: {kind} is no cell; use whole numbers, 0 or null for blank")
