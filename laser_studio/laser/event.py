"""What a tracker reports: `TrackerEvent`, and what its figures are computed from (`Sums`, `HeldWindow`, `Sketched`).

Costly figures are computed when read and then kept. An event refers to the tensors they need: read what you want and let it go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from laser_studio.laser.linalg import (
    leading_directions,
    principal_angles,
    private_generator,
    right_singular,
    sampled_energy,
    shares_lower_bound,
    singular_energies,
    singular_of_gram,
)
from laser_studio.laser.rule import ROUNDING, Action, State

LARGE = 2**16


class Sums:
    """Sums over some rows of activations x (N, D) and their coefficients z = xQ."""

    @property
    def values(self) -> tuple[float, float, int]:
        """(‖z‖², ‖x‖², N) on the host."""
        raise NotImplementedError

    @property
    def row_sum(self) -> Tensor:
        """Σ rows of x, (D,) fp32."""
        raise NotImplementedError

    @property
    def finite(self) -> bool:
        """False where an activation was NaN, infinite or too large to square in fp32."""
        return self.values[1] < math.inf  # False for NaN too

    @property
    def fidelity(self) -> float:
        """‖z‖² / ‖x‖² ∈ [0, 1]; 1 of nothing, 0 of what is not finite."""
        kept, total, _ = self.values
        return _ratio(kept, total, nothing=0.0) if self.finite else 0.0

    def centred_fidelity(self, basis: Tensor | None) -> float:
        """The same with the mean row removed from x and z; `basis` is the Q of z = xQ, None where x itself was kept."""
        kept, total, rows = self.values
        if not self.finite or rows == 0:
            return self.fidelity
        mean_kept = self.row_sum if basis is None else self.row_sum @ basis
        centred_kept, centred_total = (
            energy - float(part.double().cpu().square().sum()) / rows for energy, part in ((kept, mean_kept), (total, self.row_sum))
        )
        return _ratio(centred_kept, centred_total, nothing=ROUNDING * total)


class Seen(Sums):
    """The sums of one observation, read from the device when asked for; rows that are not finite show by their ‖x‖².

    total: ‖x‖², a fp32 scalar or its value; row_sum: (D,); rows: N; stored: z (N, k), None where x itself was kept.
    """

    def __init__(self, total: Tensor | float, row_sum: Tensor, rows: int, stored: Tensor | None) -> None:
        self.total, self._row_sum, self.rows, self.stored = total, row_sum, rows, stored
        self._values: tuple[float, float, int] | None = None

    @property
    def row_sum(self) -> Tensor:
        return self._row_sum

    @property
    def values(self) -> tuple[float, float, int]:
        """(‖z‖², ‖x‖², N) on the host; waits for the device once."""
        if self._values is None:
            kept, total = on_host((self.total if self.stored is None else energy(self.stored), self.total))
            self._values = kept, total, self.rows
        return self._values


class Window(Sums):
    """The sums of a window: ‖z‖², ‖x‖² and N over its finite observations, whose `row_sums` are added up when asked for."""

    def __init__(self, values: tuple[float, float, int], row_sums: Sequence[Tensor]) -> None:
        self._values, self._row_sums = values, row_sums

    @property
    def values(self) -> tuple[float, float, int]:
        return self._values

    @cached_property
    def row_sum(self) -> Tensor:
        return torch.stack(list(self._row_sums)).sum(0)


def energy(x: Tensor) -> Tensor:
    """‖x‖²_F of x (N, D), as a scalar on its device.

    Summed in pairs or row by row: `dot` and a `norm` of everything are off by up to 4e-5, enough to miss ε = 1.
    """
    if x.numel() > LARGE:  # the squares would not stay in the cache
        return torch.linalg.vector_norm(x, dim=-1).square_().sum()
    return x.square().sum()


def free_to_read(x: Tensor) -> bool:
    """Whether a value can be read without waiting for work that was handed to a device."""
    return x.is_cpu


def on_host(scalars: Sequence[Tensor | float]) -> list[float]:
    """The values of scalars, some of which may be known already, after one wait for each device."""
    values: list[float] = []
    waiting: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for index, each in enumerate(scalars):
        if isinstance(each, Tensor) and not free_to_read(each):
            waiting.setdefault(each.device, []).append((index, each))
            values.append(math.nan)  # until it is read
        else:
            values.append(each if isinstance(each, float) else each.item())
    for several in waiting.values():
        for (index, _), value in zip(several, torch.stack([each for _, each in several]).tolist(), strict=True):
            values[index] = value
    return values


@dataclass(frozen=True, eq=False)
class Sketched:
    """What a window without its activations can tell: Y = XᵀXQ (D, k), the Q it was taken with, and ‖X‖² > 0.

    drawn: rows of the window (m, D) and the number of rows that each of them stands for; empty where the basis cannot grow.
    """

    sketch: Tensor
    basis: Tensor
    total: float
    drawn: Sequence[tuple[Tensor, float]]

    @cached_property
    def leading(self) -> tuple[Tensor, Tensor]:
        """`linalg.leading_directions`: orth(Y) ordered by energy, and the shares of the energy, fp64."""
        return leading_directions(self.sketch, self.basis, self.total)

    @cached_property
    def outside(self) -> Tensor | None:
        """The drawn rows (Σm, D), weighted to stand for all."""
        return torch.cat([rows * weight**0.5 for rows, weight in self.drawn]) if self.drawn else None

    def fidelity(self, basis: Tensor, grown: int) -> float:
        """The share of the energy that `basis` (D, m) keeps, the last `grown` columns of which came from outside the sketch.

        A lower bound (Nyström) for the others; of those an estimate from the rows they came from.
        """
        inside = basis[:, : basis.shape[1] - grown]
        share = shares_lower_bound(self.sketch, self.basis, inside, self.total)
        if grown and self.outside is not None and len(self.outside) > 1:
            share += sampled_energy(inside, self.outside, grown, private_generator("estimate")) / self.total
        return min(share, 1.0)


@dataclass(frozen=True, eq=False)
class HeldWindow:
    """The activations of a window: chunks (N_i, D) fp32, ΣN_i ≥ 1, not all zero."""

    chunks: list[Tensor]

    @cached_property
    def singular(self) -> tuple[Tensor, Tensor]:
        """Right singular vectors V (D, min(N, D)) and their shares of the energy (min(N, D),) fp64 on the CPU, descending."""
        directions, energies = right_singular(self.chunks)
        return directions, energies / energies.sum()

    def fidelity(self, basis: Tensor) -> float:
        """The share of the energy that `basis` (D, k) keeps."""
        return min(sum(float(energy(rows @ basis)) for rows in self.chunks) / sum(float(energy(rows)) for rows in self.chunks), 1.0)


@dataclass(frozen=True, eq=False)
class HeldGram:
    """A window of which only the Gram matrix XᵀX (D, D) fp32 was held, not zero: shares are exact to fp32 rounding of the largest."""

    gram: Tensor

    @cached_property
    def singular(self) -> tuple[Tensor, Tensor]:
        """Right singular vectors V (D, D) and their shares of the energy (D,) fp64 on the CPU, descending."""
        directions, energies = singular_of_gram(self.gram)
        return directions, energies / energies.sum()

    def fidelity(self, basis: Tensor) -> float:
        """The share of the energy that `basis` (D, k) keeps."""
        return min(float((basis * (self.gram @ basis)).sum()) / float(self.gram.trace()), 1.0)


def _complete(basis: Tensor) -> bool:
    """Whether it spans the whole space."""
    return basis.shape[0] == basis.shape[1]


def _ratio(part: float, whole: float, *, nothing: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > nothing else 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackerEvent:
    """One report of a tracker: of one observation, or (`closes`) of a window that ended.

    site: name of the tracker; window: its number from 0; rank: directions in force after the event; previous_rank:
    before it; action and `cause`: what the rule did and why, in a short sentence ("" where nothing happened);
    state: "warming" until the first window has closed, "tracking", "resting" after a reset, "saturated";
    misses: in a row, after the event; functional: the functional fidelity that was handed to `refresh`; basis: the
    Q (D, previous_rank) in force when the activations came, None in the first window; new_basis: Q (D, rank) from
    now on, on closing events; seconds: wall time of this call on the host.

    The start of the basis after the first window is a "keep" with cause "basis started by SVD": nothing was lost.
    """

    site: str
    window: int
    closes: bool
    rank: int
    previous_rank: int
    action: Action
    state: State
    misses: int
    seconds: float
    basis: Tensor | None
    new_basis: Tensor | None = None
    sums: Sums
    news: str = ""
    stored: Tensor | None = None
    exact: Tensor | None = None
    functional: float | None = None
    held: HeldWindow | HeldGram | None = None
    sketched: Sketched | None = None
    grown: int = 0

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """An event of these fields; what a frozen dataclass does with each of them would take longer than its products on a small site."""
        event = cls.__new__(cls)
        event.__dict__.update(fields)
        return event

    @property
    def cause(self) -> str:
        """Why `action` was taken; "not finite" for an observation that was left out."""
        return self.news if self.sums.finite else "not finite"

    @property
    def coefficients(self) -> Tensor | None:
        """Z = XQ of this observation, (N, previous_rank) fp32.

        None in the first window, on events of `refresh` and where X is not finite.
        """
        return self.stored if self.sums.finite else None

    @property
    def kept_exact(self) -> Tensor | None:
        """X of this observation, (N, D) fp32, where no basis existed to store it in: in the first window; None elsewhere."""
        return self.exact if self.sums.finite else None

    @property
    def energy(self) -> float:
        """‖X‖²_F of what the event is about: one observation, or the window on closing events."""
        return self.sums.values[1]

    @cached_property
    def fidelity(self) -> float:
        """‖Z‖² / ‖X‖² ∈ [0, 1] of what is really stored: of the window on closing events, else of this observation.

        1 in the first window and for nothing, 0 for what is not finite.
        """
        return self.sums.fidelity

    @cached_property
    def centred_fidelity(self) -> float:
        """`fidelity` with the mean row removed; 1 where nothing is left then."""
        return self.sums.centred_fidelity(self.basis)

    @cached_property
    def fidelity_after(self) -> float | None:
        """Energy fidelity of the new basis on the window that made it; None on events that close nothing.

        Exact where the window's activations were held, else a lower bound (Nyström) for the directions that were iterated and,
        for those just grown, an estimate from the rows of the window they were taken from.
        """
        if not self.closes or self.new_basis is None:
            return None
        if _complete(self.new_basis):
            return 1.0
        if self.held is not None:
            return self.held.fidelity(self.new_basis)
        return 1.0 if self.sketched is None else self.sketched.fidelity(self.new_basis, self.grown)

    @cached_property
    def angles(self) -> tuple[float, ...] | None:
        """Principal angles in degrees between the previous and the new basis, descending; None without both."""
        if self.basis is None or self.new_basis is None:
            return None
        if self.new_basis is self.basis:
            return (0.0,) * self.rank
        return tuple(principal_angles(self.basis, self.new_basis).tolist())

    @cached_property
    def best_angles(self) -> tuple[float, ...] | None:
        """Principal angles in degrees between the new basis and the window's best one of the same rank, descending.

        Fewer than `rank` where the window has fewer rows; None where its activations were not held, and for nothing.
        """
        if self.held is None or self.new_basis is None:
            return None
        return tuple(principal_angles(self.new_basis, self.held.singular[0][:, : self.rank]).tolist())

    @cached_property
    def shares(self) -> Tensor | None:
        """Shares of this observation's energy, on its device and in no order: of each column of Z, since a basis turns towards the leading
        directions. Where it spans the whole space and no longer turns, of the min(N, k) singular directions of Z, which are those of X.
        None without Z, and for nothing.
        """
        z = self.coefficients
        if z is None or self.basis is None or self.energy <= 0:
            return None
        return (singular_energies(z) if _complete(self.basis) else z.square().sum(0)) / self.energy

    @property
    def spectrum_is_exact(self) -> bool:
        """Whether `spectrum` is that of the window's own singular directions."""
        return self.held is not None

    @cached_property
    def spectrum(self) -> tuple[float, ...] | None:
        """Shares of the energy, descending: on closing events of the window's singular directions (`spectrum_is_exact`) or, from the
        sketch, of the leading ones within its iterated basis; on others its `shares`; None in the first window and for nothing.
        """
        if self.held is not None:
            return tuple(self.held.singular[1].tolist())
        if self.sketched is not None:
            return tuple(self.sketched.leading[1].tolist())
        return None if self.shares is None else tuple(self.shares.sort(descending=True).values.tolist())

    @cached_property
    def best_fidelity(self) -> float | None:
        """The energy share of the window's best basis of rank `previous_rank` (`rank` after the first window), by SVD (Eckart–Young).

        None where the window's activations were not held.
        """
        if not self.spectrum_is_exact or self.spectrum is None:
            return None
        return min(float(torch.tensor(self.spectrum[: self.previous_rank or self.rank], dtype=torch.float64).sum()), 1.0)
