"""ARC tasks: what is read and refused, boards and cropping against the official rule, names of augmented tasks, answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import INVALID, Picture, parse_puzzle
from laser_studio.puzzles.arc import END, OUTSIDE, PALETTE, Arc, crop, grid_on, picture_of
from laser_studio.puzzles.arc_images import TaskImage, read_image
from laser_studio.puzzles.arc_tasks import arc_tasks
from laser_studio.puzzles.sources.arckit_source import task_named, task_puzzle

ARC = Arc()
TASK: dict[str, Any] = {
    "train": [{"input": [[1, 0]], "output": [[0, 1], [1, 0]]}, {"input": [[2]], "output": [[3]]}],
    "test": [{"input": [[1, 2, 3], [4, 5, 6]], "output": [[7, 8], [9, 0]]}, {"input": [[5]]}],
}


def changed(*path: Any, to: Any) -> str:
    """The task as text with one part replaced."""
    data: Any = json.loads(json.dumps(TASK))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(data)


def official_crop(board: np.ndarray) -> np.ndarray:
    """`_crop` of the official ARC evaluation, over tokens."""
    largest, size = 0, (0, 0)
    columns = board.shape[1]
    for rows in range(1, board.shape[0] + 1):
        for column in range(1, columns + 1):
            token = board[rows - 1, column - 1]
            if token < 2 or token > 11:
                columns = column - 1
                break
        if rows * columns > largest:
            largest, size = rows * columns, (rows, columns)
    return board[: size[0], : size[1]] - 2


def test_a_task_is_read_with_its_demonstrations_and_all_its_tests() -> None:
    first, second = ARC.from_task(TASK, name="abc")
    assert first == replace(ARC.parse(json.dumps(TASK)), name="abc:1", task="abc")
    assert parse_puzzle("\ufeff" + json.dumps(TASK)).domain == "arc"
    assert first.shape == (30, 30) and second.solution is None and second.name == "abc:2"
    assert first.demonstrations[0] == (Picture(1, 2, (1, 0)), Picture(2, 2, (0, 1, 1, 0)))
    assert grid_on(first.cells, first.shape) == crop(first.cells, first.shape) == Picture(2, 3, (1, 2, 3, 4, 5, 6))
    assert ARC.format(first) == "123\n456"
    assert ARC.parse("123\r\n456\n").cells == ARC.parse("[[1,2,3],[4,5,6]]").cells == ARC.parse("1 2 3\n4,5,6").cells == first.cells


def test_boards_have_the_official_tokens() -> None:
    puzzle = ARC.fitted(ARC.from_task(TASK)[0], 4)
    assert ARC.encode(puzzle).reshape(4, 4).tolist() == [[3, 4, 5, 1], [6, 7, 8, 1], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert (puzzle.cells[3], puzzle.cells[11]) == (END, OUTSIDE)
    solution = ARC.encode_solution(puzzle)
    assert solution is not None and solution.reshape(4, 4)[:3].tolist() == [[9, 10, 1, 0], [11, 2, 1, 0], [1, 1, 0, 0]]
    assert ARC.decode(ARC.encode(puzzle), (4, 4)) == puzzle.cells
    assert ARC.decode([0, 1, 2, 11, 12, -1]) == (OUTSIDE, END, 0, 9, INVALID, INVALID)
    assert ARC.vocab_size(puzzle) == 12 and [ARC.token(value) for value in (0, 9, END, OUTSIDE, INVALID)] == [2, 11, 1, 0, 0]
    with pytest.raises(PuzzleError, match=r"row 1, column 2: 12 is no cell value"):
        ARC.encode(replace(puzzle, cells=(0, 12, *puzzle.cells[2:])))


@given(st.lists(st.integers(-1, 12), min_size=36, max_size=36))
def test_answers_are_cropped_as_the_official_evaluation_does(tokens: list[int]) -> None:
    ours, theirs = crop(ARC.decode(tokens), (6, 6)), official_crop(np.asarray(tokens).reshape(6, 6))
    assert (ours is None) == (theirs.size == 0)
    if ours is not None:
        assert np.asarray(ours.cells).reshape(ours.height, ours.width).tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("test", 0, "input", to=[[1, 2], [3]]), "test 1, input, row 2 has 1 cells, row 1 has 2: all rows must be equally long"),
        (changed("train", 1, "output", 0, 0, to=10), r"demonstration 2, output, row 1, column 1: 10 is no colour \(0 to 9\)"),
        (changed("test", 0, "input", 1, 2, to=-1), r"test 1, input, row 2, column 3: -1 is no colour"),
        (changed("test", 0, "input", 1, 2, to=True), r"row 2, column 3: True is no colour"),
        (changed("test", 0, "input", 1, 2, to=1.5), r"row 2, column 3: 1.5 is no colour"),
        (changed("test", 0, "input", to=[[0]] * 31), "test 1, input has 31 rows: row 31 is one too many, a grid has at most 30 × 30 cells"),
        (changed("test", 0, "input", to=[[0] * 31]), "test 1, input, row 1 has 31 cells: column 31 is one too many"),
        (changed("test", to=[]), 'the task has no test: "test" is a list of at least one'),
        (json.dumps({"train": TASK["train"]}), "the task has no test"),
        (changed("train", 0, to={"input": [[1]]}), 'demonstration 1 has no "output"'),
        (changed("test", 0, to=[]), 'test 1 has no "input"'),
        (changed("test", 0, "input", to=[]), "test 1, input is no list of rows"),
        (changed("train", to="x"), '"train" and "test" are lists of at most 64 pairs'),
        ("{", "not valid JSON"),
        ('{"test": ' + "[" * 100_000, "not valid JSON"),
        ("[[1,2],[3,a]]", "not valid JSON"),
        ("12\n3a", "the grid, row 2, column 2: 'a' is no colour"),
        ("", "empty"),
        ("0" * 10_000_000, r"10,000,000 characters are too many for one ARC task \(at most 1,000,000\)"),
    ],
)
def test_what_is_no_task_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PuzzleError, match=message) as caught:
        ARC.parse(text)
    assert len(str(caught.value)) < 250


def test_an_answer_is_judged_by_its_cropped_grid() -> None:
    puzzle = ARC.fitted(ARC.from_task(TASK)[0], 4)
    known = puzzle.solution
    assert known is not None
    right = ARC.compare(puzzle, known)
    assert (right.right, right.total, right.solved, any(right.wrong)) == (4, 4, True, False)
    # Outside nothing is judged, and what the end markers hold off does not count.
    noise = tuple(5 if cell >= 12 else value for cell, value in enumerate(known))
    assert ARC.compare(puzzle, noise).solved
    off = ARC.compare(puzzle, (known[0] - 1, *known[1:]))
    assert (off.right, off.solved, [cell for cell, bad in enumerate(off.wrong) if bad]) == (3, False, [0])
    grown = tuple(3 if value == END else value for value in known)
    assert not ARC.compare(puzzle, grown).solved and sum(ARC.compare(puzzle, grown).wrong) == 4
    assert not ARC.compare(puzzle, (OUTSIDE,) * 16).solved and not ARC.compare(puzzle, (INVALID,) * 16).solved
    unknown = ARC.compare(replace(puzzle, solution=None), known)
    assert unknown.solved is None and not any(unknown.wrong)
    assert ARC.with_solution(replace(puzzle, solution=None)).solution is None and ARC.solutions(puzzle, 2) == [known]


def test_a_grid_too_large_for_a_board_says_which_it_needs() -> None:
    with pytest.raises(PuzzleError, match="a grid of 2×3 cells needs a board of 3×3, this one has 2×2"):
        ARC.fitted(ARC.from_task(TASK)[0], 2)
    moved = ARC.from_tokens([0, 0, 0, 0, 3, 4, 0, 5, 6], None, (3, 3))
    assert grid_on(moved.cells, (3, 3)) == Picture(2, 2, (1, 2, 3, 4)) and ARC.fitted(moved, 2).cells == (1, 2, 3, 4)
    for tokens, message in (
        ([0, 1, 0, 0], "no grid"),
        ([2, 12, 0, 0], "row 1, column 2: token 12 is none of ARC"),
        ([2, 0, 0, 2], "is no rectangle"),
    ):
        with pytest.raises(PuzzleError, match=message):
            ARC.from_tokens(tokens, None, (2, 2))


def test_no_task_can_be_generated_and_the_palette_has_ten_colours() -> None:
    with pytest.raises(PuzzleError, match="no ARC task can be generated"):
        ARC.generate(1, size=30)
    assert len(PALETTE) == len({colour for _, colour in PALETTE}) == 10 and ARC.generated_sizes == ()
    assert [ARC.symbol(value) for value in (0, 9, END, OUTSIDE, INVALID, 99)] == ["0", "9", "|", "", "?", "?"]


def test_all_tasks_of_arckit_go_onto_boards_and_back() -> None:
    for task in arc_tasks()[::20]:
        for place, (asked, wanted) in enumerate(task.tests):
            puzzle = task_puzzle(task, place)
            assert grid_on(puzzle.cells, puzzle.shape) == picture_of(asked)
            assert puzzle.solution is not None and crop(puzzle.solution, puzzle.shape) == picture_of(wanted)
            assert ARC.compare(puzzle, puzzle.solution).solved and len(puzzle.demonstrations) == len(task.demonstrations)


def official_turn(grid: np.ndarray, turn: int) -> np.ndarray:
    """`dihedral_transform` of the official data code."""
    return [
        lambda g: g, lambda g: np.rot90(g, k=1), lambda g: np.rot90(g, k=2), lambda g: np.rot90(g, k=3), np.fliplr, np.flipud,
        lambda g: g.T, lambda g: np.fliplr(np.rot90(g, k=1)),
    ][turn](grid)  # fmt: skip


@given(turn=st.integers(0, 7), colours=st.permutations(range(10)), seed=st.integers(0, 99))
def test_names_of_augmented_tasks_are_the_official_images_and_can_be_undone(turn: int, colours: list[int], seed: int) -> None:
    grid = np.random.default_rng(seed).integers(0, 10, (2 + seed % 3, 4), dtype=np.uint8)
    image = read_image(f"007bbfb7|||t{turn}|||{''.join(map(str, colours))}")
    assert np.array_equal(image.applied(grid), official_turn(np.asarray(colours, dtype=np.uint8)[grid], turn))
    assert np.array_equal(image.undone(image.applied(grid)), grid)
    assert read_image(image.text) == image and image.plain == (not image.words)


@pytest.mark.parametrize(
    "name", ["", "x" * 121, "a|||t8|||0123456789", "a|||t1|||0123456788", "a|||t1", "|||t1|||0123456789", "a|||1|||0123456789", "a\nb"]
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(PuzzleError, match="name of a"):
        read_image(name)


def test_an_augmented_name_finds_its_task() -> None:
    found = task_named("007bbfb7|||t1|||0213456789")
    assert found is not None and found[0].name == "007bbfb7" and found[1] == TaskImage("007bbfb7", 1, "0213456789")
    assert found[1].words == "turned 90°, colours 1→2 2→1"
    puzzle, plain = task_puzzle(found[0], 0, found[1]), task_puzzle(found[0], 0)
    grids = [grid_on(one.cells, one.shape) for one in (puzzle, plain)]
    assert grids[0] is not None and grids[1] is not None and grids[0] != grids[1]
    assert puzzle.task == "007bbfb7|||t1|||0213456789" and task_named("00000000") is None
