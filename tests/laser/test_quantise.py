"""Storage in few bits: the error is bounded by half a step of each scale, bytes are as counted, and what is not finite shows."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.laser.quantise import GROUP, LEVELS, STEPS, quantise, restored, stored_bytes
from tests.laser.helpers import normal

Bits = Literal["int8", "int4"]


def steps(scale: torch.Tensor, width: int, bits: Bits) -> torch.Tensor:
    """The scale of each value (N, width)."""
    if bits == "int4":
        scale = scale[:, : scale.shape[1] // 2]
    return scale.float().repeat_interleave(width if scale.shape[1] == 1 and bits == "int8" else GROUP[bits], dim=1)[:, :width]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    columns=st.one_of(st.integers(1, 200), st.sampled_from([64, 128, 192])),
    seed=st.integers(0, 99),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e20]),
    bits=st.sampled_from(["int8", "int4"]),
    by_row=st.booleans(),
)
def test_every_value_comes_back_within_half_a_step(rows: int, columns: int, seed: int, size: float, bits: Bits, by_row: bool) -> None:
    x = normal(rows, columns, seed=seed) * size
    codes, scale = quantise(x, bits, by_row=by_row)
    back = restored(codes, scale, columns, torch.float32)
    assert back.shape == x.shape
    # bf16 may have rounded a scale by 0.4 %: values at the end of the range may be cut by as many of its levels, and the lowest is rounded
    off = 0.501 + 0.004 * {"int8": LEVELS, "int4": STEPS}[bits]
    lowest = 0.004 * x.abs().amax() if bits == "int4" and x.numel() else 0
    assert bool(((back - x).abs() <= off * steps(scale, columns, bits) + lowest + 1e-37).all())
    assert codes.nbytes + scale.nbytes == stored_bytes(x.shape[0], x.shape[1], x.itemsize, bits, by_row=by_row)


def test_four_bits_take_an_eighth_and_a_scale_per_group_holds_a_large_value_apart() -> None:
    x, group = normal(500, 128, seed=0), GROUP["int4"]
    x[:, :group] *= 1000
    codes, scale = quantise(x, "int4")
    assert codes.nbytes == x.nbytes // 8 and scale.shape == (500, 8)
    error = (restored(codes, scale, 128, torch.float32) - x)[:, group:].norm() / x[:, group:].norm()
    assert 0.02 < float(error) < 0.09  # four bits of a normal between its lowest and its highest: about 8 %


def test_a_lowest_value_far_from_zero_costs_no_levels() -> None:
    x = 50 + normal(100, 64, seed=4)
    error = restored(*quantise(x, "int4"), 64, torch.float32) - x
    assert float(error.std()) < 0.15  # a scale about zero would leave steps of 7


def test_scales_of_groups_hold_large_features_apart() -> None:
    x = normal(300, 256, seed=5)
    x[:, :3] *= 20  # as trained rows have them

    def error(by_row: bool) -> float:
        back = restored(*quantise(x, "int8", by_row=by_row), 256, torch.float32)
        return float((back - x)[:, 64:].square().sum() / x[:, 64:].square().sum())

    assert error(False) < error(True) / 20


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
    assert not bool(back[2, : GROUP["int4"]].isfinite().any()) and bool(back[[0, 1, 3, 4]].isfinite().all())


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_bfloat16(bits: Bits) -> None:
    x = normal(200, 64, seed=2).bfloat16()
    back = restored(*quantise(x, bits), 64, torch.bfloat16)
    assert back.dtype == torch.bfloat16
    assert float((back.float() - x.float()).norm() / x.float().norm()) < {"int8": 0.01, "int4": 0.15}[bits]
