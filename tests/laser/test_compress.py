"""Activation compression on a looped module: gradients against autograd and by hand, windows, bytes, state, nothing left behind."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from laser_studio.errors import CompressionError, PolicyError
from laser_studio.laser import Compression, LaserPolicy, compress
from tests.laser.helpers import DEVICES, normal

EXACT = LaserPolicy(rank="100%", min_fidelity=0)


class CastingLinear(nn.Linear):
    """A layer whose own forward hands a cast of its weight to `F.linear`, as those of mixed-precision models do."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Loop(nn.Module):
    """A residual step of two linear layers, applied `times` times to (…, 12)."""

    def __init__(self, kind: type[nn.Linear] = nn.Linear, bias: bool = True, times: int = 3) -> None:
        super().__init__()
        self.up, self.down, self.times = kind(12, 20, bias=bias), kind(20, 12, bias=bias), times
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters()):
                parameter.copy_(normal(*parameter.shape, seed=place) / 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = F.layer_norm(x + self.down(torch.tanh(self.up(x))), (12,))
        return x


def gradients(model: nn.Module, *xs: Tensor, laser: Compression | None = None) -> tuple[Tensor, list[Tensor]]:
    """The loss and the gradients of all parameters and of the inputs, over several forwards and then their backwards."""
    model.zero_grad()
    inputs = [x.clone().requires_grad_() for x in xs]
    with laser or nullcontext():
        losses = [(model(x).float() * normal(*x.shape, seed=9).to(x.device)).sum() for x in inputs]
        for loss in losses:
            loss.backward()
    found = [*model.parameters(), *inputs]
    assert all(each.grad is not None for each in found)
    return torch.stack(losses).detach(), [each.grad.clone() for each in found if each.grad is not None]


def worst_error(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(found, wanted, strict=True))


X = normal(6, 5, 12, seed=20)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [nn.Linear, CastingLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_a_complete_basis_gives_autograds_gradients(kind: type[nn.Linear], bias: bool, device: str) -> None:
    model, x = Loop(kind, bias).to(device), X.to(device)
    laser = compress(model, EXACT, mode="linear")
    for step in range(3):
        plain, wanted = gradients(model, x + step)
        loss, found = gradients(model, x + step, laser=laser)
        assert torch.equal(loss, plain)
        assert worst_error(found, wanted) < 1e-4 if step else all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        laser.step()


def test_the_first_step_is_exact_and_starts_the_bases() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    plain, wanted = gradients(model, X)
    loss, found = gradients(model, X, laser=laser)
    assert torch.equal(loss, plain) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    line = laser.ledger().sites["up"]
    assert (line.exact, line.rank, line.stored_bytes) == (True, 0, line.full_bytes)
    events = laser.step()
    assert {name: (event.cause, event.rank) for name, event in events.items()} == dict.fromkeys(("up", "down"), ("basis started by SVD", 3))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    lead=st.integers(1, 3),
    dim=st.integers(1, 7),
    out=st.integers(1, 6),
    rank=st.integers(1, 7),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_gradients_with_a_frozen_basis_are_those_of_the_formula(
    rows: int, lead: int, dim: int, out: int, rank: int, bias: bool, dtype: torch.dtype
) -> None:
    layer = nn.Linear(dim, out, bias=bias, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(normal(out, dim, seed=1))
    laser = compress(layer, LaserPolicy(rank=rank, min_fidelity=0), mode="linear")
    with laser:
        layer(normal(lead, rows, dim, seed=2).to(dtype)).sum().backward()
    events = laser.step()
    basis = events["linear"].new_basis
    assert basis is not None
    first, second, weights = (normal(lead, rows, width, seed=seed).to(dtype) for width, seed in ((dim, 3), (dim, 4), (out, 5)))
    layer.zero_grad()
    first.requires_grad_()
    with laser:
        y = layer(first) * weights + layer(second)
        y.backward(torch.ones_like(y))
    small = lead * rows <= basis.shape[1]  # of so few rows X is cheaper than the basis alone
    upstream = [weights.reshape(-1, out).double(), torch.ones(lead * rows, out, dtype=torch.float64)]
    inputs = [each.detach().reshape(-1, dim) for each in (first, second)]
    coefficients = [(x.float() @ basis).to(dtype).double() for x in inputs]
    wanted = sum(dy.T @ (x.double() if small else z @ basis.double().T) for dy, x, z in zip(upstream, inputs, coefficients, strict=True))
    assert isinstance(wanted, Tensor) and layer.weight.grad is not None and first.grad is not None
    exact = upstream[0] @ layer.weight.detach().double()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    scale = sum(float(dy.norm() * x.double().norm()) for dy, x in zip(upstream, inputs, strict=True))
    assert float((layer.weight.grad.double() - wanted).norm()) <= tolerance * scale + 1e-6
    assert float((first.grad.reshape(-1, dim).double() - exact).norm()) <= tolerance * float(exact.norm()) + 1e-6
    if bias:
        assert layer.bias.grad is not None
        db = sum(dy.sum(0) for dy in upstream)
        assert float((layer.bias.grad.double() - db).abs().max()) <= tolerance * lead * rows * 4


def test_q_is_frozen_over_all_forwards_and_backwards_of_a_step() -> None:
    """Two forwards, then two backwards, then another of each: the same as one step over all of it, and as plain autograd at k = D."""
    model = Loop()
    laser = compress(model, EXACT, mode="linear")
    gradients(model, X, laser=laser)
    laser.step()
    _, wanted = gradients(model, X, X + 1)
    _, found = gradients(model, X, X + 1, laser=laser)
    assert worst_error(found, wanted) < 1e-4
    model.zero_grad()
    for x in (X, X + 1):
        with laser:
            loss = (model(x) * normal(*x.shape, seed=9)).sum()
        loss.backward()  # outside of `with`: what was saved keeps its basis
    assert worst_error([p.grad for p in model.parameters() if p.grad is not None], wanted[:4]) < 1e-4
    events = laser.step()
    assert events["up"].sums.values[2] == 4 * 30 * 3


def test_a_weight_changed_between_two_forwards_is_not_taken_for_the_old_one() -> None:
    model = Loop()
    laser = compress(model, EXACT, mode="linear")
    gradients(model, X, laser=laser)
    laser.step()
    with laser:
        model(X).sum().backward()
        with torch.no_grad():
            model.up.weight.mul_(2)
        model.zero_grad()
        model(X).sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model(X).sum().backward()
    assert worst_error(found, [p.grad for p in model.parameters() if p.grad is not None]) < 1e-3


def test_a_backward_after_the_weight_was_changed_in_place_is_refused_as_torch_does() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    gradients(model, X, laser=laser)
    laser.step()
    with laser:
        loss = model(X).sum()
    with torch.no_grad():
        model.down.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_forwards_without_gradient_are_left_alone() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    with laser, torch.no_grad():
        assert torch.equal(model(X), copy.deepcopy(model)(X))
    assert laser.step() == {} and laser.ledger().sites == {}


def test_a_copy_made_inside_has_plain_forwards_of_its_own() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    with laser:
        twin = copy.deepcopy(model)
        with torch.no_grad():
            twin.up.weight.zero_()
            twin.up.bias.zero_()
        twin(X).sum().backward()
        assert model.up.weight.grad is None and twin.up.weight.grad is not None
    assert laser.ledger().sites == {}


def test_frozen_layers_and_sites_switched_off_are_left_alone() -> None:
    model = Loop()
    model.up.weight.requires_grad_(False)
    laser = compress(model, LaserPolicy(rank=3, sites={"down": {"enabled": False}}), mode="linear")
    with laser:
        model(X.clone().requires_grad_()).sum().backward()
    assert laser.step() == {}


# The rule, over optimiser steps


def stream(*, rank: int, seed: int, level: float = 0.0) -> Tensor:
    """(40, 12) rows of the given rank, with noise in all directions."""
    return normal(40, rank, seed=seed) @ normal(rank, 12, seed=seed + 1) + level * normal(40, 12, seed=seed + 2)


def run(layer: nn.Linear, laser: Compression, x: Tensor) -> Tensor:
    layer.zero_grad()
    with laser:
        layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    return layer.weight.grad.clone()


@pytest.mark.parametrize("on_miss", ["stay", "keep_exact"])
def test_what_a_miss_does_to_the_next_step(on_miss: str) -> None:
    layer = nn.Linear(12, 4, bias=False)
    policy = LaserPolicy(rank=3, min_fidelity=0.99, growth=2, patience=9)
    laser = compress(layer, policy, mode="linear", on_miss=on_miss)  # type: ignore[arg-type]
    run(layer, laser, stream(rank=3, seed=0))
    laser.step()
    x = stream(rank=6, seed=10)

    def plain() -> Tensor:
        layer.zero_grad()
        layer(x).square().sum().backward()
        assert layer.weight.grad is not None
        return layer.weight.grad.clone()

    missed = run(layer, laser, x)  # stored before the miss is known: it stays as measured
    assert laser.ledger().sites["linear"].exact is False
    assert float((missed - plain()).norm() / plain().norm()) > 0.01
    event = laser.step()["linear"]
    assert (event.action, event.rank) == ("grow", 5)
    next_one = run(layer, laser, x)
    line = laser.ledger().sites["linear"]
    assert (line.misses, line.growths, line.exact) == (1, 1, on_miss == "keep_exact")
    if on_miss == "keep_exact":
        assert torch.equal(next_one, plain())
    for _ in range(3):
        laser.step()
        found = run(layer, laser, x)
    assert laser.ledger().sites["linear"].exact is False and laser.ledger().sites["linear"].fidelity > 0.99
    assert float((found - plain()).norm() / plain().norm()) < 1e-3


def test_a_reset_finds_the_new_subspace_without_holding_activations() -> None:
    layer = nn.Linear(12, 4, bias=False)
    laser = compress(layer, LaserPolicy(rank=3, max_rank=4, min_fidelity=0.95, patience=1), mode="linear")
    run(layer, laser, stream(rank=3, seed=0))
    laser.step()
    other = stream(rank=4, seed=50, level=1e-3)
    actions = []
    for _ in range(4):
        run(layer, laser, other)
        actions.append(laser.step()["linear"].action)
    assert actions == ["reset", "keep", "keep", "keep"]
    line = laser.ledger().sites["linear"]
    assert (line.resets, line.rank) == (1, 4) and line.fidelity > 0.999
    assert laser.ledger().total.reset_seconds > 0


def test_few_rows_are_kept_as_they_are_without_what_they_were_taken_from() -> None:
    layer = nn.Linear(12, 2)
    laser = compress(layer, LaserPolicy(rank=6), mode="linear")
    for _ in range(2):
        with laser:
            large = normal(2, 500, 12, seed=3).requires_grad_() * 2
            y = layer(large[:, 0])
            del large
            y.sum().backward()
        laser.step()
    line = laser.ledger().sites["linear"]
    assert (line.exact, line.full_bytes, line.stored_bytes) == (True, 96, 96)
    assert laser.ledger().total.all_saved_bytes < 2 * 500 * 12 * 4


# Bytes


def saved_bytes(model: nn.Module, compute: Callable[[], Tensor]) -> int:
    """Bytes of all storages that one computation saves, parameters excluded: measured apart from the ledger's own way."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    del result
    return sum(each.untyped_storage().nbytes() for address, each in seen.items() if address not in parameters)


def test_the_ledger_agrees_with_an_independent_measurement() -> None:
    model, x = Loop(), normal(50, 8, 12, seed=4)
    laser = compress(model, LaserPolicy(rank=3, min_fidelity=0), mode="linear")
    full = saved_bytes(model, lambda: model(x).square().sum())
    gradients(model, x, laser=laser)
    laser.step()
    with laser:
        stored = saved_bytes(model, lambda: model(x).square().sum())
    laser.step()
    with laser:
        model(x).square().sum().backward()
    ledger = laser.ledger()
    bases = (12 + 20) * 3 * 4
    beside = ledger.total.basis_bytes
    assert ledger.total.all_full_bytes == full
    assert ledger.total.all_saved_bytes == stored - bases + beside  # the hooks see Q, the ledger counts it among what is kept beside
    assert ledger.sites["up"].full_bytes == 3 * 400 * 12 * 4 and ledger.sites["up"].stored_bytes == 3 * 400 * 3 * 4
    # tanh keeps its output, which is what `down` reads: storing Z there frees nothing
    freed = 3 * 400 * 12 * 4
    assert full - freed + 2 * 3 * 400 * 3 * 4 == stored - bases
    assert beside >= 2 * bases  # Q, and a sketch as large
    assert ledger.total.saving == 1 - (ledger.total.stored_bytes + beside) / ledger.total.full_bytes


def test_the_ledger_stays_between_steps_and_counts_go_on() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3, min_fidelity=0), mode="linear")
    for _ in range(3):
        gradients(model, X, laser=laser)
        open_one = laser.ledger()
        laser.step()
    assert laser.ledger().sites == open_one.sites
    assert (laser.ledger().total.steps, open_one.total.steps) == (3, 2)
    assert laser.ledger().total.refresh_seconds > 0


# Modes of the surroundings


def test_autocast_keeps_what_autocast_computes() -> None:
    model = Loop()
    laser = compress(model, EXACT, mode="linear")
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            plain, wanted = gradients(model, X)
            loss, found = gradients(model, X, laser=laser)
        assert torch.equal(loss, plain)
        assert worst_error(found, wanted) < 0.02  # sums in bf16 come in another order
        laser.step()
    assert laser.ledger().sites["up"].stored_bytes == laser.ledger().sites["up"].full_bytes == 3 * 30 * 12 * 2


def test_the_global_random_state_stays_untouched() -> None:
    model = Loop()
    state = torch.get_rng_state()
    laser = compress(model, LaserPolicy(rank=2, min_fidelity=0.999, patience=2), mode="linear")
    for seed in range(5):
        gradients(model, normal(6, 5, 12, seed=seed), laser=laser)
        laser.step()
    assert torch.equal(torch.get_rng_state(), state)


def test_compiled_modules_are_refused_with_the_way_out() -> None:
    model = Loop()
    laser = compress(model, EXACT, mode="linear")
    model.compile()
    with pytest.raises(CompressionError, match=r"compiled by torch\.compile.*train it uncompiled"), laser:
        pass
    assert not laser.attached


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "blocks"}, CompressionError, "mode is 'linear' or 'block'"),
        ({"mode": "block"}, CompressionError, "residual_stages"),
        ({"mode": "linear", "storage": {"0": "recomputed"}}, CompressionError, "block"),
        ({"on_miss": "hope"}, CompressionError, "keep_exact"),
        ({"policy": LaserPolicy(sites={"nowhere": {"rank": 2}})}, PolicyError, "no site is called 'nowhere'"),
        ({"policy": LaserPolicy(rank="100%", max_rank=16)}, PolicyError, "site down: max_rank 16"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compress(Loop(), **({"policy": LaserPolicy(), "mode": "linear"} | options))
    with pytest.raises(CompressionError, match="no linear layers"):
        compress(nn.ReLU(), LaserPolicy(), mode="linear")


# State and leaks


def test_a_state_goes_on_bit_for_bit_through_a_file() -> None:
    model = Loop()
    policy = LaserPolicy(rank=3, min_fidelity=0.98, patience=2, growth=1)
    laser = compress(model, policy, mode="linear")
    for seed in range(3):
        gradients(model, normal(6, 5, 12, seed=seed), laser=laser)
        laser.step()
    file = io.BytesIO()
    torch.save(laser.state_dict(), file)
    file.seek(0)
    other = compress(model, policy, mode="linear")
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 7):
        x = normal(6, 5, 12, seed=seed)
        _, first = gradients(model, x, laser=laser)
        _, second = gradients(model, x, laser=other)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        events, again = laser.step(), other.step()
        assert [(e.action, e.rank, e.fidelity) for e in events.values()] == [(e.action, e.rank, e.fidelity) for e in again.values()]
    assert laser.ledger().sites == other.ledger().sites
    ends = [each.ledger().total for each in (laser, other)]
    assert ends[0].all_full_bytes == ends[1].all_full_bytes > 0 and ends[0].all_saved_bytes == ends[1].all_saved_bytes


def test_states_that_do_not_belong_are_refused() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    with laser:
        model(X).sum().backward()
    with pytest.raises(CompressionError, match="still open"):
        laser.state_dict()
    laser.step()
    state = laser.state_dict()
    wide = compress(nn.ModuleDict({"up": nn.Linear(9, 2), "down": nn.Linear(2, 2)}), LaserPolicy(rank=2), mode="linear")
    with pytest.raises(CompressionError, match="width 9"):
        wide.load_state_dict(state)
    with pytest.raises(CompressionError, match="of mode 'block'"):
        laser.load_state_dict({**state, "mode": "block"})
    with pytest.raises(CompressionError, match="not a state"):
        laser.load_state_dict({})


def test_other_settings_take_effect_at_the_next_step() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3, min_fidelity=0), mode="linear")
    for policy in (LaserPolicy(rank=5, min_fidelity=0), LaserPolicy(rank=2, min_fidelity=0, sites={"down": {"enabled": False}})):
        gradients(model, X, laser=laser)
        laser.step()
        laser.set_policy(policy)
    gradients(model, X, laser=laser)
    laser.step()
    assert {name: site.rank for name, site in laser.ledger().sites.items()} == {"up": 5}
    assert laser.state_dict()["sites"]["up"]["basis"].shape == (12, 2)


def patched(model: Loop) -> bool:
    return "forward" in model.up.__dict__


def test_nothing_is_left_in_the_module_and_nothing_is_kept_alive() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    for _ in range(2):
        gradients(model, X, laser=laser)
        laser.step()
    assert not patched(model)
    laser.__enter__()
    assert patched(model)
    with pytest.raises(CompressionError, match="already entered"):
        laser.__enter__()
    loss = model(X).sum()
    laser.detach()
    assert not patched(model)
    loss.backward()
    del loss
    laser.step()
    watched: list[Callable[[], object]] = [weakref.ref(laser), weakref.ref(model), weakref.ref(laser._sites["up"].tracker)]
    del laser, model
    gc.collect()
    assert [each() for each in watched] == [None, None, None]


def test_activations_go_when_the_graph_goes() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    gradients(model, X, laser=laser)
    laser.step()
    stored: list[Callable[[], torch.UntypedStorage | None]] = []

    def note(tensor: Tensor) -> Tensor:
        stored.append(weakref.ref(tensor.untyped_storage()))
        return tensor.detach()

    with laser:
        y = model(X.clone().requires_grad_())
        with saved_tensors_hooks(note, lambda tensor: tensor):
            y = model(y)
        assert stored
        y.sum().backward()
    del y
    laser.step()
    gc.collect()
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters()]}
    left = [storage for ref in stored if (storage := ref()) is not None and storage.data_ptr() not in own]
    assert all(storage.nbytes() <= 20 * 3 * 4 for storage in left)  # bases at most


def test_a_forward_that_fails_leaves_the_module_as_it_was() -> None:
    model = Loop()
    laser = compress(model, LaserPolicy(rank=3), mode="linear")
    with pytest.raises(RuntimeError), laser:
        model(normal(2, 3, seed=0))
    assert not patched(model)
    gradients(model, X, laser=laser)


def test_a_thinned_look_stores_every_row_and_finds_the_same_subspace() -> None:
    layer = nn.Linear(12, 4, bias=False)
    policy = LaserPolicy(rank=3, min_fidelity=0)
    for thin in (1, 4):
        laser = compress(layer, policy, mode="linear", thin=thin)
        for seed in range(4):
            found = run(layer, laser, stream(rank=3, seed=0) * (1 + seed))
            event = laser.step()["linear"]
            assert event.sums.values[2] == (40 if seed == 0 else 40 // thin)
        layer.zero_grad()
        layer(stream(rank=3, seed=0) * 4).square().sum().backward()
        assert layer.weight.grad is not None and float((found - layer.weight.grad).norm() / layer.weight.grad.norm()) < 1e-4
        assert laser.ledger().sites["linear"].stored_bytes == 40 * 3 * 4
    with pytest.raises(CompressionError, match="thin is a whole number"):
        compress(layer, policy, mode="linear", thin=0)
