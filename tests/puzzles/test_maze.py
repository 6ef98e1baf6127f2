"""Mazes: drawings and their refusals, shortest paths against another method, what carving promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import DIFFICULTIES, Puzzle, get_domain
from laser_studio.puzzles.maze_rules import GOAL, OPEN, PATH, START, WALL, carve, neighbours, shortest_paths, split_of

MAZE = get_domain("maze")
DRAWING = "#####\n#S  #\n### #\n#G  #\n#####"
SOLVED = "#####\n#Soo#\n###o#\n#Goo#\n#####"


@pytest.mark.parametrize(
    "text",
    [
        DRAWING,
        DRAWING.replace("\n", "\r\n") + "\r\n",
        "\ufeff\n\n" + DRAWING + "\n\n  \n",
        DRAWING.replace(" ", "."),
        DRAWING.replace("#", "█").replace(" ", "_").lower(),
        json.dumps(DRAWING.split("\n")),
        json.dumps([list(row) for row in DRAWING.split("\n")]),
    ],
)
def test_drawings(text: str) -> None:
    puzzle = MAZE.parse(text)
    assert puzzle.shape == (5, 5) and puzzle.solution is None
    assert MAZE.format(puzzle) == DRAWING
    assert MAZE.format_cells(MAZE.solve(puzzle) or (), (5, 5)) == SOLVED
    assert MAZE.encode(puzzle)[:10].tolist() == [1, 1, 1, 1, 1, 1, 3, 2, 2, 1]


def test_path_marks_are_the_solution() -> None:
    puzzle = MAZE.parse(SOLVED)
    assert puzzle == MAZE.with_solution(MAZE.parse(DRAWING)) and PATH not in puzzle.cells
    with pytest.raises(PuzzleError, match=r"row 2, column 3: the path marks \(o\) are not a shortest path from S to G"):
        MAZE.parse(SOLVED.replace("Soo", "So "))


def test_the_official_one_line_form_of_a_square() -> None:
    puzzle = MAZE.generate(3, size=9)
    assert MAZE.parse(MAZE.format(puzzle).replace("\n", "")).cells == puzzle.cells
    corridor = MAZE.parse("S" + " " * 47 + "G")  # 49 cells, but a row of its own
    assert corridor.shape == (1, 49)


REFUSALS = {
    "###\n#S#\n#G\n": "row 3 lacks column 3: it has 2 cells, row 1 has 3; all rows must be equally long",
    "###\n#S##\n#G#\n": "row 2 goes on at column 4: it has 4 cells, row 1 has 3; all rows must be equally long",
    "###\n\n#SG": "row 2 lacks column 1: it has 0 cells, row 1 has 3; all rows must be equally long",
    "###\n# #\n#G#": "the maze has no start (S): a maze has exactly one",
    "###\n# #\n#S#": "the maze has no goal (G): a maze has exactly one",
    "#S#\n# S\n#G#": "row 2, column 3: a second start (S); a maze has exactly one",
    "#S#\n# G\n#G#": "row 3, column 2: a second goal (G); a maze has exactly one",
    "#S#\n#X#\n#G#": "row 2, column 2: 'X' is no maze cell; use # (wall), space, S, G and o",
    "#S#\n#\t#\n#G#": r"row 2, column 2: '\t' is no maze cell; use # (wall), space, S, G and o",
    "#S#\n#\x1b#\n#G#": r"row 2, column 2: '\x1b' is no maze cell; use # (wall), space, S, G and o",
    "#" * 1000: "row 1 has 1000 cells: column 65 is one too many, a maze has at most 64 × 64 cells",
    "\n".join(["#" * 65] * 3): "row 1 has 65 cells: column 65 is one too many, a maze has at most 64 × 64 cells",
    "\n".join(["#" * 9] * 65): "65 rows: row 65 is one too many, a maze has at most 64 × 64 cells",
    "\n".join(["#" * 1000] * 1000): "1,000,999 characters are too many for one puzzle (at most 100,000)",
    "[1, 2]": "row 1: a row of a maze is a string of # (wall), space, S, G and o",
    '["##", {}]': "row 2: a row of a maze is a string of # (wall), space, S, G and o",
    '["##", ': "the text starts like a JSON list but is none: check brackets and commas",
    "[]": "the puzzle is empty: type or paste its cells",
    '[""]': "row 1 has no cells",
    "\n \n": "the puzzle is empty: type or paste its cells",
}


@pytest.mark.parametrize("text", REFUSALS, ids=lambda text: ascii(text)[:40])
def test_what_is_no_maze_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(PuzzleError) as caught:
        MAZE.parse(text)
    assert str(caught.value) == REFUSALS[text]


@st.composite
def mazes(draw: st.DrawFn) -> Puzzle:
    """Any walls, with start and goal somewhere: loops, open fields and unreachable goals included."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(2, 7))
    cells = draw(st.lists(st.sampled_from((WALL, OPEN, OPEN)), min_size=height * width, max_size=height * width))
    start, goal = draw(st.lists(st.integers(0, height * width - 1), min_size=2, max_size=2, unique=True))
    cells[start], cells[goal] = START, GOAL
    return Puzzle("maze", height, width, tuple(cells))


@given(puzzle=mazes())
def test_parse_and_decode_undo_format_and_encode(puzzle: Puzzle) -> None:
    assert MAZE.parse(MAZE.format(puzzle)) == puzzle
    assert MAZE.decode(MAZE.encode(puzzle), puzzle.shape) == puzzle.cells
    assert MAZE.vocab_size(puzzle) == 6


def all_shortest_paths(puzzle: Puzzle) -> set[tuple[int, ...]]:
    """Every shortest path, from powers of the adjacency matrix and plain backtracking: another method than the solver's."""
    n = len(puzzle.cells)
    adjacent = np.zeros((n, n), dtype=bool)
    for cell in range(n):
        for other in neighbours(cell, *puzzle.shape):
            adjacent[cell, other] = puzzle.cells[cell] != WALL and puzzle.cells[other] != WALL
    start, goal = puzzle.cells.index(START), puzzle.cells.index(GOAL)
    reach = np.zeros(n, dtype=bool)
    reach[start] = True
    length = 0
    while not reach[goal]:
        wider = reach | (adjacent @ reach)
        if (wider == reach).all():
            return set()
        reach, length = wider, length + 1

    paths: list[tuple[int, ...]] = [(start,)]
    for _ in range(length):
        paths = [(*path, other) for path in paths for other in np.flatnonzero(adjacent[path[-1]]).tolist() if other not in path]
    return {path for path in paths if path[-1] == goal}


@given(puzzle=mazes().filter(lambda puzzle: len(puzzle.cells) <= 20))
def test_solver_judge_and_labels_agree_with_another_method(puzzle: Puzzle) -> None:
    wanted = all_shortest_paths(puzzle)
    start, goal = puzzle.cells.index(START), puzzle.cells.index(GOAL)
    assert {tuple(path) for path in shortest_paths(puzzle.cells, *puzzle.shape, start, goal, 1_000)} == wanted
    for path in wanted:
        answer = tuple(PATH if cell in path[1:-1] else value for cell, value in enumerate(puzzle.cells))
        assert MAZE.compare(puzzle, answer).solved
    assert MAZE.measures(puzzle)["path"] == (len(next(iter(wanted))) - 1 if wanted else 0)
    issues = MAZE.validate(puzzle)
    if wanted:
        assert issues == []
    else:
        assert [(issue.row, issue.column) for issue in issues] == [divmod(goal, puzzle.width)]
        assert MAZE.solve(puzzle) is None and not MAZE.compare(puzzle, puzzle.cells).solved
    assert (MAZE.with_solution(puzzle).solution is not None) == (len(wanted) == 1)


def test_an_unreachable_goal_parses_and_is_labelled() -> None:
    puzzle = MAZE.parse("#####\n#S#G#\n#####")
    (issue,) = MAZE.validate(puzzle)
    assert (issue.row, issue.column, issue.message) == (1, 3, "no path leads from the start (S) to this goal (G)")


def test_mazes_made_by_hand_are_labelled_too() -> None:
    two = Puzzle("maze", 1, 5, (START, OPEN, GOAL, START, PATH))
    assert [(issue.column, issue.message) for issue in MAZE.validate(two)] == [
        (3, "a second start (S); a maze has exactly one"),
        (4, "a path mark belongs in the answer, not in the maze"),
    ]
    assert MAZE.solve(two) is None and MAZE.measures(two) == {"path": 0}
    assert [issue.message for issue in MAZE.validate(Puzzle("maze", 1, 2, (OPEN, GOAL)))] == [
        "the maze has no start (S): a maze has exactly one"
    ]


@pytest.mark.parametrize(
    ("answer", "solved"),
    [
        ("S oo\n    \nG   ", False),  # marks off every shortest path
        ("S   \no   \nG   ", True),
        ("So  \n    \nG   ", False),
        ("S   \n    \nG   ", False),
    ],
)
def test_answers_where_no_solution_is_known(answer: str, solved: bool) -> None:
    puzzle = MAZE.parse("S   \n    \nG   ")
    cells = tuple({" ": OPEN, "o": PATH, "S": START, "G": GOAL}[mark] for mark in answer.replace("\n", ""))
    result = MAZE.compare(puzzle, cells)
    assert result.solved is solved
    assert [cell for cell, w in enumerate(result.wrong) if w] == [cell for cell, v in enumerate(cells) if v == PATH and cell != 4]


def test_any_shortest_path_solves_even_where_another_is_on_file() -> None:
    field = MAZE.parse("S \n G")
    first, second = MAZE.solutions(field, 5)
    assert first != second
    known = replace(field, solution=first)
    assert MAZE.compare(known, second).solved and not any(MAZE.compare(known, second).wrong)
    both = tuple(max(a, b) for a, b in zip(first, second, strict=True))
    assert MAZE.compare(known, both).solved is False
    assert MAZE.compare(known, field.cells).right == 1


@pytest.mark.parametrize("size", [3, 9, 21])
def test_carved_mazes_are_perfect(size: int) -> None:
    """A tree: all open cells connected, with one edge fewer than cells. Walls all round."""
    for seed in range(5):
        cells = carve(size, np.random.default_rng(seed))
        grid = np.asarray(cells).reshape(size, size)
        assert (grid[[0, -1]] == WALL).all() and (grid[:, [0, -1]] == WALL).all()
        assert (grid[1::2, 1::2] == OPEN).all() and (grid[2:-1:2, 2:-1:2] == WALL).all()
        inside = np.flatnonzero(grid)
        edges = sum(cells[other] == OPEN for cell in inside.tolist() for other in neighbours(cell, size, size)) // 2
        assert edges == len(inside) - 1
        reached, frontier = {int(inside[0])}, [int(inside[0])]
        while frontier:
            frontier = [
                other for cell in frontier for other in neighbours(cell, size, size) if cells[other] == OPEN and other not in reached
            ]
            reached.update(frontier)
        assert len(reached) == len(inside)


def test_difficulty_is_the_length_of_the_path() -> None:
    ranges = {"easy": (4, 9), "medium": (10, 18), "hard": (19, 81)}
    for difficulty in DIFFICULTIES:
        low, high = ranges[difficulty]
        lengths = [MAZE.measures(MAZE.generate(seed, size=9, difficulty=difficulty))["path"] for seed in range(12)]
        assert all(low <= length <= high for length in lengths) and len(set(lengths)) > 1


def test_the_split_does_not_see_turns_mirrors_or_ends() -> None:
    sides = set()
    for seed in range(20):
        puzzle = MAZE.generate(seed, size=9, split="train" if seed % 2 else "held-out")
        grid = np.asarray(puzzle.cells).reshape(9, 9)
        bare = np.where(grid == WALL, WALL, OPEN)
        views = [np.rot90(g, k) for g in (bare, bare.T) for k in range(4)]
        assert {split_of(tuple(view.ravel().tolist()), 9, 9) for view in views} == {split_of(puzzle.cells, 9, 9)}
        sides.add(split_of(puzzle.cells, 9, 9))
    assert sides == {"train", "held-out"}
    wide = Puzzle("maze", 2, 3, (START, OPEN, WALL, WALL, GOAL, WALL))
    turned = np.rot90(np.asarray(wide.cells).reshape(2, 3)).ravel().tolist()
    assert split_of(wide.cells, 2, 3) == split_of(tuple(turned), 3, 2)
