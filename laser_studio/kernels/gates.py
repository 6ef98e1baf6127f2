"""silu(g)·u and its derivative, of g and u that lie side by side."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from laser_studio.kernels.launch import on_device_of, programs

AT_ONCE = 1024  # values of a program


def gated(gate_up: Tensor) -> Tensor:
    """silu(g)·u of [g, u] (…, 2n), contiguous: (…, n)."""
    inner = gate_up.shape[-1] // 2
    found = gate_up.new_empty(*gate_up.shape[:-1], inner)
    if found.numel():
        with on_device_of(gate_up):
            _gated[programs(found.numel(), AT_ONCE)](gate_up, found, found.numel(), inner, AT_ONCE)
    return found


def gated_pulled(gradient: Tensor, gate_up: Tensor) -> Tensor:
    """The gradient at [g, u] (…, 2n) from that at silu(g)·u (…, n), both contiguous; in gate_up's dtype."""
    found = torch.empty_like(gate_up)
    if gradient.numel():
        grid = programs(gradient.numel(), AT_ONCE)
        with on_device_of(gate_up):
            _gated_pulled[grid](gradient, gate_up, found, gradient.numel(), gradient.shape[-1], AT_ONCE)
    return found


@triton.jit
def _gated(gate_up, found, count, inner: tl.constexpr, at_once: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = place < count
    at_gate = place // inner * 2 * inner + place % inner
    gate = tl.load(gate_up + at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + at_gate + inner, mask=inside, other=0.0).to(tl.float32)
    tl.store(found + place, (gate * tl.sigmoid(gate) * up).to(found.dtype.element_ty), mask=inside)


@triton.jit
def _gated_pulled(gradient, gate_up, found, count, inner: tl.constexpr, at_once: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = place < count
    at_gate = place // inner * 2 * inner + place % inner
    gate = tl.load(gate_up + at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + at_gate + inner, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    open_ = tl.sigmoid(gate)
    to_gate = d * up * open_ * (1 + gate * (1 - open_))
    tl.store(found + at_gate, to_gate.to(found.dtype.element_ty), mask=inside)
    tl.store(found + at_gate + inner, (d * gate * open_).to(found.dtype.element_ty), mask=inside)
