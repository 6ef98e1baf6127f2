"""Rotate-half RoPE of queries and keys out of a fused projection, and the way back of their gradients into it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from laser_studio.kernels.launch import on_device_of, programs

AT_ONCE = 512  # pairs of a program
CosSin = tuple[Tensor, Tensor]


def rotated(qkv: Tensor, heads: int, table: CosSin) -> Tensor:
    """q and k of qkv (B, T, 3·heads·d), contiguous, turned by their positions: (B, T, 2·heads, d) in its dtype.

    table: cos and sign-carrying sin, (T, 1, d) in fp32 each: x·cos + swap_halves(x)·sin.
    """
    batch, length, width = qkv.shape
    size = width // (3 * heads)
    found = qkv.new_empty(batch, length, 2 * heads, size)
    pairs = found.numel() // 2
    if pairs:
        with on_device_of(qkv):
            cos, sin = (each.contiguous() for each in table)
            _rotated[programs(pairs, AT_ONCE)](qkv, cos, sin, found, pairs, length, heads, size, AT_ONCE)
    return found


def turned_back(to_q: Tensor, to_k: Tensor, to_v: Tensor, table: CosSin | None) -> Tensor:
    """The gradient at the fused projection, (B, T, 3·heads·d), from those at turned q and k and at v, (B, heads, T, d) each."""
    batch, heads, length, size = to_q.shape
    if not (to_q.stride() == to_k.stride() == to_v.stride() and to_q.stride(-1) == 1):
        to_q, to_k, to_v = (each.contiguous() for each in (to_q, to_k, to_v))
    found = to_q.new_empty(batch, length, 3 * heads * size)
    pairs = found.numel() // 2
    if pairs:
        cos, sin = (to_q, to_q) if table is None else (each.contiguous() for each in table)
        with on_device_of(to_q):
            grid = programs(pairs, AT_ONCE)
            turns = table is not None
            _turned_back[grid](to_q, to_k, to_v, cos, sin, found, pairs, length, *to_q.stride()[:3], heads, size, turns, AT_ONCE)
    return found


@triton.jit
def _rotated(qkv, cos, sin, found, pairs, length, heads: tl.constexpr, size: tl.constexpr, at_once: tl.constexpr):
    half: tl.constexpr = size // 2
    pair = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = pair < pairs
    feature, head, token = pair % half, pair // half % (2 * heads), pair // (half * 2 * heads)
    source = qkv + token * 3 * heads * size + head * size + feature
    angle = token % length * size + feature
    left = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    cos_left, cos_right = tl.load(cos + angle, mask=inside, other=0.0), tl.load(cos + angle + half, mask=inside, other=0.0)
    sin_left, sin_right = tl.load(sin + angle, mask=inside, other=0.0), tl.load(sin + angle + half, mask=inside, other=0.0)
    target = found + (token * 2 * heads + head) * size + feature
    tl.store(target, (left * cos_left + right * sin_left).to(found.dtype.element_ty), mask=inside)
    tl.store(target + half, (right * cos_right + left * sin_right).to(found.dtype.element_ty), mask=inside)


@triton.jit
def _turned_back(
    to_q, to_k, to_v, cos, sin, found, pairs, length, by_sample, by_head, by_token,
    heads: tl.constexpr, size: tl.constexpr, turns: tl.constexpr, at_once: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = size // 2
    pair = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = pair < pairs
    feature, head, token = pair % half, pair // half % (3 * heads), pair // (half * 3 * heads)
    which = head // heads
    source = token // length * by_sample + head % heads * by_head + token % length * by_token + feature
    is_q, is_k, is_v = inside & (which == 0), inside & (which == 1), inside & (which == 2)
    left = tl.load(to_q + source, mask=is_q, other=0.0).to(tl.float32) + tl.load(to_k + source, mask=is_k, other=0.0).to(tl.float32)
    source += half
    right = tl.load(to_q + source, mask=is_q, other=0.0).to(tl.float32) + tl.load(to_k + source, mask=is_k, other=0.0).to(tl.float32)
    if turns:
        angle = token % length * size + feature
        cos_left, cos_right = tl.load(cos + angle, mask=inside, other=0.0), tl.load(cos + angle + half, mask=inside, other=0.0)
        sin_left, sin_right = tl.load(sin + angle, mask=inside, other=0.0), tl.load(sin + angle + half, mask=inside, other=0.0)
        left, right = left * cos_left + right * sin_right, right * cos_right + left * sin_left
    left += tl.load(to_v + source - half, mask=is_v, other=0.0).to(tl.float32)
    right += tl.load(to_v + source, mask=is_v, other=0.0).to(tl.float32)
    target = found + (token * 3 * heads + head) * size + feature
    tl.store(target, left.to(found.dtype.element_ty), mask=inside)
    tl.store(target + half, right.to(found.dtype.element_ty), mask=inside)
