"""Evaluation reports against plain restatements: every figure of a small model, counted again by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.errors import PolicyError, ReportError
from laser_studio.lab import examine as examining
from laser_studio.lab.examine import examine
from laser_studio.lab.report import Report, load_report, save_report, wilson
from laser_studio.lab.tasks import get_task
from laser_studio.lab.train import Stage, Trainer, TrainSettings
from laser_studio.puzzles import get_domain
from laser_studio.trm import TRM, TRMConfig
from tests.laser.helpers import traces

EACH = 7


@pytest.fixture(scope="module")
def model() -> TRM:
    """A 4×4 model after a moment of training: some answers are right, some wrong."""
    config = TRMConfig(
        vocab_size=6, seq_len=16, hidden_size=64, num_heads=2, H_cycles=1, L_cycles=2, halt_max_steps=3, forward_dtype="float32",
        puzzle_emb_ndim=64, puzzle_emb_len=1, mlp_t=True,
    )  # fmt: skip
    data = get_task("sudoku-4x4").puzzles(400, 0, "train")
    trainer = Trainer(config, TrainSettings(steps=45, batch_size=32, lr=3e-3, warmup=5), [Stage(0, data)], torch.device("cpu"))
    for _ in range(45):
        trainer.advance()
    return trainer.averaged()


@pytest.fixture(scope="module")
def report(model: TRM) -> Report:
    examining.BATCH = 4  # so that groups take more than one batch
    found = examine(model, "sudoku", 4, each=EACH, ranks=("100%", "25%"), first_seed=3, command="again")
    assert found is not None
    return found


def test_every_figure_is_what_a_plain_count_gives(model: TRM, report: Report) -> None:
    domain, failures, halts, rights = get_domain("sudoku"), [], [], []
    for place, difficulty in enumerate(("easy", "medium", "hard")):
        exact, cell, solved_at = [0.0] * 3, [0.0] * 3, [0] * 4
        for seed in range(3, 3 + EACH):
            puzzle = domain.generate(seed, size=4, difficulty=difficulty, split="held-out")  # type: ignore[arg-type]
            labels = torch.from_numpy(domain.encode_solution(puzzle))
            batch = {"inputs": torch.from_numpy(domain.encode(puzzle))[None], "puzzle_identifiers": torch.zeros(1, dtype=torch.long)}
            carry, right = model.initial_carry(batch), []
            for step in range(3):
                with torch.no_grad():
                    carry, out = model(carry, batch)
                answer = out.logits.argmax(-1)[0]
                right.append(bool((answer == labels).all()))
                exact[step] += right[-1] / EACH
                cell[step] += float((answer == labels).double().mean()) / EACH
                halts.append(float(out.q_halt_logits.double().sigmoid()))
            rights += right
            solved_at[next((s for s in range(3) if all(right[s:])), 3)] += 1
            if not right[-1]:
                failures.append((f"generated:{difficulty}:{seed}", int((answer != labels).sum()), any(right)))
        assert report.arms[0].exact[place] == pytest.approx(exact, abs=1e-5)
        assert report.arms[0].cell[place] == pytest.approx(cell, abs=1e-5)
        assert list(report.solved_at[place]) == solved_at
    assert [(one.puzzle, one.wrong, one.was_right) for one in report.failures] == failures
    assert 0 < len(failures) < 3 * EACH  # or the test would show little
    error = 0.0
    for low in range(10):
        inside = [(p, r) for p, r in zip(halts, rights, strict=True) if min(int(10 * p), 9) == low]
        assert report.halting.bins[low].count == len(inside)
        error += abs(sum(p for p, _ in inside) - sum(r for _, r in inside)) / len(halts)
    assert report.halting.error == pytest.approx(error, abs=1e-4)
    stops = [next((s for s in range(3) if halts[i + s] > 0.5), 2) for i in range(0, len(halts), 3)]
    assert report.halting.steps == pytest.approx(1 + sum(stops) / len(stops))
    assert report.halting.exact == pytest.approx(sum(rights[3 * i + s] for i, s in enumerate(stops)) / len(stops))


def test_full_rank_changes_nothing_and_a_quarter_does(report: Report) -> None:
    exact, full, quarter = report.arms
    assert full.exact == exact.exact and full.changed == (0.0, 0.0, 0.0) and full.energy == pytest.approx(1, abs=1e-5)
    assert quarter.exact != exact.exact and max(quarter.changed) > 0
    assert quarter.energy is not None and 0 < quarter.energy < 1
    assert [arm.rank for arm in report.arms] == ["", "100%", "25%"]
    assert report.exact(exact) == pytest.approx(1 - len(report.failures) / report.puzzles)


def test_progress_is_told_and_a_stop_ends_it(model: TRM) -> None:
    seen: list[tuple[int, int]] = []
    state = torch.get_rng_state()
    assert examine(model, "sudoku", 4, each=4, ranks=("50%",), on_progress=lambda *told: seen.append(told)) is not None
    assert [done for done, _ in seen] == list(range(4, 25, 4)) and {total for _, total in seen} == {24}
    assert examine(model, "sudoku", 4, each=4, ranks=(), should_stop=lambda: True) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert traces(model) == 0


def test_without_ranks_only_exact_activations_are_run(model: TRM) -> None:
    found = examine(model, "sudoku", 4, each=3, ranks=())
    assert found is not None and [(arm.rank, arm.energy) for arm in found.arms] == [("", None)]


def test_what_cannot_be_evaluated_is_refused(model: TRM) -> None:
    with pytest.raises(ReportError, match="1 or more"):
        examine(model, "sudoku", 4, each=0)
    with pytest.raises(ReportError, match="each rank once"):
        examine(model, "sudoku", 4, each=1, ranks=("50%", "50%"))
    with pytest.raises(PolicyError):
        examine(model, "sudoku", 4, each=1, ranks=("half",))


def test_reports_are_read_back_as_they_were_and_nothing_else_is(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    save_report(report, path)
    assert load_report(path) == report
    good = json.loads(path.read_text())
    wrong: list[Any] = [
        [], {}, good | {"format": "other"}, good | {"version": 2}, good | {"extra": 1},
        good | {"supervision_steps": 4}, good | {"arms": []},
        good | {"groups": good["groups"][:2]}, good | {"failures": [{"puzzle": "x"}]}, good | {"solved_at": [[1]]},
    ]  # fmt: skip
    for bad in wrong[:-1]:
        path.write_text(json.dumps(bad))
        with pytest.raises(ReportError, match=r"evaluation\.json"):
            load_report(path)
    for text in ("", "{", "[" * 100_000, json.dumps(asdict(report)).replace("0.", "NaN", 1)):
        path.write_text(text)
        with pytest.raises(ReportError):
            load_report(path)
    path.write_bytes(b" " * (5 * 2**20))
    with pytest.raises(ReportError, match="larger"):
        load_report(path)
    with pytest.raises(ReportError, match="cannot be read"):
        load_report(tmp_path / "absent.json")
    assert replace(report, measured="2026-01-01") != report


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_bounds_are_where_the_score_test_just_accepts(count: int, share: float, confidence: float) -> None:
    """The ends solve |p̂ − p| = z √(p(1 − p)/n): the interval is the score test turned round."""
    successes = round(share * count)
    low, high = wilson(successes, count, confidence)
    z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}[confidence]
    for end in (low, high):
        assert abs(successes / count - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count), abs=1e-6)
    assert 0 <= low <= successes / count <= high <= 1
    assert wilson(0, 0) == (0.0, 1.0)
