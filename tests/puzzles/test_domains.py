"""What every domain promises, as one table: a new domain joins by adding its rows here."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import (
    DIFFICULTIES,
    INVALID,
    Difficulty,
    Domain,
    Puzzle,
    domain_names,
    get_domain,
    maze_rules,
    parse_puzzle,
    sudoku_rules,
)


@dataclass(frozen=True)
class Case:
    """One size of one domain. `values` is how many cell values there are, so tokens go from 1 to `values`."""

    domain: str
    size: int
    values: int

    @property
    def of(self) -> Domain:
        return get_domain(self.domain)

    def puzzle(self, seed: int = 0, difficulty: Difficulty = "medium") -> Puzzle:
        return self.of.generate(seed, size=self.size, difficulty=difficulty)

    @cache  # noqa: B019 - cases live as long as the tests
    def cached_puzzle(self, seed: int) -> Puzzle:
        return self.puzzle(seed)


CASES = [Case("sudoku", 4, 5), Case("sudoku", 6, 7), Case("sudoku", 9, 10), Case("maze", 9, 5), Case("maze", 13, 5)]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.domain}-{case.size}")
each_difficulty = pytest.mark.parametrize("difficulty", DIFFICULTIES)


def test_every_domain_is_in_the_table() -> None:
    assert {case.domain for case in CASES} == {name for name in domain_names() if get_domain(name).generated_sizes}
    assert set(domain_names()) - {case.domain for case in CASES} == {"arc"}, "made by people: test_arc has its table"
    with pytest.raises(PuzzleError, match=r"unknown kind of puzzle 'chess': choose one of sudoku, maze, arc"):
        get_domain("chess")


@each_case
def test_text_and_tokens_go_both_ways(case: Case) -> None:
    puzzle = case.puzzle()
    bare = replace(puzzle, solution=None, name="", difficulty="")
    assert case.of.parse(case.of.format(puzzle)) == bare
    assert parse_puzzle(case.of.format(puzzle)) == bare
    tokens = case.of.encode(puzzle)
    assert tokens.dtype == np.int64 and tokens.shape == (case.size**2,)
    assert case.of.decode(tokens) == case.of.decode(tokens, puzzle.shape) == puzzle.cells
    solution = case.of.encode_solution(puzzle)
    assert solution is not None
    assert case.of.decode(solution) == puzzle.solution
    assert max(tokens.max(), solution.max()) < case.of.vocab_size(puzzle) == case.of.vocab_size(case.size) == case.values + 1
    assert min(tokens.min(), solution.min()) > 0, "0 is padding"
    assert case.of.encode_solution(bare) is None


@each_case
def test_tokens_of_no_cell_decode_to_invalid_and_counts_are_checked(case: Case) -> None:
    ids = case.of.encode(case.puzzle())
    ids[:4] = (0, case.values + 1, -1, 10**9)
    assert case.of.decode(ids)[:4] == (INVALID,) * 4
    assert case.of.decode(ids)[4:] == case.puzzle().cells[4:]
    with pytest.raises(PuzzleError, match=f"{case.size**2} tokens do not fill 5 × 5 cells"):
        case.of.decode(ids, (5, 5))


@each_case
def test_values_without_a_token_never_become_one(case: Case) -> None:
    puzzle = case.puzzle()
    for bad in (case.values, -1, 10**6):
        cells = (puzzle.cells[0], bad, *puzzle.cells[2:])
        with pytest.raises(PuzzleError, match=f"row 1, column 2: {bad} is no cell value"):
            case.of.encode(replace(puzzle, cells=cells))
        assert [(issue.row, issue.column) for issue in case.of.validate(replace(puzzle, cells=cells))][:1] == [(0, 1)]


@each_case
@each_difficulty
def test_generated_puzzles_are_sound_and_reproducible(case: Case, difficulty: Difficulty) -> None:
    for seed in range(3):
        puzzle = case.puzzle(seed, difficulty)
        assert puzzle.shape == (case.size, case.size) and puzzle.difficulty == difficulty and puzzle.domain == case.domain
        assert case.of.validate(puzzle) == []
        assert case.of.solutions(puzzle, 2) == [puzzle.solution]
        assert case.puzzle(seed, difficulty) == puzzle and hash(case.puzzle(seed, difficulty)) == hash(puzzle)
    assert case.puzzle(0, difficulty) != case.puzzle(1, difficulty)


@each_case
def test_generated_puzzles_are_on_their_side_of_the_split(case: Case) -> None:
    for split in ("train", "held-out"):
        for seed in range(4):
            puzzle = case.of.generate(seed, size=case.size, split=split)
            assert puzzle.solution is not None
            if case.domain == "sudoku":
                assert sudoku_rules.split_of(puzzle.cells, puzzle.solution) == split
            else:
                assert maze_rules.split_of(puzzle.cells, *puzzle.shape) == split


@each_case
def test_generating_leaves_the_global_random_state_alone(case: Case) -> None:
    np.random.seed(7)
    random.seed(7)
    before = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    case.puzzle(3)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # type: ignore[index]


@each_case
def test_what_cannot_be_generated_is_refused(case: Case) -> None:
    for wrong, message in (
        ({"size": 8}, f"no {case.of.title} of size 8 can be generated: choose one of"),
        ({"difficulty": "brutal"}, "unknown difficulty 'brutal': choose one of easy, medium, hard"),
        ({"split": "test"}, "unknown split 'test': choose train or held-out"),
        ({"seed": -1}, "the seed of a puzzle is a whole number, 0 or more"),
        ({"seed": 1.5}, "the seed of a puzzle is a whole number, 0 or more"),
    ):
        arguments: dict[str, Any] = {"seed": 0, "size": case.size, **wrong}
        with pytest.raises(PuzzleError, match=message):
            case.of.generate(**arguments)


@each_case
def test_comparison_counts_only_what_was_not_given(case: Case) -> None:
    puzzle = case.puzzle()
    solution = puzzle.solution
    assert solution is not None
    given = case.of.given(puzzle)
    open_cells = given.count(False)
    for known in (puzzle, replace(puzzle, solution=None)):
        full = case.of.compare(known, solution)
        assert (full.right, full.total, full.solved, any(full.wrong)) == (open_cells, open_cells, True, False)
        for cell in (given.index(False), given.index(True)):
            spoilt = case.of.compare(known, (*solution[:cell], INVALID, *solution[cell + 1 :]))
            assert spoilt.wrong[cell] and sum(spoilt.wrong) == 1 and not spoilt.solved
            assert spoilt.right == open_cells - (not given[cell])
        assert not case.of.compare(known, puzzle.cells).solved, "an untouched puzzle is not solved"
    with pytest.raises(PuzzleError, match="an answer of 3 cells"):
        case.of.compare(puzzle, (1, 2, 3))


@each_case
def test_the_solution_is_filled_in_where_it_is_the_only_one(case: Case) -> None:
    puzzle = case.puzzle()
    assert case.of.with_solution(replace(puzzle, solution=None)) == puzzle
    assert case.of.with_solution(puzzle) is puzzle
    assert case.of.solve(replace(puzzle, solution=None)) == puzzle.solution


@each_case
def test_symbols_are_short_and_tell_values_apart(case: Case) -> None:
    symbols = [case.of.symbol(value) for value in range(case.values)]
    assert len(set(symbols)) == case.values and all(len(symbol) <= 1 for symbol in symbols)
    assert case.of.symbol(INVALID) == case.of.symbol(99) == "?"
    rows, columns = case.of.blocks(case.puzzle()) or (case.size, 1)
    assert rows * columns == case.size


@each_case
@settings(max_examples=40)
@given(data=st.data())
def test_any_answer_can_be_compared(case: Case, data: st.DataObject) -> None:
    puzzle = case.cached_puzzle(data.draw(st.integers(0, 2)))
    if data.draw(st.booleans()):
        puzzle = replace(puzzle, solution=None)
    answer = data.draw(st.lists(st.integers(-1, case.values - 1), min_size=case.size**2, max_size=case.size**2))
    result = case.of.compare(puzzle, answer)
    assert 0 <= result.right <= result.total and len(result.wrong) == case.size**2
    open_and_wrong = sum(w and not g for w, g in zip(result.wrong, case.of.given(puzzle), strict=True))
    assert result.right + open_and_wrong <= result.total
    assert not (result.solved and any(result.wrong))


@given(text=st.text(max_size=300) | st.text(alphabet='0123456789.,|-+ \n#SGo[]{}":testinpu', max_size=300))
def test_no_text_raises_anything_but_a_puzzle_error(text: str) -> None:
    for name in domain_names():
        try:
            puzzle = get_domain(name).parse(text)
        except PuzzleError as error:
            message = str(error)
            assert message and message.isprintable() and len(message) < 250
        else:
            get_domain(name).validate(puzzle)
            assert get_domain(name).parse(get_domain(name).format(puzzle)).cells == puzzle.cells


@pytest.mark.parametrize(
    ("height", "width", "cells", "solution"),
    [(2, 2, (0,) * 3, None), (0, 0, (), None), (2, 2, (0,) * 4, (1,) * 5), (-2, -2, (0,) * 4, None)],
)
def test_a_puzzle_of_another_shape_than_its_cells_cannot_exist(
    height: int, width: int, cells: tuple[int, ...], solution: tuple[int, ...] | None
) -> None:
    with pytest.raises(PuzzleError, match="do not fill"):
        Puzzle("sudoku", height, width, cells, solution)


def test_a_puzzle_holds_plain_numbers() -> None:
    puzzle = Puzzle("sudoku", 4, 4, np.zeros(16, dtype=np.int64))  # type: ignore[arg-type]
    assert puzzle == Puzzle("sudoku", 4, 4, (0,) * 16) and type(puzzle.cells[0]) is int
