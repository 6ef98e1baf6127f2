"""How the energy of each site spreads over its directions, step by step: the columns of the spectrum waterfall."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from torch import Tensor

from laser_studio.debugger.aside import Aside, Spool

WIDEST = 64  # directions kept per step
LONGEST = 8_192  # newest steps kept
LIVE = 512  # newest ones in memory
CHUNK = 256  # older ones put aside together

Shares = tuple[float, ...]


class _Rows:
    """The shares of one site in fp32, step after step in one array: an object for each would take as much again as what it holds."""

    def __init__(self) -> None:
        self.steps = array("i")
        self.ends = array("q")  # of each step's shares in `values`
        self.values = array("f")

    def __len__(self) -> int:
        return len(self.steps)

    def start(self, place: int) -> int:
        return self.ends[place - 1] if place else 0

    def add(self, step: int, shares: list[float]) -> None:
        self.steps.append(step)
        self.values.extend(shares)
        self.ends.append(len(self.values))

    def part(self, start: int, stop: int) -> _Rows:
        """Rows `start` to `stop`, by place, apart from these."""
        one, begun = _Rows(), self.start(start)
        one.steps, one.values = self.steps[start:stop], self.values[begun : self.start(stop)]
        one.ends = array("q", (end - begun for end in self.ends[start:stop]))
        return one

    def before(self, step: int) -> _Rows:
        """Those of earlier steps."""
        return self.part(0, bisect_left(self.steps, step))

    def put(self, rows: list[Shares | None], start: int) -> None:
        """Into `rows`, of steps from `start` on, shares to three digits."""
        for place in range(bisect_left(self.steps, start), bisect_left(self.steps, start + len(rows))):
            rows[self.steps[place] - start] = tuple(float(f"{share:.3g}") for share in self.values[self.start(place) : self.ends[place]])


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows put aside: steps, ends and values one after the other."""

    first: int
    last: int
    many: int
    data: Aside

    @classmethod
    def of(cls, rows: _Rows, spool: Spool) -> _Chunk:
        data = spool.put(rows.steps.tobytes() + rows.ends.tobytes() + rows.values.tobytes())
        return cls(rows.steps[0], rows.steps[-1], len(rows), data)

    def rows(self) -> _Rows:
        rows, data = _Rows(), self.data.read()
        ends = self.many * rows.steps.itemsize
        values = ends + self.many * rows.ends.itemsize
        rows.steps.frombytes(data[:ends])
        rows.ends.frombytes(data[ends:values])
        rows.values.frombytes(data[values:])
        return rows


class _Column:
    """The newest rows of one site: older ones in chunks put aside, the newest in memory."""

    def __init__(self, spool: Spool) -> None:
        self.chunks: deque[_Chunk] = deque()
        self.live = _Rows()
        self._spool = spool

    def __len__(self) -> int:
        return sum(chunk.many for chunk in self.chunks) + len(self.live)

    def add(self, step: int, shares: list[float]) -> None:
        self.live.add(step, shares)
        if len(self.live) >= LIVE + CHUNK:
            self.chunks.append(_Chunk.of(self.live.part(0, CHUNK), self._spool))
            self.live = self.live.part(CHUNK, len(self.live))
        while self.chunks and len(self) - self.chunks[0].many >= LONGEST:
            self.chunks.popleft()

    def put(self, rows: list[Shares | None], start: int) -> None:
        too_old = max(0, len(self) - LONGEST)  # in the first chunk, which goes when all of it is
        for chunk in self.chunks:
            if start <= chunk.last and chunk.first < start + len(rows):
                chunk.rows().part(too_old, chunk.many).put(rows, start)
            too_old = 0
        self.live.put(rows, start)

    def cut(self, length: int) -> None:
        while self.chunks and self.chunks[-1].last >= length:
            self.live = self.chunks.pop().rows()  # later ones are forgotten
        self.live = self.live.before(length)

    def copy(self, spool: Spool) -> _Column:
        twin = _Column(spool)
        twin.chunks, twin.live = self.chunks.copy(), self.live.part(0, len(self.live))
        return twin


class Spectra:
    """Per site one tuple of energy shares per step, descending; None where a step has none or is no longer kept."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._spool = Spool()

    def add(self, site: str, step: int, shares: Tensor | Shares | None) -> None:
        """Keep the shares (k,) of a step in fp32; only the leading ones."""
        if shares is None:
            return
        leading = sorted(shares.tolist() if isinstance(shares, Tensor) else shares, reverse=True)[:WIDEST]
        if site not in self._columns:
            self._columns[site] = _Column(self._spool)
        self._columns[site].add(step, leading)

    def read(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """One entry per step in [start, stop), shares to three digits."""
        rows: list[Shares | None] = [None] * max(0, stop - start)
        if (column := self._columns.get(site)) is not None:
            column.put(rows, start)
        return rows

    def copy(self, length: int) -> Spectra:
        """Those of steps before `length`, apart from these; what is put aside is shared."""
        twin = Spectra()
        twin._columns = {site: column.copy(twin._spool) for site, column in self._columns.items()}
        twin.cut(length)
        return twin

    def cut(self, length: int) -> None:
        """Forget steps from `length` on."""
        for column in self._columns.values():
            column.cut(length)
