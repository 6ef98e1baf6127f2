"""What compression does to answer and gradient, against the same computed by plain means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from laser_studio.debugger import Measures, Session
from laser_studio.debugger.measures import Cycle, Probe
from laser_studio.laser import LaserPolicy, find_sites
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from laser_studio.trm.stablemax import log_stablemax
from tests.debugger.conftest import tiny_model

POLICY = LaserPolicy(rank=4, min_fidelity=0.0)
ALL = Measures(functional=True, gradient=True)


def cycle_of(model: TRM, puzzle: Puzzle) -> Cycle:
    """The first H cycle of a run."""
    domain = get_domain("sudoku")
    batch = {"inputs": torch.as_tensor(domain.encode(puzzle))[None], "puzzle_identifiers": torch.zeros(1, dtype=torch.long)}
    carry = model.initial_carry(batch)
    with torch.no_grad():
        x = model.embedding(batch["inputs"], batch["puzzle_identifiers"], model.forward_dtype)
        end = next(step for step in model.recurse(carry, batch) if step.ends_cycle).z_H
    solution = domain.encode_solution(puzzle)
    assert solution is not None
    return Cycle(carry.z_H, carry.z_L, x, end, ~torch.tensor(domain.given(puzzle)), torch.as_tensor(solution), model.config.L_cycles)


def random_bases(model: TRM, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sites = find_sites(model.net)
    return {name: torch.linalg.qr(torch.randn(layer.in_features, rank, generator=generator))[0] for name, layer in sites.items()}


def run_cycle(model: TRM, cycle: Cycle) -> torch.Tensor:
    """z_H after the cycle, written out."""
    rope = model.rope(cycle.x.shape[1], cycle.x.device)
    z_L = cycle.z_L
    for _ in range(model.config.L_cycles):
        z_L = model.net(z_L, cycle.z_H + cycle.x, rope)
    return model.net(cycle.z_H, z_L, rope)


@pytest.mark.parametrize("mlp_t", [False, True])
def test_effects_are_those_of_layers_that_read_the_compressed_input(puzzle: Puzzle, mlp_t: bool) -> None:
    model = tiny_model(mlp_t=mlp_t)
    cycle, bases = cycle_of(model, puzzle), random_bases(model, 5)
    effects = Probe(model).effects(cycle, bases)

    def by_hand(names: list[str]) -> tuple[float, int]:
        # W(QQᵀx) = (WQQᵀ)x: compressing the input is the same as changing the weight.
        changed = tiny_model(mlp_t=mlp_t)
        layers = find_sites(changed.net)
        with torch.no_grad():
            for name in names:
                layers[name].weight.copy_(layers[name].weight @ bases[name] @ bases[name].T)
            exact, other = (changed.read_out(z).logits[0, cycle.open_cells] for z in (cycle.end, run_cycle(changed, cycle)))
        p, q = log_stablemax(exact), log_stablemax(other)
        return float((p.exp() * (p - q)).sum(-1).mean()), int((exact.argmax(-1) != other.argmax(-1)).sum())

    for name in bases:
        kl, flips = by_hand([name])
        assert effects.sites[name].kl == pytest.approx(kl, rel=1e-3, abs=1e-7)
        assert effects.sites[name].flips == flips
    kl, flips = by_hand(list(bases))
    assert effects.together.kl == pytest.approx(kl, rel=1e-3) and kl > 1e-4
    assert effects.together.flips == flips
    assert effects.together.fidelity == math.exp(-effects.together.kl)


@pytest.mark.parametrize("mlp_t", [False, True])
def test_cosines_are_those_of_gradients_computed_from_z(puzzle: Puzzle, mlp_t: bool) -> None:
    model = tiny_model(mlp_t=mlp_t)
    cycle, bases = cycle_of(model, puzzle), random_bases(model, 5)
    cosines = Probe(model).cosines(cycle, bases)
    layers = find_sites(model.net)
    loss = -log_stablemax(model.read_out(run_cycle(model, cycle)).logits[0]).gather(-1, cycle.labels[:, None]).mean()
    loss.backward()
    exact, approximate = [], []
    for name, basis in bases.items():
        gradient = layers[name].weight.grad
        assert gradient is not None
        from_z = (gradient @ basis) @ basis.T
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), from_z.flatten(), dim=0)
        assert cosines.sites[name] == pytest.approx(float(cosine), rel=1e-4)
        exact.append(gradient.flatten())
        approximate.append(from_z.flatten())
    total = torch.nn.functional.cosine_similarity(torch.cat(exact), torch.cat(approximate), dim=0)
    assert cosines.together == pytest.approx(float(total), rel=1e-4)
    assert 0 < cosines.together < 1


def test_a_complete_basis_changes_nothing(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=replace(POLICY, rank="100%"), measures=ALL)
    frame = session.seek(6)
    assert frame.flips == 0 and frame.kl == pytest.approx(0, abs=1e-6)
    assert frame.gradient == pytest.approx(1, abs=1e-5)
    assert all(site.functional == pytest.approx(1, abs=1e-6) and site.flips == 0 for site in frame.sites.values())


def test_figures_come_at_the_end_of_a_cycle_once_there_are_bases(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY, measures=ALL)
    session.seek(9)
    told = [frame.index for frame in session.frames if frame.functional is not None]
    assert told == [6, 9]  # cycles of three steps; the first has no basis yet
    assert [frame.index for frame in session.frames if frame.gradient is not None] == told
    assert all((site.functional is not None) == (frame.index in told) for frame in session.frames[1:] for site in frame.sites.values())


def test_measuring_changes_nothing_else(model: TRM, puzzle: Puzzle) -> None:
    plain = Session(model, puzzle, policy=replace(POLICY, min_fidelity=0.95, patience=2))
    plain.run()
    measured = Session(model, puzzle, policy=replace(POLICY, min_fidelity=0.95, patience=2), measures=ALL)
    measured.run()
    for one, other in zip(plain.frames, measured.frames, strict=True):
        sites = {name: replace(site, functional=None, flips=None, gradient=None) for name, site in other.sites.items()}
        assert replace(other, functional=None, kl=None, flips=None, gradient=None, sites=sites) == one
    assert all(weight.grad is None for weight in model.parameters())


def test_measures_asked_for_later_act_from_then_on(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY)
    session.seek(7)
    session.set_measures(Measures(functional=True, best=True))
    frame = session.seek(12)
    assert session.frames[6].functional is None and session.frames[9].functional is not None
    for site in frame.sites.values():
        assert site.best is not None and site.window_fidelity is not None
        assert site.window_fidelity <= site.best + 1e-6
        assert site.best_angles is not None and list(site.best_angles) == sorted(site.best_angles, reverse=True)


def test_the_rule_can_act_on_the_functional_fidelity(model: TRM, puzzle: Puzzle) -> None:
    policy = replace(POLICY, measure="functional", min_fidelity=1.0, patience=2)
    session = Session(model, puzzle, policy=policy)
    frame = session.run(until="reset")
    assert frame.functional is not None and frame.functional < 1  # computed without being asked for: the rule needs it
    site = next(event.site for event in frame.events if event.kind == "reset")
    assert site is not None and frame.sites[site].functional < 1  # type: ignore[operator]
