"""Comparing two runs: against figures computed by hand from the models' own outputs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from laser_studio.debugger import ChangeState, Divergence, EditToken, Reconstruct, Session, compare, first_divergence
from laser_studio.debugger.compare import output_kl
from laser_studio.errors import ComparisonError
from laser_studio.puzzles import Puzzle, get_domain
from tests.debugger.conftest import tiny_model
from tests.debugger.test_branches import SITE, session_to
from tests.debugger.test_time_travel import POLICY, now, same


def stablemax(logits: torch.Tensor) -> torch.Tensor:
    x = logits.double()
    s = torch.where(x < 0, 1 / (1 - x), x + 1)
    return s / s.sum(-1, keepdim=True)


def largest_angle(one: torch.Tensor | None, other: torch.Tensor | None) -> float:
    assert one is not None and other is not None
    return float(torch.rad2deg(torch.acos(torch.linalg.svdvals(one.double().T @ other.double()).clamp(max=1)).max()))


@torch.no_grad()
def test_a_comparison_is_what_the_two_states_give(puzzle: Puzzle) -> None:
    a = session_to(20, puzzle)
    b = a.branch(7, [Reconstruct(rank=2), ChangeState(state="L", change="noise", size=0.5)])
    b.seek(20)
    a.seek(3)
    before = now(a._machine.stepper), now(b._machine.stepper), list(a.frames), list(b.frames)
    open_cells = ~torch.tensor(get_domain("sudoku").given(puzzle))
    for index in (4, 7, 8, 9, 15, 20):
        found = compare(a, b, index)
        one, other = a.state(index), b.state(index)
        p, q = (stablemax(session.model.read_out(state.z_H).logits[0])[open_cells] for session, state in ((a, one), (b, other)))
        assert found.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), abs=1e-12)
        assert found.kl == output_kl(a, b, index)
        answers = [state.frame.answer for state in (one, other)]
        assert found.cells == tuple(cell for cell in range(16) if answers[0][cell] != answers[1][cell])
        assert (found.halting.a, found.halting.b) == (one.frame.q_halt, other.frame.q_halt)
        assert list(found.sites) == list(a.sites)
        for name, site in found.sites.items():
            bases = one.trackers[name].basis, other.trackers[name].basis
            assert bases[0] is not None and bases[1] is not None and site.angles is not None
            assert (site.rank_a, site.rank_b) == (bases[0].shape[1], bases[1].shape[1])
            assert site.angles.largest == pytest.approx(largest_angle(*bases), abs=0.2)  # a cosine cannot tell small angles
            assert 0 <= site.angles.mean <= site.angles.largest
            assert site.difference == other.frame.sites[name].fidelity - one.frame.sites[name].fidelity
        assert (found.kl == 0 and not found.cells) == (index <= 8)  # z_H rests until the end of the cycle
    assert compare(a, b, 20).sites[SITE].angles.largest > 1  # type: ignore[union-attr]
    assert compare(a, b, 2).sites[SITE].angles is None  # no basis yet
    assert a.frame.index == 3 and b.frame.index == 20
    assert same((now(a._machine.stepper), now(b._machine.stepper), list(a.frames), list(b.frames)), before)


def test_two_runs_part_at_the_first_step_that_differs(puzzle: Puzzle) -> None:
    a = session_to(24, puzzle)
    b = a.branch(7, ChangeState())
    b.run()
    found = first_divergence(a, b)
    pairs = list(enumerate(zip(a.frames, b.frames, strict=True)))
    assert found.model == 8 and found.tracker == 8 and found.checked == 24
    assert found.answer == next((i for i, (x, y) in pairs if x.answer != y.answer), None)
    assert first_divergence(a, a.branch(12, ())) == Divergence(checked=12)
    assert first_divergence(a, a) == Divergence(checked=24)
    # Found a little at a time it is the same.
    c, known = a.branch(7, ChangeState()), None
    while c.head < 24:
        c.step()
        known = first_divergence(a, c, known)
    assert known == found


def test_policies_change_trackers_alone(puzzle: Puzzle) -> None:
    a = session_to(24, puzzle)
    b = Session(a.model, puzzle, policy=replace(POLICY, rank=3), keyframe_steps=6)
    b.seek(24)
    found = first_divergence(a, b)
    assert found.model is None and found.answer is None and found.tracker == 3
    after = compare(a, b, 24)
    assert after.kl == 0 and after.cells == () and after.sites[SITE].rank_a > after.sites[SITE].rank_b == b.frame.sites[SITE].rank


def test_other_models_and_puzzles_of_one_shape_are_compared(puzzle: Puzzle) -> None:
    a = session_to(12, puzzle)
    other = Session(tiny_model(seed=5), puzzle, policy=POLICY)
    mixer = Session(tiny_model(mlp_t=True), puzzle, policy=POLICY)
    easier = Session(a.model, get_domain("sudoku").generate(9, size=4, difficulty="easy"), policy=POLICY)
    for b in (other, mixer, easier):
        b.seek(12)
        found = compare(a, b, 12)
        assert found.kl is not None and found.kl > 0 and first_divergence(a, b).model in (0, 1)
    sites = compare(a, mixer, 12).sites
    assert list(sites) == [*a.sites, *(name for name in mixer.sites if name not in a.sites)]
    assert sites["layers.0.mlp_t.down_proj"].a is None and sites["layers.0.mlp_t.down_proj"].difference is None
    wide = Session(tiny_model(), get_domain("sudoku").generate(1, size=4), policy=POLICY)
    wide.puzzle = get_domain("sudoku").generate(1, size=6)
    with pytest.raises(ComparisonError, match="4×4 sudoku and a 6×6"):
        compare(a, wide, 0)
    with pytest.raises(IndexError, match="newest is 12"):
        compare(a, other, 13)


def test_only_cells_that_neither_puzzle_fixes_count(puzzle: Puzzle) -> None:
    a = session_to(12, puzzle)
    blank = puzzle.cells.index(0)
    b = a.branch(6, EditToken(row=blank // 4 + 1, column=blank % 4 + 1, value=1))
    b.seek(12)
    with torch.no_grad():
        p, q = (stablemax(session.model.read_out(session.state(12).z_H).logits[0]) for session in (a, b))
    cells = [cell for cell in range(16) if not puzzle.cells[cell] and cell != blank]
    assert compare(a, b, 12).kl == pytest.approx(float((p * (p / q).log()).sum(-1)[cells].mean()), abs=1e-12)


def test_angles_grow_with_what_separates_the_runs(puzzle: Puzzle) -> None:
    a = session_to(24, puzzle)
    means = []
    for size in (0.001, 0.1, 3.0):
        b = a.branch(6, ChangeState(state="L", change="noise", size=size))
        b.run()
        means.append(sum(site.angles.mean for site in compare(a, b, 24).sites.values() if site.angles))
    assert all(one < other for one, other in itertools.pairwise(means))
