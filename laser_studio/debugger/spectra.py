"""How the energy of each site spreads over its directions, step by step: the columns of the spectrum waterfall."""

from __future__ import annotations

from array import array
from collections import deque

from torch import Tensor

WIDEST = 64  # directions kept per step
LONGEST = 8_192  # newest steps kept

Shares = tuple[float, ...]


class Spectra:
    """Per site one tuple of energy shares per step, descending; None where a step has none or is no longer kept."""

    def __init__(self) -> None:
        self._columns: dict[str, deque[tuple[int, array[float]]]] = {}

    def add(self, site: str, step: int, shares: Tensor | Shares | None) -> None:
        """Keep the shares (k,) of a step in fp32; only the leading ones."""
        if shares is None:
            return
        leading = sorted(shares.tolist() if isinstance(shares, Tensor) else shares, reverse=True)[:WIDEST]
        self._columns.setdefault(site, deque(maxlen=LONGEST)).append((step, array("f", leading)))

    def read(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """One entry per step in [start, stop), shares to three digits."""
        rows: list[Shares | None] = [None] * max(0, stop - start)
        column = self._columns.get(site)
        if column:
            # Steps come one by one, so a step's place follows from the newest one's.
            last = column[-1][0]
            for place in range(max(0, len(column) - 1 - (last - start)), len(column)):
                step, shares = column[place]
                if start <= step < stop:
                    rows[step - start] = tuple(float(f"{share:.3g}") for share in shares)
                elif step >= stop:
                    break
        return rows

    def cut(self, length: int) -> None:
        """Forget steps from `length` on."""
        for column in self._columns.values():
            while column and column[-1][0] >= length:
                column.pop()
