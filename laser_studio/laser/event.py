"""What a tracker reports: `TrackerEvent`, and the sums of a window (`Sums`) that its figures are computed from.

Costly figures are computed when read and then kept. An event refers to the tensors they need: read what you want and let it go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from laser_studio.laser.linalg import principal_angles, right_singular
from laser_studio.laser.rule import ROUNDING, Action, State


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over some rows of activations x (N, D) and their coefficients z = xQ, on the device of x.

    scalars: (3,) fp32: ‖z‖², ‖x‖², N; row_sum: (D,) fp32, Σ rows of x. Rows that are not finite never enter a window's
    sums; those of one observation show it by a ‖x‖² that is not finite.
    """

    scalars: Tensor
    row_sum: Tensor

    @cached_property
    def values(self) -> tuple[float, float, int]:
        """(‖z‖², ‖x‖², N) on the host; waits for the device once."""
        kept, total, rows = self.scalars.tolist()
        return kept, total, int(rows)

    @property
    def finite(self) -> bool:
        """False where an activation was NaN, infinite or too large to square in fp32."""
        return self.values[1] < float("inf")  # False for NaN too

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
        kept = sum(float((rows @ basis).square().sum()) for rows in self.chunks)
        return min(kept / sum(float(rows.square().sum()) for rows in self.chunks), 1.0)


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
    after: Callable[[], float] | None = None
    window_spectrum: Callable[[], Tensor] | None = None
    held: HeldWindow | None = None

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

        Exact where the window's activations were held, else a lower bound (Nyström): on a trained model 2e-5 below the truth in
        the mean, up to 0.008 after growth.
        """
        return self.after() if self.after is not None else None

    @cached_property
    def angles(self) -> tuple[float, ...] | None:
        """Principal angles in degrees between the previous and the new basis, descending; None without both."""
        if self.basis is None or self.new_basis is None:
            return None
        return tuple(principal_angles(self.basis, self.new_basis).tolist())

    @cached_property
    def best_angles(self) -> tuple[float, ...] | None:
        """Principal angles in degrees between the new basis and the window's best one of the same rank, descending.

        Fewer than `rank` where the window has fewer rows; None where its activations were not held, and for nothing.
        """
        if self.held is None or self.new_basis is None:
            return None
        return tuple(principal_angles(self.new_basis, self.held.singular[0][:, : self.rank]).tolist())

    @property
    def spectrum_is_exact(self) -> bool:
        """Whether `spectrum` is that of the window's own singular directions."""
        return self.held is not None

    @cached_property
    def spectrum(self) -> tuple[float, ...] | None:
        """Shares of the energy, descending: on closing events of the window's singular directions (`spectrum_is_exact`) or, from the
        sketch, of the new basis's; on others of the basis in force, in its order; None in the first window and for nothing.
        """
        if self.window_spectrum is not None:
            return tuple(self.window_spectrum().tolist())
        if self.coefficients is None or self.sums.values[1] <= 0:
            return None
        return tuple((self.coefficients.square().sum(0) / self.sums.scalars[1]).tolist())

    @cached_property
    def best_fidelity(self) -> float | None:
        """The energy share of the window's best basis of rank `previous_rank` (`rank` after the first window), by SVD (Eckart–Young).

        None where the window's activations were not held.
        """
        if not self.spectrum_is_exact or self.spectrum is None:
            return None
        return min(float(torch.tensor(self.spectrum[: self.previous_rank or self.rank], dtype=torch.float64).sum()), 1.0)
