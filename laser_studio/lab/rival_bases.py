"""Block and linear compression with other people's bases: everything as `compress` does it, but the basis of a site never moves.

Rivals of the tracker in `bench_training`. What they do not need they do not pay for: no sketch, no refresh.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor, nn

from laser_studio.laser import Compression, LaserPolicy, Snapshot, SubspaceTracker, TrackerEvent
from laser_studio.laser.compress import Mode
from laser_studio.laser.event import Seen
from laser_studio.laser.linalg import householder, private_generator
from laser_studio.laser.policy import Rank
from laser_studio.laser.quantise import Storage
from laser_studio.laser.stored_site import StoredSite


class FirstBasis(SubspaceTracker):
    """The SVD of the first window for good (as LANCE does it)."""

    def observe(self, x: Tensor, coefficients: Tensor | None = None) -> TrackerEvent:
        """Z = XQ in the dtype of x, and nothing else once there is a basis."""
        basis = self.basis
        if basis is None:
            return super().observe(x)
        started = perf_counter()
        rows = self._rows(x)
        with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
            stored = rows @ basis.to(rows.dtype) if coefficients is None else coefficients
        # Nothing is added to the window, so that its refresh has nothing to do either.
        return self._event(self.snapshot(), started, closes=False, sums=Seen(0.0, rows[:0].sum(0), 0, stored), stored=stored)


class RandomBasis(FirstBasis):
    """Random orthonormal directions from the first step on, drawn by the policy's seed and the site's name (as CompAct projects)."""

    def __init__(self, dim: int, policy: LaserPolicy, *, name: str, device: torch.device) -> None:
        super().__init__(dim, policy, name=name, device=device)
        draw = private_generator(policy.seed, name, "random basis")
        basis, _ = householder(torch.randn(dim, policy.rank_for(dim), generator=draw))
        self.restore(Snapshot(dim, policy, basis=basis.to(device), holds=False))


class _OtherBases(Compression):
    """`compress` with its trackers replaced: by `RandomBasis`, or by `FirstBasis`."""

    def __init__(self, model: nn.Module, rank: Rank, mode: Mode, storage: Storage, *, is_random: bool) -> None:
        self._is_random = is_random
        policy = LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0)
        super().__init__(model, policy, mode, budget=None, on_miss="stay", storage=storage, products="auto", thin=1)

    def _new_site(self, name: str, dim: int, feeds: int, policy: LaserPolicy, storage: Storage) -> StoredSite:
        site = super()._new_site(name, dim, feeds, policy, storage)
        device = next(self.model.parameters()).device
        policy = site.tracker.policy
        if self._is_random:
            site.tracker = RandomBasis(dim, policy, name=name, device=device)
        else:
            site.tracker = FirstBasis(dim, policy, name=name, device=device, hold="gram")
        return site


def first_bases(model: nn.Module, rank: Rank, mode: Mode, storage: Storage = "exact") -> Compression:
    """Compression whose bases are the SVD of its first step, at `rank`, and never move."""
    return _OtherBases(model, rank, mode, storage, is_random=False)


def random_bases(model: nn.Module, rank: Rank, mode: Mode, storage: Storage = "exact") -> Compression:
    """Compression whose bases are random, at `rank`, and never move."""
    return _OtherBases(model, rank, mode, storage, is_random=True)
