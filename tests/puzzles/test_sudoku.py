"""Sudoku: every usual text form against one known grid, the refusals word for word, rules and difficulty."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Puzzle, get_domain, sudoku
from laser_studio.puzzles.sudoku import BANDS
from laser_studio.puzzles.sudoku_rules import (
    Search,
    SearchTooLongError,
    count_solutions,
    guesses_to_prove,
    random_puzzle,
    random_solution,
    relabelled,
)

SUDOKU = get_domain("sudoku")

# The example of the Wikipedia article on Sudoku, and its solution.
LINE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
CELLS = tuple(map(int, LINE))
ROWS = [LINE[start : start + 9] for start in range(0, 81, 9)]


def boxed(rows: list[str], rule: str = "------+-------+------", bar: str = "|") -> str:
    drawn = [f" {bar} ".join(" ".join(row[c : c + 3]) for c in (0, 3, 6)) for row in rows]
    return "\n".join([*drawn[:3], rule, *drawn[3:6], rule, *drawn[6:]])


FORMS = {
    "one line": LINE,
    "one line with dots": LINE.replace("0", "."),
    "one line with underscores": LINE.replace("0", "_"),
    "one line with stars": LINE.replace("0", "*"),
    "one line with x": LINE.replace("0", "x"),
    "one line with X": LINE.replace("0", "X"),
    "rows": "\n".join(ROWS),
    "rows and empty lines": "\n\n" + "\n\n".join(ROWS) + "\n\n",
    "CRLF": "\r\n".join(ROWS) + "\r\n",
    "old Mac": "\r".join(ROWS),
    "BOM": "\ufeff" + "\r\n".join(ROWS),
    "spaces between cells": "\n".join(" ".join(row) for row in ROWS),
    "one line with spaces": " ".join(LINE),
    "words of three": "\n".join(" ".join((row[:3], row[3:6], row[6:])) for row in ROWS),
    "boxes": boxed(ROWS),
    "boxes with a frame": "+---+---+---+\n" + "\n".join(f"|{row[:3]}|{row[3:6]}|{row[6:]}|" for row in ROWS) + "\n+===+===+===+",
    "boxes in line drawing": boxed(ROWS, "──────┼───────┼──────", "│"),
    "blanks as spaces": "\n".join(row.replace("0", " ") for row in ROWS),
    "blanks as spaces in boxes": "\n".join(f"|{row[:3]}|{row[3:6]}|{row[6:]}|".replace("0", " ") for row in ROWS),
    "CSV": "\n".join(",".join(row) for row in ROWS),
    "CSV with empty fields": "\n".join(",".join(row).replace("0", "") for row in ROWS),
    "CSV with quotes": "\n".join(",".join(f'"{c}"' for c in row) for row in ROWS),
    "CSV in one line": ",".join(LINE),
    "CSV in one line with empty fields": ",".join(LINE).replace("0", ""),
    "CSV with commas at the end": "\n".join(",".join(row) + "," for row in ROWS),
    "semicolons": "\n".join(";".join(row) for row in ROWS),
    "spreadsheet": "\n".join("\t".join(row).replace("0", "") for row in ROWS),
    "indented with tabs": "\n".join("\t" + row for row in ROWS),
    "JSON rows": json.dumps([[int(c) for c in row] for row in ROWS]),
    "JSON rows with null": json.dumps([[int(c) or None for c in row] for row in ROWS]),
    "JSON rows of strings": json.dumps([list(row.replace("0", ".")) for row in ROWS]),
    "JSON lines": json.dumps(ROWS, indent=1),
    "JSON flat": json.dumps(CELLS),
    "JSON one string": json.dumps([LINE]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_reads_the_same(form: str) -> None:
    assert SUDOKU.parse(FORMS[form]) == Puzzle("sudoku", 9, 9, CELLS)


def test_36_givens_in_a_9x9_with_gaps_are_no_6x6() -> None:
    """Dropping the gaps as separators leaves 36 digits, a count that a 6×6 has too."""
    cells = [int(SOLVED[i]) if i % 9 < 4 else 0 for i in range(81)]
    rows = [cells[start : start + 9] for start in range(0, 81, 9)]
    for separator in ("", ",", "\t"):
        text = "\n".join(separator.join(str(value or (" " if not separator else "")) for value in row) for row in rows)
        assert SUDOKU.parse(text).cells == tuple(cells)


@pytest.mark.parametrize("size", [4, 6, 9, 16])
@settings(max_examples=30)
@given(data=st.data())
def test_parse_and_decode_undo_format_and_encode(size: int, data: st.DataObject) -> None:
    cells = tuple(data.draw(st.lists(st.integers(0, size), min_size=size**2, max_size=size**2)))
    puzzle = Puzzle("sudoku", size, size, cells)
    assert SUDOKU.parse(SUDOKU.format(puzzle)) == puzzle
    assert SUDOKU.decode(SUDOKU.encode(puzzle)) == cells
    rows = [list(cells[start : start + size]) for start in range(0, size**2, size)]
    assert SUDOKU.parse(json.dumps(rows)) == puzzle
    assert SUDOKU.parse("\n".join(", ".join(map(str, row)) for row in rows)) == puzzle
    assert SUDOKU.parse("\n".join(" ".join(f"{value:2d}" for value in row) for row in rows)) == puzzle


REFUSALS = {
    LINE[:80]: "80 cells: a Sudoku has 16, 36, 81 or 256",
    LINE + "1": "82 cells: a Sudoku has 16, 36, 81 or 256",
    "\n".join([*ROWS[:8], ROWS[8][:8]]): "80 cells: a Sudoku has 16, 36, 81 or 256",
    "\n".join(",".join(row) for row in [*ROWS[:8], ROWS[8][:8]]): "80 cells: a Sudoku has 16, 36, 81 or 256",
    "\n".join(",".join(row) for row in [*ROWS[:8], ROWS[8][:8]]).replace("0", ""): "80 cells: a Sudoku has 16, 36, 81 or 256",
    " ".join(["16"] * 100 + ["7"] * 155): "255 cells: a Sudoku has 16, 36, 81 or 256",
    "1234\n": "4 cells: a Sudoku has 16, 36, 81 or 256",
    "-----": "0 cells: a Sudoku has 16, 36, 81 or 256",
    "[]": "0 cells: a Sudoku has 16, 36, 81 or 256",
    ROWS[0] + "\n" + "6001q5000": "line 2, column 5: 'q' is no digit; write blanks as 0 . _ * or x",
    "1234\n3412\n21A3\n4321": "line 3, column 3: A is too big for a 4×4 Sudoku (1 to 4)",
    "1234\n3412\n2183\n4321": "line 3, column 3: 8 is too big for a 4×4 Sudoku (1 to 4)",
    "1,2,3,4,3,4,1,2,2,1,4,17,4,3,2,1": "line 1, column 23: 17 is too big for a 4×4 Sudoku (1 to 4)",
    "1 2 3 4\n3 4 1 2 2\n1 4 3\n4 3 2 1": "line 2 has 5 cells: a row of a 4×4 Sudoku has 4",
    "12-4\n3412\n2143\n4321": "line 1, column 3: '-' may only stand in rules between rows; write blanks as 0 . _ * or x",
    "1234\n34\x1b2\n2143\n4321": r"line 2, column 3: '\x1b' is no digit; write blanks as 0 . _ * or x",
    "\u0661234\n3412\n2143\n4321": "line 1, column 1: '\u0661' is no digit; write blanks as 0 . _ * or x",
    "[[1,2],[3": "the text starts like a JSON list but is none: check brackets and commas",
    "[" * 50_000: "the text starts like a JSON list but is none: check brackets and commas",
    "[" + "9" * 5_000 + "]": "the text starts like a JSON list but is none: check brackets and commas",
    "[[1,2,3,4],[1,2,3,4],5,[1,2,3,4]]": "row 3: expected a list of cells like the other rows",
    "[[1,2,3,4],[1,2,3.5,4]]": "row 2, column 3: 3.5 is no cell; use whole numbers, 0 or null for blank",
    "[[1,2,3,4],[1,2,true,4]]": "row 2, column 3: True is no cell; use whole numbers, 0 or null for blank",
    "[[1,2,3,4],[1,2,[3],4]]": "row 2, column 3: a list is no cell; use whole numbers, 0 or null for blank",
    "[[1,2,3,4],[1,2,{},4]]": "row 2, column 3: an object is no cell; use whole numbers, 0 or null for blank",
    "[[1,2,3,4],[1,2,-3,4]]": "row 2, column 3: -3 is no cell; use whole numbers, 0 or null for blank",
    "[[1,2,3,4],[]]": "row 2 has no cells",
    "[[1,2,3,4],[3,4,1,2,1],[1,2,3],[1,2,3,4]]": "row 2 has 5 cells: a row of a 4×4 Sudoku has 4",
    json.dumps([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 9]]): "row 4, column 4: 9 is too big for a 4×4 Sudoku (1 to 4)",
    " \r\n \t": "the puzzle is empty: type or paste its cells",
    "": "the puzzle is empty: type or paste its cells",
    "1" * 100_001: "100,001 characters are too many for one puzzle (at most 100,000)",
}


@pytest.mark.parametrize("text", REFUSALS, ids=lambda text: ascii(text)[:40])
def test_what_is_no_sudoku_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(PuzzleError) as caught:
        SUDOKU.parse(text)
    assert str(caught.value) == REFUSALS[text]


def test_16x16_takes_numbers_and_letters() -> None:
    numbers = [[(4 * (r % 4) + r // 4 + c) % 16 + 1 for c in range(16)] for r in range(16)]
    by_numbers = SUDOKU.parse("\n".join(" ".join(map(str, row)) for row in numbers))
    by_letters = SUDOKU.parse("\n".join("".join("123456789abcdefG"[value - 1] for value in row) for row in numbers))
    assert by_numbers == by_letters and by_numbers.shape == (16, 16) and SUDOKU.blocks(by_numbers) == (4, 4)
    assert SUDOKU.validate(by_numbers) == [] and SUDOKU.compare(by_numbers, by_numbers.cells).solved
    assert SUDOKU.vocab_size(by_numbers) == 18 and SUDOKU.symbol(16) == "G"


def test_official_tokens() -> None:
    assert SUDOKU.encode(SUDOKU.parse(LINE))[:5].tolist() == [6, 4, 1, 1, 8]
    assert [SUDOKU.vocab_size(size) for size in (4, 6, 9)] == [6, 8, 11]
    assert SUDOKU.decode(np.full(36, 7)) == (6,) * 36 and SUDOKU.decode(np.full(36, 8)) == (-1,) * 36
    with pytest.raises(PuzzleError, match="35 tokens: a Sudoku has 16, 36, 81 or 256"):
        SUDOKU.decode(np.ones(35))


def test_clashes_parse_and_are_labelled_cell_by_cell() -> None:
    puzzle = SUDOKU.parse("1..1 .... .1.. ....")
    assert [(issue.row, issue.column, issue.message) for issue in SUDOKU.validate(puzzle)] == [
        (0, 0, "1 stands more than once in row 1"),
        (0, 3, "1 stands more than once in row 1"),
    ]
    assert SUDOKU.solve(puzzle) is None and SUDOKU.with_solution(puzzle) == puzzle
    both = SUDOKU.validate(SUDOKU.parse("11.. .... .... ...."))
    assert [issue.message for issue in both] == ["1 stands more than once in row 1 and box 1", "1 stands more than once in row 1 and box 1"]


def test_boxes_of_6x6_are_two_rows_by_three_columns() -> None:
    def places(*cells: int) -> list[str]:
        grid = Puzzle("sudoku", 6, 6, tuple(int(cell in cells) for cell in range(36)))
        return [issue.message for issue in SUDOKU.validate(grid)]

    assert places(0, 8) == ["1 stands more than once in box 1"] * 2  # row 1 column 1, row 2 column 3
    assert places(0, 13) == [] and places(0, 9) == []
    assert places(22, 27) == []
    assert places(27, 34) == ["1 stands more than once in box 6"] * 2


def test_a_blank_that_no_digit_fits_is_labelled() -> None:
    issues = SUDOKU.validate(SUDOKU.parse(".123 4... .... ...."))
    assert [(issue.row, issue.column) for issue in issues] == [(0, 0)]
    assert issues[0].message.startswith("no digit fits here")


def test_comparison_without_a_solution_goes_by_the_rules() -> None:
    puzzle = SUDOKU.parse(LINE)
    answer = list(map(int, SOLVED))
    assert SUDOKU.compare(puzzle, answer).solved is True
    answer[2] = 5  # clashes with the given 5 in the same row and box, and with an own 5 in column 3
    other = next(row * 9 + 2 for row in range(1, 9) if SOLVED[row * 9 + 2] == "5")
    result = SUDOKU.compare(puzzle, answer)
    blamed = {cell for cell, wrong in enumerate(result.wrong) if wrong}
    assert blamed == {2, other} - {cell for cell in (other,) if CELLS[cell]}
    assert not result.solved and result.total == 51 and result.right == 51 - len(blamed)
    answer[2], answer[0] = 4, 0
    emptied = SUDOKU.compare(puzzle, answer)
    assert [cell for cell, wrong in enumerate(emptied.wrong) if wrong] == [0], "a given that was lost"
    blank = SUDOKU.compare(puzzle, CELLS)
    assert (blank.right, any(blank.wrong), blank.solved) == (0, False, False)
    assert SUDOKU.compare(replace(puzzle, solution=tuple(map(int, SOLVED))), CELLS).wrong == tuple(value == 0 for value in CELLS)


def test_another_valid_solution_is_right_too() -> None:
    puzzle = SUDOKU.parse("." * 16)
    first, second = SUDOKU.solutions(puzzle, 2)
    result = SUDOKU.compare(replace(puzzle, solution=first), second)
    assert result.solved and not any(result.wrong) and result.right == 16
    assert SUDOKU.with_solution(puzzle).solution is None


def brute_force(cells: tuple[int, ...], size: int, rows: int, columns: int) -> list[tuple[int, ...]]:
    """All solutions, by trying each digit in each blank in turn: slow, and sharing no code with the solver."""
    if 0 not in cells:
        return [cells]
    at = cells.index(0)
    r, c = divmod(at, size)
    taken = {
        value
        for other, value in enumerate(cells)
        if other // size == r or other % size == c or (other // size // rows == r // rows and other % size // columns == c // columns)
    }
    found = []
    for digit in range(1, size + 1):
        if digit not in taken:
            found += brute_force((*cells[:at], digit, *cells[at + 1 :]), size, rows, columns)
    return found


@pytest.mark.parametrize(("size", "rows", "columns"), [(4, 2, 2), (6, 2, 3)])
def test_the_solver_finds_what_brute_force_finds(size: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(size)
    several = 0
    for _ in range(12):
        solution = random_solution(size, rng)
        cells = tuple(value if rng.random() < 0.45 else 0 for value in solution)
        wanted = brute_force(cells, size, rows, columns)
        assert set(SUDOKU.solutions(Puzzle("sudoku", size, size, cells), 10_000)) == set(wanted) and solution in wanted
        several += len(wanted) > 1
    assert several > 3
    assert len(brute_force((0,) * 16, 4, 2, 2)) == 288 == count_solutions((0,) * 16, 1_000)  # the known number of 4×4 grids


def test_a_search_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search((0,) * 81, budget=3)
    with pytest.raises(SearchTooLongError):
        search.solutions(10**9)
    assert search.guesses == 4
    monkeypatch.setattr(sudoku, "SEARCH_BUDGET", 20)
    trap = SUDOKU.parse("..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9")  # made against such searches
    with pytest.raises(PuzzleError, match="no answer after 20 guesses"):
        SUDOKU.solve(trap)
    assert SUDOKU.with_solution(trap) == trap
    assert Search((0,) * 81, budget=10_000).solutions(1) == Search((0,) * 81).solutions(1)


@pytest.mark.parametrize("size", BANDS)
def test_difficulty_is_givens_and_guesses_that_do_not_depend_on_names(size: int) -> None:
    rng = np.random.default_rng(5)
    for difficulty, band in BANDS[size].items():
        puzzle = SUDOKU.generate(11, size=size, difficulty=difficulty)
        measures = SUDOKU.measures(puzzle)
        assert band.holds(measures) and measures["givens"] == sum(map(bool, puzzle.cells))
        names = (0, *(rng.permutation(size) + 1).tolist())
        assert guesses_to_prove(tuple(names[value] for value in puzzle.cells)) == measures["guesses"]
    givens = [band.givens for band in BANDS[size].values()]
    assert givens == sorted(givens, reverse=True)
    if size == 6:
        assert all(14 <= low <= high <= 24 for low, high in givens[:2]), "the givens the demo is judged by"


def test_what_training_runs_draw_has_not_changed() -> None:
    """Golden values: a resumed training run must go on with the very puzzles it began with."""
    rng = np.random.default_rng([0, 6, False])
    puzzle, solution = random_puzzle(6, (9, 18), rng, "train")
    assert "".join(map(str, solution)) == "256134143652415326632415561243324561"
    assert "".join(map(str, puzzle)) == "006104100600410320602405001040300560"
    assert relabelled((0, 3, 1, 3, 0, 2)) == (0, 1, 2, 1, 0, 3)
