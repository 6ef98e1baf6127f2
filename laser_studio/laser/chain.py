"""Residual stages whose backward rebuilds what it needs from what is kept between them: Z = XQ, or the whole, in full or few bits.

The forward is exact. A place that is kept as nothing is made again from the one before it, by the stages between. Backward goes through
the samples in parts small enough for a processor's caches, so that what it rebuilds is never there for a whole batch. Pure functions on
tensors, as in `functions`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from laser_studio import kernels
from laser_studio.laser import int8
from laser_studio.laser.functions import StandIn, plain_arithmetic
from laser_studio.laser.products import Arithmetic, outer, product
from laser_studio.laser.quantise import Storage, quantise, restored

REBUILT_AT_ONCE = {"cpu": 16 << 20, "cuda": 256 << 20}  # bytes of one stage's inner activations; larger blocks cost page faults on a CPU


class Rebuilding(threading.local):
    """Whether this thread is at work inside a backward: what autograd saves then is gone before the next stage is rebuilt."""

    now = False


rebuilding = Rebuilding()
Pull = Callable[[Tensor], Tensor]


class Stage(Protocol):
    """x ↦ norm(x + last(between(first(x)))), norm(s) = s / √(mean s² + eps) in fp32, over the last axis; over the one before with `across`.

    `first` and `last` are linear layers without bias; `between` is a function without weights, differentiable by autograd, that
    treats every sample for itself. A stage may also have a method `vjp`, which backward takes in place of autograd: of h it gives
    between(h) and a function from the gradient there, whose memory it may use, to that at h; or None, to leave it to autograd.
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
    """What backward makes of the weights of one stage, in the first application that it comes to, for all of a step.

    basis: Q of the place before the stage, None without one. WQ (out, k) is of the stage's first layer, W itself without Q.
    """

    basis: Tensor | None
    _made: dict[tuple[int, object], tuple[object, tuple[Tensor, ...]]] = field(default_factory=dict)  # by address of the weight and form

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """A weight of the stage in the dtype of the products."""
        return weight if weight.dtype == dtype else self._once(weight, ("cast", dtype), lambda: (weight.to(dtype),))[0]

    def floats(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """WQ in the dtype of the products."""
        if (basis := self.basis) is None:
            return self.cast(weight, dtype)
        return self._once(weight, ("WQ", dtype), lambda: (self.cast(weight, dtype) @ basis.to(dtype),))[0]

    def in_bytes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A weight of the stage, all of it, in eight bits with a scale per row."""
        codes, scale = self._once(weight, "in bytes", lambda: quantise(weight, "int8"))
        return codes, scale

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """WQ in eight bits with a scale per row."""
        if (basis := self.basis) is None:
            return self.in_bytes(weight)
        codes, scale = self._once(weight, "WQ in bytes", lambda: quantise(weight.float() @ basis, "int8"))
        return codes, scale

    @property
    def nbytes(self) -> int:
        """Bytes held at the moment: none before the first backward of a step."""
        return sum(each.nbytes for _, made in self._made.values() for each in made)

    def _once(self, weight: Tensor, form: object, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` gives of a weight as it is now, made at first need."""
        place, version = (weight.data_ptr(), form), (weight._version, weight.dtype)
        known = self._made.get(place)
        if known is None or known[0] != version:
            known = self._made[place] = version, make()
        return known[1]


@dataclass(frozen=True)
class Piece:
    """What is kept of one tensor: a whole (B, T, D), or rows (N, k), values or codes with their scales.

    across: rows run along the last axis but one. A place may be kept as the sum of several, which other places keep as well.
    """

    values: Tensor
    scale: Tensor | None = None
    across: bool = False

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)


@dataclass(frozen=True)
class Boundary:
    """What is kept of a tensor between two stages: its coefficients along one axis, the whole, or nothing.

    keep: called with the rows (N, D) along that axis, returns what to save, (N, k), or None for the whole tensor.
    basis: Q (D, k), None with the whole. across: the axis is the last but one. storage: of what is kept.
    rebuilding, products: how to multiply where the stage after it is rebuilt, and where its weight gradients are summed.
    parts: what the tensor, whole, is the sum of, kept already; of the first place only, and then nothing else is kept there.
    """

    keep: Callable[[Tensor], Tensor | None]
    basis: Tensor | None
    across: bool
    rebuilding: Arithmetic = "float"
    products: Arithmetic = "float"
    storage: Storage = "exact"
    formed: Formed = field(default_factory=lambda: Formed(None))
    parts: tuple[Piece, ...] = ()

    @property
    def by_row(self) -> bool:
        """Whether eight bits have one scale per row, as products of them ask; see `quantise`."""
        return "int8" in (self.rebuilding, self.products)


@dataclass(frozen=True)
class Weights:
    """One stage's, as the model holds them: casts to the products' dtype are never saved, backward makes them once for all applications.

    first, last: W of its two layers, exact; now: both in the dtype of the products, for this forward; to_first, to_last: what gets
    their gradients, see `functions.project` and `functions.stand_in`.
    """

    first: Tensor
    last: Tensor
    now: tuple[Tensor, Tensor]
    to_first: StandIn
    to_last: StandIn


def chain(
    x: Tensor, stages: Sequence[Stage], boundaries: Sequence[Boundary], weights: Sequence[Weights], dtype: torch.dtype
) -> tuple[Tensor, Piece | None]:
    """The stages applied in turn to x (B, T, D), and what is kept of the result where that is the whole.

    Kept are only the boundaries (one more than stages) and the reciprocal deviation of each norm before one.

    Backward, from the last stage to the first: ŷ = ZQᵀ of the stage's output and r give the norm's, r·(d − ŷ·mean(d·ŷ)); h = Z(WQ)ᵀ of
    its input is what `first` gave; `between` runs again on h and is differentiated by autograd, so that whatever it normalises by
    belongs to the rebuilt values; input gradients use the exact weights. Stages before a place of which nothing is kept first run
    again to their end. dtype: of the products.
    """
    held = [each.first.detach() for each in weights] + [each.last.detach() for each in weights]
    told = [each.to_first for each in weights] + [each.to_last for each in weights]
    end: list[Piece] = []
    out = _Chain.apply(x, stages, boundaries, [each.now for each in weights], dtype, end, told, *held, *(each.at for each in told))
    return out, end[0] if end else None


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        stages: Sequence[Stage],
        boundaries: Sequence[Boundary],
        casts: Sequence[tuple[Tensor, Tensor]],
        dtype: torch.dtype,
        end: list[Piece],
        told: list[StandIn],
        *weights: Tensor,
    ) -> Tensor:
        count = len(stages)
        kept, deviations = [boundaries[0].parts or _kept(boundaries[0], x)], []
        for stage, (first, last), after in zip(stages, casts, boundaries[1:], strict=True):
            turned = _turn(x, stage.across)
            # in rows: a product of what lies otherwise copies its weight, turned
            hidden = F.linear(_flat(turned.to(dtype)), first)
            mixed = F.linear(stage.between(hidden.view(*turned.shape[:-1], -1)), last)
            x, deviation = _normed(turned, mixed, stage)
            kept.append(_kept(after, x))
            if kept[-1]:
                deviations.append(deviation)
        # what is kept is for save_for_backward alone to hold
        ctx.boundaries = [replace(each, parts=()) if each.parts else each for each in boundaries]
        ctx.stages, ctx.shape, ctx.dtype, ctx.products = stages, x.shape, x.dtype, dtype
        ctx.autocast = torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)
        ctx.told = told
        pieces = [piece for place in kept for piece in place]
        ctx.pieces = [[piece.across for piece in place] for place in kept]
        values, scales = [piece.values for piece in pieces], [piece.scale for piece in pieces]
        ctx.save_for_backward(*values, *scales, *deviations, *(boundary.basis for boundary in boundaries), *weights[: 2 * count])
        if kept[-1] and boundaries[-1].basis is None:
            last_piece = kept[-1][0]
            end.append(last_piece if last_piece.scale is not None else Piece(x.detach()))  # itself it would hold its own graph
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        count = len(ctx.stages)
        saved = iter(ctx.saved_tensors)
        number = sum(len(place) for place in ctx.pieces)
        ends = sum(bool(place) for place in ctx.pieces[1:])
        values, scales, deviations, bases, held = (list(islice(saved, many)) for many in (number, number, ends, count + 1, 2 * count))
        pieces = (Piece(*each) for each in zip(values, scales, (across for place in ctx.pieces for across in place), strict=True))
        places = [
            _Place(boundary, tuple(islice(pieces, len(place))), basis, ctx.shape, ctx.dtype)
            for boundary, place, basis in zip(ctx.boundaries, ctx.pieces, bases, strict=True)
        ]
        replays = [
            _Replay(number, count, stage, before, after, held[number], held[count + number], ctx.products, ctx.autocast)
            for number, (stage, before, after) in enumerate(zip(ctx.stages, places, places[1:], strict=False))
        ]

        def add(place: int, left: Tensor, right: Tensor | None, codes: tuple[Tensor, Tensor] | None, how: Arithmetic) -> None:
            ctx.told[place].add(lambda onto: outer(_flat(left), None if right is None else _flat(right), codes, how, onto))

        with plain_arithmetic(gradient):
            end, out = count, None
            while end:
                start = max(place for place in range(end) if places[place].pieces)
                run, deviation = replays[start:end], deviations.pop() if places[end].pieces else None
                parts = _in_samples(ctx.shape, run)
                if len(parts) == 1:
                    gradient, out = _run_backward(run, gradient, deviation, parts[0], add, out)
                else:
                    by_part = [None if deviation is None else deviation[part] for part in parts]
                    found = [_run_backward(run, gradient[part], one, part, add)[0] for part, one in zip(parts, by_part, strict=True)]
                    gradient, out = torch.cat(found), None
                end = start
        return (gradient if ctx.needs_input_grad[0] else None, *(None for _ in range(6 + len(held) + len(ctx.told))))  # weights': see `Sum`


@dataclass(frozen=True)
class _Place:
    """A boundary as it was kept; samples are asked for by a slice of the batch."""

    boundary: Boundary
    pieces: tuple[Piece, ...]
    basis: Tensor | None
    shape: torch.Size
    dtype: torch.dtype

    def rows(self, samples: slice, dtype: torch.dtype) -> Tensor:
        """Coefficients, or the whole, as rows of the stage that reads this place."""
        across, (one, *more) = self.boundary.across, self.pieces
        if not more and one.scale is not None and one.across == across:
            part = self._part(one, samples)
            return restored(one.values[part], one.scale[part], self._width(one), dtype)
        if self.basis is not None:
            return one.values[self._part(one, samples)].to(dtype)
        return _flat(_turn(self.whole(samples), across)).to(dtype)

    def codes(self, samples: slice, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same as eight-bit rows, of `rows` where they are at hand and the place was not kept so."""
        if len(self.pieces) == 1:
            (one,) = self.pieces
            by_row = one.scale is not None and one.scale.shape[1] == 1 and one.values.dtype == torch.int8
            if by_row and one.across == self.boundary.across:
                assert one.scale is not None
                part = self._part(one, samples)
                return one.values[part], one.scale[part]
        return quantise(self.rows(samples, torch.float32) if rows is None else rows, "int8")

    def whole(self, samples: slice) -> Tensor:
        """(b, T, D), ZQᵀ where coefficients are kept."""
        one, *more = (self._whole(piece, samples) for piece in self.pieces)
        return sum(more, one)

    def _whole(self, piece: Piece, samples: slice) -> Tensor:
        _, length, width = self.shape
        if piece.scale is not None:
            part = self._part(piece, samples)
            rows = restored(piece.values[part], piece.scale[part], self._width(piece), self.dtype)
        elif self.basis is not None:
            rows = piece.values[self._part(piece, samples)].to(self.dtype)
        else:
            return piece.values.view(self.shape)[samples]
        if self.basis is not None:
            rows = rows @ self.basis.T.to(rows.dtype)
        return _turn(rows.view(-1, width, length) if piece.across else rows.view(-1, length, width), piece.across)

    def _width(self, piece: Piece) -> int:
        return self.basis.shape[1] if self.basis is not None else self.shape[1 if piece.across else 2]

    def _part(self, piece: Piece, samples: slice) -> slice:
        each = self.shape[2 if piece.across else 1]
        return slice(samples.start * each, samples.stop * each)


@dataclass(frozen=True)
class _Replay:
    """A stage in backward: its number of how many, the places around it, its weights as the model holds them, the dtype of products, and
    forward's autocast."""

    number: int
    count: int
    stage: Stage
    before: _Place
    after: _Place
    held_first: Tensor
    held_last: Tensor
    products: torch.dtype
    autocast: tuple[bool, torch.dtype]

    @property
    def formed(self) -> Formed:
        return self.before.boundary.formed

    @property
    def first(self) -> Tensor:
        return self.formed.cast(self.held_first, self.products)

    @property
    def last(self) -> Tensor:
        return self.formed.cast(self.held_last, self.products)

    def summing(self, samples: slice) -> Arithmetic:
        """How to multiply where the weights' gradients over these samples are summed."""
        boundary, (_, length, width) = self.before.boundary, self.before.shape
        rows = (samples.stop - samples.start) * (width if self.stage.across else length)
        in_bytes = boundary.products == "float" and boundary.rebuilding == "int8" and int8.pays_summing(rows)
        return "int8" if in_bytes else boundary.products

    def reads_whole(self, samples: slice) -> bool:
        """Whether `rebuild` gives rows of the place before as it lies, whole: not coefficients, nor only codes."""
        return self.before.basis is None and self.summing(samples) != "int8"

    def rebuild(self, x: Tensor | None, samples: slice, *, again: bool) -> _Rebuilt:
        """h and between(h), from x (b, T, D), or the place before. again: x has been made again, and is not what Q and codes belong to."""
        boundary, codes, rows = self.before.boundary, None, None
        how, summing = boundary.rebuilding, self.summing(samples)
        dtype = torch.bfloat16 if how == "bf16" else self.products
        if x is not None:
            rows = _flat(_turn(x, self.stage.across)).to(dtype)
        elif summing != "int8":
            rows = self.before.rows(samples, dtype)
        if how == "int8":
            codes = self.before.codes(samples, rows)
            hidden = int8.rebuilt(*codes, self.formed.codes(self.held_first), self.products)
        else:
            assert rows is not None
            weight = self.formed.cast(self.held_first, dtype) if again else self.formed.floats(self.held_first, dtype)
            hidden = product(rows, weight.T).to(self.products) if how == "bf16" else rows @ weight.T
        _, length, width = self.before.shape
        between, pull = self._differentiated(hidden.view(-1, width if self.stage.across else length, hidden.shape[1]))
        return _Rebuilt(between, pull, summing, rows, codes if summing == "int8" else None)

    def mixed(self, rebuilt: _Rebuilt) -> Tensor:
        """What the stage adds to its input."""
        between, boundary = rebuilt.between, self.before.boundary
        pays = self.held_last.shape[0] >= int8.LEAST_OUTPUTS or rebuilt.summing == "int8"  # codes then serve twice
        how = boundary.rebuilding if pays else boundary.products
        if how == "float":
            return F.linear(between, self.last)
        rows = _flat(between)
        if how == "int8":
            codes = quantise(rows, "int8")
            if rebuilt.summing == "int8":
                rebuilt.between_codes = codes
            added = int8.rebuilt(*codes, self.formed.in_bytes(self.held_last), self.products)
        else:
            added = product(rows, self.formed.cast(self.held_last, torch.bfloat16).T).to(self.products)
        return added.view(*between.shape[:-1], -1)

    def _differentiated(self, hidden: Tensor) -> tuple[Tensor, Pull]:
        own: Callable[[Tensor], tuple[Tensor, Pull] | None] | None = getattr(self.stage, "vjp", None)
        rebuilding.now = True
        try:
            if own is not None and (found := own(hidden)) is not None:
                return found
            with torch.enable_grad(), torch.autocast(hidden.device.type, self.autocast[1], enabled=self.autocast[0]):
                between = self.stage.between(hidden.requires_grad_())
        finally:
            rebuilding.now = False
        return between.detach(), lambda gradient: torch.autograd.grad(between, hidden, gradient.to(between.dtype))[0]


@dataclass
class _Rebuilt:
    """What `_Replay.rebuild` made of some samples: between(h), what differentiates it, how weight gradients are to be summed, and what
    `first` read, as values or as the codes to sum; then, where they were made again, what came out of the stage and its norm's reciprocal
    deviation, and the codes of what `last` read."""

    between: Tensor
    pull: Pull
    summing: Arithmetic
    rows: Tensor | None
    codes: tuple[Tensor, Tensor] | None
    between_codes: tuple[Tensor, Tensor] | None = None
    out: Tensor | None = None
    deviation: Tensor | None = None


Add = Callable[[int, Tensor, Tensor | None, tuple[Tensor, Tensor] | None, Arithmetic], None]


def _run_backward(
    run: Sequence[_Replay], gradient: Tensor, deviation: Tensor | None, samples: slice, add: Add, last_out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The gradient at what enters the first of `run`, from that at what the last gives, and what enters, if it was needed whole.

    Between the stages of a run nothing was kept. add: given what `outer` makes gradients of weights of, of first layers under the numbers
    of their stages, of last ones behind those; last_out: what the last gives, where that is at hand.
    """
    rebuilt: list[_Rebuilt] = []
    entered = x = run[0].before.whole(samples) if run[0].reads_whole(samples) else None
    for number, replay in enumerate(run):
        rebuilt.append(replay.rebuild(x, samples, again=number > 0))
        if not replay.after.pieces:
            x = replay.before.whole(samples) if x is None else x
            x, rebuilt[-1].deviation = _normed_again(_turn(x, replay.stage.across), replay.mixed(rebuilt[-1]), replay.stage)
            rebuilt[-1].out = x
    while rebuilt:
        replay, now = run[len(rebuilt) - 1], rebuilt.pop()
        across, count = replay.stage.across, replay.count
        out, last_out = last_out if now.out is None else now.out, None
        out = replay.after.whole(samples) if out is None else out
        held = deviation if now.deviation is None else now.deviation
        assert held is not None
        # a product of what lies otherwise copies its weight for every sample, and what lies in two ways is slow to go through
        gradient, out = (_turn(each, across).contiguous() for each in (gradient, out))
        residual = _norm_backward(gradient, out, held)
        narrow = residual.to(replay.products)  # another dtype than the residual's only under autocast
        inner = now.pull(narrow @ replay.last)
        add(count + replay.number, narrow, now.between, now.between_codes, now.summing)
        add(replay.number, inner, now.rows, now.codes, now.summing)
        gradient = _turn(_added_product(residual, inner, replay.first), across)
    return gradient, entered


def _in_samples(shape: torch.Size, run: Sequence[_Replay]) -> list[slice]:
    """Slices of the batch whose inner activations, of all stages of the run, are not larger than `REBUILT_AT_ONCE`."""
    batch, length, width = shape
    each = sum((width if replay.stage.across else length) * replay.held_first.shape[0] * replay.products.itemsize for replay in run)
    most = max(1, REBUILT_AT_ONCE.get(run[0].held_first.device.type, REBUILT_AT_ONCE["cpu"]) // max(1, each))
    return [slice(start, min(batch, start + most)) for start in range(0, max(1, batch), most)]


def _turn(x: Tensor, across: bool) -> Tensor:
    return x.transpose(-1, -2) if across else x


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def kept_whole(x: Tensor, storage: Storage, by_row: bool) -> Piece:
    """x (B, T, D) as a place that is kept whole keeps it; by_row: as in `quantise`."""
    x = x.detach()
    return Piece(x) if storage in ("exact", "recomputed") else Piece(*quantise(_flat(x), storage, by_row=by_row))


def _kept(boundary: Boundary, x: Tensor) -> tuple[Piece, ...]:
    """What to save: rows as the stage after it reads them; the whole, where it is kept in full, as it lies; or nothing."""
    if boundary.storage == "recomputed":
        return ()
    rows = _flat(_turn(x, boundary.across))
    kept = boundary.keep(rows)
    if boundary.storage != "exact":
        return (Piece(*quantise(rows if kept is None else kept, boundary.storage, by_row=boundary.by_row), boundary.across),)
    return (Piece(x if kept is None else kept, None, boundary.across),)


def _normed(turned: Tensor, mixed: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """The norm of turned + mixed, turned back, and its reciprocal deviation; `mixed` is the caller's own and used up."""
    # across: the sum takes the layout of x
    wide = (turned + mixed if stage.across or mixed.dtype != turned.dtype else mixed.add_(turned)).float()
    deviation = torch.rsqrt(wide.square().mean(-1, keepdim=True) + stage.eps)
    return _turn(wide.mul_(deviation).to(turned.dtype), stage.across), deviation


def _normed_again(turned: Tensor, mixed: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """The same in backward, where it need not be forward's to the last bit."""
    if not _in_rows(turned, mixed):
        return _normed(turned, mixed, stage)
    from laser_studio.kernels import norms

    out, deviation = norms.normed_sum(turned, mixed, stage.eps)
    return _turn(out, stage.across), deviation


def _norm_backward(gradient: Tensor, out: Tensor, deviation: Tensor) -> Tensor:
    """Gradient at s of ŷ = r·s, r = 1/√(mean s² + eps): r·(d − ŷ·mean(d·ŷ)), in fp32, returned in d's dtype."""
    if _in_rows(gradient, out, deviation):
        from laser_studio.kernels import norms

        return norms.norm_pulled(gradient, out, deviation)
    wide, out = gradient.float(), out.float()
    along = (wide * out).mean(-1, keepdim=True)
    return torch.addcmul(wide, out, along, value=-1).mul_(deviation).to(gradient.dtype)


def _in_rows(*tensors: Tensor) -> bool:
    """Whether a fused kernel can take their rows as they lie."""
    first = tensors[0]
    return kernels.usable(first) and first.shape[-1] <= kernels.WIDEST and all(each.is_contiguous() for each in tensors)


def _added_product(onto: Tensor, inner: Tensor, weight: Tensor) -> Tensor:
    """onto (…, D) + inner (…, n)·weight (n, D), in onto's dtype and memory."""
    if onto.dtype == inner.dtype and onto.is_contiguous():
        rows = onto.view(-1, onto.shape[-1])
        torch.addmm(rows, _flat(inner), weight, out=rows)
        return onto
    return (inner @ weight).to(onto.dtype).add_(onto)
