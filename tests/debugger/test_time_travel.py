"""Going back: every revisited state is that of the first time, to the last bit, and what is kept for it obeys its budget."""

from __future__ import annotations

import dataclasses
import gc
import random
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from laser_studio.debugger import Frame, Measures, Session
from laser_studio.debugger.stepper import Stepper
from laser_studio.errors import PolicyError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM
from tests.debugger.conftest import tiny_model
from tests.debugger.test_session import site_inputs
from tests.laser.helpers import DEVICES

POLICY = LaserPolicy(rank="25%", min_fidelity=0.9, patience=2, growth=2)
# Changes at window ends and within windows, of rank, seed, rule, refresh and single sites.
CHANGES = {
    4: replace(POLICY, min_fidelity=0.999, patience=1),
    13: replace(POLICY, rank=5, seed=3),
    18: replace(POLICY, rank=6, seed=3, sites={"layers.0.mlp.down_proj": {"enabled": False}}),
    26: replace(POLICY, rank=6, seed=4, refresh="supervision"),
    37: replace(POLICY, measure="functional", min_fidelity=0.999),
    50: POLICY,
}
STEPS = 62
EVERYTHING = Measures(functional=True, gradient=True, best=True)


def changing(model: TRM, puzzle: Puzzle, **options: Any) -> Iterator[Session]:
    """A session past the trained depth under `CHANGES`, after each step."""
    session = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6, **options)
    yield session
    for step in range(STEPS):
        if step in CHANGES:
            session.set_policy(CHANGES[step])
        if step == 30:
            session.set_measures(EVERYTHING)
        session.step()
        yield session


def flat(value: Any) -> list[Any]:
    """Everything in nested dataclasses, tuples and mappings, tensors as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [leaf for item in dataclasses.fields(value) for leaf in flat(getattr(value, item.name))]
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *flat(item))]
    if isinstance(value, tuple | list):
        return [len(value), *(leaf for item in value for leaf in flat(item))]
    return [value]


def same(one: Any, other: Any) -> bool:
    """Whether all leaves are equal, tensors bit for bit."""
    pairs = list(zip(flat(one), flat(other), strict=True))
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def now(stepper: Stepper) -> tuple[Tensor, Tensor, dict[str, Any]]:
    return stepper.z_H.clone(), stepper.z_L.clone(), dict(stepper.tap.snapshot().trackers)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mlp_t", [False, True])
def test_every_state_of_a_run_is_restored_bit_for_bit(puzzle: Puzzle, mlp_t: bool, device: str) -> None:
    model, first = tiny_model(mlp_t=mlp_t).to(device), []
    session = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6)
    for step in range(STEPS):
        first.append(now(session._machine.stepper))
        if step in CHANGES:
            session.set_policy(CHANGES[step])
        if step == 30:
            session.set_measures(EVERYTHING)
        session.step()
    first.append(now(session._machine.stepper))
    recorded = list(session.frames)
    assert session.kept.keyframes == (12, 24, 30, 36, 42, 48, 54, 60)  # twice as far apart within the trained depth

    order = list(range(STEPS + 1))
    random.Random(0).shuffle(order)
    before = torch.get_rng_state()
    for step in (*order, *range(20, 30), *range(40, 30, -1)):
        state = session.restore(step)
        assert state.frame is session.frame and state.frame == recorded[step]
        assert state.replayed <= 11 == session.kept.longest_replay
        assert same((state.z_H, state.z_L, dict(state.trackers)), first[step]), f"step {step}"
    assert torch.equal(torch.get_rng_state(), before)
    assert session.epoch == 0 and list(session.frames) == recorded


def test_going_on_from_any_past_step_gives_the_frames_of_a_run_that_never_went_back(model: TRM, puzzle: Puzzle) -> None:
    wandering = list(changing(model, puzzle))[-1]
    for turn in (58, 41, 33, 27, 12, 5):  # each drops the future from there on
        wandering.set_measures(EVERYTHING if turn > 30 else Measures())  # a window that is replayed has the figures asked for by now
        wandering.seek(turn)
        other = replace(POLICY, rank=7, min_fidelity=0.99)
        wandering.set_policy(other)
        wandering.set_measures(Measures())
        wandering.seek(turn + 14)
        straight = None
        for straight in changing(model, puzzle):
            if straight.head == turn:
                break
        assert straight is not None
        straight.set_policy(other)
        straight.set_measures(Measures())
        straight.seek(turn + 14)
        assert [f.index for f, g in zip(wandering.frames, straight.frames, strict=True) if f != g] == []
        assert same(now(wandering._machine.stepper), now(straight._machine.stepper))
        assert wandering.kept == straight.kept


@pytest.mark.parametrize("turn", [12, 13, 14, 31])  # at a keyframe, within the window after one, within a later one
def test_a_window_that_is_replayed_is_measured_whole(model: TRM, puzzle: Puzzle, turn: int) -> None:
    late = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6)
    late.seek(40)
    late.set_measures(Measures(best=True))
    early = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6, measures=Measures(best=True))
    for session in (late, early):
        session.seek(turn)
        session.set_policy(replace(POLICY, rank=7))
        session.seek(turn + 6)
    assert late.frames[turn + 1 :] == early.frames[turn + 1 :]
    closing = next(frame for frame in late.frames[turn + 1 :] if frame.l == "H")
    assert all(site.best is not None for site in closing.sites.values())
    assert same(now(late._machine.stepper), now(early._machine.stepper))


def test_restoring_leaves_the_live_run_where_it_is(model: TRM, puzzle: Puzzle) -> None:
    session = list(changing(model, puzzle))[-1]
    kept, site = session.kept, "layers.1.mlp.down_proj"
    before = [session.activations(step, site) for step in range(1, STEPS + 1)]
    for step in (7, 40, 1):
        session.restore(step)
    assert session.kept == kept and session.head == STEPS
    assert same(before, [session.activations(step, site) for step in range(1, STEPS + 1)])
    assert session.restore(STEPS).replayed == 0
    assert session.restore(-3).frame.index == 0


def test_steps_of_three_sizes_stop_at_the_ends_of_time(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)  # 3 applications per cycle, 6 per supervision step, 24 in all
    assert [session.step(size="cycle").index for _ in range(3)] == [3, 6, 9]
    assert session.frame.l == "H" and session.frame.h == 1
    assert session.step().index == 10
    assert session.step("cycle").index == 12
    assert session.frame.ends_supervision
    assert [session.step(size="supervision").index for _ in range(4)] == [18, 24, 24, 24]
    assert session.finished
    assert [session.back().index, session.back("cycle").index, session.back("cycle").index] == [23, 21, 18]
    assert [session.back("supervision").index for _ in range(5)] == [12, 6, 0, 0, 0]
    assert session.back().index == session.back("cycle").index == 0
    assert session.step("cycle").index == 3 and session.head == 24
    with pytest.raises(ValueError, match="net, cycle, supervision"):
        session.step("token")  # type: ignore[arg-type]


def test_out_leaves_the_cycle_and_then_the_supervision_step(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.step()
    assert [session.out().index for _ in range(3)] == [3, 6, 12]
    session.seek(23)
    assert session.out().index == 24 and session.out().index == 24


def test_running_back_stops_at_the_last_frame_where_something_happened(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=replace(POLICY, min_fidelity=0.999, patience=1))
    session.run()

    def eventful(frame: Frame) -> bool:
        return any(event.kind in ("reset", "grew", "changed") for event in frame.events)

    expected = [frame.index for frame in reversed(session.frames[:-1]) if eventful(frame)]
    assert len(expected) > 2
    assert [session.run_back().index for _ in range(len(expected) + 2)] == [*expected, 0, 0]
    session.seek(session.head)
    resets = [frame.index for frame in reversed(session.frames[:-1]) if any(event.kind == "reset" for event in frame.events)]
    assert session.run_back(until="reset").index == resets[0]
    assert session.run_back(until=lambda frame: frame.index == 2).index == 2
    assert session.run_back(until=lambda frame: False).index == 0
    assert session.head == 24 and session.epoch == 0
    with pytest.raises(ValueError, match="answer_changed"):
        session.run_back(until="explosion")


def test_the_sites_of_a_step_are_visited_in_order_with_their_exact_activations(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6)
    session.seek(40)
    weights = {name: layer.weight for name, layer in model.net.named_modules() if isinstance(layer, torch.nn.Linear)}
    oracle = site_inputs(tiny_model(), puzzle, 40)
    for step in (1, 12, 13, 31, 40, 24):
        visits = session.inside(step)
        assert [visit.site for visit in visits] == list(weights)
        for visit in visits:
            assert torch.equal(visit.inputs, oracle[step - 1][visit.site])
            torch.testing.assert_close(visit.outputs, visit.inputs @ weights[visit.site].T, atol=1e-5, rtol=1e-4)
    assert session.inside(0) == () and session.frame.index == 40
    with pytest.raises(IndexError, match="newest is 40"):
        session.inside(41)


def held_bytes(session: Session) -> int:
    """Bytes of every tensor reachable from the history, each storage once, counted without its ledger."""
    history = session._machine.history
    runs = [run for site in history.sites.values() for run in (site._exact, *site._versions)]
    tensors = [leaf for run in runs for leaf in (run.basis, *(entry.data for entry in run.entries))]
    tensors += [leaf for keyframe in history.keyframes for leaf in flat((keyframe.carry, keyframe.tap.trackers))]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if isinstance(t, Tensor)}
    return sum(storages.values()) + 8 * sum(len(run.entries) for run in runs)


def test_all_that_is_kept_is_counted_once(model: TRM, puzzle: Puzzle) -> None:
    for session in changing(model, puzzle):
        kept, ledger = session.kept, session.frame.history
        assert kept.total == held_bytes(session) == ledger.stored_bytes + ledger.basis_bytes
    assert kept.keyframe_bytes > 0 and kept.thinned == 0 and kept.said == ""
    sites = sum(site.history.stored_bytes + site.history.basis_bytes for site in session.frame.sites.values())
    assert sites + kept.keyframe_bytes == kept.total


def test_two_thousand_steps_stay_within_a_small_budget_and_can_still_be_restored(puzzle: Puzzle) -> None:
    model, budget, marks = tiny_model(), 1_500_000, {3, 100, 611, 1_000, 1_500, 1_999}
    session = Session(model, puzzle, policy=POLICY, beyond=True, keyframe_steps=6, history_bytes=budget)
    first, said = {}, []
    for _ in range(2_000):
        frame = session.step()
        assert frame.history.stored_bytes + frame.history.basis_bytes <= budget
        if frame.index % 100 == 0:
            assert held_bytes(session) <= budget
        if frame.index in marks:
            first[frame.index] = now(session._machine.stepper)
        said += [event.text for event in frame.events if event.kind == "budget"]
    kept = session.kept
    assert kept.thinned > 0 and kept.activations_from > 1_000 and kept.keyframes
    assert kept.said in said[-1] and "exact steps compressed" in said[0] and "thinned" in " ".join(said)
    assert session.activations(kept.activations_from - 1, "layers.0.mlp.down_proj") is None
    assert session.activations(kept.activations_from, "layers.0.mlp.down_proj") is not None
    # Keyframes are left all along the run: no replay starts from further back than a few mean gaps.
    assert kept.longest_replay <= 4 * 2_000 / len(kept.keyframes)
    for step in (611, 1_999, 3, 1_500, 100, 1_000):
        state = session.restore(step)
        assert same((state.z_H, state.z_L, dict(state.trackers)), first[step])
    # What was dropped stays dropped when the run goes on from the past; states and figures of the tracker are exact all the same.
    old = {step: session.frames[step] for step in range(1_500, 1_520)}
    session.seek(1_500)
    session.set_policy(replace(POLICY, min_fidelity=0.95))
    session.set_policy(POLICY)
    session.seek(1_519)
    for step, frame in old.items():
        again = session.frames[step]
        assert (again.answer, again.residual, again.q_halt, again.latent) == (frame.answer, frame.residual, frame.q_halt, frame.latent)
        for name, site in again.sites.items():
            was = frame.sites[name]
            assert (site.fidelity, site.rank, site.cause, site.angles) == (was.fidelity, was.rank, was.cause, was.angles)
    assert held_bytes(session) <= budget


def test_a_smaller_budget_acts_at_once_and_says_so(model: TRM, puzzle: Puzzle) -> None:
    session = list(changing(model, puzzle))[-1]
    before = session.kept
    session.history_bytes = before.total // 3
    after = session.kept
    assert after.total <= after.budget_bytes == before.total // 3 and held_bytes(session) <= after.budget_bytes
    assert after.said and after.activations_from > 1 and after.thinned > 0
    session.history_bytes = 1 << 30
    session.step()
    assert session.kept.budget_bytes == 1 << 30 and session.kept.total > after.total
    with pytest.raises(PolicyError, match="history_bytes"):
        session.history_bytes = 10


def test_settings_outside_their_ranges_are_refused_by_name(model: TRM, puzzle: Puzzle) -> None:
    with pytest.raises(PolicyError, match="history_bytes"):
        Session(model, puzzle, history_bytes=1)
    with pytest.raises(PolicyError, match="keyframe_steps"):
        Session(model, puzzle, keyframe_steps=0)


def test_a_closed_session_frees_its_replay(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(9)
    session.restore(4)
    stepper = weakref.ref(session._replay._stepper)
    assert stepper() is not None
    session.close()
    gc.collect()
    assert stepper() is None
