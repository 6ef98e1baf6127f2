"""The arms of the training bench: exact ones exact, approximate ones near, bytes as the graph really holds them, nothing left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from laser_studio.errors import TrainingError
from laser_studio.lab.bench_training import _saved
from laser_studio.lab.gradcheck import compare_gradients, gradients_of
from laser_studio.lab.losses import supervision_loss
from laser_studio.lab.packed_saves import EightBitSaves, FreshLowRank, SavedOnCPU
from laser_studio.lab.rival_bases import RandomBasis, first_bases, random_bases
from laser_studio.lab.training_rivals import (
    BUDGETS,
    EIGHT_BITS,
    FUSED,
    ON_CPU,
    PLAIN,
    Arm,
    Checkpointed,
    Compressed,
    FusedSwiGLU,
    Place,
    Plain,
    make_arms,
)
from laser_studio.laser import LaserPolicy, compress
from laser_studio.trm import Carry
from laser_studio.trm.layers import SwiGLU, held_casts
from tests.trm.helpers import LENGTH, small_batch, small_model

BATCH = 16
VARIANTS = pytest.mark.parametrize("mlp_t", [False, True], ids=["attention", "mixer"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
Make = Callable[[Place], Arm]
EXACT: dict[str, Make] = {
    "checkpoint": lambda place: Checkpointed(place.model),
    "fused": lambda place: FusedSwiGLU(place.model),
    "cpu": lambda place: place.packing(SavedOnCPU, ON_CPU),
}
NEAR: dict[str, Make] = {
    "8-bit": lambda place: place.packing(EightBitSaves, EIGHT_BITS),
    "fixed": lambda place: Compressed("fixed", first_bases(place.model, "50%", "block")),
    "fixed, int8": lambda place: Compressed("fixed, int8", first_bases(place.model, "50%", "block", "int8")),
    "random": lambda place: Compressed("random", random_bases(place.model, "50%", "block")),
    "random, linear": lambda place: Compressed("random, linear", random_bases(place.model, "50%", "linear")),
    "fresh": lambda place: place.fresh("fresh", "50%"),
}
ALL = EXACT | NEAR
COMPLETE: dict[str, Make] = {
    "fixed": lambda place: Compressed("fixed", first_bases(place.model, "100%", "block")),
    "random": lambda place: Compressed("random", random_bases(place.model, "100%", "block")),
    "random, linear": lambda place: Compressed("random, linear", random_bases(place.model, "100%", "linear")),
    "fresh": lambda place: place.fresh("fresh", "100%"),
}


def of(table: dict[str, Make]) -> Any:
    return pytest.mark.parametrize("make", table.values(), ids=list(table))


def setting(mlp_t: bool, dtype: str = "float32") -> tuple[Place, Carry, dict[str, Tensor]]:
    """A model and what enters a supervision step of it, labels included."""
    model = small_model(mlp_t=mlp_t, forward_dtype=dtype, puzzle_emb_len=4)
    batch = small_batch(BATCH) | {"labels": small_batch(BATCH, seed=3)["inputs"]}
    with torch.no_grad():
        carry, _ = model(model.initial_carry(batch), batch)
    return Place(model, LENGTH + 4, BATCH), carry, batch


def cosine(place: Place, carry: Carry, batch: dict[str, Tensor], arm: Arm) -> float:
    wanted = gradients_of(place.model, carry, batch)[1]
    found = gradients_of(place.model, carry, batch, arm)[1]
    assert found.keys() == wanted.keys()
    return compare_gradients(found, wanted)[0].cosine


def held(outputs: Any, free: list[Tensor]) -> int:
    """Bytes of all storages that the graph behind `outputs` keeps for backward, read off its nodes; those of `free` excluded.

    The graph must have been made with hooks on saved tensors, any, because only what hooks returned can be read without being restored.
    """
    seen: set[Any] = set()
    storages: dict[int, int] = {}
    waiting: list[Any] = [each.grad_fn for each in vars(outputs).values() if isinstance(each, Tensor)]

    def add(kept: Any) -> None:
        if isinstance(kept, Tensor) and kept.ndim:  # a number that multiplied a tensor is no tensor to hooks
            storages[kept.untyped_storage().data_ptr()] = kept.untyped_storage().nbytes()
        elif isinstance(kept, tuple | list):
            for one in kept:
                add(one)
        elif hasattr(kept, "__dict__"):
            add([one for one in vars(kept).values() if not callable(one)])

    while waiting:
        if (node := waiting.pop()) is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_raw_saved"):
                raw = getattr(node, name)
                add([one.data for one in (raw if isinstance(raw, tuple | list) else [raw])])
    for tensor in free:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


@VARIANTS
@of(ALL)
def test_the_forward_is_plain_and_nothing_is_left_behind(make: Make, mlp_t: bool) -> None:
    place, carry, batch = setting(mlp_t)
    arm = make(place)
    wanted = place.model(carry, batch)[1]
    state, before = torch.get_rng_state(), {name: dict(module.__dict__) for name, module in place.model.named_modules()}
    for _ in range(3):
        with arm:
            found = place.model(carry, batch)[1]
            found.logits.float().square().sum().backward()
        arm.step()
        assert torch.equal(found.logits, wanted.logits) and torch.equal(found.q_halt_logits, wanted.q_halt_logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.__dict__.keys() == before[name].keys() for name, module in place.model.named_modules())
    with pytest.raises(ZeroDivisionError), arm:
        _ = 1 / 0
    assert all(module.__dict__.keys() == before[name].keys() for name, module in place.model.named_modules())
    assert place.model(carry, batch)[1].logits.grad_fn.name() == wanted.logits.grad_fn.name()


@VARIANTS
@DTYPES
@of(EXACT)
def test_exact_arms_give_autograds_gradients(make: Make, mlp_t: bool, dtype: str) -> None:
    place, carry, batch = setting(mlp_t, dtype)
    wanted = gradients_of(place.model, carry, batch)[1]
    found = gradients_of(place.model, carry, batch, make(place))[1]
    assert found.keys() == wanted.keys()
    rounding = 1e-5 if dtype == "float32" else 2e-2
    for name, right in wanted.items():
        assert (found[name] - right).norm() <= rounding * right.norm(), name


@VARIANTS
@of(COMPLETE)
def test_complete_bases_give_autograds_gradients(make: Make, mlp_t: bool) -> None:
    place, carry, batch = setting(mlp_t)
    arm = make(place)
    wanted = gradients_of(place.model, carry, batch)[1]
    for _ in range(2):
        found = gradients_of(place.model, carry, batch, arm)[1]
        arm.step()
        assert all((found[name] - right).norm() <= 1e-4 * right.norm() for name, right in wanted.items())


@VARIANTS
@DTYPES
def test_eight_bit_saves_are_near(mlp_t: bool, dtype: str) -> None:
    place, carry, batch = setting(mlp_t, dtype)
    found = cosine(place, carry, batch, place.packing(EightBitSaves, EIGHT_BITS))
    assert 0.999 < found < 1 - 1e-9  # not exact, or nothing was packed


@VARIANTS
def test_fresh_bases_are_nearer_than_fixed_and_these_than_random_ones(mlp_t: bool) -> None:
    place, carry, batch = setting(mlp_t)
    found = []
    for name in ("fresh", "fixed", "random"):
        arm = NEAR[name](place)
        gradients_of(place.model, carry, batch, arm)
        arm.step()
        found.append(cosine(place, carry, {**batch, "labels": batch["labels"].flip(0)}, arm))
    assert found[0] < 1 and found[1] > found[2] and found[0] > found[2]


@VARIANTS
@DTYPES
@of({PLAIN: lambda place: Plain()} | ALL)
def test_bytes_are_those_that_the_graph_holds(make: Make, mlp_t: bool, dtype: str) -> None:
    place, carry, batch = setting(mlp_t, dtype)
    arm = make(place)
    for _ in range(2 if arm.settles else 0):
        gradients_of(place.model, carry, batch, arm)
        arm.step()
    found = _saved(place.model, arm, (carry, batch))
    plain_hooks = nullcontext() if arm.packs else saved_tensors_hooks(lambda tensor: tensor.detach(), lambda tensor: tensor)
    with arm, plain_hooks:
        outputs = place.model(carry, batch)[1]
        beside, counted = arm.beside()
    wanted = held(outputs, [*place.free, *counted])
    if isinstance(arm, Checkpointed):  # its inputs lie beside the graph: z_L of L_cycles + 1 applications, z_H, and the sum of z_H and x
        wanted += (place.model.config.L_cycles + 3) * carry.z_H.numel() * carry.z_H.itemsize
    assert found == wanted + (0 if arm.packs else beside)
    assert arm.packs or bool(beside) == isinstance(arm, Compressed)


@VARIANTS
def test_bytes_against_plain_autograds(mlp_t: bool) -> None:
    """What is gone, from shapes alone: everything of `plain` that an arm has no use for."""
    place, carry, batch = setting(mlp_t)
    saved = {name: _saved(place.model, make(place), (carry, batch)) for name, make in ({PLAIN: lambda place: Plain()} | EXACT).items()}
    gated = 0  # numbers in silu(g)·u of one application, all SwiGLUs together
    for name, module in place.model.net.named_modules():
        if isinstance(module, SwiGLU):
            rows = BATCH * (place.model.config.hidden_size if name.endswith("mlp_t") else place.tokens)
            gated += rows * module.down_proj.in_features
    assert saved[PLAIN] - saved["fused"] == 4 * 2 * gated * (place.model.config.L_cycles + 1)
    assert saved["cpu"] == saved[PLAIN]  # on a CPU it is the same memory


def test_weights_in_another_dtype_are_not_packed() -> None:
    """They are counted, once per weight, and come back bit for bit."""
    place, carry, batch = setting(False, "bfloat16")

    class Spied(EightBitSaves):
        def _pack(self, tensor: Tensor, width: int) -> Any:
            casts = {each.untyped_storage().data_ptr() for each in held_casts(place.model)}
            assert len(casts) == len(list(place.model.net.parameters())) + 2  # and the two heads'
            packed.append(tensor.untyped_storage().data_ptr() in casts)
            return super()._pack(tensor, width)

    packed: list[bool] = []
    arm = place.packing(Spied, EIGHT_BITS)
    with arm:
        outputs = place.model(carry, batch)[1]
        counted = arm.beside()[0]
    assert packed and not any(packed)
    assert counted == held(outputs, place.free) > sum(2 * weight.numel() for weight in place.model.net.parameters())


def test_weights_in_another_dtype_are_not_factorised(monkeypatch: pytest.MonkeyPatch) -> None:
    place, carry, batch = setting(False, "bfloat16")
    arm = place.fresh("fresh", "25%")
    factorise, packed = FreshLowRank._pack, []

    def spied(saves: FreshLowRank, tensor: Tensor, width: int) -> Any:
        casts = {each.untyped_storage().data_ptr() for each in [*held_casts(place.model), *arm.laser.casts]}
        packed.append(tensor.untyped_storage().data_ptr() in casts)
        return factorise(saves, tensor, width)

    monkeypatch.setattr(FreshLowRank, "_pack", spied)
    gradients_of(place.model, carry, batch, arm)
    assert len(packed) == 5 * 3 and not any(packed)  # the places of three applications, and nothing that their rebuilding saves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_come_back_within_half_a_level(dtype: torch.dtype) -> None:
    x = torch.randn(40, 3, 16, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    whole = x * 1
    views = {
        "whole": whole,
        "turned": whole.transpose(0, 2),
        "part of rows": whole[:, :, 4:9],
        "some rows": whole[3:30:2],
        "a column": whole[:, 1, 5],
        "rows joined": whole.view(40, 48),
        "row of another width": whole.view(-1, 5),
        "widened": whole[:, :1].expand(40, 7, 16),
        "heads": whole.view(40, 3, 4, 4).transpose(1, 2)[:, 1:],
    }
    arm = EightBitSaves("8 bits", [], tuple, 0)
    with arm:
        results = {name: view.exp().mul(view) for name, view in views.items()}  # `mul` saves the view itself
    bound = (whole.float().abs().amax(-1, keepdim=True) / 254 * (1 + 1e-5)).expand(whole.shape).detach()
    for name, view in views.items():
        found = next(node for node in [results[name].grad_fn] if node is not None)._saved_other  # type: ignore[attr-defined]
        limit = bound.contiguous().as_strided(view.size(), view.stride(), view.storage_offset())
        rounding = 0 if dtype == torch.float32 else found.float().abs() / 256  # of the result, to bfloat16
        assert found.shape == view.shape and found.dtype == dtype
        assert (((found.float() - view.float()).abs() - limit - rounding) <= 0).all(), name
    # One storage of views and one result of `exp` each, in int8 and with scales: nothing twice.
    assert arm.beside()[0] < 1.5 * (whole.numel() + sum(view.numel() for view in views.values()))


def test_eight_bits_of_nothing_and_of_what_is_not_finite() -> None:
    x = torch.zeros(4, 32)
    x[1], x[2, 3], x[3, 5] = 2.0, float("nan"), float("inf")
    x.requires_grad_()
    with EightBitSaves("8 bits", [], tuple, 0):
        kept = (x * 1).square().grad_fn._saved_self  # type: ignore[union-attr]
    assert torch.equal(kept[0], torch.zeros(32)) and torch.equal(kept[1], torch.full((32,), 2.0))
    assert kept[2].isnan().all() and kept[3].isnan().all()


def test_what_changed_in_place_is_packed_anew_or_refused() -> None:
    x = torch.ones(8, 32, requires_grad=True)
    with EightBitSaves("8 bits", [], tuple, 0):
        y = x * 1
        first = y.square()
        with torch.no_grad():
            y.mul_(3)
        second = y.square()
        assert first.grad_fn._saved_self.max() == 1 and second.grad_fn._saved_self.max() == 3  # type: ignore[union-attr]
    with EightBitSaves("8 bits", [], tuple, 10**6):  # all are small
        y = x * 1
        kept = y.square()
        with torch.no_grad():
            y.mul_(3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            kept.sum().backward()


def test_two_forwards_before_a_backward() -> None:
    """Gradient accumulation: what one forward packed is not mistaken for another's, whose memory may be the same again."""
    place, carry, batch = setting(False)
    other = {**batch, "inputs": batch["inputs"].flip(0)}
    arm = place.packing(EightBitSaves, EIGHT_BITS)
    model = place.model
    wanted = []
    for one in (batch, other):
        wanted.append(gradients_of(model, carry, one, arm)[1])
    model.zero_grad()
    losses = []
    for one in (batch, other):
        with arm:
            losses.append(supervision_loss(model(carry, one)[1], one["labels"]).total)
    for loss in losses:
        loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, wanted[0][name] + wanted[1][name], rtol=1e-3, atol=1e-6), name


def test_nothing_packed_outlives_its_graph() -> None:
    place, carry, batch = setting(False)
    kept: list[weakref.ref[Any]] = []

    class Spied(EightBitSaves):
        def _pack(self, tensor: Tensor, width: int) -> Any:
            packed = super()._pack(tensor, width)
            kept.append(weakref.ref(packed))
            return packed

    with place.packing(Spied, EIGHT_BITS):
        outputs = place.model(carry, batch)[1]
        assert kept and all(each() is not None for each in kept)
        outputs.logits.float().sum().backward()
        del outputs
        gc.collect()
        assert all(each() is None for each in kept)


def test_fresh_factors_hold_what_has_their_rank() -> None:
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(60, 5, generator=draw) @ torch.randn(5, 40, generator=draw)).requires_grad_()
    state = torch.get_rng_state()
    arm = FreshLowRank("fresh", [], tuple, 0, 5)
    with arm:
        kept = (x * 1).square().grad_fn._saved_self  # type: ignore[union-attr]
    assert torch.allclose(kept, x, atol=1e-4) and arm.beside()[0] == 4 * 5 * (60 + 40)
    assert torch.equal(torch.get_rng_state(), state)
    full = torch.randn(60, 40, generator=draw).requires_grad_()
    arm = FreshLowRank("fresh", [], tuple, 0, 8)
    with arm:
        kept = (full * 1).square().grad_fn._saved_self  # type: ignore[union-attr]
    best = float(torch.linalg.svdvals(full.detach())[8:].square().sum().sqrt())
    assert best <= float((kept - full).detach().norm()) < 1.1 * best
    broken = torch.full((60, 40), float("nan"), requires_grad=True)
    with arm:
        assert (broken * 1).square().grad_fn._saved_self.isnan().all()  # type: ignore[union-attr]


@VARIANTS
def test_fixed_bases_are_those_of_the_first_step(mlp_t: bool) -> None:
    """The same as ours start with; then they stay while ours move, and keep no books."""
    place, carry, batch = setting(mlp_t)
    fixed, ours = first_bases(place.model, "50%", "block"), compress(place.model, LaserPolicy(rank="50%", max_rank="50%", min_fidelity=0))
    for laser in (fixed, ours):
        gradients_of(place.model, carry, batch, laser)
        laser.step()
    started = [basis.clone() for basis in fixed.bases]
    assert len(started) > 4 and all(torch.equal(a, b) for a, b in zip(started, ours.bases, strict=True))
    for _ in range(2):
        for laser in (fixed, ours):
            gradients_of(place.model, place.model.initial_carry(batch), batch, laser)
            total = laser.ledger().total
            laser.step()
        assert all(torch.equal(a, b) for a, b in zip(started, fixed.bases, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(started, ours.bases, strict=True))
    gradients_of(place.model, carry, batch, fixed)
    total = fixed.ledger().total
    assert total.basis_bytes == sum(each.untyped_storage().nbytes() for each in fixed.bases)
    assert total.misses == total.growths == total.resets == 0


def test_random_bases_are_orthonormal_and_the_seeds() -> None:
    state = torch.get_rng_state()
    one, same, other = (RandomBasis(24, LaserPolicy(rank=7), name=name, device=torch.device("cpu")).basis for name in ("a", "a", "b"))
    assert torch.equal(torch.get_rng_state(), state)
    assert one is not None and same is not None and other is not None
    assert one.shape == (24, 7) and torch.allclose(one.T @ one, torch.eye(7), atol=1e-6)
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("mode", ["linear", "block"])
def test_random_bases_compress_from_the_first_step_on(mode: Any) -> None:
    place, carry, batch = setting(False)
    laser = random_bases(place.model, "25%", mode)
    gradients_of(place.model, carry, batch, laser)
    line = laser.ledger().sites["net.layers.0.mlp.gate_up_proj"]
    assert not line.exact and line.stored_bytes * 4 == line.full_bytes


def test_arms_are_chosen_by_name() -> None:
    place, _, _ = setting(False)
    everything, left_out = make_arms(place, ("25%", 8))
    names = [arm.name for arm in everything]
    assert names[0] == PLAIN and len(names) == len(set(names)) == 9 + len(BUDGETS) + 2 * 8
    assert list(left_out) == [ON_CPU] and "same memory" in left_out[ON_CPU]
    chosen, left_out = make_arms(place, ("25%",), ["Block*", FUSED.upper()])
    assert [arm.name for arm in chosen] == [PLAIN, FUSED, "block, rank 25%", "block, rank 25%, int8"] and not left_out
    chosen, left_out = make_arms(place, ("25%",), [ON_CPU])
    assert [arm.name for arm in chosen] == [PLAIN] and list(left_out) == [ON_CPU]
    with pytest.raises(TrainingError, match="no arm is called 'blocks': there are plain autograd; "):
        make_arms(place, ("25%",), ["block*", "blocks"])
