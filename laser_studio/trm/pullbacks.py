"""What lies between the two projections of a stage, with its derivative written out: for those who rebuild a stage in backward.

Each function gives its value and a function from the gradient there, whose memory it may use, to the gradient at its argument. They
differ from autograd of the layers' own forwards in rounding only, and in time: the halves of a SwiGLU's gradient are written where they
belong, and attention over short sequences goes by plain products on a CPU, where torch's fused backward takes longer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from laser_studio import kernels

CosSin = tuple[Tensor, Tensor]
Pulled = tuple[Tensor, Callable[[Tensor], Tensor]]
NOTHING = 1e-12  # smaller weights change no sum; a trained model has subnormal ones, which a CPU multiplies ten times as slowly
SHORT = {torch.float32: 128, torch.bfloat16: 256, torch.float16: 256}
"""Tokens up to which the scores of all heads are worth holding on a CPU."""


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
    return qkv.device.type == "cpu" and qkv.shape[1] <= SHORT.get(qkv.dtype, 0)


def attention(qkv: Tensor, heads: int, rope: CosSin | None) -> Pulled:  # (B, T, 3D) -> (B, T, D)
    """softmax(qkᵀ/√d)·v of every head, q and k turned by their positions; computed in fp32."""
    batch, length, width = qkv.shape
    size = width // (3 * heads)
    by_head = qkv.view(batch, length, 3 * heads, size).transpose(1, 2).float()  # (B, 3·heads, T, d), a copy: rows of one head lie together
    both, v = by_head[:, : 2 * heads], by_head[:, 2 * heads :].reshape(-1, length, size)
    if rope is not None:
        both = _rotated(both, rope, 1)
    q, k = (each.reshape(-1, length, size) for each in both.chunk(2, dim=1))
    weights = torch.bmm(q, k.transpose(1, 2)).mul_(size**-0.5).softmax(-1)  # (B·heads, T, T)
    weights = F.threshold(weights, NOTHING, 0, inplace=True)

    def pull(gradient: Tensor) -> Tensor:
        d = gradient.view(batch, length, heads, size).transpose(1, 2).float().reshape(-1, length, size)
        found = torch.empty_like(by_head)
        at_scores = torch.bmm(d, v.transpose(1, 2))
        at_scores = torch._softmax_backward_data(at_scores, weights, -1, torch.float32).mul_(size**-0.5)
        to_q, to_k, to_v = (
            each.unflatten(0, (batch, heads)) for each in (torch.bmm(at_scores, k), torch.bmm(at_scores.mT, q), torch.bmm(weights.mT, d))
        )
        to_both = torch.cat((to_q, to_k), dim=1)
        if rope is not None:
            to_both = _rotated(to_both, rope, -1)
        found[:, : 2 * heads], found[:, 2 * heads :] = to_both, to_v
        return found.transpose(1, 2).to(qkv.dtype).reshape(batch, length, width)

    mixed = torch.bmm(weights, v).unflatten(0, (batch, heads)).transpose(1, 2).to(qkv.dtype)
    return mixed.reshape(batch, length, width // 3), pull


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
