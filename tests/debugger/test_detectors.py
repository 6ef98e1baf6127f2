"""Detectors: what must be found, what must not, in made-up frames and in real runs of the shipped models."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from laser_studio.assets import asset_root
from laser_studio.debugger import Detectors, DetectorSettings, Event, Finding, Frame, Session, SiteFrame
from laser_studio.debugger.detectors import MOST_FINDINGS, turned
from laser_studio.debugger.watching import _first_frame
from laser_studio.errors import InspectionError
from laser_studio.laser import LaserPolicy
from laser_studio.laser.ledger import EMPTY
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.puzzles.generated import generated
from laser_studio.trm import TRM, load_checkpoint

CYCLE = 5
STILL = (0.001, 0.002, 0.003)
MOVING = (0.5, 0.6, 0.7)


def frame(index: int, before: Frame | None = None, answer: Sequence[int] | None = None, **fields: object) -> Frame:
    """Frame `index` after `before`: every fifth updates z_H. answer: the one before where none is given."""
    last = before.answer if before is not None else (0,) * 6
    now = tuple(answer) if answer is not None else last
    changed = tuple(cell for cell, (new, old) in enumerate(zip(now, last, strict=True)) if new != old)
    l = "H" if index % CYCLE == 0 else index % CYCLE  # noqa: E741
    return replace(_first_frame(), index=index, l=l, answer=now, changed=changed, total=6, **fields)  # type: ignore[arg-type]


def watch(
    answers: Sequence[Sequence[int]],
    returns: Sequence[Sequence[float]],
    length: int = 10_000,
    solved: bool | None = False,
    **settings: float,
) -> tuple[Finding, ...]:
    """Findings in a run whose H cycles end with these answers and distances."""
    detectors = Detectors(DetectorSettings(**settings), cycle=CYCLE, length=length)  # type: ignore[arg-type]
    before = frame(0)
    for cycle, (answer, distances) in enumerate(zip(answers, returns, strict=True), 1):
        for index in range(CYCLE * (cycle - 1) + 1, CYCLE * cycle):
            before = frame(index, before)
            detectors.observe(before)
        before = frame(CYCLE * cycle, before, answer, solved=solved, wrong=() if solved else (5,), right=6 if solved else 5)
        detectors.observe(before, distances)
    return detectors.findings


def kinds(findings: Sequence[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


A, B, C = (1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 2), (1, 1, 1, 1, 3, 2)


@pytest.mark.parametrize(("solved", "kind"), [(True, "fixed point"), (False, "wrong fixed point"), (None, "fixed point")])
def test_a_state_at_rest_is_a_fixed_point_right_or_wrong(solved: bool | None, kind: str) -> None:
    findings = watch([A] * 6, [(), MOVING, (0.01,), (0.01,), (0.005,), (0.004,)], solved=solved)
    (found,) = [finding for finding in findings if "fixed" in finding.kind]
    assert found.kind == kind
    assert found.step == 15 and found.span == (15, 30)  # from the first cycle at rest to the newest
    assert found.measured["at most"] == 0.02 and found.measured["change"] == 0.005 and found.measured["last change"] == 0.004
    assert found.measured["shrinks by"] == pytest.approx(math.sqrt(0.5))
    assert found.cells == ((5,) if solved is False else ())
    assert "0.005" in found.text and ("wrong" in found.text) == (solved is False)


def test_a_state_that_moves_or_an_answer_that_changes_is_no_fixed_point() -> None:
    assert "fixed point" not in kinds(watch([A] * 6, [(), *[(0.021,)] * 5], solved=True))  # just above
    assert "fixed point" not in kinds(watch([A, B, C, A, B, C], [(), *[(0.001,)] * 5], solved=True))
    assert "fixed point" not in kinds(watch([A] * 3, [(), (0.001,), (0.001,)], solved=True))  # not yet three in a row
    nothing_known = watch([A] * 6, [()] * 6, solved=True)
    assert "fixed point" not in kinds(nothing_known)
    not_a_number = watch([A] * 6, [(math.nan,)] * 6, solved=True)
    assert "fixed point" not in kinds(not_a_number)


def test_a_fixed_point_that_is_left_ends_and_another_may_follow() -> None:
    rests = [(0.01,)] * 3
    findings = watch([A] * 4 + [A] + [A] * 4, [(), *rests, (0.3,), *rests, (0.05,)])
    first, second = (finding for finding in findings if finding.kind == "wrong fixed point")
    assert first.span == (10, 20) and second.span == (30, 45)  # 0.05 is not at rest, but no leaving either
    assert first.measured["left at step"] == 25 and first.text.endswith("left at step 25: z_H moved by 0.3 of its norm")
    assert "left" not in second.text
    (left,) = (finding for finding in watch([A] * 4 + [B], [(), *rests, (0.01,)]) if finding.kind == "wrong fixed point")
    assert left.span == (10, 20) and left.text.endswith("left at step 25: 1 cell changed")


def test_a_run_that_never_rests_is_told_at_the_trained_depth() -> None:
    findings = watch([A, B, C, B], [(), MOVING, MOVING, MOVING], length=20)
    assert kinds(findings) == ["no fixed point"]
    assert findings[0].step == 20 and findings[0].measured["change"] == 0.5
    assert "no fixed point" not in kinds(watch([A] * 4, [(), (0.01,), (0.01,), (0.01,)], length=20))
    assert "no fixed point" not in kinds(watch([A, B, C, B], [(), MOVING, MOVING, MOVING], length=25))


@pytest.mark.parametrize(
    ("answers", "period", "cells"),
    [([A, B] * 4, 2, (5,)), ([A, B, C] * 4, 3, (4, 5)), ([A, A, B, B] * 4, 4, (5,))],
)
def test_answers_that_come_round_with_their_states_oscillate(answers: list[tuple[int, ...]], period: int, cells: tuple[int, ...]) -> None:
    returns = tuple(0.01 if lag % period == 0 else 0.4 for lag in range(1, 9))
    findings = watch(answers, [returns[:place] for place in range(len(answers))])
    (found,) = findings
    assert found.kind == "oscillation"
    assert found.measured["period"] == period and found.measured["period steps"] == period * CYCLE
    assert found.measured["back within"] == 0.01 and found.measured["way out"] == 0.4 and found.measured["of"] == "answer"
    assert found.cells == cells
    # Lag p first compares at cycle p + 1; p cycles in a row have come round when p more have passed.
    assert found.step == 2 * period * CYCLE and found.span == (0, len(answers) * CYCLE)
    assert f"period {period} H cycles" in found.text


def test_answers_that_repeat_by_chance_do_not_oscillate() -> None:
    # The answers come round, the states do not.
    assert "oscillation" not in kinds(watch([A, B] * 4, [(0.4, 0.35, 0.4, 0.35)] * 8))
    # The states come near, the answers do not repeat often enough.
    assert "oscillation" not in kinds(watch([A, B, A, C], [(0.4, 0.01, 0.4)] * 4))
    # Nothing moves.
    assert "oscillation" not in kinds(watch([A] * 12, [(0.01, 0.001, 0.01, 0.001)] * 12))


def test_states_may_oscillate_behind_an_answer_that_stands() -> None:
    findings = watch([A] * 9, [(), (0.3,), *[(0.3, 0.01, 0.3, 0.02)] * 7])
    (found,) = [finding for finding in findings if finding.kind == "oscillation"]
    assert found.measured["period"] == 2 and found.measured["of"] == "state" and found.cells == ()
    assert found.step == 30  # four cycles in a row


def test_the_critical_step_is_where_most_cells_take_the_value_they_keep() -> None:
    answers = [(1, 0, 0, 0, 0, 0), (1, 2, 2, 2, 2, 0), (1, 2, 2, 2, 2, 3)]
    findings = watch([*answers, *[answers[-1]] * 3], [MOVING] * 6)
    (found,) = findings
    assert found.kind == "critical step" and found.step == 10
    assert found.cells == (1, 2, 3, 4) and found.measured["cells"] == 4 and found.measured["open cells"] == 6
    assert found.measured["share"] == pytest.approx(4 / 6) and found.measured["settled before"] == 1
    gradual = [(1, 0, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0), (1, 1, 1, 1, 0, 0), (1, 1, 1, 1, 1, 1)]
    assert watch([*gradual, *[gradual[-1]] * 3], [MOVING] * 7) == ()  # 1, 1, 2 and 2 of 6: nowhere half


def test_a_critical_step_is_taken_back_when_its_cells_change_again() -> None:
    settled, later = (1, 2, 2, 2, 2, 3), (1, 3, 3, 0, 2, 3)
    moving = [MOVING] * 5
    assert kinds(watch([settled] * 4, moving[:4])) == ["critical step"]
    assert kinds(watch([*[settled] * 4, later], moving)) == []
    (again,) = watch([*[settled] * 4, *[later] * 4], [MOVING] * 8, critical_share=0.5)
    assert again.step == 25 and again.cells == (1, 2, 3)


def site(angles: Sequence[float] | None) -> SiteFrame:
    return SiteFrame(1.0, 1.0, None, 4, 8, "keep", "", "tracking", 0, None if angles is None else tuple(angles), EMPTY, EMPTY, 1.0, 1, None)


def test_a_burst_is_a_turn_far_above_what_the_site_is_wont_to() -> None:
    detectors = Detectors(cycle=CYCLE, length=1_000)
    usual, burst = site([20, 10, 5, 0]), site([80, 70, 30, 0])
    for index in range(1, 7):
        detectors.observe(frame(index, sites={"a": usual, "b": usual, "c": burst}))
    detectors.observe(frame(7, sites={"a": burst, "b": usual, "c": burst}))  # c always turns so much
    detectors.observe(frame(8, sites={"a": site(None), "b": site(None), "c": site(None)}))
    detectors.observe(frame(9, sites={"a": burst, "b": burst, "c": burst}))
    first, second = detectors.findings
    assert first.kind == second.kind == "rotation burst"
    assert first.step == 7 and first.sites == ("a",) and set(second.sites) == {"a", "b"}
    by_hand = sum(math.sin(math.radians(angle)) ** 2 for angle in (80, 70, 30, 0)) / 4
    assert first.measured["turn"] == pytest.approx(by_hand) == pytest.approx(turned(burst))
    assert first.measured["largest angle"] == 80 and first.measured["median"] == pytest.approx(turned(usual))


def test_early_turns_are_no_bursts() -> None:
    detectors = Detectors(cycle=CYCLE, length=1_000)
    for index, angles in enumerate((*[[5.0]] * 5, [90.0]), 1):
        detectors.observe(frame(index, sites={"a": site(angles)}))
    assert detectors.findings == ()
    detectors.observe(frame(7, sites={"a": site([90.0])}))
    assert kinds(detectors.findings) == ["rotation burst"]


def test_a_site_that_resets_too_often_is_named_with_its_rate() -> None:
    def observe(steps: Sequence[int], name: str = "a") -> tuple[Finding, ...]:
        detectors = Detectors(cycle=CYCLE, length=1_000)
        for step in steps:
            detectors.observe(frame(step, events=(Event(step, "reset", "", name),), sites={name: site(None)}))
        return detectors.findings

    assert observe([10, 50]) == () and observe([10, 90, 170, 250, 330]) == ()  # never three within 100
    (found,) = observe([10, 50, 110])
    assert found.kind == "frequent resets" and found.sites == ("a",) and found.step == 10 and found.span == (10, 110)
    (grown,) = observe([10, 50, 110, 120])
    assert grown.measured["resets"] == 4 and grown.span == (10, 120)
    assert grown.measured["per 1,000 steps"] == pytest.approx(1_000 * 3 / 110)
    first, second = observe([10, 50, 110, 400, 410, 420])
    assert first.span == (10, 110) and second.span == (400, 420)


@pytest.mark.parametrize(
    "bad", [{"rest_change": -1}, {"rest_cycles": 0}, {"period_repeats": 1}, {"reset_count": 0}, {"burst_turn": math.nan}]
)
def test_thresholds_outside_their_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InspectionError, match=next(iter(bad))):
        DetectorSettings(**bad)  # type: ignore[arg-type]


def test_findings_are_bounded_and_a_step_costs_the_same_late_in_a_run() -> None:
    detectors = Detectors(cycle=CYCLE, length=1_000)
    usual, burst = site([1.0]), site([80.0])
    seconds = []
    for index in range(1, 6_001):
        now = frame(index, sites={"a": burst if index % 5 == 0 else usual})
        started = time.perf_counter()
        detectors.observe(now, (0.5, 0.6))
        seconds.append(time.perf_counter() - started)
    assert kinds(detectors.findings).count("rotation burst") == MOST_FINDINGS and detectors.findings[-1].step == 6_000
    early, late = (sorted(part)[500] for part in (seconds[500:1_500], seconds[-1_000:]))  # medians
    assert late < 3 * early


# Real runs


@pytest.fixture(scope="module")
def early() -> TRM:
    """A maze model stopped early in training, which fails many mazes."""
    return load_checkpoint(asset_root() / "checkpoints" / "maze-9x9-mixer-early", device="cpu")


def maze(seed: int) -> Puzzle:
    return generated("maze", 9, "easy", seed)


def test_a_flawed_model_is_caught_in_an_oscillation_whose_states_come_back(early: TRM) -> None:
    session = Session(early, maze(4), policy=LaserPolicy(), beyond=True)
    states = [session.restore(session.step("cycle").index).z_H[0].float() for _ in range(30)]
    (found,) = [finding for finding in Detectors.of(session).follow(session) if finding.step == 115]
    assert found.kind == "oscillation" and found.measured["period"] == 2
    # The distances are those of the states themselves.
    last = states[-1]
    assert found.measured["back within"] == pytest.approx(float((last - states[-3]).norm() / last.norm()), rel=1e-4)
    assert found.measured["way out"] == pytest.approx(float((last - states[-2]).norm() / last.norm()), rel=1e-4)
    answers = [session.frames[5 * cycle].answer for cycle in range(24, 31)]
    assert all(answers[place] == answers[place - 2] != answers[place - 1] for place in range(2, len(answers)))
    assert "no fixed point" in kinds(Detectors.of(session).follow(session))


def test_a_flawed_model_is_caught_in_a_wrong_fixed_point_and_a_right_one_is_told_apart(early: TRM) -> None:
    session = Session(early, maze(6), policy=LaserPolicy())
    end = session.run()
    (found,) = [finding for finding in Detectors.of(session).follow(session) if "fixed" in finding.kind]
    assert found.kind == "wrong fixed point" and end.solved is False and found.cells == end.wrong
    assert all(session.frames[index].answer == end.answer for index in range(found.step, session.head + 1))
    residual = session.frames[found.step].residual / float(session.restore(found.step).z_H[0].float().norm())
    assert residual <= 0.02 < session.frames[found.step - 5].residual / float(session.restore(found.step - 5).z_H[0].float().norm())

    solved = Session(early, generated("maze", 9, "easy", 1), policy=LaserPolicy())
    found_kinds = kinds(Detectors.of(solved).follow(solved)) if solved.run().solved else None
    assert found_kinds is None or "wrong fixed point" not in found_kinds


def test_following_in_parts_is_following_at_once_and_a_dropped_future_is_forgotten(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=3, min_fidelity=0.99, patience=1), beyond=True)
    bit_by_bit = Detectors.of(session)
    for _ in range(60):
        session.step()
        bit_by_bit.follow(session)
    assert bit_by_bit.findings == Detectors.of(session).follow(session) and bit_by_bit.findings
    version = bit_by_bit.version
    assert bit_by_bit.follow(session) and bit_by_bit.version == version  # nothing new
    session.seek(20)
    session.set_policy(LaserPolicy(rank=8))
    session.seek(70)
    assert bit_by_bit.follow(session) == Detectors.of(session).follow(session)
    assert bit_by_bit.version > version and all(finding.step <= 70 for finding in bit_by_bit.findings)


def test_open_cells_are_those_that_are_not_given(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=3), beyond=True)
    session.seek(600)
    open_cells = sum(not given for given in get_domain("sudoku").given(puzzle))
    told = [finding for finding in Detectors.of(session).follow(session) if finding.kind == "critical step"]
    assert all(finding.measured["open cells"] == open_cells for finding in told)


def test_what_the_trail_keeps_is_what_states_say_and_is_cut_with_the_future(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=3))
    session.seek(24)
    for step, distances in ((step, session.trail.returns(step)) for step in range(3, 25, 3)):
        now = session.restore(step).z_H[0]
        past = [session.restore(step - 3 * lag).z_H[0] for lag in range(1, min(8, step // 3 - 1) + 1)]
        assert distances == pytest.approx([float((now - state).norm() / now.norm()) for state in past], rel=1e-5)
    assert session.trail.returns(4) == ()  # no z_H update
    session.seek(10)
    session.set_policy(LaserPolicy(rank=8))
    assert session.trail.returns(12) == () and session.trail.returns(9) != ()
    session.seek(12)
    assert torch.tensor(session.trail.returns(12)).isfinite().all() and session.trail.returns(12)
