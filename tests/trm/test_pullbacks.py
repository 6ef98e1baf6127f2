"""Derivatives written out against autograd of the layers' own forwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from laser_studio.trm import pullbacks
from laser_studio.trm.layers import Attention, SwiGLU, rope_table
from tests.laser.helpers import normal
from tests.trm.helpers import small_model

NEAR = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.02}  # attention computes in fp32 whatever it is given


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, gradient)[0]


def check(found: pullbacks.Pulled, wanted: tuple[Tensor, Tensor], gradient: Tensor) -> None:
    value, pull = found
    for mine, theirs in zip((value, pull(gradient.clone())), wanted, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert float((mine - theirs).double().norm() / theirs.double().norm()) < NEAR[mine.dtype]


@pytest.mark.parametrize("dtype", list(NEAR))
def test_swiglu(dtype: torch.dtype) -> None:
    x, gradient = normal(6, 5, 48, seed=0).to(dtype), normal(6, 5, 24, seed=1).to(dtype)
    check(pullbacks.swiglu(x), by_autograd(SwiGLU.gated, x, gradient), gradient)


@pytest.mark.parametrize("turned", [True, False], ids=["rope", "no rope"])
@pytest.mark.parametrize("dtype", list(NEAR))
def test_attention(dtype: torch.dtype, turned: bool) -> None:
    layer = Attention(small_model().config)
    heads, size = layer.num_heads, layer.head_dim
    rope = rope_table(11, size, 1e4, torch.device("cpu")) if turned else None
    x, gradient = (normal(3, 11, parts * heads * size, seed=parts).to(dtype) for parts in (3, 1))
    check(pullbacks.attention(x, heads, rope), by_autograd(lambda qkv: layer.mix(qkv, rope), x, gradient), gradient)


@pytest.mark.parametrize("in_half", [True, False], ids=["bfloat16 at hand", "without"])
@pytest.mark.parametrize("at_once", [1, 4 * 4 * 11, 3 * 4 * 11**2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_parts(monkeypatch: pytest.MonkeyPatch, in_half: bool, at_once: int, dtype: torch.dtype) -> None:
    """Parts of one query, of some of one head, and of several heads; with a processor that multiplies half precision and without."""
    monkeypatch.setattr(pullbacks, "_has_bfloat16", lambda: in_half)
    monkeypatch.setattr(pullbacks, "AT_ONCE", at_once)
    test_attention(dtype, True)


def test_long_sequences_and_double_precision_are_left_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    for in_half in (True, False):
        monkeypatch.setattr(pullbacks, "_has_bfloat16", lambda in_half=in_half: in_half)
        assert pullbacks.is_short(torch.empty(1, 97, 24, dtype=torch.bfloat16))
        assert pullbacks.is_short(torch.empty(1, 916, 24, dtype=torch.bfloat16)) is in_half
        assert not pullbacks.is_short(torch.empty(1, 916, 24, dtype=torch.float16))
        assert not pullbacks.is_short(torch.empty(1, 1025, 24, dtype=torch.bfloat16))
    assert not pullbacks.is_short(torch.empty(1, 192, 24)) and pullbacks.is_short(torch.empty(1, 97, 24))
    assert not pullbacks.is_short(torch.empty(1, 97, 24, dtype=torch.float64))


def test_weights_that_change_no_sum_are_zero_and_what_they_stand_for_hardly_moves() -> None:
    layer = Attention(small_model().config)
    x, gradient = normal(2, 9, 3 * layer.num_heads * layer.head_dim, seed=7) * 12, normal(2, 9, layer.num_heads * layer.head_dim, seed=8)
    check(pullbacks.attention(x, layer.num_heads, None), by_autograd(lambda qkv: layer.mix(qkv, None), x, gradient), gradient)  # sharp
