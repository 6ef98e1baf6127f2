"""Cells and sites looked into, against plain torch on the exact states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from laser_studio.debugger import Session, state_trail
from laser_studio.debugger.looking import directions, latents, removals, token_labels, token_probabilities
from laser_studio.debugger.net_application import NetApplication
from laser_studio.debugger.stepper import Stepper
from laser_studio.errors import InspectionError
from laser_studio.laser import LaserPolicy, find_sites
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from laser_studio.trm.stablemax import log_stablemax
from tests.debugger.conftest import tiny_model

POLICY = LaserPolicy(rank=6, min_fidelity=0.0)
LATE = 20  # a step with bases, the second of its H cycle (L_cycles is 2)


@pytest.fixture(params=[False, True], ids=["attention", "mixer"])
def either(request: pytest.FixtureRequest) -> TRM:
    return tiny_model(mlp_t=request.param)


def test_probabilities_are_those_of_the_heads_on_the_exact_states(either: TRM, puzzle: Puzzle) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(12)
    found = token_probabilities(session, cell=7)
    assert found.steps == (3, 6, 9, 12) and found.values.shape == (4, 6)
    for step, row in zip(found.steps, found.values, strict=True):
        with torch.no_grad():
            logits = either.read_out(session.restore(step).z_H).logits[0, 7]
        expected = log_stablemax(logits).exp().float()
        torch.testing.assert_close(row, expected, rtol=0, atol=0)
        frame = session.frames[step]
        assert float(row.max()) == pytest.approx(frame.confidence[7], rel=1e-6)
        assert int(row.argmax()) - 1 == frame.answer[7] or frame.answer[7] == -1
    assert token_probabilities(session, 7, start=4, stop=10).steps == (6, 9)


def test_latents_are_norms_and_places_of_the_exact_states(either: TRM, puzzle: Puzzle) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(9)
    plane = torch.linalg.svd(either.lm_head.weight.detach().float(), full_matrices=False)[2][:2]
    for state, steps in (("z_H", (3, 6, 9)), ("z_L", (1, 2, 4, 5, 7, 8))):
        found = latents(session, 5, state)  # type: ignore[arg-type]
        assert found.steps == steps
        before = getattr(session.restore(0), state)
        for step, (norm, x, y, moved) in zip(found.steps, found.values.tolist(), strict=True):
            now = getattr(session.restore(step), state)
            vector, past = (each[0, either.config.prefix_len + 5].float() for each in (now, before))
            assert norm == pytest.approx(float(vector.norm()), rel=1e-6)
            assert sorted((abs(x), abs(y))) == pytest.approx(sorted((plane @ vector).abs().tolist()), rel=1e-4)
            assert moved == pytest.approx(float((vector - past).norm() / vector.norm()), rel=1e-5)
            before = now
    mean = session.trail.cells("z_H", 9, 10)[0][1][:, 1:3].mean(0)
    assert tuple(mean.tolist()) == pytest.approx(session.frames[9].latent[:2], rel=1e-4)  # the path's place is the cells' mean


def test_of_a_long_run_the_newest_updates_are_kept(model: TRM, puzzle: Puzzle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_trail, "_SPARE", 2)
    monkeypatch.setattr(state_trail, "PROBABILITY_BYTES", 5 * 16 * 6 * 4)  # five updates of 16 cells and 6 tokens
    monkeypatch.setattr(state_trail, "LATENT_BYTES", 8 * 16 * 4 * 4)
    monkeypatch.setattr(state_trail, "RETURNS_KEPT", 4)
    session = Session(model, puzzle, policy=POLICY, beyond=True)
    session.seek(90)
    kept = token_probabilities(session, 0).steps
    assert 5 <= len(kept) <= 6 and kept[-1] == 90 and kept == tuple(range(kept[0], 91, 3))
    for state in ("z_H", "z_L"):
        assert 8 <= len(latents(session, 0, state).steps) <= 9
    assert session.trail.returns(90) and session.trail.returns(60) == ()


def test_labels_are_what_the_board_shows(model: TRM, puzzle: Puzzle) -> None:
    assert token_labels(Session(model, puzzle)) == ("–", "blank", "1", "2", "3", "4")


def test_the_application_is_that_of_the_run(either: TRM, puzzle: Puzzle) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(LATE + 1)
    for index in (1, 3, LATE, LATE + 1, 2):  # within cycles and at their ends, at the head and back again
        application, visits = NetApplication(session, index), {visit.site: visit for visit in session.inside(index)}
        for name, layer in application.sites.items():
            assert torch.equal(application.inputs(layer).flatten(0, -2), visits[name].inputs)
        updated = session.restore(index).z_H if session.frames[index].l == "H" else session.restore(index).z_L
        assert torch.equal(application.run(), updated)
        before = session.restore(index - 1)
        bases = {name: snapshot.basis for name, snapshot in before.trackers.items() if snapshot.basis is not None}
        assert application.bases.keys() == bases.keys() and all(torch.equal(application.bases[name], bases[name]) for name in bases)
    assert not NetApplication(session, 3).bases and NetApplication(session, 4).bases  # the first window closes at step 3


def test_looking_back_step_by_step_replays_once(model: TRM, puzzle: Puzzle, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(24)
    advanced: list[int] = []
    plain = Stepper.advance

    def counted(stepper: Stepper, *given: Any) -> Any:
        advanced.append(stepper.index)
        return plain(stepper, *given)

    monkeypatch.setattr(Stepper, "advance", counted)
    assert NetApplication(session, 24).frame.index == 24 and not advanced  # the newest is at hand
    for index in range(23, 12, -1):
        NetApplication(session, index)
    assert len(advanced) == 23  # from the start, where no keyframe is nearer, and never again


def test_directions_are_the_principal_axes_of_what_the_basis_keeps(either: TRM, puzzle: Puzzle) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(24)
    for name in session.sites:
        found = directions(session, name, LATE)
        x = next(visit.inputs for visit in session.inside(LATE) if visit.site == name)
        basis = session.restore(LATE - 1).trackers[name].basis
        assert basis is not None
        projected = x @ basis @ basis.T
        sizes = torch.linalg.svdvals(projected)
        energy = x.square().sum()
        vectors = torch.stack([one.vector for one in found.directions], dim=1)
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(basis @ basis.T @ vectors, vectors, atol=1e-5, rtol=0)  # within the span
        torch.testing.assert_close(torch.tensor([one.share for one in found.directions]), sizes[:6].square() / energy, atol=1e-5, rtol=1e-4)
        assert found.kept == pytest.approx(float(projected.square().sum() / energy), rel=1e-4) and found.rank == 6
        activity = torch.stack([torch.cat((one.prefix, one.cells)) for one in found.directions], dim=1)  # (P + T, 6)
        if found.activity == "coefficient":
            expected = x @ vectors
        else:
            rms = (x @ vectors).square().mean(0).sqrt()
            weight = find_sites(either.net)[name].weight.detach()
            expected = (vectors if found.activity == "loading" else weight @ vectors) * rms
        torch.testing.assert_close(activity, expected, atol=1e-4, rtol=1e-3)
        assert (activity.sum(0) >= -1e-5).all()
    shown = {directions(session, name, LATE).activity for name in session.sites}
    assert shown == ({"coefficient", "loading", "written"} if either.config.mlp_t else {"coefficient"})


def test_without_a_basis_the_directions_are_the_inputs_own(either: TRM, puzzle: Puzzle) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(2)
    for name in session.sites:
        found = directions(session, name, 2, count=3)
        x = next(visit.inputs for visit in session.inside(2) if visit.site == name)
        sizes = torch.linalg.svdvals(x)
        assert found.rank is None and found.kept == pytest.approx(1, abs=1e-5)
        shares = [one.share for one in found.directions]
        assert shares == pytest.approx((sizes[:3].square() / sizes.square().sum()).tolist(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("index", [LATE, 21])
def test_removals_are_reruns_with_a_weight_that_cannot_see_the_direction(either: TRM, puzzle: Puzzle, index: int) -> None:
    session = Session(either, puzzle, policy=POLICY)
    session.seek(24)
    start, flips = session.restore(18), 0
    for name in session.sites:
        found = directions(session, name, index, count=4)
        told = removals(session, found)
        assert len(told) == 4
        for one, removal in zip(found.directions, told, strict=True):

            def by_hand(vector: Tensor | None, name: str = name) -> Tensor:
                # W(I − vvᵀ)x: taking a direction out of the input is taking it out of the weight.
                changed = tiny_model(mlp_t=either.config.mlp_t)
                with torch.no_grad():
                    weight = find_sites(changed.net)[name].weight
                    if vector is not None:
                        weight -= torch.outer(weight @ vector, vector)
                    x = changed.embedding(
                        torch.as_tensor(get_domain("sudoku").encode(puzzle))[None], torch.zeros(1, dtype=torch.long), torch.float32
                    )
                    rope, z_H, z_L = changed.rope(x.shape[1], x.device), start.z_H, start.z_L
                    for _ in range(2):
                        z_L = changed.net(z_L, z_H + x, rope)
                    return changed.read_out(changed.net(z_H, z_L, rope)).logits[0]

            exact, without = by_hand(None), by_hand(one.vector)
            differ = [cell for cell in range(16) if exact[cell].argmax() != without[cell].argmax()]
            assert sorted(removal.flips) == differ
            assert all(removal.flips[cell] == int(without[cell].argmax()) - 1 or removal.flips[cell] == -1 for cell in differ)
            is_open = ~torch.tensor(get_domain("sudoku").given(puzzle))
            p, q = log_stablemax(exact[is_open]), log_stablemax(without[is_open])
            assert removal.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-2, abs=1e-6)
            flips += len(differ)
    assert flips > 0  # the test can fail


def test_a_run_that_is_looked_into_goes_on_as_if_it_had_not_been(either: TRM, puzzle: Puzzle) -> None:
    policy = LaserPolicy(rank=4, min_fidelity=0.999, patience=1)
    session, undisturbed = Session(either, puzzle, policy=policy, seed=1), Session(either, puzzle, policy=policy, seed=1)
    undisturbed.run()
    name = next(iter(session.sites))
    while not session.finished:
        session.step()
        token_probabilities(session, 3)
        latents(session, 3, "z_L")
        for index in {session.head, max(1, session.head - 5)}:
            removals(session, directions(session, name, index))
        assert session.frame.index == session.head  # the cursor has not moved
    assert list(session.frames) == list(undisturbed.frames)
    first, again = (removals(session, directions(session, name, 11)) for _ in range(2))
    assert first == again
    one, other = (directions(session, name, 11) for _ in range(2))
    assert all(
        torch.equal(a.cells, b.cells) and torch.equal(a.vector, b.vector) for a, b in zip(one.directions, other.directions, strict=True)
    )


def test_companions_change_nothing_of_what_is_seen(model: TRM, puzzle: Puzzle) -> None:
    others = [get_domain("sudoku").generate(seed, size=4, difficulty="easy") for seed in (5, 6)]
    alone, batch = Session(model, puzzle, policy=POLICY), Session(model, puzzle, policy=POLICY, companions=others)
    for session in (alone, batch):
        session.seek(9)
    torch.testing.assert_close(token_probabilities(alone, 2).values, token_probabilities(batch, 2).values, atol=1e-5, rtol=1e-4)
    name = find_first(model)
    one, other = directions(alone, name, 2), directions(batch, name, 2)  # before the first basis, which is that of the whole batch
    for mine, theirs in zip(one.directions[:3], other.directions[:3], strict=True):
        torch.testing.assert_close(mine.cells, theirs.cells, atol=1e-3, rtol=1e-2)


def find_first(model: TRM) -> str:
    return next(iter(find_sites(model.net)))


def test_what_cannot_be_looked_into_is_refused_by_name(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(4)
    name = find_first(model)
    for wrong, says in [
        (lambda: token_probabilities(session, 16), "no cell 16"),
        (lambda: latents(session, -1, "z_H"), "no cell -1"),
        (lambda: directions(session, "nowhere", 2), "no site 'nowhere'"),
        (lambda: directions(session, name, 0), "nothing has been applied"),
        (lambda: directions(session, name, 5), "not recorded"),
        (lambda: directions(session, name, 2, count=0), "1 to 16"),
        (lambda: directions(session, name, 2, count=17), "1 to 16"),
    ]:
        with pytest.raises(InspectionError, match=says):
            wrong()
    assert session.frame.index == 4


def test_a_dropped_future_is_not_shown(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(12)
    session.seek(6)
    session.set_policy(LaserPolicy(rank=8))
    assert token_probabilities(session, 0).steps == (3, 6)
    assert latents(session, 0, "z_L").steps == (1, 2, 4, 5)
    session.seek(9)
    assert token_probabilities(session, 0).steps == (3, 6, 9)
    assert torch.equal(NetApplication(session, 9).run(), session.restore(9).z_H)
