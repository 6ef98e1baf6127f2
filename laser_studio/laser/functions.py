"""What autograd runs in place of a linear layer: forward exact, Z = XQ kept in place of X. Residual stages are in `chain`.

Pure functions on tensors; which site has which basis, and when it may move, is `compress`'s to say. Everything kept for backward
goes through `save_for_backward`, so that saved-tensor hooks see it. The one exception is Q inside `project`, which the
functions that use its result save once more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from laser_studio.laser.products import Arithmetic, outer
from laser_studio.laser.quantise import Storage, quantise, restored


def project(weight: Tensor, basis: Tensor) -> Tensor:
    """A stand-in of the shape of WQ (out, k), W (out, D), Q (D, k): what is sent back to it, dYᵀZ, reaches W as (Σ dYᵀZ)Qᵀ.

    All applications of a layer share one, so that the sum is formed before Qᵀ is applied. Q is not saved as a tensor of the graph,
    because two graphs of one optimiser step may share this node and are freed one by one.
    """
    return _Project.apply(weight, basis)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, basis: Tensor) -> Tensor:
        ctx.basis, ctx.dtype = basis, weight.dtype
        return torch.zeros((), dtype=torch.float32, device=weight.device).expand(weight.shape[0], basis.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        with plain_arithmetic(gradient):
            return (gradient.float() @ ctx.basis.T).to(ctx.dtype), None


def stand_in(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A stand-in of W's shape without memory: gradients of all applications are added in `dtype`, as autograd adds those of one cast."""
    return _StandIn.apply(weight, dtype)


class _StandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = weight.dtype
        return torch.zeros((), dtype=dtype, device=weight.device).expand(weight.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.dtype), None


def linear_whole(x: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, scale: Tensor) -> Tensor:
    """`F.linear(x, weight, bias)` that keeps of x its rows as codes that are there already; only the weight's gradient is approximate."""
    return _Linear.apply(x, weight.detach(), bias, codes, weight, None, scale, "float")


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor,
    projected: Tensor,
    basis: Tensor,
    *,
    storage: Storage = "exact",
    products: Arithmetic = "float",
) -> Tensor:
    """`F.linear(x, weight, bias)` that keeps z (N, k) in place of x (…, D), in `storage`.

    The input's and the bias's gradients are exact; the weight's is (dYᵀZ)Qᵀ, by way of `projected` (see `project`). products: how
    dYᵀZ is multiplied, where Z is kept in few bits.
    """
    kept, scale = (z, None) if storage == "exact" else quantise(z, storage, by_row=products == "int8")
    return _Linear.apply(x, weight.detach(), bias, kept, projected, basis, scale, products)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        z: Tensor,
        projected: Tensor,
        basis: Tensor | None,
        scale: Tensor | None,
        products: Arithmetic,
    ) -> Tensor:
        ctx.products, ctx.told = products, projected.dtype
        ctx.save_for_backward(z, weight, basis, scale)  # Q is not needed here, but hooks shall see it
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, basis, scale = ctx.saved_tensors
        with plain_arithmetic(gradient):
            rows = gradient.reshape(-1, gradient.shape[-1])
            dx = gradient @ weight if ctx.needs_input_grad[0] else None
            db = rows.sum(0) if ctx.needs_input_grad[2] else None
            width = weight.shape[1] if basis is None else basis.shape[1]
            dp = _outer(rows, z, scale, width, ctx.products).to(ctx.told) if ctx.needs_input_grad[4] else None
        return dx, None, db, None, dp, None, None, None


def _outer(rows: Tensor, z: Tensor, scale: Tensor | None, width: int, products: Arithmetic) -> Tensor:
    """dYᵀZ in fp32, or as `rows` are."""
    if scale is None:
        return rows.T @ z
    if products == "int8" and z.dtype == torch.int8:  # scales are per row then
        return outer(rows, None, (z, scale), "int8")
    if products == "bf16":
        return outer(rows, restored(z, scale, width, torch.bfloat16), None, "bf16")
    return rows.T @ restored(z, scale, width, rows.dtype)


def plain_arithmetic(x: Tensor) -> torch.autocast:
    """No autocast in a backward: the dtypes are those of the forward, whatever mode its caller is in."""
    return torch.autocast(x.device.type, enabled=False)
