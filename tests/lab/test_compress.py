"""Activation compression on TRMs, both variants and both modes: equal values, gradients of plain autograd at k = D, bytes, long runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from laser_studio.errors import CompressionError
from laser_studio.laser import Compression, LaserPolicy, compress, int8
from laser_studio.laser import chain as chain_module
from laser_studio.laser.budget import MADE_AGAIN, cosine_of
from laser_studio.laser.chain import Formed, Stage
from laser_studio.laser.policy import ALL_OFF
from laser_studio.trm import TRM, Carry
from laser_studio.trm.layers import WITHIN_BLOCKS, ReasoningNet
from tests.trm.helpers import small_batch, small_model

EXACT = LaserPolicy(rank="100%", min_fidelity=0)
VARIANTS = pytest.mark.parametrize("mlp_t", [False, True], ids=["attention", "mixer"])
MODES = pytest.mark.parametrize("mode", ["linear", "block"])


def supervision_step(model: TRM, carry: Carry, laser: Compression | None = None, size: int = 8) -> tuple[Carry, Tensor, dict[str, Tensor]]:
    """One step on a small batch: the carry after it, its loss and the gradients."""
    model.zero_grad()
    batch = small_batch(size)
    labels = torch.arange(size * batch["inputs"].shape[1]).view(size, -1) % 7

    def loss_of() -> tuple[Carry, Tensor]:
        after, out = model(carry, batch)
        return after, F.cross_entropy(out.logits.float().flatten(0, 1), labels.flatten()) + out.q_halt_logits.sigmoid().sum()

    if laser is None:
        after, loss = loss_of()
        loss.backward()
    else:
        with laser:
            after, loss = loss_of()
            loss.backward()
    return after, loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def worst_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-12)) for name in wanted)


@VARIANTS
@MODES
@pytest.mark.parametrize("part", ["whole", "net"])
def test_a_complete_basis_gives_autograds_gradients(mlp_t: bool, mode: Any, part: str) -> None:
    model = small_model(mlp_t=mlp_t)
    carry = model.initial_carry(small_batch(8))
    laser = compress(model if part == "whole" else model.net, EXACT, mode=mode)
    for _ in range(3):
        _, plain, wanted = supervision_step(model, carry)
        carry, loss, found = supervision_step(model, carry, laser)
        assert torch.equal(loss, plain)
        assert worst_error(found, wanted) < 1e-4
        laser.step()
    site = "layers.0.mlp_t.gate_up_proj" if mlp_t else "layers.0.self_attn.qkv_proj"
    line = laser.ledger().sites[site if part == "net" else f"net.{site}"]
    assert not line.exact and line.rank == (14 if mlp_t else 32)


@VARIANTS
@MODES
def test_bfloat16_is_as_near_to_the_fp32_gradient_as_plain_bfloat16(mlp_t: bool, mode: Any) -> None:
    model, wide = small_model(mlp_t=mlp_t, forward_dtype="bfloat16"), small_model(mlp_t=mlp_t)
    carry, wide_carry = model.initial_carry(small_batch(8)), wide.initial_carry(small_batch(8))
    laser = compress(model, EXACT, mode=mode)
    _, _, wanted = supervision_step(wide, wide_carry)
    _, loss, plain = supervision_step(model, carry)
    for _ in range(2):
        _, other, found = supervision_step(model, carry, laser)
        laser.step()
        assert torch.equal(loss, other)
        for name, exact in wanted.items():
            errors = [float((each[name] - exact).norm() / exact.norm()) for each in (found, plain)]
            assert errors[0] < 2 * errors[1] + 0.02, (name, errors)


@VARIANTS
def test_the_mixed_forward_is_the_plain_one_bit_for_bit_at_any_rank(mlp_t: bool) -> None:
    model = small_model(mlp_t=mlp_t)
    plain = compressed = model.initial_carry(small_batch(8))
    laser = compress(model, LaserPolicy(rank=2, min_fidelity=0), mode="block")
    for _ in range(3):
        plain, loss, _ = supervision_step(model, plain)
        compressed, other, _ = supervision_step(model, compressed, laser)
        laser.step()
        assert torch.equal(loss, other) and torch.equal(plain.z_H, compressed.z_H)


def saved_storages(model: TRM, carry: Carry) -> dict[int, int]:
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        _, out = model(carry, small_batch(32))
    del out
    left_out = {
        each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers(), *(model.rope(14, carry.z_H.device) or ())]
    }
    return {address: each.untyped_storage().nbytes() for address, each in seen.items() if address not in left_out}


@VARIANTS
@MODES
def test_the_ledger_agrees_with_an_independent_measurement(mlp_t: bool, mode: Any) -> None:
    model = small_model(mlp_t=mlp_t, L_cycles=4)
    batch = small_batch(32)
    carry, out = model(model.initial_carry(batch), batch)
    del out
    laser = compress(model, LaserPolicy(rank=4, min_fidelity=0), mode=mode)
    full = sum(saved_storages(model, carry).values())
    for _ in range(2):
        with laser:
            _, out = model(carry, batch)
            out.logits.sum().backward()
        beside = laser.ledger().total.basis_bytes
        laser.step()
    with laser:
        seen_by_hooks = sum(saved_storages(model, carry).values())
        bases = [site.tracker.basis for site in laser._sites.values()]
        own = [basis.nbytes for basis in bases if basis is not None]
    total = laser.ledger().total
    # Q is seen by the hooks; the ledger counts them among what is kept beside the coefficients.
    wanted = seen_by_hooks - sum(own) + beside
    table = 0 if mlp_t else 2 * 14 * 8 * 4  # of rotations: a constant of the model, which only the ledger's first measurement counts
    assert abs(total.all_full_bytes - full) <= table
    assert abs(total.all_saved_bytes - wanted) <= table
    if mode == "block":
        assert 1 - (seen_by_hooks - sum(own)) / full > 0.9


@VARIANTS
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "coefficients"])
def test_eight_bits_take_a_quarter_and_hardly_turn_the_gradient(mlp_t: bool, whole: bool) -> None:
    """Also with nothing projected: what is kept between stages is then rebuilt from eight bits of every feature."""
    model = small_model(mlp_t=mlp_t)
    carry = model.initial_carry(small_batch(8))
    policy = LaserPolicy(rank="100%", min_fidelity=0, sites={"*": {"enabled": not whole}})
    laser = compress(model, policy, mode="block", storage="int8")
    for _ in range(2):
        _, plain, wanted = supervision_step(model, carry)
        _, loss, found = supervision_step(model, carry, laser)
        laser.step()
    assert torch.equal(loss, plain)
    first, second = (torch.cat([gradient.flatten() for gradient in each.values()]) for each in (found, wanted))
    assert float(F.cosine_similarity(first, second, dim=0)) > 0.999 and worst_error(found, wanted) > 1e-4
    if not whole:
        line = laser.ledger().sites["net.layers.0.mlp.gate_up_proj"]
        assert line.stored_bytes == line.full_bytes // 4 + 2 * line.full_bytes // (4 * 32)


@VARIANTS
@MODES
def test_under_autocast_gradients_are_as_near_as_autocasts_own(mlp_t: bool, mode: Any) -> None:
    """The forward is autocast's bit for bit; at k = D the gradient is off that of fp32 by what autocast itself is off."""
    model = small_model(mlp_t=mlp_t)
    carry = model.initial_carry(small_batch(8))
    laser = compress(model, EXACT, mode=mode)
    _, _, exact = supervision_step(model, carry)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            after, loss, plain = supervision_step(model, carry)
            other, same, found = supervision_step(model, carry, laser)
        laser.step()
    assert torch.equal(loss, same) and torch.equal(after.z_H, other.z_H)
    for name, wanted in exact.items():
        errors = [float((each[name] - wanted).norm() / wanted.norm()) for each in (found, plain)]
        assert errors[0] < 2 * errors[1] + 0.02, (name, errors)


@VARIANTS
def test_in_half_precision_no_cast_of_a_weight_is_saved(mlp_t: bool) -> None:
    model = small_model(mlp_t=mlp_t, forward_dtype="bfloat16")
    carry = model.initial_carry(small_batch(8))
    shapes = {weight.shape for weight in model.net.parameters()}
    known = {weight.data_ptr() for weight in model.parameters()}
    for laser, wanted in ((None, True), (compress(model, LaserPolicy(sites={"*": {"enabled": False}}), storage="int8"), False)):
        casts: set[int] = set()

        def pack(tensor: Tensor, casts: set[int] = casts) -> Tensor:
            if (tensor.shape in shapes or tensor.shape[::-1] in shapes) and tensor.data_ptr() not in known:
                casts.add(tensor.data_ptr())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            supervision_step(model, carry, laser)
        assert bool(casts) == wanted


@MODES
def test_gradients_of_several_batches_add_up_within_one_step(mode: Any) -> None:
    model = small_model()
    carry = model.initial_carry(small_batch(8))
    laser = compress(model, EXACT, mode=mode)
    supervision_step(model, carry, laser)
    laser.step()

    def accumulated(saving: Compression | None) -> dict[str, Tensor]:
        model.zero_grad()
        outputs = []
        for seed in (2, 5):
            with saving or nullcontext():
                outputs.append(model(carry, small_batch(8, seed=seed))[1])
        for out in outputs:  # both forwards first: the two graphs share what stands for the weights
            out.logits.square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    assert worst_error(accumulated(laser), accumulated(None)) < 1e-4
    assert laser.step()["net.layers.0.mlp.gate_up_proj"].sums.values[2] == 2 * 3 * 8 * 14


def multiply_adds(model: TRM, saving: Any, carry: Carry) -> float:
    """Of all matrix products of one supervision step with its backward, attention's included, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        supervision_step(model, carry, saving, 64)
    return counter.get_total_flops() / 2


@VARIANTS
@pytest.mark.parametrize("rank", [None, 8], ids=["whole", "rank 8"])
def test_products_and_bytes_are_those_that_the_docs_derive(mlp_t: bool, rank: int | None) -> None:
    """docs/compress.md, "What it costs": the difference of products to plain autograd, and the bytes kept per application."""
    model = small_model(mlp_t=mlp_t)
    carry = model.initial_carry(small_batch(64))
    policy = LaserPolicy(sites={"*": {"enabled": False}}) if rank is None else LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0)
    laser = compress(model, policy, storage="int8", products="float")
    for _ in range(2):
        supervision_step(model, carry, laser, 64)
        laser.step()
    plain, compressed = (multiply_adds(model, saving, carry) for saving in (None, laser))

    config = model.config
    batch, length, width, applications = 64, 14, config.hidden_size, config.L_cycles + 1
    tokens = batch * length
    # What enters the first layer of each stage: rows, their width, and the layer's outputs.
    swiglu = (tokens, width, 512)
    mixing = (batch * width, length, 512) if mlp_t else (tokens, width, 3 * width)
    stages = [mixing, swiglu] * config.L_layers
    places = [*stages, (tokens, width, 0)]
    if rank is None:
        extra = applications * sum(rows * wide * out for rows, wide, out in stages)
    else:
        z_and_sketch = sum(2 * rows * wide * rank for rows, wide, _ in places)
        restored = sum(rows * wide * rank for rows, wide, _ in places[1:])
        rebuilt = sum(rows * rank * out for rows, _, out in stages)
        gradients = sum(rows * (rank - wide) * out for rows, wide, out in stages)
        extra = applications * (z_and_sketch + restored + rebuilt + gradients)
        extra += sum(2 * wide * rank * out for _, wide, out in stages)  # WQ, and (Σ dYᵀZ)Qᵀ, once each
    if (
        not mlp_t
    ):  # two products of attention run again and four of its gradient: of the fused one in the plain step torch counts none on a CPU
        extra += applications * config.L_layers * 6 * tokens * length * width
    assert compressed - plain == pytest.approx(extra, rel=0.02)
    assert laser.ledger().total.norm_bytes == applications * sum(4 * rows for rows, _, _ in stages)
    if rank is not None:
        stored = sum(line.stored_bytes for name, line in laser.ledger().sites.items() if name.startswith("net"))
        assert stored == applications * sum(rows * (rank + 2) for rows, _, _ in places)
    else:
        exact = compress(model, policy, storage="exact")
        supervision_step(model, carry, exact, 64)
        # What enters an application is an earlier output, kept already, plus what is added all along: kept of its own are the first sum,
        # what is added, and the state that only the last application reads. The heads read the last output, which is kept as well.
        entering = [places[0], *2 * [(tokens, width, 0)]]
        wanted = [sum(rows * (wide + 2) for rows, wide, _ in entering)]
        wanted += [applications * rows * (wide + 2) for rows, wide, _ in places[1:]]
        sites = laser.ledger().sites
        lines = [line for name, line in sites.items() if name in laser.places and name.startswith("net")]
        assert [line.stored_bytes for line in lines] == wanted
        assert [line.full_bytes for line in lines] == [applications * rows * wide * 4 * bool(out) for rows, wide, out in places]
        assert all(line.exact and line.rank == line.basis_bytes == 0 for line in lines)
        assert [laser.places[name] for name in sites if name.startswith("net") and name in laser.places] == [wide for _, wide, _ in places]
        assert sites["lm_head"].stored_bytes == 0 < sites["lm_head"].full_bytes
        assert sites["q_head"].stored_bytes == sites["q_head"].full_bytes == batch * width * 4
        freed = exact.ledger().total.all_saved_bytes - laser.ledger().total.all_saved_bytes
        assert freed == sum(rows * (4 * wide - (wide + 2)) for rows, wide, _ in [*entering, *applications * places[1:]])


@VARIANTS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_places_within_blocks_are_made_again(mlp_t: bool, dtype: Any) -> None:
    model = small_model(mlp_t=mlp_t, forward_dtype=dtype, L_cycles=3)
    carry = model.initial_carry(small_batch(8))
    carry, _, _ = supervision_step(model, carry)
    off = LaserPolicy(sites={"*": {"enabled": False}})
    inner = [f"net.layers.{block}.mlp.gate_up_proj" for block in range(model.config.L_layers)]
    second = "net.layers.1.mlp_t.gate_up_proj" if mlp_t else "net.layers.1.self_attn.qkv_proj"
    _, plain, wanted = supervision_step(model, carry)
    for places in (inner, [*inner, second, "net.output"]):
        again = dict.fromkeys(places, "recomputed")
        laser = compress(model, off, storage={"*": "exact", **again})  # type: ignore[dict-item]
        _, loss, found = supervision_step(model, carry, laser)
        assert torch.equal(loss, plain)
        if dtype == "float32":
            assert worst_error(found, wanted) < 1e-4
        else:  # as near as rounding lets them be
            assert worst_error(found, wanted) < 0.1
        kept_all = compress(model, off)
        supervision_step(model, carry, kept_all)
        saved = [each.ledger().total for each in (laser, kept_all)]
        assert saved[0].all_saved_bytes < 0.75 * saved[1].all_saved_bytes and saved[0].norm_bytes < saved[1].norm_bytes
        assert saved[0].all_full_bytes == saved[1].all_full_bytes


def test_eight_bits_within_blocks_made_again_hardly_turn_the_gradient_and_free_half_of_the_rest() -> None:
    model = small_model()
    carry = model.initial_carry(small_batch(32))
    _, _, wanted = supervision_step(model, carry, size=32)
    off, saved = LaserPolicy(sites={"*": {"enabled": False}}), []
    for again in ({}, {"*.mlp.gate_up_proj": "recomputed"}):
        laser = compress(model, off, storage={"*": "int8", **again})  # type: ignore[dict-item]
        _, _, found = supervision_step(model, carry, laser, size=32)
        a, b = (torch.cat([each[name].flatten() for name in wanted]) for each in (found, wanted))
        assert float(F.cosine_similarity(a, b, dim=0)) > 0.999
        saved.append(laser.ledger().total.all_saved_bytes)
    assert saved[1] < 0.7 * saved[0]


@pytest.fixture
def in_bytes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the weights that backward multiplies in eight bits where it rebuilds, as it comes to them."""
    made: list[tuple[int, ...]] = []
    rebuilt = int8.rebuilt

    def noted(codes: Tensor, scale: Tensor, weight: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        made.append(tuple(weight[0].shape))
        return rebuilt(codes, scale, weight, dtype)

    monkeypatch.setattr(int8, "rebuilt", noted)
    return made


def test_a_place_made_again_of_few_bits_is_multiplied_in_them_if_it_is_wide_enough_itself(
    monkeypatch: pytest.MonkeyPatch, in_bytes: list[tuple[int, ...]]
) -> None:
    model = small_model(mlp_t=True)  # what mixes reads rows of 14 tokens, what is made again after it rows of 32 features
    carry = model.initial_carry(small_batch(8))
    monkeypatch.setattr(int8, "pays", lambda device, dtype, columns: columns >= 32)
    config = model.config
    for storage, wanted in (("int8", [32] * (config.L_cycles + 1) * config.L_layers), ("exact", [])):
        in_bytes.clear()
        laser = compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": cast(Any, storage), WITHIN_BLOCKS: "recomputed"})
        supervision_step(model, carry, laser)
        assert [columns for _, columns in in_bytes] == wanted, storage


def test_what_a_stage_adds_when_it_is_made_again_is_multiplied_in_eight_bits_too(in_bytes: list[tuple[int, ...]]) -> None:
    model = small_model()
    carry = model.initial_carry(small_batch(32))
    _, _, wanted = supervision_step(model, carry, size=32)
    laser = compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": "int8", WITHIN_BLOCKS: "recomputed"}, products="int8")
    _, _, found = supervision_step(model, carry, laser, size=32)
    block = cast(Any, model).net.layers[0]
    # the down projection ends a block, whose end is kept: what it adds is not needed again
    read = [block.self_attn.qkv_proj, block.mlp.gate_up_proj, block.self_attn.o_proj]
    assert set(in_bytes) == {tuple(layer.weight.shape) for layer in read}
    a, b = (torch.cat([each[name].flatten() for name in wanted]) for each in (found, wanted))
    assert float(F.cosine_similarity(a, b, dim=0)) > 0.999


@pytest.mark.parametrize("least", [32, 33])
def test_what_a_stage_of_bfloat16_adds_is_multiplied_in_eight_bits_where_it_is_wide(
    monkeypatch: pytest.MonkeyPatch, in_bytes: list[tuple[int, ...]], least: int
) -> None:
    model = small_model(forward_dtype="bfloat16")
    carry = model.initial_carry(small_batch(8))
    monkeypatch.setattr(int8, "pays_rebuilding", lambda device, dtype, columns: columns >= 32)
    monkeypatch.setattr(int8, "LEAST_OUTPUTS", least)
    laser = compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": "int8", WITHIN_BLOCKS: "recomputed"})
    supervision_step(model, carry, laser)
    block = cast(Any, model).net.layers[0]
    halves = (model.config.L_cycles + 1) * model.config.L_layers
    assert in_bytes.count(tuple(block.self_attn.qkv_proj.weight.shape)) == halves
    assert in_bytes.count(tuple(block.self_attn.o_proj.weight.shape)) == (halves if least == 32 else 0)


@pytest.mark.parametrize("storage", ["int8", {"*": "int8", WITHIN_BLOCKS: "recomputed"}, "int4"], ids=["whole", "blocks", "four bits"])
@pytest.mark.parametrize("least", [448, 449], ids=["many rows", "few rows"])
@VARIANTS
def test_bfloat16_is_rebuilt_in_eight_bits_and_its_weight_gradients_summed_in_them_over_many_rows(
    monkeypatch: pytest.MonkeyPatch, in_bytes: list[tuple[int, ...]], mlp_t: bool, least: int, storage: Any
) -> None:
    model = small_model(mlp_t=mlp_t, forward_dtype="bfloat16")
    carry = model.initial_carry(small_batch(32))
    exactly = compress(model, LaserPolicy(sites=ALL_OFF), storage=storage, products="float")
    _, _, wanted = supervision_step(model, carry, exactly, size=32)
    exactly.detach()
    outer, of_codes = int8.outer, list[bool]()

    def noted(left: Tensor, right: Tensor, right_scale: Tensor | None = None, *, onto: Tensor | None = None) -> Tensor:
        of_codes.append(right_scale is not None)
        return outer(left, right, right_scale, onto=onto)

    monkeypatch.setattr(int8, "outer", noted)
    monkeypatch.setattr(int8, "pays_rebuilding", lambda device, dtype, columns: columns >= 32)
    monkeypatch.setattr(int8, "LEAST_ROWS", least)  # a sample has 14 rows
    laser = compress(model, LaserPolicy(sites=ALL_OFF), storage=storage)
    _, _, found = supervision_step(model, carry, laser, size=32)
    config = model.config
    halves = (config.L_cycles + 1) * config.L_layers
    stages = halves if mlp_t else 2 * halves  # what a mixer's first half reads are rows of 14
    # The codes that were rebuilt from are those to sum, and what a stage that runs to its end reads last is in codes then, too: half
    # of the stages of blocks, in attention, whose output projection reads 32 columns as well.
    to_their_end = halves if isinstance(storage, dict) and not mlp_t and least == 448 else 0
    assert [columns for _, columns in in_bytes] == [32] * (stages + to_their_end)
    assert (len(of_codes), sum(of_codes)) == ((2 * stages, stages + to_their_end) if least == 448 else (0, 0))
    a, b = (torch.cat([each[name].flatten() for name in wanted]).float() for each in (found, wanted))
    assert not torch.equal(a, b) and float(F.cosine_similarity(a, b, dim=0)) > 0.999


def test_gradients_of_weights_are_made_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    carry, batch = model.initial_carry(small_batch(8)), small_batch(8)
    laser = compress(model, LaserPolicy(sites=ALL_OFF), storage="int8")
    first = cast(Any, model).net.layers[0]
    summed: list[tuple[int, ...]] = []
    outer = chain_module.outer

    def noted(*told: Any) -> Tensor:
        found = outer(*told)
        summed.append(tuple(found.shape))
        return found

    monkeypatch.setattr(chain_module, "outer", noted)
    with laser:
        loss = model(carry, batch)[1].logits.float().square().mean()
        asked = model.embedding.tokens, first.mlp.down_proj.weight
        found = torch.autograd.grad(loss, asked, retain_graph=True)
        assert summed == [tuple(asked[1].shape)] * (model.config.L_cycles + 1)
        loss.backward()
    for each, wanted in zip(found, asked, strict=True):
        assert wanted.grad is not None and torch.allclose(each, wanted.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("forward_dtype", ["float32", "bfloat16"])
def test_a_mixers_forward_copies_no_weights(forward_dtype: str) -> None:
    """What it mixes lies otherwise than a product asks; torch copies the weight then, once for every sample."""
    model = small_model(mlp_t=True, forward_dtype=forward_dtype)
    carry = model.initial_carry(small_batch(8))
    counted: dict[str, int] = {}
    for name, saving in (("plain", None), ("compressed", compress(model, LaserPolicy(sites=ALL_OFF), storage="int8"))):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            supervision_step(model, carry, saving)
        counted[name] = sum(event.count for event in profile.key_averages() if event.key == "aten::bmm")
    assert counted["compressed"] <= counted["plain"]


def test_what_enters_cannot_be_made_again() -> None:
    model = small_model()
    laser = compress(model, LaserPolicy(sites={"*": {"enabled": False}}), storage="recomputed")
    with pytest.raises(CompressionError, match="reads what enters"):
        supervision_step(model, model.initial_carry(small_batch(8)), laser)


def test_casts_of_weights_are_made_once_in_a_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(forward_dtype="bfloat16", L_cycles=4)
    carry = model.initial_carry(small_batch(8))
    laser = compress(model, LaserPolicy(sites={"*": {"enabled": False}}), storage="int8")
    made: list[tuple[int, torch.dtype]] = []
    cast = Formed.cast

    def counted(self: Formed, weight: Tensor, dtype: torch.dtype) -> Tensor:
        before = len(self._made)
        found = cast(self, weight, dtype)
        if len(self._made) > before:
            made.append((weight.data_ptr(), dtype))
        return found

    monkeypatch.setattr(Formed, "cast", counted)
    supervision_step(model, carry, laser)
    assert len(made) == len(set(made)) == 4 * model.config.L_layers  # two layers of each of two stages


def budget_run(model: TRM, carry: Carry, seed: int) -> Callable[[], object]:
    batch = small_batch(32, seed=seed)
    labels = torch.arange(32 * batch["inputs"].shape[1]).view(32, -1) % 7

    def run() -> object:
        _, out = model(carry, batch)
        return F.cross_entropy(out.logits.float().flatten(0, 1), labels.flatten()).backward()

    return run


@VARIANTS
def test_a_budget_makes_inner_places_again_and_says_what_that_leaves(mlp_t: bool) -> None:
    model = small_model(mlp_t=mlp_t, L_cycles=4)
    carry = model.initial_carry(small_batch(32))
    runs = [budget_run(model, carry, seed) for seed in range(3)]
    laser = compress(model, budget="cosine=0.9995")
    choice = laser.choose(runs, checked=1)
    inner = {name for name in choice.options if name.startswith("net.") and name not in (next(iter(choice.options)), "net.output")}
    assert len(inner) == 3 and {place for place, option in choice.effects if option == MADE_AGAIN} == inner

    def measured(storage: dict[str, Any] | None) -> tuple[Tensor, int]:
        """Of a compression whose storage is given by hand, nothing projected; of plain autograd with None."""
        by_hand = None if storage is None else compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": "exact", **storage})
        model.zero_grad()
        with by_hand or nullcontext():
            runs[-1]()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        return gradient, 0 if by_hand is None else by_hand.ledger().total.all_saved_bytes

    assert not laser.inner_places, "nothing was seen by it yet"
    (exact, _), (_, in_full) = measured(None), measured({})
    for place in inner:
        found, saved = measured({place: "recomputed"})
        effect = choice.effects[place, MADE_AGAIN]
        assert effect.freed == in_full - saved > 0 and effect.error < 1e-9 and cosine_of(found, exact) == pytest.approx(1, abs=1e-9)
        assert choice.options[place] == MADE_AGAIN and choice.alone(place) == pytest.approx(1)
    # One head of a few rows has a basis and is by itself worth nothing; all else can be said by hand.
    assert [place for place, option in choice.options.items() if option.rank] == ["q_head"] and choice.alone("q_head") > 1 - 1e-6
    head = choice.effects["q_head", choice.options["q_head"]].freed
    found, saved = measured({place: option.storage for place, option in choice.options.items() if not option.rank})
    assert saved - head == choice.saved and cosine_of(found, exact) == pytest.approx(choice.cosine, abs=1e-5)
    assert choice.reached and choice.cosine >= 0.9995 and sum("made again" in line for line in str(choice).splitlines()) == 3


@VARIANTS
def test_what_a_budget_finds_between_few_bits_is_no_worse_than_what_is_set_by_hand(mlp_t: bool) -> None:
    """Of many applications what enters and what leaves free nothing by themselves: each is kept for the other, and for the head."""
    model = small_model(mlp_t=mlp_t, L_cycles=14)
    carry = model.initial_carry(small_batch(32))
    runs = [budget_run(model, carry, seed) for seed in range(2)]
    choice = compress(model, budget="cosine=0.99").choose(runs)
    first = next(iter(choice.options))
    assert [set(group) for group in choice.together] == [{first, "net.output", "lm_head"}]
    assert len({choice.options[place] for place in choice.together[0]}) == 1
    by_hand = compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": "int8", **dict.fromkeys([WITHIN_BLOCKS], "recomputed")})
    with by_hand:
        runs[-1]()
    assert choice.reached and 0 < choice.saved <= by_hand.ledger().total.all_saved_bytes
    alone = compress(model, LaserPolicy(sites=ALL_OFF), storage={"*": "exact", first: "int8"})
    in_full = compress(model, LaserPolicy(sites=ALL_OFF))
    for one in (alone, in_full):
        with one:
            runs[-1]()
    assert alone.ledger().total.all_saved_bytes > in_full.ledger().total.all_saved_bytes
    assert [set(group) for group in in_full.shared_places] == [{first, "net.output", "lm_head"}]


def test_a_choice_that_makes_places_again_goes_on_from_its_state_and_is_held() -> None:
    model = small_model(L_cycles=3)
    carry = model.initial_carry(small_batch(32))
    runs = [budget_run(model, carry, seed) for seed in range(2)]
    laser = compress(model, budget="cosine=0.9995")
    assert laser.hold(runs)[1] is not None
    other = compress(model, budget="cosine=0.9995")
    other.load_state_dict(laser.state_dict())
    gradients = []
    for one in (laser, other):
        model.zero_grad()
        with one:
            runs[1]()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        lines = one.ledger().sites
        assert len(one.inner_places) == 3 and all(lines[place].stored_bytes == lines[place].basis_bytes == 0 for place in one.inner_places)
        assert all(lines[place].full_bytes > 0 for place in one.inner_places)
        one.step()
    assert torch.equal(*gradients) and other.chosen == laser.chosen
    assert other.hold(runs)[1] is None
    # In four bits they are poor to be made again of: it is chosen anew, and they are made again of something better.
    poor = {place: [None, "recomputed" if place in other.inner_places else "int4"] for place in other.chosen or {}}
    other.load_state_dict(other.state_dict() | {"chosen": poor})
    cosine, again = other.hold(runs)
    assert cosine < 0.9995 and again is not None and again.cosine >= 0.9995
    assert {place for place, option in again.options.items() if option == MADE_AGAIN} == other.inner_places
    # What older versions chose knows of no place made again, and goes on as it is.
    older = {place: [None, "int8"] for place in other.chosen or {}}
    other.load_state_dict(other.state_dict() | {"chosen": older})
    assert other.hold(runs)[1] is None and MADE_AGAIN not in (other.chosen or {}).values()


def test_a_first_place_that_a_chain_comes_to_again_is_not_made_again() -> None:
    class Twice(nn.Module):
        """The stages of a TRM's net, two times over."""

        def __init__(self) -> None:
            super().__init__()
            self.net = cast(ReasoningNet, small_model().net)

        def residual_stages(self, x: Tensor) -> tuple[tuple[Tensor, ...], Sequence[Stage]]:
            entering, stages = self.net.residual_stages(x, None, None)
            return entering, [*stages, *stages]

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.net(self.net(x, None, None), None, None))

    model, x = Twice(), torch.randn(8, 14, 32, generator=torch.Generator().manual_seed(5))
    choice = compress(model, budget="cosine=0.999").choose([lambda: model(x).pow(3).mean().backward()] * 2)
    assert choice.reached and len({place for place, option in choice.effects if option == MADE_AGAIN}) == 3
    assert choice.options["net.layers.0.self_attn.qkv_proj"] != MADE_AGAIN


def test_a_choice_without_any_basis_is_measured_again_and_left_where_it_misses() -> None:
    """Places kept whole in four bits have no site with a basis: what they cost must be seen all the same."""
    model = small_model()
    carry = model.initial_carry(small_batch(32))

    def run() -> object:
        _, out = model(carry, small_batch(32))
        return out.logits.float().square().mean().backward()

    laser = compress(model, budget="cosine=0.9999")
    assert laser.hold([run, run])[1] is not None
    places = [place for place in laser.chosen or {} if place.startswith("net")]
    laser.load_state_dict(laser.state_dict() | {"sites": {}, "chosen": {place: [None, "int4"] for place in places}})
    cosine, again = laser.hold([run, run])
    assert cosine < 0.9999 and again is not None and again.cosine >= 0.9999
    cosine, again = laser.hold([run, run])
    assert 0.9999 <= cosine < 1 and again is None
