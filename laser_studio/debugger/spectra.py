"""How the energy of each site spreads over its directions, step by step: the columns of the spectrum waterfall."""

from __future__ import annotations

import copy
from array import array
from bisect import bisect_left

from torch import Tensor

WIDEST = 64  # directions kept per step
LONGEST = 8_192  # newest steps kept
_SPARE = 512  # older ones that may lie around before they are removed together

Shares = tuple[float, ...]


class _Column:
    """The shares of one site in fp32, step after step in one array: an object for each would take as much again as what it holds."""

    def __init__(self) -> None:
        self.steps = array("i")
        self.ends = array("q")  # of each step's shares in `values`
        self.values = array("f")

    def start(self, place: int) -> int:
        return self.ends[place - 1] if place else 0

    def add(self, step: int, shares: list[float]) -> None:
        self.steps.append(step)
        self.values.extend(shares)
        self.ends.append(len(self.values))
        if len(self.steps) >= LONGEST + _SPARE:
            gone = self.start(_SPARE)
            del self.steps[:_SPARE], self.values[:gone]
            self.ends = array("q", (end - gone for end in self.ends[_SPARE:]))

    def cut(self, length: int) -> None:
        place = bisect_left(self.steps, length)
        del self.values[self.start(place) :], self.steps[place:], self.ends[place:]


class Spectra:
    """Per site one tuple of energy shares per step, descending; None where a step has none or is no longer kept."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def add(self, site: str, step: int, shares: Tensor | Shares | None) -> None:
        """Keep the shares (k,) of a step in fp32; only the leading ones."""
        if shares is None:
            return
        leading = sorted(shares.tolist() if isinstance(shares, Tensor) else shares, reverse=True)[:WIDEST]
        self._columns.setdefault(site, _Column()).add(step, leading)

    def read(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """One entry per step in [start, stop), shares to three digits."""
        rows: list[Shares | None] = [None] * max(0, stop - start)
        if (column := self._columns.get(site)) is not None:
            first = max(bisect_left(column.steps, start), len(column.steps) - LONGEST)
            for place in range(first, bisect_left(column.steps, stop)):
                shares = column.values[column.start(place) : column.ends[place]]
                rows[column.steps[place] - start] = tuple(float(f"{share:.3g}") for share in shares)
        return rows

    def copy(self, length: int) -> Spectra:
        """Those of steps before `length`, apart from these."""
        twin = Spectra()
        twin._columns = copy.deepcopy(self._columns)
        twin.cut(length)
        return twin

    def cut(self, length: int) -> None:
        """Forget steps from `length` on."""
        for column in self._columns.values():
            column.cut(length)
