"""What time travel keeps of the activations: coefficients Z of every site at every step, within a byte budget.

A basis costs as much as D rows of Z, so it is not stored per refresh. When the basis moves from Q to Q′, the stored
coefficients are carried over, Z ← Z QᵀQ′, while what they keep stays above the threshold (where they never reached it:
above that share of what they kept) and the carried form is the smaller one; otherwise the old basis stays with its
coefficients as a closed *version* and a new version starts. The first window, for which no basis existed, is kept exact.
Over the budget, exact steps are compressed first, then the oldest steps are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Entries in order of steps with running totals; `basis` (D, k) is None where the entries are exact."""

    def __init__(self, basis: Tensor | None, entries: Iterable[_Entry] = ()) -> None:
        self.basis = basis
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

    def _count(self, entry: _Entry, sign: int) -> None:
        self.rows += sign * len(entry.data)
        self.nbytes += sign * entry.nbytes
        self.carried += sign * entry.carried
        self.energy += sign * entry.energy
        self.kept += sign * entry.kept
        self.at_first += sign * entry.at_first


class SiteHistory:
    """Stored activations of one site, in the dtype they come in, so that full and stored bytes compare like with like."""

    def __init__(self, dim: int, threshold: float) -> None:
        self.dim, self.threshold = dim, threshold
        self._exact = _Run(None)
        self._versions: deque[_Run] = deque()  # coefficients, one run per basis; the last one grows

    @property
    def versions(self) -> int:
        """Bases that have to be kept."""
        return len(self._versions)

    def add_exact(self, step: int, x: Tensor) -> None:
        """Keep x (N, D) as it is."""
        energy = _energy(x)
        self._exact.append(_Entry(step, x.clone(), energy, energy, energy))

    def add(self, step: int, coefficients: Tensor, basis: Tensor, energy: float) -> None:
        """Keep coefficients (N, k) of an input of energy ‖X‖²_F, belonging to `basis` (D, k)."""
        if not self._versions or self._versions[-1].basis is not basis:
            self._versions.append(_Run(basis))
        kept = _energy(coefficients)
        self._versions[-1].append(_Entry(step, coefficients, energy, kept, kept))

    def rebase(self, basis: Tensor) -> None:
        """The basis in force is now `basis` (D, k′): carry the newest version over where that keeps enough and costs less."""
        if not self._versions:
            return
        version = self._versions[-1]
        old = version.basis
        if old is None or old is basis or not version.entries:
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
        self._versions[0] = _Run(oldest.basis, (*thin, *oldest.entries))
        self._exact = _Run(None)
        return before - self.nbytes

    def drop_before(self, step: int) -> None:
        """Forget all activations of earlier steps, and versions that hold none (never the newest, whose basis is in use)."""
        for run in (self._exact, *self._versions):
            while run.entries and run.entries[0].step < step:
                run.drop_oldest()
        while len(self._versions) > 1 and not self._versions[0].entries:
            self._versions.popleft()

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
        runs = (self._exact, *self._versions)
        return _share(sum(run.kept for run in runs), sum(run.energy for run in runs))

    @property
    def carried(self) -> int:
        """Steps whose coefficients were carried over to a newer basis."""
        return sum(run.carried for run in self._versions)

    @property
    def nbytes(self) -> int:
        line = self.ledger
        return line.stored_bytes + line.basis_bytes

    @property
    def ledger(self) -> LedgerLine:
        """Bytes really held, against the same steps at full width."""
        runs = (self._exact, *self._versions)
        itemsize = next((run.entries[0].data.element_size() for run in runs if run.entries), 4)
        return LedgerLine(
            full_bytes=sum(run.rows for run in runs) * self.dim * itemsize,
            stored_bytes=sum(run.nbytes for run in runs),
            basis_bytes=sum(run.basis.nbytes for run in self._versions if run.basis is not None),
        )


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


class History:
    """The histories of all sites under one byte budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.sites: dict[str, SiteHistory] = {}
        self.dropped_before = 0  # activations of earlier steps are gone
        self._steps = 0

    def site(self, name: str, dim: int, threshold: float) -> SiteHistory:
        """The history of a site, made at first need; `threshold` is the energy share below which coefficients are not carried over."""
        site = self.sites.setdefault(name, SiteHistory(dim, threshold))
        site.threshold = threshold
        return site

    @property
    def ledger(self) -> LedgerLine:
        return sum((site.ledger for site in self.sites.values()), EMPTY)

    @property
    def nbytes(self) -> int:
        return sum(site.nbytes for site in self.sites.values())

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
        dropped = self.dropped_before
        # A tenth more than needed goes at once, so that a full history is not trimmed at every single step.
        while self.nbytes > 0.9 * self.budget_bytes:
            spans = [span for site in self.sites.values() if (span := site.steps) is not None]
            oldest, newest = min(span[0] for span in spans), max(span[1] for span in spans)
            if oldest >= newest:
                break
            self.dropped_before = oldest + 1
            for site in self.sites.values():
                site.drop_before(oldest + 1)
        if self.dropped_before > dropped:
            give_back_freed()
            done.append(f"activations before step {self.dropped_before} dropped")
        return "; ".join(done) or None
