"""Inside a net application: norms and cells equal those that plain hooks see in a plain run; what is stored is told beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from laser_studio.debugger import Session
from laser_studio.debugger.inside import SiteSummary, summaries
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from tests.debugger.conftest import tiny_model

PREFIX, CELLS, HIDDEN = 2, 16, 32


def seen_by_hooks(session: Session, index: int) -> list[tuple[str, Tensor, Tensor]]:
    """Inputs and outputs of every linear layer in the application that led to `index`, by a run of the bare model."""
    model = session.model
    domain = get_domain(session.puzzle.domain)
    ids = torch.stack([torch.as_tensor(domain.encode(one), dtype=torch.long) for one in (session.puzzle, *session.companions)])
    batch = {"inputs": ids, "puzzle_identifiers": torch.zeros(len(ids), dtype=torch.long)}
    carry, seen, steps = model.initial_carry(batch), [], 0
    names = {module: name for name, module in model.named_modules()}
    short = {name: next(site for site in session.sites if name.endswith(site)) for name in names.values() if name.endswith("_proj")}
    with torch.no_grad():
        while steps < index:
            handles: list[Any] = []
            stepping = model.recurse(carry, batch)
            for _ in range(model.config.steps_per_supervision):
                if steps + 1 == index:
                    for module, name in names.items():
                        if name in short:
                            handles.append(
                                module.register_forward_hook(
                                    lambda m, args, out: seen.append((short[names[m]], args[0].clone().float(), out.clone().float()))
                                )
                            )
                step = next(stepping)
                steps += 1
                for handle in handles:
                    handle.remove()
                if steps == index:
                    return seen
            assert step.carry is not None
            carry = step.carry
    return seen


@pytest.mark.parametrize("mixer", [False, True])
def test_it_equals_what_hooks_on_the_bare_model_see(mixer: bool) -> None:
    puzzles = [get_domain("sudoku").generate(seed, size=4, difficulty="easy") for seed in (3, 4)]
    session = Session(tiny_model(mlp_t=mixer), puzzles[0], policy=LaserPolicy(rank="25%"), companions=puzzles[1:])
    session.seek(11)
    for index in (1, 9):
        found, expected = summaries(session, index), seen_by_hooks(session, index)
        assert [one.site for one in found] == [site for site, _, _ in expected] and len(found) == len(session.sites)
        for one, (site, x, y) in zip(found, expected, strict=True):
            assert (one.dim_in, one.dim_out, one.rows) == (x.shape[-1], y.shape[-1], x.numel() // x.shape[-1])
            assert one.input_norm == pytest.approx(float(x.norm()), rel=1e-5)
            assert one.output_norm == pytest.approx(float(y.norm()), rel=1e-5)
            for cells, values in ((one.inputs, x), (one.outputs, y)):
                if mixer and "mlp_t" in site:  # (B, hidden, P + T): the last axis is the cells
                    by_hand = [float(values[0, :, PREFIX + c].square().mean()) for c in range(CELLS)] if values.shape[-1] == 18 else None
                else:
                    by_hand = [float(values[0, PREFIX + c].square().mean()) for c in range(CELLS)]
                assert (cells is None) == (by_hand is None)
                if cells is not None and by_hand is not None:
                    assert list(cells) == pytest.approx(by_hand, rel=1e-4)
            assert one.fidelity == session.frames[index].sites[site].fidelity
    assert session.frame.index == 11 and summaries(session, 0) == ()


def test_what_is_stored_stands_beside_it(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=4, min_fidelity=0.5))
    session.seek(24)
    for index in (1, 7, 20):
        for one, visit in zip(summaries(session, index), session.inside(index), strict=True):
            stored = session.activations(index, one.site)
            assert stored is not None
            back, share = stored
            assert one.kept == share and one.error == pytest.approx(float((visit.inputs - back).norm() / visit.inputs.norm()), abs=1e-6)
            assert one.kept == pytest.approx(float(back.square().sum() / visit.inputs.square().sum()), abs=1e-4)
            assert one.read_back is not None and one.inputs is not None
            if one.kept == 1:  # exact: the first window
                assert one.read_back == pytest.approx(one.inputs, rel=1e-5)
    assert any(one.kept is not None and one.kept < 0.99 for one in summaries(session, 20))


def test_dropped_activations_are_said_to_be_gone(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank="50%"), history_bytes=64 << 10, beyond=True)
    session.seek(60)
    assert session.dropped_before > 2
    for one in summaries(session, 2):
        assert isinstance(one, SiteSummary) and (one.read_back, one.kept, one.error) == (None, None, None) and one.inputs is not None
    with pytest.raises(IndexError):
        summaries(session, 61)
