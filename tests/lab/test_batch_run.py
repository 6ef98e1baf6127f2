"""Many puzzles through a model: rows are what a session of each alone shows, bad puzzles are rows too, stopping keeps what is done."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from laser_studio.assets import asset_path
from laser_studio.cli import app
from laser_studio.debugger import Session
from laser_studio.errors import ReportError
from laser_studio.lab import batch_run
from laser_studio.lab.batch_run import BatchRow, items_of, load_for, run_batch, write_csv
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle, get_domain, load_puzzles
from laser_studio.puzzles.sources import Collection, Entry, Fixed, read_upload
from laser_studio.trm import TRM, CheckpointNeeds, Need, load_checkpoint, save_checkpoint
from tests.debugger.conftest import tiny_model
from tests.laser.helpers import traces

POLICY = LaserPolicy(rank="20%", min_fidelity=0.995, patience=1)
FOUR = load_puzzles("sudoku-4x4")[:4]


@pytest.fixture(scope="module")
def solver() -> TRM:
    """The small shipped model, which solves these puzzles."""
    return load_checkpoint(asset_path("checkpoints", "sudoku-4x4"), device="cpu")


def rows_of(model: TRM, collection: Collection, **options: Any) -> list[BatchRow]:
    return list(run_batch(model, items_of(collection), **options))


def seen(session: Session) -> tuple[Any, ...]:
    """What the debugger shows of a whole run: the figures of a row."""
    frames = list(session.frames)
    wrong = [frame.index for frame in frames[1:] if not frame.solved]
    steps = None if wrong and wrong[-1] == frames[-1].index else next(f.index for f in frames[1:] if f.index > (wrong[-1] if wrong else 0))
    halts = next((frame.s for frame in frames if frame.ends_supervision and frame.q_halt > 0), None)
    kept = fmean(fmean(site.fidelity for site in frame.sites.values()) for frame in frames[1:])
    return steps, frames[-1].right, frames[-1].total, halts, pytest.approx(kept, abs=1e-6), frames[-1].resets


@pytest.mark.parametrize("shipped", [True, False])
def test_a_row_tells_what_the_debugger_shows(shipped: bool, solver: TRM) -> None:
    model = solver if shipped else tiny_model()
    rows = rows_of(model, Fixed("four", FOUR), policy=POLICY)
    assert [row.id for row in rows] == [puzzle.name for puzzle in FOUR] and all(row.difficulty == "easy" for row in rows)
    for puzzle, row in zip(FOUR, rows, strict=True):
        session = Session(model, puzzle, policy=POLICY)
        session.seek(session.length)
        assert (row.steps, row.right, row.total, row.halts, row.fidelity, row.resets) == seen(session)
        assert row.outcome == ("solved" if session.frame.solved else "wrong") and (row.outcome == "solved") == shipped
        if row.steps is not None:
            assert row.supervision == session.frames[row.steps].s
    assert sum(row.resets or 0 for row in rows) > 0, "a policy that resets, or the column proves nothing"


def test_without_trackers_puzzles_share_batches_and_answers_are_the_same(solver: TRM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "BATCH", 3)
    alone = rows_of(solver, Fixed("four", FOUR), policy=POLICY)
    together = rows_of(solver, Fixed("four", FOUR))
    assert [replace(row, fidelity=None, resets=None, seconds=None) for row in alone] == [replace(row, seconds=None) for row in together]


@pytest.mark.parametrize("policy", [POLICY, None])
def test_what_cannot_be_run_is_a_row_that_says_why(policy: LaserPolicy | None, solver: TRM) -> None:
    puzzles: list[Puzzle] = [FOUR[0], load_puzzles("sudoku-6x6")[0], FOUR[1]]
    rows = rows_of(solver, Fixed("mixed", puzzles, [Entry(f"p{n}", split="test") for n in range(3)]), policy=policy)
    assert [row.outcome for row in rows] == ["solved", "not run", "solved"] and [row.id for row in rows] == ["p0", "p1", "p2"]
    assert "36 cells, this model takes 16" in rows[1].problem and rows[1].steps is None and rows[1].split == "test"
    broken = read_upload("x.csv", b"q,a\n" + b"." * 16 + b",\n12345,\n")
    assert "5 cells: a Sudoku has" in rows_of(solver, broken, policy=policy)[1].problem
    clash = rows_of(solver, read_upload("x.txt", b"11" + b"." * 14), policy=policy)[0]
    assert clash.outcome == "wrong" and not clash.problem, "a contradiction runs"


@pytest.mark.parametrize("policy", [POLICY, None])
def test_stopping_keeps_what_is_done(policy: LaserPolicy | None, solver: TRM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "BATCH", 1)
    done: list[BatchRow] = []
    asked = 0

    def stops() -> bool:
        nonlocal asked
        asked += 1
        return len(done) == 2 and asked > 10

    for row in run_batch(solver, items_of(Fixed("four", FOUR)), policy=policy, should_stop=stops):
        done.append(row)
        asked = 0
    assert len(done) == 2
    assert traces(solver) == 0, "nothing stays behind"


def test_activations_that_are_not_finite_end_a_run_with_a_reason() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.H_init.fill_(float("nan"))
    row = rows_of(model, Fixed("one", FOUR[:1]), policy=POLICY)[0]
    assert row.outcome == "not run" and row.problem.startswith("activations are not finite at step")


def test_an_unknown_answer_is_neither_right_nor_wrong() -> None:
    from tests.debugger.test_fitting import arc_model

    puzzle = replace(get_domain("arc").parse("[[1,2],[3,4]]"), name="mine")
    for policy in (POLICY, None):
        row = rows_of(arc_model(2), Fixed("one", [puzzle]), policy=policy)[0]
        assert (row.outcome, row.steps, row.total) == ("unknown", None, 0)


def test_of_a_large_puzzle_embedding_the_rows_of_the_puzzles_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.debugger.test_fitting import arc_model

    model = arc_model(5)
    save_checkpoint(model, tmp_path / "arc")
    (tmp_path / "arc" / "identifiers.json").write_text(json.dumps(["<blank>", "aaaa", "bbbb", "cccc", "dddd"]))

    def strict(path: Any, device: Any = "auto", **given: Any) -> TRM:
        if not given:
            raise CheckpointNeeds("which task?", [Need("task", "the trained task", None, ())])
        return load_checkpoint(path, device, **given)

    monkeypatch.setattr(batch_run, "load_checkpoint", strict)
    grid = replace(get_domain("arc").parse("[[1,2],[3,4]]"), name="x")
    puzzles = [replace(grid, task="dddd"), replace(grid, task="bbbb"), replace(grid, task="dddd")]
    items = list(items_of(Fixed("tasks", puzzles)))
    loaded = load_for(tmp_path / "arc", items, device="cpu")
    assert loaded.embedding.puzzles is not None and model.embedding.puzzles is not None
    assert torch.equal(loaded.embedding.puzzles, model.embedding.puzzles[[4, 2]])
    assert [row.outcome for row in run_batch(loaded, items)] == ["unknown"] * 3
    with pytest.raises(CheckpointNeeds):
        load_for(tmp_path / "arc", list(items_of(Fixed("none", [grid]))), device="cpu")


def test_the_table_as_csv(tmp_path: Path) -> None:
    rows = [BatchRow('a,"b"', "test", "hard", 3.5, "solved", 12, 2, 9, 9, 2, 0.9, 1, 0.25), BatchRow("c", problem="né")]
    write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0] == {
        "id": 'a,"b"', "split": "test", "difficulty": "hard", "rating": "3.5", "outcome": "solved", "steps": "12", "supervision": "2",
        "right": "9", "total": "9", "halts": "2", "fidelity": "0.9", "resets": "1", "seconds": "0.25", "problem": "",
    }  # fmt: skip
    assert read[1]["problem"] == "né" and read[1]["steps"] == ""


def test_the_command(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    lines = [get_domain("sudoku").format(puzzle).replace("\n", "") for puzzle in FOUR]
    table.write_text("\n".join(["q,rating", *(f"{line},{n}" for n, line in enumerate(lines)), ".,9"]))
    model = str(asset_path("checkpoints", "sudoku-4x4"))
    ran = CliRunner().invoke(
        app, ["solve", model, str(table), "sudoku-6x6", "--limit", "6", "--csv", str(tmp_path / "out.csv"), "--device", "cpu"]
    )
    assert ran.exit_code == 0, ran.output
    assert "4 of 4 solved, 2 not run" in ran.output and "1 cells: a Sudoku has" in ran.output and "this model takes 16" in ran.output
    with (tmp_path / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["outcome"] for row in read] == ["solved"] * 4 + ["not run"] * 2 and float(read[0]["fidelity"]) > 0.9
    quick = CliRunner().invoke(
        app, ["solve", model, "sudoku-4x4", "--difficulty", "hard", "--limit", "3", "--no-tracker", "--device", "cpu"]
    )
    assert quick.exit_code == 0 and quick.output.count("hard-") == 3 and "of 3 solved" in quick.output
    none = CliRunner().invoke(app, ["solve", model, "sudoku-4x4", "--split", "test"])
    assert isinstance(none.exception, ReportError) and "there are easy, hard, medium" in str(none.exception)
    nowhere = CliRunner().invoke(app, ["solve", model, "sudoku-4x4", "--csv", str(tmp_path / "no" / "x.csv")])
    assert isinstance(nowhere.exception, ReportError) and "its folder does not exist" in str(nowhere.exception)
