"""ARC boards against a plain statement of the official layout, and what turning a grid keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.puzzles.arc_rules import COLOURS, TURNS, VOCAB_SIZE, Grid, image, random_image, to_board

SAME = np.arange(COLOURS, dtype=np.uint8)


@st.composite
def placed(draw: st.DrawFn) -> tuple[Grid, int, int, int]:
    """(grid, size, top, left) with the grid on the board."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    size = draw(st.integers(max(height, width), 8))
    cells = draw(st.lists(st.integers(0, 9), min_size=height * width, max_size=height * width))
    grid = np.array(cells, dtype=np.uint8).reshape(height, width)
    return grid, size, draw(st.integers(0, size - height)), draw(st.integers(0, size - width))


@given(placed())
def test_boards_are_the_official_ones(given_: tuple[Grid, int, int, int]) -> None:
    grid, size, top, left = given_
    height, width = grid.shape
    expected = np.pad(grid + 2, ((top, size - top - height), (left, size - left - width)))
    if top + height < size:
        expected[top + height, left : left + width] = 1
    if left + width < size:
        expected[top : top + height, left + width] = 1
    board = to_board(grid, size, top, left)
    assert np.array_equal(board, expected) and board.dtype == np.uint8 and board.max() < VOCAB_SIZE


@given(placed(), st.integers(0, TURNS - 1), st.permutations(range(1, COLOURS)))
def test_an_image_is_undone_by_its_inverse(given_: tuple[Grid, int, int, int], turn: int, order: list[int]) -> None:
    grid = given_[0]
    colours = np.array([0, *order], dtype=np.uint8)
    turned = image(grid, turn, colours)
    assert sorted(turned.ravel()) == sorted(colours[grid].ravel())
    back = np.rot90(turned, -(turn % 4))
    assert np.array_equal(np.argsort(colours)[back.T if turn >= 4 else back], grid)


def test_the_eight_turns_differ_and_the_first_changes_nothing() -> None:
    grid = np.arange(6, dtype=np.uint8).reshape(2, 3)
    turned = [image(grid, turn, SAME) for turn in range(TURNS)]
    assert np.array_equal(turned[0], grid)
    assert len({(one.shape, one.tobytes()) for one in turned}) == TURNS


def test_random_images_keep_black_and_use_every_turn() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_image(rng) for _ in range(300)]
    assert {turn for turn, _ in drawn} == set(range(TURNS))
    assert all(colours[0] == 0 and sorted(colours) == list(range(COLOURS)) for _, colours in drawn)
    counts = np.bincount([colours[1] for _, colours in drawn], minlength=COLOURS)
    assert counts[0] == 0 and counts[1:].min() > 300 / 9 * 0.5


@pytest.mark.parametrize(("turn", "expected"), [(1, [[1, 3], [0, 2]]), (4, [[0, 2], [1, 3]])])
def test_turns_go_anticlockwise_and_transposition_comes_first(turn: int, expected: list[list[int]]) -> None:
    assert image(np.array([[0, 1], [2, 3]], dtype=np.uint8), turn, SAME).tolist() == expected
