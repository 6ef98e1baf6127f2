"""Taps on a toy looped module: every site seen in order, nothing of the module changed, nothing left behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from laser_studio.errors import LaserStudioError, PolicyError
from laser_studio.laser import LaserPolicy, SiteTap, find_sites
from tests.laser.helpers import DEVICES, normal, orthonormality_error, traces


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(12, 20, bias=False)
        self.down = nn.Linear(20, 12)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(input=torch.relu(self.up(x))))


class Loop(nn.Module):
    """Two blocks applied three times to (2, 5, 12)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.alias = self.blocks[0].up

    def forward(self, x: Tensor, times: int = 3) -> Tensor:
        for _ in range(times):
            for block in self.blocks:
                x = block(x)
        return x


SITES = ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"]
X = normal(2, 5, 12, seed=0)


def test_sites_are_the_linear_layers_once_each() -> None:
    assert list(find_sites(Loop())) == SITES
    assert list(find_sites(nn.Linear(2, 2))) == ["linear"]


@pytest.mark.parametrize("device", DEVICES)
def test_every_site_gets_a_tracker_that_sees_its_input(device: str) -> None:
    model, x = Loop().to(device), X.to(device)
    seen: list[Tensor] = []
    model.get_submodule("blocks.1.down").register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["input"]), with_kwargs=True)
    with SiteTap(model, LaserPolicy(rank=4, min_fidelity=0)) as tap:
        for _ in range(2):
            model(x)
            first = tap.take()
            closing = tap.refresh()
        assert list(first) == list(closing) == SITES
        assert all(event.closes and event.rank == 4 for event in closing.values())
        assert {name: tracker.dim for name, tracker in tap.trackers.items()} == dict(zip(SITES, [12, 20, 12, 20], strict=True))
        event = first["blocks.1.down"]
        assert event.site == "blocks.1.down" and event.coefficients is not None and event.basis is not None
        assert event.coefficients.device == x.device
        torch.testing.assert_close(event.coefficients, seen[-1].reshape(-1, 20) @ event.basis)
        assert tap.take() == {}


def test_windows_gather_all_applications() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=4)) as tap:
        model(X, times=3)
        assert tap.refresh()["blocks.0.up"].sums.values[2] == 3 * 10


def test_outputs_gradients_and_randomness_of_the_module_stay_as_they_are() -> None:
    def run(model: Loop) -> tuple[Tensor, list[Tensor]]:
        output = model(X)
        return output.detach(), list(torch.autograd.grad(output.square().sum(), list(model.parameters())))

    plain, plain_gradients = run(Loop())
    model = Loop()
    state = torch.get_rng_state()
    with SiteTap(model, LaserPolicy(rank=2, refresh="step", min_fidelity=0.99)) as tap:
        tapped, gradients = run(model)
    assert torch.equal(tapped, plain)
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain_gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(event.coefficients is not None and not event.coefficients.requires_grad for event in tap.take().values())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_forwards_without_gradient_are_seen_alike(mode: type) -> None:
    def bases(without_gradient: bool) -> dict[str, Tensor]:
        model = Loop()
        with SiteTap(model, LaserPolicy(rank=3)) as tap:
            for _ in range(3):
                if without_gradient:
                    with mode():
                        model(X)
                else:
                    model(X)
                tap.refresh()
        return {name: tracker.basis for name, tracker in tap.trackers.items() if tracker.basis is not None}

    plain, other = bases(False), bases(True)
    assert list(other) == SITES
    for name, basis in other.items():
        assert torch.equal(basis, plain[name]) and not basis.is_inference()


def test_patches_are_there_only_while_attached() -> None:
    model = Loop()
    tap = SiteTap(model, LaserPolicy(rank=2))
    assert traces(model) == 0
    assert tap.attach() is tap.attach()
    assert traces(model) == 4
    with pytest.raises(LaserStudioError, match=r"blocks\.0\.up"), tap:
        model(X.to(torch.complex64))
    assert (traces(model), tap.attached) == (0, False)
    model(X)
    assert tap.take() == {}


def test_a_tap_let_go_without_detaching_leaves_nothing_behind() -> None:
    model = Loop()
    tap = SiteTap(model, LaserPolicy(rank=2)).attach()
    model(X)
    tracker = weakref.ref(tap.trackers["blocks.0.up"])
    watch = weakref.ref(tap)
    del tap
    gc.collect()
    assert watch() is None and tracker() is None
    assert traces(model) == 0


def test_a_detached_tap_does_not_keep_its_module_and_events_not_their_tap() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=2)) as tap:
        model(X)
        events = tap.take()
        tap.refresh()
    module, watch = weakref.ref(model), weakref.ref(tap)
    del model, tap
    gc.collect()
    assert module() is None and watch() is None
    assert events["blocks.0.up"].fidelity == 1.0


def test_a_site_switched_off_has_no_tracker() -> None:
    model = Loop()
    policy = LaserPolicy(rank=3, sites={"*.down": {"enabled": False}, "blocks.0.up": {"rank": 5}})
    with SiteTap(model, policy) as tap:
        model(X)
        events = tap.refresh()
        assert {name: event.rank for name, event in events.items()} == {"blocks.0.up": 5, "blocks.1.up": 3}
        tap.set_policy(LaserPolicy(rank=4, sites={"*.up": {"enabled": False}}))
        assert tap.trackers == {}
        model(X)
        assert {name: event.rank for name, event in tap.refresh().items()} == {"blocks.0.down": 4, "blocks.1.down": 4}


def test_settings_reach_every_tracker() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=3)) as tap:
        model(X)
        tap.refresh()
        tap.set_policy(LaserPolicy(rank=6, sites={"blocks.1.up": {"rank": 2}}))
        model(X)
        assert [event.rank for event in tap.refresh().values()] == [6, 6, 2, 6]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (LaserPolicy(sites={"blocks.9.up": {"rank": 2}}), "no site is called 'blocks.9.up'"),
        (LaserPolicy(rank="100%", max_rank=16), "site blocks.0.down: max_rank 16"),
    ],
)
def test_a_policy_that_does_not_fit_the_module_is_refused_at_once(policy: LaserPolicy, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        SiteTap(Loop(), policy)
    tap = SiteTap(Loop(), LaserPolicy(rank=2))
    with pytest.raises(PolicyError, match=message):
        tap.set_policy(policy)
    assert tap.policy == LaserPolicy(rank=2)


def test_a_module_without_linear_layers_is_refused() -> None:
    with pytest.raises(PolicyError, match="no linear layers"):
        SiteTap(nn.ReLU(), LaserPolicy())


def test_a_restored_tap_goes_on_bit_for_bit() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=3, min_fidelity=0.999, growth=2)) as tap:
        model(X)
        start = tap.snapshot()
        tap.refresh()
        middle = tap.snapshot()

        def go_on() -> list[tuple[int, float, Tensor]]:
            model(X + 1)
            events = tap.refresh().values()
            assert all(event.new_basis is not None and orthonormality_error(event.new_basis) < 1e-5 for event in events)
            return [(event.rank, event.fidelity, event.new_basis) for event in events]  # type: ignore[misc]

        first = go_on()
        tap.set_policy(LaserPolicy(rank=7, sites={"*.down": {"enabled": False}}))
        go_on()
        tap.restore(middle)
        for (rank, fidelity, basis), (rank_then, fidelity_then, basis_then) in zip(go_on(), first, strict=True):
            assert (rank, fidelity) == (rank_then, fidelity_then) and torch.equal(basis, basis_then)
        tap.restore(start)
        assert tap.policy.rank == 3 and all(tracker.basis is None for tracker in tap.trackers.values())


def test_windows_are_held_for_reading_on_demand() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=3, min_fidelity=0), keep_windows=True) as tap:
        for keep in (True, True, False, True):
            model(X)
            events = tap.refresh()
            assert all((event.best_angles is not None) is tap.keep_windows for event in events.values())
            tap.keep_windows = keep
            model(X)
            tap.refresh()  # the window that was open at the change


def test_functional_fidelities_reach_the_sites_they_are_of() -> None:
    model = Loop()
    with SiteTap(model, LaserPolicy(rank=3, min_fidelity=0.5, measure="functional", patience=5)) as tap:
        model(X)
        tap.refresh()
        model(X)
        events = tap.refresh({"blocks.0.up": 0.4, "blocks.1.up": 0.6})
        assert [event.functional for event in events.values()] == [0.4, None, 0.6, None]
        assert (events["blocks.0.up"].action, events["blocks.1.up"].action) == ("grow", "keep")
