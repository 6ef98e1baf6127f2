"""One basis in compressed training and the bytes of its activations: what is kept of a site's input over one optimiser step.

The tracker says where the subspace is, the rule what rank; here stands which of both is in force, and what was stored with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from laser_studio.laser import functions, rule
from laser_studio.laser.event import TrackerEvent
from laser_studio.laser.ledger import SiteLine
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.quantise import Storage, stored_bytes
from laser_studio.laser.tracker import SubspaceTracker

OnMiss = Literal["stay", "keep_exact"]


class StoredSite:
    """One basis and its bytes: the input of a linear layer, or a place between stages, over all its applications in one step."""

    def __init__(
        self,
        name: str,
        dim: int,
        policy: LaserPolicy,
        on_miss: OnMiss,
        feeds: int,
        storage: Storage,
        thin: int,
        share: tuple[int, int],
    ) -> None:
        # A window is an optimiser step, whatever the policy says of recursion steps; its activations must not be held.
        self.tracker = SubspaceTracker(dim, replace(policy, refresh="supervision"), name=name, hold="gram")
        self.tracker.share = share
        self.name, self.on_miss, self.feeds, self.storage, self.thin = name, on_miss, feeds, storage, thin
        self.by_row = True  # how its eight bits are scaled, see `quantise`
        self.missing = False
        self.fidelity = 1.0
        self.misses = self.growths = self.resets = 0
        self.rows = self.last_rows = 0
        self.applications = 0
        self.full_bytes = self.stored_bytes = 0
        self._projections: list[tuple[Tensor, int, functions.StandIn]] = []

    @property
    def basis(self) -> Tensor | None:
        """Q (D, k) that is in force for this step; None where X is kept whole."""
        basis = self.tracker.basis
        if basis is None or (self.missing and self.on_miss == "keep_exact") or self.is_small:
            return None
        return basis

    @property
    def is_small(self) -> bool:
        """Whether it sees so few rows in a step that its basis alone would cost more than they do."""
        return 0 < self.last_rows * self.tracker.share[1] <= self.tracker.rank

    def take(self, rows: Tensor) -> Tensor | None:
        """Observe rows (N, D); their coefficients (N, k) in their dtype, None where they are to be kept whole."""
        basis = self.basis
        stored = self._observed(rows)
        self.rows += rows.shape[0]
        self.applications += 1
        self.full_bytes += self.feeds * rows.nbytes
        if basis is None:
            self.stored_bytes += rows.nbytes
            return None
        if stored is None:  # not finite: stored all the same, so that the gradient shows it
            stored = rows.detach().float() @ basis
        stored = stored.to(rows.dtype)
        self.stored_bytes += stored_bytes(stored.shape[0], stored.shape[1], stored.itemsize, self.storage, by_row=self.by_row)
        return stored

    def _observed(self, rows: Tensor) -> Tensor | None:
        """Coefficients of all rows, as the tracker sees them or as every `thin`-th of them; None where there is no basis."""
        if self.is_small:
            return None
        started = self.tracker.basis
        if self.thin == 1 or started is None or rows.shape[0] < self.thin:
            return self.tracker.observe(rows).stored
        with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
            stored = rows.detach().float() @ started
        place = self.applications % self.thin  # in turn, so that no position of a sequence is always left out
        self.tracker.observe(rows[place :: self.thin], stored[place :: self.thin])
        return stored

    def projection(self, weight: Tensor) -> functions.StandIn:
        """`functions.project` of the weight with the basis in force, one for all applications of this step."""
        assert self.basis is not None
        for known, version, projected in self._projections:
            if known is weight and version == weight._version:
                return projected
        with torch.enable_grad():
            projected = functions.project(weight, self.basis)
        self._projections = [*self._projections[-3:], (weight, weight._version, projected)]
        return projected

    def forget_projections(self) -> None:
        self._projections = []

    @property
    def projections(self) -> list[Tensor]:
        return [projected.at for _, _, projected in self._projections]

    @property
    def kept_beside(self) -> int:
        """Bytes of basis, what stands for WQ, and the open window's sketch, sums and rows."""
        basis = self.tracker.basis
        kept = 0 if basis is None else basis.nbytes
        return kept + sum(each.untyped_storage().nbytes() for each in self.projections) + self.tracker.bookkeeping_bytes

    def line(self) -> SiteLine:
        exact = self.stored_bytes > 0 and self.basis is None
        figures = (self.tracker.rank, self.fidelity, exact, self.misses, self.growths, self.resets)
        return SiteLine(self.full_bytes, self.stored_bytes, self.kept_beside, *figures)

    def closed(self, event: TrackerEvent) -> None:
        """Take note of what the rule did, and open the next window."""
        measured = event.centred_fidelity if self.tracker.policy.measure == "centred" else event.fidelity
        if event.previous_rank and event.sums.values[2]:
            self.fidelity = measured
            self.missing = not rule.reaches(measured, self.tracker.policy)
            self.misses += self.missing
            self.growths += event.action == "grow"
            self.resets += event.action == "reset"
        if self.applications:
            self.last_rows = self.rows
            self.tracker.expect(self.applications)
            self.tracker.restore(self.tracker.snapshot())  # so that the number of drawn rows is that of the new window
        self.rows = self.applications = self.full_bytes = self.stored_bytes = 0
        self.forget_projections()
