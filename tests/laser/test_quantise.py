"""Eight-bit storage: the error is bounded by half a step of each column's own scale, and what is not finite shows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.laser.quantise import LEVELS, quantise, restored
from tests.laser.helpers import normal


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 9), columns=st.integers(1, 6), seed=st.integers(0, 99), size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e20]))
def test_every_value_comes_back_within_half_a_step(rows: int, columns: int, seed: int, size: float) -> None:
    z = normal(rows, columns, seed=seed) * size * 10.0 ** torch.arange(columns).neg()
    codes, scale = quantise(z)
    assert codes.dtype == torch.int8 and codes.shape == z.shape and scale.shape == (columns,)
    error = (restored(codes, scale, torch.float32) - z).abs()
    assert bool((error <= 0.501 * scale).all())
    assert rows == 0 or bool((scale <= z.abs().amax(0) / LEVELS * 1.001 + 1e-37).all())


def test_small_columns_beside_a_large_one_are_measured_in_steps_of_their_own() -> None:
    z = normal(500, 8, seed=0) * torch.tensor([1000.0, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    error = (restored(*quantise(z), torch.float32) - z).norm(dim=0) / z.norm(dim=0)
    assert float(error.max()) < 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(value: float) -> None:
    z = normal(5, 3, seed=1)
    z[2, 1] = value
    back = restored(*quantise(z), torch.float32)
    assert not bool(back[:, 1].isfinite().all()) and bool(back[:, [0, 2]].isfinite().all())


def test_bfloat16() -> None:
    z = normal(200, 4, seed=2).bfloat16()
    codes, scale = quantise(z)
    assert float((restored(codes, scale, torch.bfloat16).float() - z.float()).norm() / z.float().norm()) < 0.01
