"""What time travel keeps of the activations: coefficients Z of every site at every step, within a byte budget.

A basis costs as much as D rows of Z, so it is not stored per refresh. When the basis moves from Q to Q′, the stored
coefficients are carried over, Z ← Z QᵀQ′, while what they keep stays above the threshold (where they never reached it:
above that share of what they kept) and the carried form is the smaller one; otherwise the old basis stays with its
coefficients as a closed *version* and a new version starts. The first window, for which no basis existed, is kept exact.
A keyframe has to keep its bases anyway, so versions close there and share them: what lies before a keyframe is never carried
again, and going back to it means forgetting what came after. Over the budget, exact steps are compressed first, then
keyframes are thinned to their half of it, then the oldest steps are dropped.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from laser_studio.debugger.keyframes import Keyframe, Keyframes
from laser_studio.debugger.storages import storage_of
from laser_studio.laser.ledger import EMPTY, LedgerLine
from laser_studio.memory import give_back_freed

# A basis that costs under 2 % of the coefficients it serves is not worth carrying them over: its version is closed.
_CLOSED_AT_ROWS_PER_DIM = 50
_BOOKKEEPING_BYTES = 8  # one fp64 number per stored step: the energy of the input


@dataclass(frozen=True, slots=True)
class _Entry:
    """One site's input at one step. `data` is Z (N, k), or X (N, D) where kept exact; energies are ‖X‖²_F and ‖data‖²_F.

    carried: Z was taken with an earlier basis and carried over to the one it lies in now; at_first: ‖Z‖²_F when it was stored.
    """

    step: int
    data: Tensor
    energy: float
    kept: float
    at_first: float
    carried: bool = False

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + _BOOKKEEPING_BYTES


class _Run:
    """Entries in order of steps with running totals; `basis` (D, k) is None where the entries are exact, `closed`: no more come."""

    def __init__(self, basis: Tensor | None, entries: Iterable[_Entry] = (), *, closed: bool = False) -> None:
        self.basis, self.closed = basis, closed
        self.place = None if basis is None else storage_of(basis)  # runs may share a basis
        self.entries: deque[_Entry] = deque()
        self.rows = self.nbytes = self.carried = 0
        self.energy = self.kept = self.at_first = 0.0
        for entry in entries:
            self.append(entry)

    def append(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._count(entry, 1)

    def drop_oldest(self) -> None:
        self._count(self.entries.popleft(), -1)

    def copy(self) -> _Run:
        """The same entries and sums, to the last bit."""
        twin = copy.copy(self)
        twin.entries = self.entries.copy()
        return twin

    def _count(self, entry: _Entry, sign: int) -> None:
        self.rows += sign * len(entry.data)
        self.nbytes += sign * entry.nbytes
        self.carried += sign * entry.carried
        self.energy += sign * entry.energy
        self.kept += sign * entry.kept
        self.at_first += sign * entry.at_first


@dataclass(slots=True)
class _Totals:
    """Sums over runs."""

    rows: int = 0
    nbytes: int = 0
    carried: int = 0
    energy: float = 0.0
    kept: float = 0.0

    def plus(self, run: _Run) -> _Totals:
        return _Totals(
            self.rows + run.rows,
            self.nbytes + run.nbytes,
            self.carried + run.carried,
            self.energy + run.energy,
            self.kept + run.kept,
        )


class SiteHistory:
    """Stored activations of one site, in the dtype they come in, so that full and stored bytes compare like with like."""

    def __init__(self, dim: int, threshold: float) -> None:
        self.dim, self.threshold = dim, threshold
        self._exact = _Run(None)
        self._versions: deque[_Run] = deque()  # coefficients, one run per basis; the last one grows
        self._older: _Totals | None = None  # of all runs but the one that grows; None: to be summed anew
        self._bases: dict[int, int] = {}  # bytes by storage, as of `_changes_seen`
        self._changes_seen = -1
        self.changes = 0  # of the bases held, for whoever keeps a figure of them

    def copy(self) -> SiteHistory:
        """The same entries in a history of their own; tensors are shared, since nobody changes them in place."""
        twin = SiteHistory(self.dim, self.threshold)
        twin._exact = self._exact.copy()
        twin._versions = deque(run.copy() for run in self._versions)
        return twin

    @property
    def versions(self) -> int:
        """Bases that have to be kept."""
        return len(self.bases)

    @property
    def bases(self) -> Mapping[int, int]:
        """Bytes of the bases that have to be kept, by their storages."""
        if self._changes_seen != self.changes:
            self._bases = {run.place: run.basis.nbytes for run in self._versions if run.place is not None and run.basis is not None}
            self._changes_seen = self.changes
        return self._bases

    def add_exact(self, step: int, x: Tensor) -> None:
        """Keep x (N, D) as it is."""
        energy = _energy(x)
        self._exact.append(_Entry(step, x.clone(), energy, energy, energy))
        self._older = None

    def add(self, step: int, coefficients: Tensor, basis: Tensor, energy: float) -> None:
        """Keep coefficients (N, k) of an input of energy ‖X‖²_F, belonging to `basis` (D, k)."""
        if not self._versions or self._versions[-1].closed or self._versions[-1].basis is not basis:
            self._versions.append(_Run(basis))
            self._regrouped()
        kept = _energy(coefficients)
        self._versions[-1].append(_Entry(step, coefficients, energy, kept, kept))

    def rebase(self, basis: Tensor) -> None:
        """The basis in force is now `basis` (D, k′): carry the newest version over where that keeps enough and costs less."""
        if not self._versions:
            return
        version = self._versions[-1]
        old = version.basis
        if old is None or old is basis or version.closed or not version.entries:
            return
        wider = version.rows * (basis.shape[1] - old.shape[1])
        if version.rows >= _CLOSED_AT_ROWS_PER_DIM * self.dim or wider > old.numel():
            return
        stored = torch.cat([entry.data for entry in version.entries])
        carried = (stored.float() @ (old.T @ basis)).to(stored.dtype)  # (Σ N, k′)
        rows = [len(entry.data) for entry in version.entries]
        kept = _energies(carried, rows)
        # Where what was stored lay below the threshold from the start, as when the stream jumped, it counts from what there was.
        least = self.threshold * (version.energy if version.at_first >= self.threshold * version.energy else version.at_first)
        if sum(kept) < least:
            return
        parts = zip(version.entries, carried.split(rows), kept, strict=True)
        self._versions[-1] = _Run(
            basis, (_Entry(entry.step, part.clone(), entry.energy, left, entry.at_first, True) for entry, part, left in parts)
        )
        self.changes += 1

    def close_version(self) -> None:
        """From now on nothing stored so far is carried over to another basis."""
        if self._versions and self._versions[-1].entries:
            self._versions[-1].closed = True

    def cut(self, step: int) -> None:
        """Forget all activations of later steps. Runs that lie before it are left as they are, to the last bit of their sums."""

        def before(run: _Run) -> _Run:
            if not run.entries or run.entries[-1].step <= step:
                return run
            return _Run(run.basis, (entry for entry in run.entries if entry.step <= step), closed=run.closed)

        self._exact = before(self._exact)
        self._versions = deque(run for run in map(before, self._versions) if run.entries)
        self._regrouped()

    def compress_exact(self) -> int:
        """Turn exact steps into coefficients of the oldest basis at hand; returns the bytes freed."""
        if not self._exact.entries or not self._versions:
            return 0
        before, oldest = self.nbytes, self._versions[0]
        assert oldest.basis is not None
        thin = []
        for entry in self._exact.entries:
            z = (entry.data.float() @ oldest.basis).to(entry.data.dtype)
            kept = _energy(z)
            thin.append(_Entry(entry.step, z, entry.energy, kept, kept))
        self._versions[0] = _Run(oldest.basis, (*thin, *oldest.entries), closed=oldest.closed)
        self._exact = _Run(None)
        self._regrouped()
        return before - self.nbytes

    def drop_before(self, step: int) -> None:
        """Forget all activations of earlier steps, and versions that hold none (never the newest, whose basis is in use)."""
        for run in (self._exact, *self._versions):
            while run.entries and run.entries[0].step < step:
                run.drop_oldest()
        while len(self._versions) > 1 and not self._versions[0].entries:
            self._versions.popleft()
        self._regrouped()

    def read(self, step: int) -> tuple[Tensor, float] | None:
        """The input at a step, rebuilt as ZQᵀ (N, D), and the share of its energy that is kept; None where it was dropped."""
        for run in (self._exact, *self._versions):
            for entry in run.entries:
                if entry.step == step:
                    x = entry.data if run.basis is None else entry.data.float() @ run.basis.T
                    return x, _share(entry.kept, entry.energy)
        return None

    @property
    def steps(self) -> tuple[int, int] | None:
        """Oldest and newest step held."""
        held = [run.entries for run in (self._exact, *self._versions) if run.entries]
        return (min(entries[0].step for entries in held), max(entries[-1].step for entries in held)) if held else None

    @property
    def retained(self) -> float:
        """Share of energy that all stored activations of this site keep; 1 of nothing."""
        totals = self._totals
        return _share(totals.kept, totals.energy)

    @property
    def carried(self) -> int:
        """Steps whose coefficients were carried over to a newer basis."""
        return self._totals.carried

    @property
    def nbytes(self) -> int:
        return self._totals.nbytes + sum(self.bases.values())

    @property
    def ledger(self) -> LedgerLine:
        """Bytes really held, against the same steps at full width."""
        totals = self._totals
        itemsize = next((run.entries[0].data.element_size() for run in (self._exact, *self._versions) if run.entries), 4)
        return LedgerLine(totals.rows * self.dim * itemsize, totals.nbytes, sum(self.bases.values()))

    @property
    def _totals(self) -> _Totals:
        if self._older is None:
            older = _Totals().plus(self._exact)
            for run in islice(self._versions, max(0, len(self._versions) - 1)):
                older = older.plus(run)
            self._older = older
        return self._older.plus(self._versions[-1]) if self._versions else self._older

    def _regrouped(self) -> None:
        """Runs came or went: sums over them are out of date."""
        self._older = None
        self.changes += 1


def _energy(data: Tensor) -> float:
    return float(data.float().square().sum())


def _energies(data: Tensor, rows: list[int]) -> list[float]:
    """The energy of each run of `rows` rows; one read from the device for all."""
    ends = torch.tensor(rows, device=data.device).cumsum(0) - 1
    running = data.float().square().sum(1).double().cumsum(0)[ends].tolist()
    return [after - before for before, after in zip([0.0, *running], running, strict=False)]


def _share(kept: float, full: float) -> float:
    return min(1.0, kept / full) if full > 0 else 1.0


STEPS_BETWEEN_TRIMS = 1_000  # replaced coefficients leave holes of some 30 MB in that time, and giving them back takes some 30 ms


KEYFRAME_SHARE = 0.5  # of the budget, at most, before older keyframes are thinned
DROPPED_AT_ONCE = 64  # one in so many of the steps that are held


class History:
    """The histories of all sites and the keyframes, under one byte budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.sites: dict[str, SiteHistory] = {}
        self.keyframes = Keyframes()
        self.dropped_before = 0  # activations of earlier steps are gone
        self.said = ""  # what had to go last, in one sentence
        self._steps = 0
        self._beside: tuple[tuple[int, ...], LedgerLine] = (), EMPTY

    def site(self, name: str, dim: int, threshold: float) -> SiteHistory:
        """The history of a site, made at first need; `threshold` is the energy share below which coefficients are not carried over."""
        site = self.sites.setdefault(name, SiteHistory(dim, threshold))
        site.threshold = threshold
        return site

    def copy(self) -> History:
        """All of it in a history of its own; tensors are shared, and counted by both."""
        twin = History(self.budget_bytes)
        twin.sites = {name: site.copy() for name, site in self.sites.items()}
        for keyframe in self.keyframes:
            twin.keyframes.add(keyframe)
        twin.keyframes.thinned = self.keyframes.thinned
        twin.dropped_before, twin.said, twin._steps = self.dropped_before, self.said, self._steps
        return twin

    @property
    def ledger(self) -> LedgerLine:
        """Bytes really held, keyframes included, against the activations at full width."""
        return sum((site.ledger for site in self.sites.values()), self.keyframe_line)

    @property
    def keyframe_line(self) -> LedgerLine:
        """What keyframes hold that no stored coefficients need: states as stored, trackers' tensors as bases."""
        now = (self.keyframes.changes, *(site.changes for site in self.sites.values()))
        if self._beside[0] != now:
            held = set().union(*(site.bases for site in self.sites.values()))
            self._beside = now, LedgerLine(0, *self.keyframes.bytes_beside(held))
        return self._beside[1]

    @property
    def nbytes(self) -> int:
        beside = self.keyframe_line
        return sum(site.nbytes for site in self.sites.values()) + beside.stored_bytes + beside.basis_bytes

    def mark(self, keyframe: Keyframe) -> None:
        """Keep a keyframe; what is stored so far stays in its present form from now on."""
        for site in self.sites.values():
            site.close_version()
        self.keyframes.add(keyframe)

    def cut(self, step: int) -> None:
        """Forget what came after the keyframe of that step."""
        self.keyframes.cut(step)
        for site in self.sites.values():
            site.cut(step)
        self.dropped_before = min(self.dropped_before, step + 1)

    def hold_budget(self) -> str | None:
        """Called after each step: bring the bytes under the budget; returns a sentence where something had to go."""
        self._steps += 1
        if self._steps % STEPS_BETWEEN_TRIMS == 0:
            give_back_freed()
        if self.nbytes <= self.budget_bytes:
            return None
        done = []
        if freed := sum(site.compress_exact() for site in self.sites.values()):
            done.append(f"exact steps compressed, {freed:,} bytes freed")
        thinned, dropped = self.keyframes.thinned, self.dropped_before
        most = KEYFRAME_SHARE * self.budget_bytes
        while self.nbytes > self.budget_bytes and self.keyframes.alone > most and self.keyframes.thin():
            pass
        if self.nbytes > self.budget_bytes:
            self._drop_oldest()
        while self.nbytes > self.budget_bytes and self.keyframes.thin():
            pass
        if self.keyframes.thinned > thinned:
            done.append(f"{self.keyframes.thinned - thinned} keyframes thinned out, {len(self.keyframes)} left")
        if self.dropped_before > dropped:
            give_back_freed()
            done.append(f"activations before step {self.dropped_before} dropped")
        if not done:
            return None
        self.said = "; ".join(done)
        return self.said

    def _drop_oldest(self) -> None:
        """Forget the oldest steps; a tenth more than needed goes at once, so that a full history is not trimmed at every single step.

        They go some at a time, a small share of those that are held, for bytes are counted again after each time.
        """
        while self.nbytes > 0.9 * self.budget_bytes:
            spans = [span for site in self.sites.values() if (span := site.steps) is not None]
            if not spans or (oldest := min(span[0] for span in spans)) >= (newest := max(span[1] for span in spans)):
                return
            self.dropped_before = oldest + max(1, (newest - oldest) // DROPPED_AT_ONCE)
            for site in self.sites.values():
                site.drop_before(self.dropped_before)
