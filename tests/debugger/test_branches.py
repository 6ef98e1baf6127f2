"""Branches: each against the plain model with something changed by hand, and as sessions like any other."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laser_studio.debugger import Measures, Session, compare
from laser_studio.debugger.interventions import (
    MOST_INTERVENTIONS,
    ChangeCycles,
    ChangeState,
    EditToken,
    Intervention,
    Planned,
    Reconstruct,
    ScaleDirection,
)
from laser_studio.debugger.net_application import NetApplication
from laser_studio.debugger.replay import Restored
from laser_studio.errors import InterventionError
from laser_studio.laser import LaserPolicy, SiteTap
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from tests.debugger.conftest import tiny_model
from tests.debugger.test_session import batch_of
from tests.debugger.test_time_travel import CHANGES, POLICY, changing, flat, held_bytes, now, same

SITE = "layers.0.mlp.down_proj"
L, H, MOST = 2, 2, 24  # of the tiny model
WITHIN, AT_CYCLE, AT_SUPERVISION = 7, 9, 12  # where branches begin

ALL: list[Intervention] = [
    EditToken(row=1, column=1, value=2),
    Reconstruct(rank=3),
    Reconstruct(sites=(SITE,), basis="held", steps=7),
    ScaleDirection(site=SITE, index=1, factor=-2),
    ScaleDirection(site=SITE, index=0, basis="live", steps=4),
    ChangeState(),
    ChangeState(state="L", change="noise", size=0.5, seed=3),
    ChangeCycles(level="L", change=2),
    ChangeCycles(level="H", change=1, every=True),
    ChangeCycles(level="L", change=-1, every=True),
]


def session_to(at: int, puzzle: Puzzle, model: TRM | None = None, **options: Any) -> Session:
    session = Session(model or tiny_model(), puzzle, policy=POLICY, keyframe_steps=6, **options)
    session.seek(at)
    return session


# Oracles: the recursion written out, with what is changed done by hand


@dataclass
class Plain:
    """The recursion by hand, state by state, without any tracker."""

    model: TRM
    z_H: Tensor
    z_L: Tensor
    x: Tensor

    @classmethod
    def of(cls, model: TRM, puzzle: Puzzle) -> Plain:
        batch = batch_of(puzzle)
        carry = model.initial_carry(batch)
        return cls(model, carry.z_H, carry.z_L, cls.embedded(model, puzzle))

    @staticmethod
    def embedded(model: TRM, puzzle: Puzzle) -> Tensor:
        batch = batch_of(puzzle)
        return model.embedding(batch["inputs"], batch["puzzle_identifiers"], torch.float32)

    def apply(self, kind: int | str) -> None:
        rope = self.model.rope(self.x.shape[1], self.x.device)
        if kind == "H":
            self.z_H = self.model.net(self.z_H, self.z_L, rope)
        else:
            self.z_L = self.model.net(self.z_L, self.z_H + self.x, rope)


def order(count: int) -> list[int | str]:
    pattern: list[int | str] = [1, 2, "H"]
    return (pattern * count)[:count]


@torch.no_grad()
def plain_states(
    puzzle: Puzzle, kinds: list[int | str], at: int, change: Callable[[Plain], None], model: TRM | None = None
) -> list[tuple[Tensor, Tensor]]:
    """States after each net application of the given kinds, with `change` done after the `at`-th."""
    plain = Plain.of(model or tiny_model(), puzzle)
    states = [(plain.z_H, plain.z_L)]
    for index, kind in enumerate(kinds):
        if index == at:
            change(plain)
        plain.apply(kind)
        states.append((plain.z_H, plain.z_L))
    return states


def states_of(session: Session) -> Iterator[tuple[Tensor, Tensor]]:
    for index in range(session.head + 1):
        state = session.state(index)
        yield state.z_H, state.z_L


def assert_states(branch: Session, expected: list[tuple[Tensor, Tensor]]) -> None:
    branch.seek(len(expected) - 1)
    begun = branch.branched_at or 0
    for index, (got, wanted) in enumerate(zip(states_of(branch), expected, strict=True)):
        assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1]), f"step {index}"
    for frame, (z_H, _) in zip(branch.frames[begun + 1 :], expected[begun + 1 :], strict=True):
        outputs = branch.model.read_out(z_H)
        if frame.l == "H" or frame.index == begun + 1:
            assert frame.q_halt == float(outputs.q_halt_logits[0].detach())
            assert frame.answer == get_domain("sudoku").decode(outputs.logits[0].argmax(-1).numpy())


@pytest.mark.parametrize("at", [0, WITHIN, AT_CYCLE, AT_SUPERVISION])
@pytest.mark.parametrize("state", ["H", "L"])
def test_a_state_set_to_zero_is_that_of_a_recursion_by_hand(puzzle: Puzzle, at: int, state: str) -> None:
    def zero(plain: Plain) -> None:
        setattr(plain, f"z_{state}", torch.zeros_like(plain.z_H))

    branch = session_to(16, puzzle).branch(at, ChangeState(state=state))  # type: ignore[arg-type]
    assert_states(branch, plain_states(puzzle, order(MOST), at, zero))


@pytest.mark.parametrize("at", [WITHIN, AT_SUPERVISION])
def test_noise_is_what_is_added_by_hand(puzzle: Puzzle, at: int) -> None:
    noise = ChangeState(state="L", change="noise", size=0.2, seed=5)

    def add(plain: Plain) -> None:
        plain.z_L = noise.applied(plain.z_L)

    assert_states(session_to(16, puzzle).branch(at, noise), plain_states(puzzle, order(MOST), at, add))


@pytest.mark.parametrize("at", [0, WITHIN, AT_CYCLE, AT_SUPERVISION])
def test_an_edited_token_is_read_from_the_next_step_on(puzzle: Puzzle, at: int) -> None:
    edit = EditToken(row=1, column=1, value=puzzle.cells[0] % 4 + 1)
    model = tiny_model()

    def other_clues(plain: Plain) -> None:
        plain.x = Plain.embedded(model, edit.applied(puzzle))

    session = session_to(16, puzzle)
    branch = session.branch(at, edit)
    # Within an H cycle too: z_H + x is formed anew.
    assert_states(branch, plain_states(puzzle, order(MOST), at, other_clues))
    assert branch.puzzle == edit.applied(puzzle) and session.puzzle == puzzle
    if at == 0:
        fresh = Session(tiny_model(), branch.puzzle, policy=POLICY, keyframe_steps=6)
        assert fresh.run() == branch.frame and list(fresh.frames)[1:] == list(branch.frames)[1:]


@pytest.mark.parametrize("at", [0, WITHIN, AT_CYCLE, AT_SUPERVISION])
def test_added_and_skipped_cycles_are_other_loops(puzzle: Puzzle, at: int) -> None:
    def nothing(plain: Plain) -> None:
        pass

    session, usual = session_to(16, puzzle), order(40)
    left = L - at % (L + 1)  # updates that are left of the H cycle under way
    more = [*usual[: at + left], 3, 4, 5, *usual[at + left : 24]]
    assert_states(session.branch(at, ChangeCycles(level="L", change=3)), plain_states(puzzle, more, at, nothing))
    fewer = usual[:at] + usual[at + left :][: 24 - at - left]
    assert_states(session.branch(at, ChangeCycles(level="L", change=-2)), plain_states(puzzle, fewer, at, nothing))
    every = usual[:at] + ["H"] * 4
    assert_states(session.branch(at, ChangeCycles(level="L", change=-9, every=True)), plain_states(puzzle, every, at, nothing))
    # H cycles run on without a seam, so only their places change.
    branch = session.branch(at, ChangeCycles(level="H", change=1))
    assert branch.length == session.length + L + 1
    assert_states(branch, plain_states(puzzle, usual[: branch.length], at, nothing))
    ends = [frame.index for frame in branch.frames if frame.ends_supervision]
    begun = at // 6 * 6
    assert ends == [end + (L + 1) * (end > begun) for end in (6, 12, 18, 24)]
    assert [branch.seek(begun).index, branch.step("supervision").index, branch.back("cycle").index] == [begun, begun + 9, begun + 6]


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("at", [WITHIN, AT_SUPERVISION])
def test_sites_that_read_held_reconstructions_are_plain_hooks(puzzle: Puzzle, at: int, rank: int | None, steps: int | None) -> None:
    session = session_to(16, puzzle)
    bases = {name: snapshot.basis for name, snapshot in session.state(at).trackers.items()}
    branch = session.branch(at, Reconstruct(rank=rank, basis="held", steps=steps))
    model, handles = tiny_model(), []

    def put(name: str, layer: nn.Module) -> None:
        basis = bases[name]
        assert basis is not None
        q = basis if rank is None else basis[:, :rank]
        handles.append(layer.register_forward_pre_hook(lambda _, args: ((args[0] @ q) @ q.T,)))

    plain, expected = Plain.of(model, puzzle), []
    with torch.no_grad():
        for index, kind in enumerate(order(MOST)):
            expected.append((plain.z_H, plain.z_L))
            if index == at:
                for name in bases:
                    put(name, model.net.get_submodule(name))
            if steps is not None and index == at + steps:
                for handle in handles:
                    handle.remove()
            plain.apply(kind)
        expected.append((plain.z_H, plain.z_L))
    assert_states(branch, expected)


@pytest.mark.parametrize("refresh", ["step", "cycle", "supervision"])
def test_live_reconstructions_follow_the_trackers_of_the_branch(puzzle: Puzzle, refresh: str) -> None:
    policy = replace(POLICY, refresh=refresh, turn=1.0)  # type: ignore[arg-type]
    session = Session(tiny_model(), puzzle, policy=policy, keyframe_steps=6)
    session.seek(16)
    branch = session.branch(WITHIN, Reconstruct(sites=(SITE, "layers.1.self_attn.qkv_proj"), rank="12.5%"))
    model, at_work = tiny_model(), False
    in_force: dict[str, Tensor | None] = {}

    def put(name: str) -> None:
        layer = model.net.get_submodule(name)
        plain = layer.forward

        def forward(x: Tensor) -> Tensor:
            q = in_force.get(name)
            if not at_work or q is None:
                return plain(x)
            q = q[:, : max(1, round(len(q) / 8))]
            return plain((x @ q) @ q.T)

        layer.forward = forward

    for name in (SITE, "layers.1.self_attn.qkv_proj"):
        put(name)
    tap = SiteTap(model.net, policy).attach()  # sees what reaches them
    plain, expected = Plain.of(model, puzzle), []
    with torch.no_grad():
        for index, kind in enumerate(order(MOST)):
            expected.append((plain.z_H, plain.z_L))
            at_work = index >= WITHIN
            in_force = {name: tracker.basis for name, tracker in tap.trackers.items()}
            plain.apply(kind)
            tap.take()
            if (kind == "H" and refresh == "cycle") or (index % 6 == 5 and refresh == "supervision"):
                tap.refresh()
        expected.append((plain.z_H, plain.z_L))
    assert_states(branch, expected)


def test_an_ablated_direction_no_longer_reaches_the_layer(puzzle: Puzzle) -> None:
    session = session_to(16, puzzle)
    basis = session.state(WITHIN).trackers[SITE].basis
    assert basis is not None
    q = basis[:, 2]
    branch = session.branch(WITHIN, ScaleDirection(site=SITE, index=2, factor=0, steps=6))
    branch.run()
    read = {step: next(visit for visit in branch.inside(step) if visit.site == SITE).inputs for step in (7, 8, 13, 14)}
    sizes = {step: float((x @ q).norm() / x.norm()) for step, x in read.items()}
    assert sizes[8] < 1e-6 and sizes[13] < 1e-6 and sizes[7] > 1e-3 and sizes[14] > 1e-3


# Branches as sessions


@pytest.mark.parametrize("at", [0, WITHIN, AT_SUPERVISION, 44])
@pytest.mark.parametrize(
    "nothing",
    [
        (),
        (ScaleDirection(site="layers.1.mlp.down_proj", index=0, factor=1),),
        (ChangeState(change="noise", size=0),),
        (EditToken(row=1, column=1, value=0),),
    ],
    ids=["none", "factor 1", "no noise", "same token"],
)
def test_an_intervention_that_does_nothing_gives_the_frames_of_the_run(puzzle: Puzzle, at: int, nothing: tuple[Intervention, ...]) -> None:
    if at < 3 and nothing and isinstance(nothing[0], ScaleDirection):
        pytest.skip("there is no basis yet")
    nothing = tuple(replace(each, value=puzzle.cells[0]) if isinstance(each, EditToken) else each for each in nothing)
    session = list(changing(tiny_model(), puzzle))[-1]  # policies of every kind change on the way
    before, kept = list(session.frames), session.kept
    session.seek(17)
    branch = session.branch(at, nothing)
    assert branch.frame is session.frames[at] and branch.head == at
    for step in range(at, 62):
        if step > at and step in CHANGES:
            branch.set_policy(CHANGES[step])
        if step == 30 and at < 30:
            branch.set_measures(session.measures)
        branch.step()
    assert [frame.index for frame, other in zip(branch.frames, before, strict=True) if frame != other] == []
    assert same(now(branch._machine.stepper), now(session._machine.stepper))
    assert list(session.frames) == before and session.kept == kept and session.frame.index == 17


@pytest.mark.parametrize(("what", "at"), [*((what, WITHIN) for what in ALL), (ALL[0], AT_SUPERVISION), (ALL[2], AT_SUPERVISION)])
def test_every_state_of_a_branch_is_restored_bit_for_bit_with_the_intervention_in_force(
    puzzle: Puzzle, what: Intervention, at: int
) -> None:
    session = session_to(20, puzzle, beyond=True)
    untouched = now(session._machine.stepper), list(session.frames), session.kept
    branch = session.branch(at, what, name="other")
    first = {}
    for _ in range(29):
        first[branch.frame.index] = now(branch._machine.stepper)
        branch.step()
    first[branch.frame.index] = now(branch._machine.stepper)
    recorded, places = list(branch.frames), list(first)
    random.Random(1).shuffle(places)
    for step in places:
        state = branch.restore(step)
        assert state.frame == recorded[step] and same((state.z_H, state.z_L, dict(state.trackers)), first[step]), step
    # Going on from the past under other settings and back again gives the same run.
    for turn in (at + 20, at + 2):
        branch.seek(turn)
        branch.set_policy(replace(POLICY, min_fidelity=0.5))
        branch.set_policy(POLICY)
        branch.seek(len(recorded) - 1)
        assert list(branch.frames) == recorded and branch.epoch > 0
    assert branch.name == "other" and branch.branched_at == at and branch.course == (Planned(at, what),)
    assert any(frame != other for frame, other in zip(recorded, session_to(36, puzzle, beyond=True).frames, strict=False))
    assert same((now(session._machine.stepper), list(session.frames)), untouched[:2]) and session.kept == untouched[2]


def test_steps_before_a_branch_are_its_parents(puzzle: Puzzle) -> None:
    session = session_to(20, puzzle)
    branch = session.branch(13, ChangeState())
    branch.run()
    assert all(branch.frames[step] is session.frames[step] for step in range(14)) and branch.frames[14] != session.frames[14]
    for step in (0, 3, 12, 13):
        mine, theirs = branch.state(step), session.state(step)
        assert same((mine.z_H, mine.z_L, dict(mine.trackers)), (theirs.z_H, theirs.z_L, dict(theirs.trackers)))
    for step in (1, 5, 13):
        assert same(branch.activations(step, SITE)[0].shape, session.activations(step, SITE)[0].shape)  # type: ignore[index]
    assert branch.spectra(SITE, 4, 14) == session.spectra(SITE, 4, 14) != branch.spectra(SITE, 14, 24)


def test_a_branch_of_a_branch_keeps_what_acts_up_to_there(puzzle: Puzzle) -> None:
    session = session_to(20, puzzle)
    one, other = ChangeState(state="L", change="noise", size=0.4), EditToken(row=2, column=2, value=1)
    first = session.branch(8, one)
    first.seek(20)
    second = first.branch(15, other)
    assert second.course == (Planned(8, one), Planned(15, other))
    second.run()
    assert second.frames[15] is first.frames[15] and second.frames[:9] == session.frames[:9]

    def change(plain: Plain) -> None:
        plain.z_L = one.applied(plain.z_L)

    states = plain_states(puzzle, order(15), 8, change)
    plain = Plain(tiny_model(), *states[-1], Plain.embedded(tiny_model(), other.applied(puzzle)))
    with torch.no_grad():
        for kind in order(24)[15:]:
            plain.apply(kind)
    assert torch.equal(second.state(24).z_H, plain.z_H) and torch.equal(second.state(24).z_L, plain.z_L)
    # Before the first one began, a branch of it knows nothing of it.
    early = first.branch(5, ())
    assert early.course == () and early.run() == session_to(24, puzzle).frame


def test_settings_changed_before_the_branching_still_lead_to_the_intervention(puzzle: Puzzle) -> None:
    session = session_to(20, puzzle)
    branch = session.branch(13, ScaleDirection(site=SITE, index=0))
    branch.run()
    branch.seek(6)
    other = replace(POLICY, rank=3)
    branch.set_policy(other)
    branch.run()
    straight = session_to(6, puzzle)
    straight.set_policy(other)
    straight.run()
    assert branch.frames[:14] == straight.frames[:14]
    again = straight.branch(13, ScaleDirection(site=SITE, index=0))
    assert again.run() == branch.frame and list(again.frames) == list(branch.frames)


def test_breakpoints_are_taken_along_and_stop_a_branch(puzzle: Puzzle) -> None:
    session = session_to(4, puzzle)
    session.breakpoints.add("index == 10", name="ten")
    session.run()
    branch = session.branch(4, ChangeState(state="L"))
    assert branch.run().index == 10 and branch.stopped_by[0].name == "ten"
    branch.breakpoints.remove("ten")
    assert len(session.breakpoints) == 1
    assert branch.run(until="index == 12").index == 12


def test_measures_are_those_of_the_intervened_cycle(puzzle: Puzzle) -> None:
    """With every site reading a full-rank reconstruction, compressing it once more with the same basis changes nothing."""
    session = session_to(12, puzzle, measures=Measures(functional=True))
    branch = session.branch(12, Reconstruct(basis="live"))
    plain, compressed = session.seek(15), branch.seek(15)
    assert plain.kl is not None and compressed.kl is not None
    assert compressed.kl < 1e-6 < plain.kl and compressed.flips == 0
    within = session.branch(13, ChangeState(state="L"))
    assert within.seek(15).kl is None and within.seek(18).kl is not None


def test_what_cannot_be_done_there_is_refused_and_leaves_nothing_behind(puzzle: Puzzle) -> None:
    session = session_to(8, puzzle)
    session.set_policy(replace(POLICY, sites={SITE: {"enabled": False}}))
    session.step()
    for at, what, message in (
        (1, ScaleDirection(site="layers.1.mlp.down_proj"), "no basis at step 1"),
        (1, Reconstruct(basis="held"), "no basis to hold"),
        (7, ScaleDirection(site="nowhere"), "no site is called nowhere"),
        (7, ScaleDirection(site="layers.1.mlp.down_proj", index=500), "choose one from 0 to"),
        (9, ScaleDirection(site=SITE), "not tracked at step 9"),
        (7, EditToken(row=9, column=1, value=0), "no cell R9C1"),
        (2, ChangeCycles(level="L", change=-1), "no L update"),
        (4, ChangeCycles(level="H", change=-1), "no H cycle"),
    ):
        with pytest.raises(InterventionError, match=message):
            session.branch(at, what)
    with pytest.raises(IndexError, match="newest is 9"):
        session.branch(10, ())
    with pytest.raises(InterventionError, match="at most 16"):
        session.branch(5, [ChangeState()] * (MOST_INTERVENTIONS + 1))
    assert session.frame.index == 9 and session.course == ()


def test_a_closed_branch_frees_its_own_and_leaves_its_parents(puzzle: Puzzle) -> None:
    session = session_to(20, puzzle, beyond=True)
    held = held_bytes(session)
    branch = session.branch(12, Reconstruct())
    branch.seek(40)
    branch.restore(30)
    model, tensor = weakref.ref(branch._machine.model), weakref.ref(branch._machine.stepper.z_H)
    branch.close()
    assert branch.kept.total == 0
    del branch
    gc.collect()
    assert model() is None and tensor() is None
    assert held_bytes(session) == held == session.kept.total
    # The other way round: a branch lives on when its parent is closed.
    branch = session.branch(12, ChangeState())
    session.close()
    assert branch.run(max_steps=20).index == 32 and same(branch.state(5).z_H, session_to(5, puzzle).state(5).z_H)


def test_a_batch_branches_as_one_and_edits_the_puzzle_shown(puzzle: Puzzle) -> None:
    domain = get_domain("sudoku")
    others = [domain.generate(seed, size=4, difficulty="easy") for seed in (11, 12)]
    session = session_to(10, puzzle, companions=others)
    edit = EditToken(row=1, column=1, value=3)
    branch = session.branch(7, [edit, ChangeState(state="L", change="noise", size=0.3)])
    branch.run()
    alone = session_to(10, puzzle).branch(7, [edit, ChangeState(state="L", change="noise", size=0.3)])
    alone.run()
    torch.testing.assert_close(branch.state(24).z_H[:1], alone.state(24).z_H, atol=1e-4, rtol=1e-4)
    assert branch.batch == 3 and branch.frame.batch == 3


def test_frames_of_a_policy_that_judges_by_function_are_replayed_too(puzzle: Puzzle) -> None:
    policy = LaserPolicy(rank="25%", measure="functional", min_fidelity=0.999, patience=1, growth=2)
    session = Session(tiny_model(), puzzle, policy=policy, keyframe_steps=6)
    session.seek(9)
    branch = session.branch(7, Reconstruct(rank=2))
    recorded = [branch.seek(step) for step in range(7, 25)]
    branch.seek(10)
    branch.set_policy(replace(policy, min_fidelity=0.1))
    branch.set_policy(policy)
    assert [branch.seek(step) for step in range(7, 25)] == recorded


@pytest.mark.parametrize("what", [ALL[0], ALL[3], ALL[6], ALL[8]], ids=lambda what: what.kind)
def test_a_run_that_plans_an_intervention_is_the_branch(puzzle: Puzzle, what: Intervention) -> None:
    branch = session_to(20, puzzle).branch(WITHIN, what)
    branch.run()
    planned = Session(tiny_model(), puzzle, policy=POLICY, keyframe_steps=6, course=[Planned(WITHIN, what)])
    planned.run()
    assert list(planned.frames) == list(branch.frames) and planned.puzzle == branch.puzzle and planned.length == branch.length
    assert [state.frame.index for state in planned.walk(5)] == list(range(5, planned.head + 1))
    for state, other in zip(planned.walk(), branch.walk(), strict=True):
        assert same((state.z_H, state.z_L, dict(state.trackers)), (other.z_H, other.z_L, dict(other.trackers)))


def test_what_can_be_told_to_be_wrong_is_refused_before_the_run(puzzle: Puzzle) -> None:
    for what, message in ((ScaleDirection(site="nowhere"), "nowhere"), (EditToken(row=9, column=1, value=0), "R9C1")):
        with pytest.raises(InterventionError, match=message):
            Session(tiny_model(), puzzle, policy=POLICY, course=[Planned(3, what)])


def test_rounds_of_seeks_branches_and_comparisons_leave_nothing_behind(puzzle: Puzzle) -> None:
    """The smaller brother of scripts/measure_debugger.py."""
    session = session_to(60, puzzle, beyond=True)

    def whole(state: Restored) -> list[Any]:
        return flat((state.z_H, state.z_L, dict(state.trackers)))

    first = {step: whole(session.state(step)) for step in (3, 17, 30, 44, 59)}
    frames, held, draw = list(session.frames), [], random.Random(0)
    for _ in range(3):
        branches = [session.branch(draw.randrange(6, 40), what) for what in ALL]
        for branch in branches:
            branch.seek(branch.head + 8)
            compare(session, branch, branch.head)
            branch.close()
        del branch, branches
        for step, state in first.items():
            assert same(whole(session.restore(step)), state)
        held.append((live_bytes(), session.kept))
    assert list(session.frames) == frames
    assert held[0] == held[1] == held[2]


def live_bytes() -> int:
    """Bytes of all tensors that anything holds, each storage once."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) is Tensor or type(one) is nn.Parameter:
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(storages.values())


def test_looking_into_a_branch_does_its_net_application_again(puzzle: Puzzle) -> None:
    edit = EditToken(row=1, column=1, value=puzzle.cells[0] % 4 + 1)
    session = session_to(20, puzzle)
    for what in (Reconstruct(rank=3), ScaleDirection(site=SITE, index=0, basis="held"), edit, ChangeState(state="L")):
        branch = session.branch(WITHIN, what)
        branch.seek(20)
        for step in (5, WITHIN, WITHIN + 1, WITHIN + 2, 20):
            state = branch.state(step)
            assert torch.equal(NetApplication(branch, step).run(), state.z_H if state.frame.l == "H" else state.z_L), (what, step)
