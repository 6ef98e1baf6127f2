"""A weightless RMS norm behind a residual sum, and its derivative, over whole rows; computed in fp32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from laser_studio.kernels.launch import on_device_of, programs, tile


def normed_sum(x: Tensor, other: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """s·r and r = 1/√(mean s² + eps) of s = x + other, both (…, D) and contiguous: (…, D) in x's dtype, and (…, 1) in fp32."""
    out, deviation = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)
    width = x.shape[-1]
    at_once, columns = tile(width)
    if x.numel():
        rows = deviation.numel()
        with on_device_of(x):
            _normed_sum[programs(rows, at_once)](x, other, out, deviation, rows, eps, width, at_once, columns)
    return out, deviation


def norm_pulled(gradient: Tensor, out: Tensor, deviation: Tensor) -> Tensor:
    """r·(d − ŷ·mean(d·ŷ)) of the gradient d at what the norm gave, ŷ, both (…, D) and contiguous, and r (…, 1): in d's dtype."""
    found = torch.empty_like(gradient)
    width = gradient.shape[-1]
    at_once, columns = tile(width)
    if gradient.numel():
        rows = deviation.numel()
        with on_device_of(gradient):
            _norm_pulled[programs(rows, at_once)](gradient, out, deviation, found, rows, width, at_once, columns)
    return found


@triton.jit
def _normed_sum(x, other, out, deviation, rows, eps, width: tl.constexpr, at_once: tl.constexpr, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    column = tl.arange(0, columns)
    place = row[:, None] * width + column[None, :]
    inside = (row < rows)[:, None] & (column < width)[None, :]
    total = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + tl.load(other + place, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(total * total, 1) / width + eps)
    tl.store(out + place, (total * inverse[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(deviation + row, inverse, mask=row < rows)


@triton.jit
def _norm_pulled(gradient, out, deviation, found, rows, width: tl.constexpr, at_once: tl.constexpr, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    column = tl.arange(0, columns)
    place = row[:, None] * width + column[None, :]
    inside = (row < rows)[:, None] & (column < width)[None, :]
    wide = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.load(deviation + row, mask=row < rows, other=0.0)
    along = tl.sum(wide * value, 1) / width
    wide = (wide - value * along[:, None]) * inverse[:, None]
    tl.store(found + place, wide.to(found.dtype.element_ty), mask=inside)
