"""Storage in few bits: the error is bounded by half a step of each scale, bytes are as counted, and what is not finite shows."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.laser.quantise import GROUP, LEVELS, quantise, restored, stored_bytes
from tests.laser.helpers import normal

Bits = Literal["int8", "int4"]


def steps(scale: torch.Tensor, width: int) -> torch.Tensor:
    """The scale of each value (N, width)."""
    return scale.float().repeat_interleave(width if scale.shape[1] == 1 else GROUP, dim=1)[:, :width]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    columns=st.integers(1, 200),
    seed=st.integers(0, 99),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e20]),
    bits=st.sampled_from(["int8", "int4"]),
)
def test_every_value_comes_back_within_half_a_step(rows: int, columns: int, seed: int, size: float, bits: Bits) -> None:
    x = normal(rows, columns, seed=seed) * size
    codes, scale = quantise(x, bits)
    back = restored(codes, scale, columns, torch.float32)
    assert back.shape == x.shape
    # bf16 rounds a scale by 0.4 % at most: the largest value of a row may be cut by as many of its levels
    assert bool(((back - x).abs() <= (0.501 + 0.004 * LEVELS[bits]) * steps(scale, columns) + 1e-37).all())
    assert codes.nbytes + scale.nbytes == stored_bytes(x, bits)


def test_four_bits_take_an_eighth_and_a_scale_per_group_holds_a_large_value_apart() -> None:
    x = normal(500, 128, seed=0)
    x[:, :GROUP] *= 1000
    codes, scale = quantise(x, "int4")
    assert codes.nbytes == x.nbytes // 8 and scale.shape == (500, 4)
    error = (restored(codes, scale, 128, torch.float32) - x)[:, GROUP:].norm() / x[:, GROUP:].norm()
    assert 0.02 < float(error) < 0.15  # four bits of a normal: about 9 %


def test_eight_bits_of_rows_after_a_norm() -> None:
    x = normal(300, 256, seed=3)
    x /= x.square().mean(1, keepdim=True).sqrt()
    error = (restored(*quantise(x, "int8"), 256, torch.float32) - x).square().sum() / x.square().sum()
    assert float(error) < 1e-4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_what_is_not_finite_shows(value: float, bits: Bits) -> None:
    x = normal(5, 40, seed=1)
    x[2, 1] = value
    back = restored(*quantise(x, bits), 40, torch.float32)
    assert not bool(back[2, :GROUP].isfinite().any()) and bool(back[[0, 1, 3, 4]].isfinite().all())


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_bfloat16(bits: Bits) -> None:
    x = normal(200, 64, seed=2).bfloat16()
    back = restored(*quantise(x, bits), 64, torch.bfloat16)
    assert back.dtype == torch.bfloat16
    assert float((back.float() - x.float()).norm() / x.float().norm()) < {"int8": 0.01, "int4": 0.15}[bits]
