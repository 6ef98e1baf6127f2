"""Which rank and which storage at which site: the cheapest that stay within a budget of bytes or of gradient error.

Every option of every place is tried on the gradient itself: one backward with only that place stored so, against one with every
place in full. Places that share what they keep count as one, because only together they free it. Errors of places are taken as
independent, so that their squares add up; places are then lowered one notch at a time, the one first that frees most bytes for the
error it adds. What comes out is measured as a whole before it is taken. A place that is made again passes on the error of what it is
made from, which only the whole shows: where that is worse than its places said, the search goes on without one such place after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from laser_studio.errors import CompressionError
from laser_studio.laser.quantise import Storage

Run = Callable[[], object]
UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
MARGIN = 0.9  # of the squared error asked for: what adding squares leaves out


@dataclass(frozen=True)
class Budget:
    """At least this mean cosine with the exact gradient, or at most these bytes saved for backward in one step (share: of plain's)."""

    cosine: float | None = None
    bytes: float | None = None
    share: float | None = None

    @classmethod
    def read(cls, text: str) -> Budget:
        """ "cosine=0.99", "bytes=64MiB" or "bytes=3%". Raises `CompressionError`."""
        name, equals, value = (part.strip() for part in text.partition("="))
        try:
            if name == "cosine" and equals and 0 < float(value) < 1:
                return cls(cosine=float(value))
            if name == "bytes" and equals and value.endswith("%") and 0 < float(value[:-1]) < 100:
                return cls(share=float(value[:-1]) / 100)
            if name == "bytes" and equals:
                number = value.rstrip("BKMGi")
                if (size := float(number) * UNITS[value[len(number) :].strip()]) >= 1 and math.isfinite(size):
                    return cls(bytes=size)
        except (ValueError, KeyError):
            pass
        raise CompressionError(f'a budget is "cosine=0.99", "bytes=64MiB" or "bytes=3%", not {text!r:.60}')

    def __str__(self) -> str:
        if self.cosine is not None:
            return f"cosine ≥ {self.cosine:g}"
        return f"bytes ≤ {self.share:.3%} of plain" if self.bytes is None else f"bytes ≤ {self.bytes / 2**20:.2f} MiB"


@dataclass(frozen=True)
class Option:
    """How one place is kept: coefficients at a rank, a part of the width, or the whole with None; in which storage, or "recomputed"."""

    rank: str | None
    storage: Storage

    def __str__(self) -> str:
        if self == MADE_AGAIN:
            return "made again"
        return f"{'whole' if self.rank is None else f'rank {self.rank}'}, {self.storage}"


IN_FULL, MADE_AGAIN = Option(None, "exact"), Option(None, "recomputed")


@dataclass(frozen=True)
class Effect:
    """Of one place kept one way, with those that share what it keeps, all others in full: bytes freed in one optimiser step, what the
    basis costs deducted, and the squared relative error of the whole gradient."""

    freed: int
    error: float


@dataclass(frozen=True)
class Choice:
    """What was chosen. effects: of every option tried; cosine, worst: of the gradient, in the mean and least over the runs it was
    measured on; saved and full: bytes saved for backward in one optimiser step, chosen and by plain autograd; reached: whether the
    budget holds; runs: forwards with backward it took; together: places that share what they keep and have effects as one."""

    budget: Budget
    options: Mapping[str, Option]
    effects: Mapping[tuple[str, Option], Effect]
    cosine: float
    worst: float
    saved: int
    full: int
    reached: bool
    runs: int
    together: Sequence[Sequence[str]] = ()

    def alone(self, place: str) -> float:
        """The cosine that what was chosen for a place leaves by itself, or with those that share with it, all others in full."""
        return _cosine(self.effects[place, self.options[place]].error)

    def beside(self, place: str) -> list[str]:
        """The other places that share what it keeps."""
        return [other for group in self.together if place in group for other in group if other != place]

    def __str__(self) -> str:
        head = f"budget {self.budget}: {'held' if self.reached else 'NOT reached, the nearest taken'}; "
        head += f"cosine {self.cosine:.5f} ({self.worst:.5f} at worst), "
        head += f"{self.saved / 2**20:.2f} of {self.full / 2**20:.2f} MiB saved ({1 - self.saved / self.full:.2%} gone), {self.runs} runs"
        width = max(len(name) for name in self.options)
        lines = [head, f"  {'place':{width}}  {'kept':16} {'freed':>11}  cosine with it alone"]
        told: set[str] = set()
        for name, option in self.options.items():
            freed, first = self.effects[name, option].freed, next((one for one in self.beside(name) if one in told), None)
            figures = f"{freed / 2**20:7.3f} MiB  {self.alone(name):.5f}" if first is None else f"with {first}"
            lines.append(f"  {name:{width}}  {option!s:16} {figures}")
            told.add(name)
        return "\n".join(lines)


Measure = Callable[[int, Mapping[str, Option]], tuple[Tensor, int]]
"""Gradient of a run, by its number, as one vector, and the bytes saved for backward in it, under options by place."""


def choose(
    budget: Budget,
    options: Mapping[str, Sequence[Option]],
    measure: Measure,
    *,
    full: int,
    runs: int,
    together: Sequence[Collection[str]] = (),
) -> Choice:
    """Try every option of every place, then lower places until the budget is reached; see the module's head.

    options: by place, in full left out; full: bytes that plain autograd saves in one optimiser step; runs: how many there are to
    measure on; together: groups of places that are kept one way, any of the options of the first of them.
    """
    count = 0
    groups = [[place for place in options if place in group] for group in together]
    follows = {place: group[0] for group in groups for place in group[1:]}
    leading = {place: ways for place, ways in options.items() if place not in follows}

    def measured(kept: Mapping[str, Option]) -> tuple[list[Tensor], int]:
        nonlocal count
        count += runs
        gradients, sizes = zip(*(measure(run, kept) for run in range(runs)), strict=True)
        return list(gradients), max(sizes)

    def spread(kept: Mapping[str, Option]) -> dict[str, Option]:
        return {place: kept[follows.get(place, place)] for place in options}

    start = dict.fromkeys(leading, IN_FULL)
    exact, in_full = measured(spread(start))
    effects = {(place, IN_FULL): Effect(0, 0.0) for place in leading}
    for place, ways in leading.items():
        for option in ways:
            found, saved = measured(spread({**start, place: option}))
            effects[place, option] = Effect(in_full - saved, _squared_error(fmean(map(cosine_of, found, exact))))
    tried: dict[tuple[Option, ...], tuple[float, float, int]] = {}

    def whole(kept: Mapping[str, Option]) -> tuple[float, float, int]:
        key = tuple(kept.values())
        if key not in tried:
            found, saved = measured(spread(kept))
            cosines = list(map(cosine_of, found, exact))
            tried[key] = fmean(cosines), min(cosines), saved
        return tried[key]

    def lowered(barred: frozenset[str]) -> _Whole:
        """The search, where these places are not made again."""
        open_to = {place: [way for way in ways if place not in barred or way != MADE_AGAIN] for place, ways in leading.items()}
        ladders = {place: _ladder({way: effects[place, way] for way in (IN_FULL, *ways)}) for place, ways in open_to.items()}
        path = list(_lowered(ladders, effects))
        errors = [sum(effects[place, option].error for place, option in kept.items()) for kept in path]
        if budget.cosine is not None:
            allowed = MARGIN * (budget.cosine**-2 - 1)
            step = hoped = max(number for number, error in enumerate(errors) if error <= allowed)
            while step and whole(path[step])[0] < budget.cosine:
                step -= 1
            reached, worse = whole(path[step])[0] >= budget.cosine, step < hoped
        else:
            limit = budget.bytes if budget.bytes is not None else (budget.share or 0) * full
            frees = [sum(effects[place, option].freed for place, option in kept.items()) for kept in path]
            step = next((number for number, freed in enumerate(frees) if in_full - freed <= limit), len(path) - 1)
            while step + 1 < len(path) and whole(path[step])[2] > limit:
                step += 1
            reached, worse = whole(path[step])[2] <= limit, MARGIN * _squared_error(whole(path[step])[0]) > errors[step]
        return _Whole(path[step], barred, *whole(path[step]), reached, worse)

    def standing(found: _Whole) -> tuple[bool, float]:
        return not found.reached, found.saved if budget.cosine is not None or not found.reached else -found.cosine

    best = lowered(frozenset())
    while best.worse and (again := [place for place, option in best.kept.items() if option == MADE_AGAIN]):
        better = min((lowered(best.barred | {place}) for place in again), key=standing)
        if standing(better) >= standing(best):
            break
        best = better
    effects |= {(place, option): effects[first, option] for place, first in follows.items() for option in (IN_FULL, *options[first])}
    return Choice(budget, spread(best.kept), effects, best.cosine, best.worst, best.saved, full, best.reached, count, groups)


@dataclass(frozen=True)
class _Whole:
    """Where a search ended. barred: places that could not be made again; worse: it errs more than the sum of its places said."""

    kept: Mapping[str, Option]
    barred: frozenset[str]
    cosine: float
    worst: float
    saved: int
    reached: bool
    worse: bool


def _ladder(effects: Mapping[Option, Effect]) -> list[Option]:
    """From in full to what frees most, only options at which bytes are freed for less error than further down."""
    kept = [IN_FULL]
    for option in sorted(effects, key=lambda one: (effects[one].error, -effects[one].freed)):
        if effects[option].freed <= effects[kept[-1]].freed:
            continue  # another frees as much for less
        while len(kept) > 1 and _price(effects[kept[-2]], effects[kept[-1]]) >= _price(effects[kept[-1]], effects[option]):
            kept.pop()
        kept.append(option)
    return kept


def _price(dear: Effect, cheap: Effect) -> float:
    """Error added per byte freed: 0 for what is made again and as exact, infinite for what turns the gradient round."""
    return math.inf if math.isinf(cheap.error) else (cheap.error - dear.error) / (cheap.freed - dear.freed)


def _lowered(ladders: Mapping[str, list[Option]], effects: Mapping[tuple[str, Option], Effect]) -> Iterator[dict[str, Option]]:
    """From every place in full down to its cheapest, one notch of one place at a time, always the one of the lowest price."""
    notches = dict.fromkeys(ladders, 0)
    while True:
        yield {place: ladders[place][notch] for place, notch in notches.items()}
        left = [place for place, notch in notches.items() if notch + 1 < len(ladders[place])]
        if not left:
            return
        price = {}
        for place in left:
            dear, cheap = (effects[place, ladders[place][notches[place] + more]] for more in (0, 1))
            price[place] = _price(dear, cheap)
        notches[min(left, key=price.__getitem__)] += 1


def cosine_of(found: Tensor, wanted: Tensor) -> float:
    """Of the angle between two gradients, in fp64; 1 where both are zero."""
    a, b = found.double(), wanted.double()
    sizes = float(a.norm()) * float(b.norm())
    return float(a @ b) / sizes if sizes else float(not a.any() and not b.any())


def _squared_error(cosine: float) -> float:
    """1/cos² − 1: the squared relative error, what only changes the gradient's length left out."""
    return max(0.0, cosine**-2 - 1) if cosine > 0 else math.inf


def _cosine(error: float) -> float:
    return (1 + error) ** -0.5
