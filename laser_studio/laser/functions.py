"""What autograd runs in place of linear layers and residual stages: forward exact, Z = XQ kept in place of X.

Pure functions on tensors; which site has which basis, and when it may move, is `compress`'s to say. Everything kept for backward
goes through `save_for_backward`, so that saved-tensor hooks see it. The one exception is Q inside `project`, which the
functions that use its result save once more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from laser_studio.laser.quantise import quantise, restored


class Rebuilding(threading.local):
    """Whether this thread is at work inside a backward: what autograd saves then is gone before the next stage is rebuilt."""

    now = False


rebuilding = Rebuilding()


class Stage(Protocol):
    """x ↦ norm(x + last(between(first(x)))), norm(s) = s / √(mean s² + eps) in fp32, over the last axis; over the one before with `across`.

    `first` and `last` are linear layers without bias; `between` is a function without weights, differentiable by autograd.
    """

    @property
    def first(self) -> nn.Linear: ...
    @property
    def between(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def last(self) -> nn.Linear: ...
    @property
    def eps(self) -> float: ...
    @property
    def across(self) -> bool: ...


def project(weight: Tensor, basis: Tensor, *, dtype: torch.dtype | None) -> Tensor:
    """WQ (out, k) of W (out, D) and Q (D, k), in `dtype`; with None a stand-in of that shape, where only its gradient is wanted.

    All applications of a layer share one: autograd sums what they send back, dYᵀZ, and dW = (Σ dYᵀZ)Qᵀ is formed once. Q is not
    saved as a tensor of the graph, because two graphs of one optimiser step may share this node and are freed one by one.
    """
    return _Project.apply(weight, basis, dtype)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, basis: Tensor, dtype: torch.dtype | None) -> Tensor:
        ctx.basis, ctx.dtype = basis, weight.dtype
        if dtype is None:
            return torch.zeros((), dtype=torch.float32, device=weight.device).expand(weight.shape[0], basis.shape[1])
        return (weight.float() @ basis).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        with _plain_arithmetic(gradient):
            return (gradient.float() @ ctx.basis.T).to(ctx.dtype), None, None


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, z: Tensor, projected: Tensor, basis: Tensor, *, eight_bits: bool = False
) -> Tensor:
    """`F.linear(x, weight, bias)` that keeps z (N, k) in place of x (…, D), with `eight_bits` as int8 with a scale per column.

    The input's and the bias's gradients are exact; the weight's is (dYᵀZ)Qᵀ, by way of `projected` (see `project`).
    """
    kept, scale = quantise(z) if eight_bits else (z, None)
    return _Linear.apply(x, weight.detach(), bias, kept, projected, basis, scale)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, z: Tensor, projected: Tensor, basis: Tensor, scale: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(z, weight, basis, scale)  # Q is not needed here, but hooks shall see it
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, _, scale = ctx.saved_tensors
        z = z if scale is None else restored(z, scale, gradient.dtype)
        with _plain_arithmetic(gradient):
            rows = gradient.reshape(-1, gradient.shape[-1])
            dx = gradient @ weight if ctx.needs_input_grad[0] else None
            db = rows.sum(0) if ctx.needs_input_grad[2] else None
            dp = (rows.T @ z).float() if ctx.needs_input_grad[4] else None
        return dx, None, db, None, dp, None, None


@dataclass(frozen=True)
class Boundary:
    """What is kept of a tensor between two stages: its coefficients along one axis, or the whole.

    keep: called with the rows (N, D) along that axis, returns what to save, (N, k), or None for the whole tensor.
    basis: Q (D, k), None with the whole. across: the axis is the last but one. eight_bits: whether what is kept is kept as int8, with
    a scale per column.
    """

    keep: Callable[[Tensor], Tensor | None]
    basis: Tensor | None
    across: bool
    eight_bits: bool = False


@dataclass(frozen=True)
class Weights:
    """One stage's, all in the dtype of the activations.

    first: W of its first layer, exact; reads: WQ (out, k), see `project`, or W itself where the boundary before the stage keeps the
    whole tensor: what gets that layer's gradient; last: W of its last layer.
    """

    first: Tensor
    reads: Tensor
    last: Tensor


def chain(x: Tensor, stages: Sequence[Stage], boundaries: Sequence[Boundary], weights: Sequence[Weights]) -> Tensor:
    """The stages applied in turn to x (B, T, D); kept are only the boundaries (one more than stages) and each norm's reciprocal deviation.

    Backward, from the last stage to the first: ŷ = ZQᵀ of the stage's output and r give the norm's, r·(d − ŷ·mean(d·ŷ)); h = Z(WQ)ᵀ of
    its input is what `first` gave; `between` runs again on h and is differentiated by autograd, so that whatever it normalises by
    belongs to the rebuilt values; input gradients use the exact weights.
    """
    firsts, reads, lasts = zip(*((one.first.detach(), one.reads, one.last) for one in weights), strict=True)
    return _Chain.apply(x, stages, boundaries, *firsts, *reads, *lasts)


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stages: Sequence[Stage], boundaries: Sequence[Boundary], *weights: Tensor) -> Tensor:
        count = len(stages)
        kept, deviations = [_kept(boundaries[0], x)], []
        for place, stage in enumerate(stages):
            turned = _turn(x, stage.across)
            mixed = F.linear(stage.between(F.linear(turned, weights[place])), weights[2 * count + place])
            wide = (turned + mixed if stage.across else mixed.add_(turned)).float()  # across: the sum takes the layout of x
            deviation = torch.rsqrt(wide.square().mean(-1, keepdim=True) + stage.eps)
            x = _turn(wide.mul_(deviation).to(x.dtype), stage.across)  # the sum is this function's own
            kept.append(_kept(boundaries[place + 1], x))
            deviations.append(deviation)
        ctx.stages, ctx.across, ctx.shape = stages, [boundary.across for boundary in boundaries], x.shape
        values, scales = zip(*kept, strict=True)
        ctx.save_for_backward(*values, *scales, *deviations, *(boundary.basis for boundary in boundaries), *weights)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        stages, across, count = ctx.stages, ctx.across, len(ctx.stages)
        saved = iter(ctx.saved_tensors)
        kept, scales, deviations, bases, firsts, reads, lasts = (
            [next(saved) for _ in range(many)] for many in (count + 1, count + 1, count, count + 1, count, count, count)
        )
        wanted = ctx.needs_input_grad[3 + count :]
        to_reads: list[Tensor | None] = [None] * count
        to_lasts: list[Tensor | None] = [None] * count
        with _plain_arithmetic(gradient):
            after = _restored(kept[count], scales[count], gradient.dtype)
            for place in reversed(range(count)):
                stage = stages[place]
                before = _restored(kept[place], scales[place], gradient.dtype)
                out = _rebuilt(after, bases[place + 1], across[place + 1], ctx.shape)
                residual = _norm_backward(_turn(gradient, stage.across), _turn(out, stage.across), deviations[place])
                rows = before if bases[place] is not None else _flat(_turn(before.view(ctx.shape), stage.across))
                hidden = (rows @ reads[place].T).view(*residual.shape[:-1], -1)
                rebuilding.now = True
                try:
                    with torch.enable_grad():
                        between = stage.between(hidden.requires_grad_())
                finally:
                    rebuilding.now = False
                if wanted[count + place]:
                    to_lasts[place] = _flat(residual).T @ _flat(between.detach())
                (inner,) = torch.autograd.grad(between, hidden, residual @ lasts[place])
                if wanted[place]:
                    to_reads[place] = _flat(inner).T @ rows
                back = inner @ firsts[place]
                gradient = _turn(back.add_(residual), stage.across)
                after = before
        return (gradient if ctx.needs_input_grad[0] else None, None, None, *(None for _ in firsts), *to_reads, *to_lasts)


def _turn(x: Tensor, across: bool) -> Tensor:
    return x.transpose(-1, -2) if across else x


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _kept(boundary: Boundary, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """What to save, and its scales: coefficients as rows; the whole tensor as it lies, as rows too in eight bits."""
    kept = boundary.keep(_flat(_turn(x, boundary.across)))
    if boundary.eight_bits:
        return quantise(_flat(x) if kept is None else kept)
    return x if kept is None else kept, None


def _restored(kept: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return kept if scale is None else restored(kept, scale, dtype)


def _rebuilt(kept: Tensor, basis: Tensor | None, across: bool, shape: torch.Size) -> Tensor:
    """ZQᵀ in the shape (B, T, D) of the tensor it stands for."""
    if basis is None:
        return kept.view(shape)
    rows = kept @ basis.T.to(kept.dtype)
    return rows.view(shape[0], shape[2], shape[1]).transpose(1, 2) if across else rows.view(shape)


def _norm_backward(gradient: Tensor, out: Tensor, deviation: Tensor) -> Tensor:
    """Gradient at s of ŷ = r·s, r = 1/√(mean s² + eps): r·(d − ŷ·mean(d·ŷ)), in fp32, returned in d's dtype."""
    wide, out = gradient.float(), out.float()
    along = (wide * out).mean(-1, keepdim=True)
    return torch.addcmul(wide, out, along, value=-1).mul_(deviation).to(gradient.dtype)


def _plain_arithmetic(x: Tensor) -> torch.autocast:
    """No autocast in a backward: the dtypes are those of the forward, whatever mode its caller is in."""
    return torch.autocast(x.device.type, enabled=False)
