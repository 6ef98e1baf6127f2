"""What autograd runs in place of a linear layer: forward exact, Z = XQ kept in place of X. Residual stages are in `chain`.

Pure functions on tensors; which site has which basis, and when it may move, is `compress`'s to say. Everything kept for backward
goes through `save_for_backward`, so that saved-tensor hooks see it. The one exception is Q inside `project`, which the
functions that use its result save once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from laser_studio.laser.products import Arithmetic, outer
from laser_studio.laser.quantise import Storage, quantise, restored


class Sum:
    """A weight's gradient as a backward adds it up over all applications, in place: autograd would make a tensor of each, and add those.

    Every backward has its own, one that runs inside another too. What one leaves that failed before it came to the weight is not
    taken up by the next, and goes with the stand-in.
    """

    def __init__(self) -> None:
        self._so_far: dict[int, Tensor] = {}

    def add(self, made: Callable[[Tensor | None], Tensor]) -> None:
        """made: given what this backward has added up so far, None at first, returns that with its own part added, in the same memory."""
        backward = torch._C._current_graph_task_id()
        self._so_far[backward] = made(self._so_far.pop(backward, None))

    def take(self) -> Tensor | None:
        """What this backward has added up, for good."""
        return self._so_far.pop(torch._C._current_graph_task_id(), None)


@dataclass(frozen=True)
class StandIn:
    """What has a weight's place in the graph, without memory: `at` passes on to the weight what backward has added to `sum`.

    All applications of an optimiser step share one.
    """

    at: Tensor
    sum: Sum

    def add(self, made: Callable[[Tensor | None], Tensor]) -> None:
        """`Sum.add`, where the weight wants a gradient and the backward that runs now comes to it."""
        if (node := self.at.grad_fn) is not None and torch._C._will_engine_execute_node(node):
            self.sum.add(made)


def project(weight: Tensor, basis: Tensor) -> StandIn:
    """A stand-in of the shape of WQ (out, k), W (out, D), Q (D, k): the sum of all dYᵀZ reaches W as (Σ dYᵀZ)Qᵀ."""
    summed = Sum()
    return StandIn(_StandIn.apply(weight, summed, basis), summed)


def stand_in(weight: Tensor) -> StandIn:
    """A stand-in of W's shape."""
    summed = Sum()
    return StandIn(_StandIn.apply(weight, summed, None), summed)


class _StandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, summed: Sum, basis: Tensor | None) -> Tensor:
        # Q is not saved as a tensor of the graph: two graphs of one optimiser step may share this node, and are freed one by one
        ctx.summed, ctx.basis, ctx.dtype = summed, basis, weight.dtype
        ctx.set_materialize_grads(False)
        return torch.zeros((), device=weight.device).expand(weight.shape[0], weight.shape[1] if basis is None else basis.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        total = ctx.summed.take()
        if total is None:
            return None, None, None
        with plain_arithmetic(total):
            return (total if ctx.basis is None else total @ ctx.basis.T.to(total.dtype)).to(ctx.dtype), None, None


def linear_whole(x: Tensor, weight: Tensor, bias: Tensor | None, codes: Tensor, scale: Tensor) -> Tensor:
    """`F.linear(x, weight, bias)` that keeps of x its rows as codes that are there already; only the weight's gradient is approximate."""
    return _Linear.apply(x, weight.detach(), bias, codes, weight, None, None, scale, "float")


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor,
    projected: StandIn,
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
    return _Linear.apply(x, weight.detach(), bias, kept, projected.at, projected, basis, scale, products)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        z: Tensor,
        told: Tensor,
        stand_in: StandIn | None,
        basis: Tensor | None,
        scale: Tensor | None,
        products: Arithmetic,
    ) -> Tensor:
        ctx.products, ctx.stand_in, ctx.dtype = products, stand_in, told.dtype
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
            dw = None
            if ctx.stand_in is not None:
                ctx.stand_in.add(lambda onto: _outer(rows, z, scale, width, ctx.products, onto))
            elif ctx.needs_input_grad[4]:
                dw = _outer(rows, z, scale, width, ctx.products).to(ctx.dtype)
        return dx, None, db, None, dw, None, None, None, None


def _outer(rows: Tensor, z: Tensor, scale: Tensor | None, width: int, products: Arithmetic, onto: Tensor | None = None) -> Tensor:
    """dYᵀZ in fp32, or as `rows` are, in `onto` where that is given."""
    if scale is not None and products == "int8" and z.dtype == torch.int8:  # scales are per row then
        return outer(rows, None, (z, scale), "int8", onto)
    how: Arithmetic = "bf16" if scale is not None and products == "bf16" else "float"
    if scale is not None:
        z = restored(z, scale, width, torch.bfloat16 if how == "bf16" else rows.dtype)
    return outer(rows, z, None, how, onto)


def plain_arithmetic(x: Tensor) -> torch.autocast:
    """No autocast in a backward: the dtypes are those of the forward, whatever mode its caller is in."""
    return torch.autocast(x.device.type, enabled=False)
