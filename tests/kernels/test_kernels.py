"""Fused kernels against what they stand for: torch's own operations, and autograd. Without a GPU Triton's interpreter runs them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is not made for this system")

from laser_studio.kernels import gates, norms, rotary, rows
from laser_studio.laser.quantise import GROUP, quantise, restored
from laser_studio.trm.layers import apply_rope, rms_norm, rope_table
from tests.laser.helpers import normal

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUGH = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Of a tensor's largest value. Of half precision twice a rounding, because the interpreter cuts where a GPU rounds."""
WARNS = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, which the interpreter computes with
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return normal(*shape, seed=seed).to(DEVICE, dtype)


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    wanted = wanted.float()
    assert found.dtype == dtype and found.shape == wanted.shape
    assert float((found.float() - wanted).abs().max()) <= ROUGH[dtype] * max(1e-6, float(wanted.abs().max()))


# Rows in few bits


@settings(max_examples=25)
@given(
    count=st.integers(1, 40),
    width=st.sampled_from([1, 3, 64, 97, 128, 200]),
    by_row=st.booleans(),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e9]),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_eight_bits_are_those_of_torch(count: int, width: int, by_row: bool, size: float, seed: int, dtype: torch.dtype) -> None:
    x = drawn(count, width, seed=seed, dtype=dtype) * size
    x[0] = 0
    wanted_codes, wanted_scale = quantise(x.cpu(), "int8", by_row=by_row)
    codes, scale = rows.quantised(x, wanted_scale.shape[1])
    assert codes.dtype == torch.int8 and scale.dtype == torch.bfloat16 and scale.shape == wanted_scale.shape
    torch.testing.assert_close(scale.cpu(), wanted_scale, rtol=2**-7, atol=0)  # the interpreter cuts to bf16, a GPU rounds
    off = (codes.cpu().int() - wanted_codes.int()).abs().max()
    assert off <= (1 if x.is_cuda else 2)
    steps = scale.float().repeat_interleave(width // scale.shape[1], dim=1)
    error = (rows.restored(codes, scale, torch.float32) - x.float()).abs()
    assert bool((error <= steps * (0.51 if x.is_cuda else 1.5)).all()), "off by more than half a step"


@settings(max_examples=25)
@given(count=st.integers(1, 20), width=st.sampled_from([1, 31, 32, 33, 64, 65, 100, 160]), seed=st.integers(0, 99))
def test_four_bits_are_those_of_torch(count: int, width: int, seed: int) -> None:
    x = drawn(count, width, seed=seed)
    wanted_codes, wanted_scale = quantise(x.cpu(), "int4")
    codes, scale = rows.quantised_in_four(x, wanted_codes.shape[1])
    assert codes.shape == wanted_codes.shape and scale.shape == wanted_scale.shape
    torch.testing.assert_close(scale.cpu(), wanted_scale, rtol=2**-6, atol=1e-6)
    found = rows.restored_from_four(codes, scale, width, torch.float32)
    steps = scale[:, : scale.shape[1] // 2].float().repeat_interleave(GROUP["int4"], dim=1)[:, :width]
    assert bool(((found - x).abs() <= steps * (0.6 if x.is_cuda else 1.1)).all())


@DTYPES
def test_what_torch_has_stored_is_restored_bit_for_bit(dtype: torch.dtype) -> None:
    x = normal(9, 200, seed=1)
    for by_row in (True, False):
        codes, scale = quantise(x[:, :192], "int8", by_row=by_row)
        found = rows.restored(codes.to(DEVICE), scale.to(DEVICE), torch.float32)
        assert torch.equal(found.cpu(), restored(codes, scale, 192, torch.float32))
        close(rows.restored(codes.to(DEVICE), scale.to(DEVICE), dtype), found, dtype)
    codes, scale = quantise(x, "int4")
    close(
        rows.restored_from_four(codes.to(DEVICE), scale.to(DEVICE), 200, dtype),
        restored(codes, scale, 200, torch.float32).to(DEVICE),
        dtype,
    )


@WARNS
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_all_that_share_its_scale(bad: float) -> None:
    x = drawn(4, 128, seed=2)
    x[1, 70] = bad
    eight = rows.restored(*rows.quantised(x, 2), torch.float32)
    four = rows.restored_from_four(*rows.quantised_in_four(x, 64), 128, torch.float32)
    for found, group in ((eight, slice(64, 128)), (four, slice(64, 96))):
        assert not bool(found[1, group].isfinite().any())
        found[1, group] = 0
        assert bool(found.isfinite().all())


def test_no_rows_are_no_work() -> None:
    none = drawn(0, 64, seed=0)
    codes, scale = rows.quantised(none, 1)
    assert codes.shape == (0, 64) and rows.restored(codes, scale, torch.float32).shape == (0, 64)
    assert rows.restored_from_four(*rows.quantised_in_four(none, 32), 64, torch.float32).shape == (0, 64)


# Norms


@DTYPES
@pytest.mark.parametrize("width", [5, 64, 100])
def test_norm_of_a_sum_and_its_derivative(dtype: torch.dtype, width: int) -> None:
    x, other, gradient = (drawn(2, 7, width, seed=seed, dtype=dtype) for seed in range(3))
    total = (x.double() + other.double()).requires_grad_()
    wanted = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + 1e-5)
    wanted.backward(gradient.double())
    out, deviation = norms.normed_sum(x, other, 1e-5)
    close(out, wanted.detach(), dtype)
    close(out, rms_norm(x.float() + other.float(), 1e-5), dtype)
    close(deviation, torch.rsqrt(total.detach().square().mean(-1, keepdim=True) + 1e-5), torch.float32)
    assert total.grad is not None
    close(norms.norm_pulled(gradient, out, deviation), total.grad, dtype)


# Gates


@WARNS
@DTYPES
@pytest.mark.parametrize("inner", [3, 64, 700])
def test_swiglu_and_its_derivative(dtype: torch.dtype, inner: int) -> None:
    gate_up, gradient = drawn(2, 3, 2 * inner, seed=0, dtype=dtype) * 3, drawn(2, 3, inner, seed=1, dtype=dtype)
    gate_up[0, 0, 0], gate_up[0, 1, 0] = 200, -200  # where exp overflows
    wide = gate_up.double().requires_grad_()
    gate, up = wide.chunk(2, dim=-1)
    wanted = F.silu(gate) * up
    wanted.backward(gradient.double())
    close(gates.gated(gate_up), wanted.detach(), dtype)
    assert wide.grad is not None
    close(gates.gated_pulled(gradient, gate_up), wide.grad, dtype)


# Rotations


@DTYPES
@pytest.mark.parametrize(("heads", "size", "length"), [(1, 4, 3), (3, 64, 10), (2, 6, 17)])
def test_rope_of_queries_and_keys_and_its_way_back(dtype: torch.dtype, heads: int, size: int, length: int) -> None:
    table = rope_table(length, size, 10000.0, DEVICE)
    qkv = drawn(2, length, 3 * heads * size, seed=0, dtype=dtype)
    wide = qkv.float().requires_grad_()
    q, k, v = wide.view(2, length, 3 * heads, size).chunk(3, dim=2)
    q, k = apply_rope(q, table), apply_rope(k, table)
    close(rotary.rotated(qkv, heads, table), torch.cat((q, k), dim=2).detach(), dtype)

    gradients = [drawn(2, heads, length, size, seed=seed, dtype=dtype) for seed in (1, 2, 3)]
    torch.autograd.backward([each.transpose(1, 2) for each in (q, k, v)], [each.float() for each in gradients])
    assert wide.grad is not None
    close(rotary.turned_back(gradients[0], gradients[1], gradients[2], table), wide.grad, dtype)
    laid_by_token = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in gradients]
    found = rotary.turned_back(gradients[0], gradients[1], gradients[2], table)
    assert torch.equal(rotary.turned_back(laid_by_token[0], laid_by_token[1], laid_by_token[2], table), found)
    assert torch.equal(rotary.turned_back(laid_by_token[0], gradients[1], laid_by_token[2], table), found)


def test_without_positions_the_way_back_only_joins() -> None:
    parts = [drawn(2, 3, 5, 8, seed=seed) for seed in range(3)]
    wanted = torch.cat([each.transpose(1, 2) for each in parts], dim=2).reshape(2, 5, 72)
    assert torch.equal(rotary.turned_back(parts[0], parts[1], parts[2], None), wanted)
