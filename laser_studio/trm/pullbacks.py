"""What lies between the two projections of a stage, with its derivative written out: for those who rebuild a stage in backward.

Each function gives its value and a function from the gradient there, whose memory it may use, to the gradient at its argument. They
differ from autograd of the layers' own forwards in rounding only, and in time: the halves of a SwiGLU's gradient are written where they
belong, and attention over short sequences goes by plain products on a CPU, where torch's fused backward takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from laser_studio import kernels

CosSin = tuple[Tensor, Tensor]
Pulled = tuple[Tensor, Callable[[Tensor], Tensor]]
NOTHING = 1e-12  # smaller weights change no sum; a trained model has subnormal ones, which a CPU multiplies ten times as slowly
SHORT = {torch.float32: 128, torch.bfloat16: 256, torch.float16: 256}
"""Tokens up to which `attention` is worth its time on a CPU, multiplying in fp32."""
LONGEST_IN_HALF = 1024
"""Where it multiplies in half precision it is worth it at any length; but what it holds grows with the square of it."""
AT_ONCE = 2 << 20  # bytes of scores


def swiglu(gate_up: Tensor) -> Pulled:  # (…, 2·inner) -> (…, inner)
    """silu(g)·u."""
    if kernels.usable(gate_up):
        from laser_studio.kernels import gates

        whole = gate_up.contiguous()
        return gates.gated(whole), lambda gradient: gates.gated_pulled(gradient.contiguous(), whole)
    gate, up = gate_up.chunk(2, dim=-1)
    active = F.silu(gate)

    def pull(gradient: Tensor) -> Tensor:
        found = torch.empty_like(gate_up)
        to_gate, to_up = found.chunk(2, dim=-1)
        torch.mul(gradient, active, out=to_up)
        torch.ops.aten.silu_backward.grad_input(gradient.mul_(up), gate, grad_input=to_gate)
        return found

    return active * up, pull


def is_short(qkv: Tensor) -> bool:
    """Whether `attention` is faster here than autograd of torch's fused attention."""
    longest = LONGEST_IN_HALF if _multiplied_in(qkv.dtype) != torch.float32 else SHORT.get(qkv.dtype, 0)
    return qkv.device.type == "cpu" and qkv.shape[1] <= longest


def _multiplied_in(dtype: torch.dtype) -> torch.dtype:
    """What a CPU multiplies values of `dtype` in: half precision only where it has instructions for it."""
    return dtype if dtype == torch.bfloat16 and _has_bfloat16() else torch.float32


@lru_cache(maxsize=1)
def _has_bfloat16() -> bool:
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def attention(qkv: Tensor, heads: int, rope: CosSin | None) -> Pulled:  # (B, T, 3D) -> (B, T, D)
    """softmax(qkᵀ/√d)·v of every head, q and k turned by their positions; all but its products in fp32.

    The weights of all heads, (B·heads, T, T), are held between value and gradient, scores and their gradient only of as many heads and
    queries as a core's cache takes.
    """
    batch, length, width = qkv.shape
    size, dtype = width // (3 * heads), _multiplied_in(qkv.dtype)
    by_head = qkv.view(batch, length, 3 * heads, size).transpose(1, 2)  # (B, 3·heads, T, d)
    both, v = by_head[:, : 2 * heads], by_head[:, 2 * heads :].to(dtype).reshape(-1, length, size)
    if rope is not None:
        both = _rotated(both.float(), rope, 1)
    q, k = (each.to(dtype).reshape(-1, length, size) for each in both.chunk(2, dim=1))
    parts = list(_in_parts(batch * heads, length))
    if len(parts) == 1:  # by itself, here and below: on small sequences the slices cost two fifths more
        weights = _weights(q, k)
    else:
        weights = q.new_empty(batch * heads, length, length)
        for part, queries in parts:
            weights[part, queries] = _weights(q[part, queries], k[part])
    mixed = torch.bmm(weights, v)

    def pull(gradient: Tensor) -> Tensor:
        d = gradient.view(batch, length, heads, size).transpose(1, 2).to(dtype).reshape(-1, length, size)
        if len(parts) == 1:
            at_scores = _at_scores(d, v, weights)
            to_both = torch.stack((torch.bmm(at_scores, k), torch.bmm(at_scores.mT, q)))
        else:
            to_both = torch.zeros(2, *q.shape, dtype=dtype)
            for part, queries in parts:
                at_scores = _at_scores(d[part, queries], v[part], weights[part, queries])
                torch.bmm(at_scores, k[part], out=to_both[0, part, queries])
                to_both[1, part].baddbmm_(at_scores.mT, q[part, queries])
        to_v = torch.bmm(weights.mT, d)
        to_both = to_both.unflatten(1, (batch, heads)).transpose(0, 1).flatten(1, 2)  # (B, 2·heads, T, d)
        if rope is not None:
            to_both = _rotated(to_both.float(), rope, -1)
        found = qkv.new_empty(batch, length, 3 * heads, size).transpose(1, 2)
        found[:, : 2 * heads], found[:, 2 * heads :] = to_both, to_v.unflatten(0, (batch, heads))
        return found.transpose(1, 2).view(batch, length, width)

    return mixed.unflatten(0, (batch, heads)).transpose(1, 2).to(qkv.dtype).reshape(batch, length, width // 3), pull


def _weights(q: Tensor, k: Tensor) -> Tensor:  # (n, m, d), (n, T, d) -> (n, m, T)
    """softmax(qkᵀ/√d), taken in fp32."""
    weights = torch.bmm(q, k.mT).float().mul_(q.shape[-1] ** -0.5).softmax(-1)
    return F.threshold(weights, NOTHING, 0, inplace=True).to(q.dtype)


def _at_scores(d: Tensor, v: Tensor, weights: Tensor) -> Tensor:  # (n, m, d), (n, T, d), (n, m, T) -> (n, m, T)
    """The gradient at qkᵀ from that at softmax(qkᵀ/√d)·v."""
    at_weights = torch.bmm(d, v.mT).float()
    return torch._softmax_backward_data(at_weights, weights.float(), -1, torch.float32).mul_(d.shape[-1] ** -0.5).to(d.dtype)


def _in_parts(heads: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Heads and queries whose scores, in fp32, a core's cache takes: several heads, or a part of the queries of one."""
    together = max(1, AT_ONCE // (4 * length**2))
    queries = -(-length // -(-4 * length**2 // AT_ONCE)) if together == 1 else length
    for start in range(0, heads, together):
        for first in range(0, length, queries):
            yield slice(start, start + together), slice(first, first + queries)


def fused_attention(qkv: Tensor, heads: int, rope: CosSin | None) -> Pulled:  # (B, T, 3D) -> (B, T, D)
    """The same where `kernels.usable`: torch's fused attention in the dtype given, what is around it by one kernel each way."""
    from laser_studio.kernels import rotary

    batch, length, width = qkv.shape
    size = width // (3 * heads)
    by_head = qkv.view(batch, length, 3 * heads, size)
    both = by_head if rope is None else rotary.rotated(qkv, heads, rope)
    parts = both[:, :, :heads], both[:, :, heads : 2 * heads], by_head[:, :, 2 * heads :]
    q, k, v = (each.transpose(1, 2).detach().requires_grad_() for each in parts)
    with torch.enable_grad():
        mixed = F.scaled_dot_product_attention(q, k, v)

    def pull(gradient: Tensor) -> Tensor:
        d = gradient.view(batch, length, heads, size).transpose(1, 2)
        to_q, to_k, to_v = torch.autograd.grad(mixed, (q, k, v), d)
        return rotary.turned_back(to_q, to_k, to_v, rope)

    return mixed.detach().transpose(1, 2).reshape(batch, length, width // 3), pull


def _rotated(x: Tensor, rope: CosSin, sign: int) -> Tensor:
    """x (B, heads, T, d) turned by its positions, or turned back with sign −1; see `rope_table`."""
    cos, sin = (table.transpose(0, 1) for table in rope)  # (1, T, d)
    half = x.shape[-1] // 2
    found = x * cos
    found[..., :half].addcmul_(x[..., half:], sin[..., :half], value=sign)
    found[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return found
