"""Residual stages whose backward rebuilds what it needs from what is kept between them: Z = XQ, or the whole, in full or few bits.

The forward is exact. Backward goes through the samples in parts small enough for a processor's caches, so that what it rebuilds is
never there for a whole batch. Pure functions on tensors, as in `functions`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from laser_studio.laser import int8
from laser_studio.laser.functions import plain_arithmetic
from laser_studio.laser.quantise import Storage, quantise, restored

REBUILT_AT_ONCE = {"cpu": 16 << 20, "cuda": 256 << 20}  # bytes of one stage's inner activations; larger blocks cost page faults on a CPU


class Rebuilding(threading.local):
    """Whether this thread is at work inside a backward: what autograd saves then is gone before the next stage is rebuilt."""

    now = False


rebuilding = Rebuilding()


class Stage(Protocol):
    """x ↦ norm(x + last(between(first(x)))), norm(s) = s / √(mean s² + eps) in fp32, over the last axis; over the one before with `across`.

    `first` and `last` are linear layers without bias; `between` is a function without weights, differentiable by autograd, that
    treats every sample for itself.
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


@dataclass
class Formed:
    """WQ (out, k) of the layer that reads a place, W itself without Q: formed in the first backward, for all applications of a step."""

    basis: Tensor | None
    _key: object = None
    _floats: Tensor | None = None
    _codes: tuple[Tensor, Tensor] | None = None

    def floats(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """In the dtype of the products."""
        if self.basis is None:
            return weight.to(dtype)
        self._renew(weight)
        if self._floats is None or self._floats.dtype != dtype:
            self._floats = (weight.float() @ self.basis).to(dtype)
        return self._floats

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """In eight bits with a scale per row."""
        self._renew(weight)
        if self._codes is None:
            self._codes = quantise(weight if self.basis is None else weight.float() @ self.basis, "int8")
        return self._codes

    @property
    def nbytes(self) -> int:
        """Bytes held at the moment: none before the first backward of a step."""
        return sum(each.nbytes for each in (self._floats, *(self._codes or ())) if each is not None)

    def _renew(self, weight: Tensor) -> None:
        key = weight.data_ptr(), weight._version, weight.dtype
        if key != self._key:
            self._key, self._floats, self._codes = key, None, None


@dataclass(frozen=True)
class Boundary:
    """What is kept of a tensor between two stages: its coefficients along one axis, or the whole.

    keep: called with the rows (N, D) along that axis, returns what to save, (N, k), or None for the whole tensor.
    basis: Q (D, k), None with the whole. across: the axis is the last but one. storage: of what is kept.
    integers: multiply in eight bits where the stage after it is rebuilt and where its weight gradients are summed.
    """

    keep: Callable[[Tensor], Tensor | None]
    basis: Tensor | None
    across: bool
    integers: bool = False
    storage: Storage = "exact"
    formed: Formed = field(default_factory=lambda: Formed(None))


@dataclass(frozen=True)
class Weights:
    """One stage's, as the model holds them: where products have another dtype, the cast is made for each and never saved.

    first: W of its first layer, exact; reads: what gets that layer's gradient, see `functions.project`, or W itself where the boundary
    before the stage keeps the whole tensor; last: W of its last layer.
    """

    first: Tensor
    reads: Tensor
    last: Tensor


def chain(x: Tensor, stages: Sequence[Stage], boundaries: Sequence[Boundary], weights: Sequence[Weights], dtype: torch.dtype) -> Tensor:
    """The stages applied in turn to x (B, T, D); kept are only the boundaries (one more than stages) and each norm's reciprocal deviation.

    Backward, from the last stage to the first: ŷ = ZQᵀ of the stage's output and r give the norm's, r·(d − ŷ·mean(d·ŷ)); h = Z(WQ)ᵀ of
    its input is what `first` gave; `between` runs again on h and is differentiated by autograd, so that whatever it normalises by
    belongs to the rebuilt values; input gradients use the exact weights. dtype: of the products.
    """
    firsts, reads, lasts = zip(*((one.first.detach(), one.reads, one.last) for one in weights), strict=True)
    return _Chain.apply(x, stages, boundaries, dtype, *firsts, *reads, *lasts)


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        stages: Sequence[Stage],
        boundaries: Sequence[Boundary],
        dtype: torch.dtype,
        *weights: Tensor,
    ) -> Tensor:
        count = len(stages)
        kept, deviations = [_kept(boundaries[0], x)], []
        for place, stage in enumerate(stages):
            turned = _turn(x, stage.across)
            first, last = weights[place].to(dtype), weights[2 * count + place].to(dtype)
            mixed = F.linear(stage.between(F.linear(turned.to(dtype), first)), last)
            # across: the sum takes the layout of x
            wide = (turned + mixed if stage.across or mixed.dtype != x.dtype else mixed.add_(turned)).float()
            deviation = torch.rsqrt(wide.square().mean(-1, keepdim=True) + stage.eps)
            x = _turn(wide.mul_(deviation).to(x.dtype), stage.across)  # the sum is this function's own
            kept.append(_kept(boundaries[place + 1], x))
            deviations.append(deviation)
        ctx.stages, ctx.boundaries, ctx.shape, ctx.dtype = stages, boundaries, x.shape, x.dtype
        ctx.products = dtype
        ctx.autocast = torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)
        values, scales = zip(*kept, strict=True)
        firsts, reads, lasts = weights[:count], weights[count : 2 * count], weights[2 * count :]
        ctx.gradient_dtypes = [weight.dtype for weight in (*reads, *lasts)]
        ctx.save_for_backward(*values, *scales, *deviations, *(boundary.basis for boundary in boundaries), *firsts, *lasts)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        count = len(ctx.stages)
        saved = iter(ctx.saved_tensors)
        values, scales, deviations, bases, firsts, lasts = (
            [next(saved) for _ in range(many)] for many in (count + 1, count + 1, count, count + 1, count, count)
        )
        places = [_Place(*each, ctx.shape, ctx.dtype) for each in zip(ctx.boundaries, values, scales, bases, strict=True)]
        wanted = ctx.needs_input_grad[4 + count :]
        to_reads: list[Tensor | None] = [None] * count
        to_lasts: list[Tensor | None] = [None] * count
        passed: Tensor | None = None
        with plain_arithmetic(gradient):
            for number in reversed(range(count)):
                stage, before, after = ctx.stages[number], places[number], places[number + 1]
                if passed is None:
                    passed = torch.empty_like(gradient)  # the gradient handed in is not this function's own
                weights = firsts[number], firsts[number].to(ctx.products), lasts[number].to(ctx.products)
                for part in _in_samples(ctx.shape, stage, weights[1]):
                    found = _stage_backward(ctx, stage, before, after, gradient[part], deviations[number][part], weights, part)
                    passed[part] = found.gradient
                    to_lasts[number] = _added(to_lasts[number], found.to_last() if wanted[count + number] else None)
                    to_reads[number] = _added(to_reads[number], found.to_reads() if wanted[number] else None)
                gradient = passed
        sent = [None if one is None else one.to(dtype) for one, dtype in zip((*to_reads, *to_lasts), ctx.gradient_dtypes, strict=True)]
        passed = passed if passed is not None else gradient
        return (passed if ctx.needs_input_grad[0] else None, None, None, None, *(None for _ in firsts), *sent)


@dataclass(frozen=True)
class _Place:
    """A boundary as it was kept; samples are asked for by a slice of the batch."""

    boundary: Boundary
    values: Tensor
    scale: Tensor | None
    basis: Tensor | None
    shape: torch.Size
    dtype: torch.dtype

    def rows(self, samples: slice, dtype: torch.dtype) -> Tensor:
        """Coefficients, or the whole, as rows of the stage that reads this place."""
        if self.scale is not None:
            part = self._part(samples)
            return restored(self.values[part], self.scale[part], self._width, dtype)
        if self.basis is not None:
            return self.values[self._part(samples)].to(dtype)
        return _flat(_turn(self.values.view(self.shape)[samples], self.boundary.across)).to(dtype)

    def codes(self, samples: slice) -> tuple[Tensor, Tensor]:
        """The same as eight-bit rows."""
        if self.scale is not None and self.values.dtype == torch.int8:
            part = self._part(samples)
            return self.values[part], self.scale[part]
        return quantise(self.rows(samples, torch.float32), "int8")

    def whole(self, samples: slice) -> Tensor:
        """(b, T, D), ZQᵀ where coefficients are kept."""
        if self.scale is None and self.basis is None:
            return self.values.view(self.shape)[samples]
        rows = self.rows(samples, self.dtype)
        if self.basis is not None:
            rows = rows @ self.basis.T.to(rows.dtype)
        _, length, width = self.shape
        return _turn(rows.view(-1, width, length) if self.boundary.across else rows.view(-1, length, width), self.boundary.across)

    @property
    def _width(self) -> int:
        return self.basis.shape[1] if self.basis is not None else self.shape[1 if self.boundary.across else 2]

    def _part(self, samples: slice) -> slice:
        each = self.shape[2 if self.boundary.across else 1]
        return slice(samples.start * each, samples.stop * each)


@dataclass(frozen=True)
class _Found:
    """Gradients of one stage on some samples; those of the weights in fp32, or the weights' dtype, once asked for."""

    gradient: Tensor
    to_last: Callable[[], Tensor]
    to_reads: Callable[[], Tensor]


def _stage_backward(
    ctx: Any,
    stage: Stage,
    before: _Place,
    after: _Place,
    gradient: Tensor,
    deviation: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    samples: slice,
) -> _Found:
    held, first, last = weights  # the first layer's as the model holds it, and both in the dtype of the products
    residual = _norm_backward(_turn(gradient, stage.across), _turn(after.whole(samples), stage.across), deviation)
    narrow = residual.to(first.dtype)  # another dtype than the residual's only under autocast
    shape = (*residual.shape[:-1], first.shape[0])
    integers = before.boundary.integers
    formed = before.boundary.formed
    if integers:
        codes, scale = before.codes(samples)
        hidden = int8.rebuilt(codes, scale, formed.codes(held), first.dtype).view(shape)
    else:
        rows = before.rows(samples, first.dtype)
        hidden = (rows @ formed.floats(held, first.dtype).T).view(shape)
    rebuilding.now = True
    try:
        with torch.enable_grad(), torch.autocast(gradient.device.type, ctx.autocast[1], enabled=ctx.autocast[0]):
            between = stage.between(hidden.requires_grad_())
    finally:
        rebuilding.now = False
    (inner,) = torch.autograd.grad(between, hidden, (narrow @ last).to(between.dtype))
    between = between.detach()
    passed = _turn((inner @ first).to(residual.dtype).add_(residual), stage.across)
    if integers:
        return _Found(passed, lambda: int8.outer(_flat(narrow), _flat(between)), lambda: int8.outer(_flat(inner), codes, scale))
    return _Found(passed, lambda: _flat(narrow).T @ _flat(between).to(narrow.dtype), lambda: _flat(inner).T @ rows)


def _in_samples(shape: torch.Size, stage: Stage, first: Tensor) -> Iterator[slice]:
    """Slices of the batch whose inner activations are not larger than `REBUILT_AT_ONCE`."""
    batch, length, width = shape
    each = (width if stage.across else length) * first.shape[0] * first.itemsize
    most = max(1, REBUILT_AT_ONCE.get(first.device.type, REBUILT_AT_ONCE["cpu"]) // max(1, each))
    return (slice(start, min(batch, start + most)) for start in range(0, batch, most))


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None or more is None else total.add_(more)


def _turn(x: Tensor, across: bool) -> Tensor:
    return x.transpose(-1, -2) if across else x


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _kept(boundary: Boundary, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """What to save, and its scales: rows as the stage after it reads them; the whole, where it is kept in full, as it lies."""
    rows = _flat(_turn(x, boundary.across))
    kept = boundary.keep(rows)
    if boundary.storage != "exact":
        return quantise(rows if kept is None else kept, boundary.storage)
    return x if kept is None else kept, None


def _norm_backward(gradient: Tensor, out: Tensor, deviation: Tensor) -> Tensor:
    """Gradient at s of ŷ = r·s, r = 1/√(mean s² + eps): r·(d − ŷ·mean(d·ŷ)), in fp32, returned in d's dtype."""
    wide, out = gradient.float(), out.float()
    along = (wide * out).mean(-1, keepdim=True)
    return torch.addcmul(wide, out, along, value=-1).mul_(deviation).to(gradient.dtype)
