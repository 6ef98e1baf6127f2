"""Other ways to keep a rank-k basis current, as `bench_tracker` runs them beside the tracker.

Each starts at the SVD of the first window and is then shown one window after another; what it kept of a window is measured with the
basis it had before. Plain statements of the methods, not tuned; none of them knows of rules or sites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from laser_studio.laser import LaserPolicy, SubspaceTracker


class Rival(Protocol):
    """A method. basis: (D, k), orthonormal."""

    @property
    def basis(self) -> Tensor: ...

    def update(self, rows: Tensor) -> None:
        """Learn from a window's rows (N, D)."""


def _top(rows: Tensor, rank: int) -> Tensor:
    return torch.linalg.svd(rows, full_matrices=False)[2][:rank].T


class Ours:
    """`SubspaceTracker`: with its rank fixed, or with the rule free to grow and reset it."""

    def __init__(self, rows: Tensor, rank: int, *, rule: bool = False) -> None:
        policy = LaserPolicy(rank=rank, min_fidelity=0.95 if rule else 0.0)
        self.tracker = SubspaceTracker(rows.shape[1], policy)
        self.update(rows)

    def update(self, rows: Tensor) -> None:
        self.tracker.observe(rows)
        self.tracker.refresh()

    @property
    def basis(self) -> Tensor:
        assert self.tracker.basis is not None
        return self.tracker.basis


class FreshSVD:
    """The SVD of the last window: the most that can be known from it."""

    def __init__(self, rows: Tensor, rank: int) -> None:
        self.basis = _top(rows, rank)

    def update(self, rows: Tensor) -> None:
        self.basis = _top(rows, self.basis.shape[1])


class FreshLowRank(FreshSVD):
    """`torch.svd_lowrank(q=k)` of the last window, from a new random start each time."""

    def update(self, rows: Tensor) -> None:
        with torch.random.fork_rng(devices=[]):  # it draws from the global generator
            torch.manual_seed(0)
            self.basis = torch.svd_lowrank(rows, q=self.basis.shape[1])[2]


class IncrementalSVD:
    """SVD of what was kept of all windows before, with the new one below it (Brand, 2002; not centred, nothing forgotten)."""

    def __init__(self, rows: Tensor, rank: int) -> None:
        self.rank, self.kept = rank, rows[:0]
        self.update(rows)

    def update(self, rows: Tensor) -> None:
        _, sizes, vectors = torch.linalg.svd(torch.cat((self.kept, rows)), full_matrices=False)
        self.kept = sizes[: self.rank, None] * vectors[: self.rank]
        self.basis = vectors[: self.rank].T


class Oja(FreshSVD):
    """Q ← orth(Q + η·XᵀXQ) with η = 10/‖X‖² (Oja, 1982, for a block of rows)."""

    def update(self, rows: Tensor) -> None:
        step = 10 / rows.square().sum()
        self.basis = torch.linalg.qr(self.basis + step * (rows.T @ (rows @ self.basis)))[0]


class FrequentDirections:
    """A sketch of 2k rows, shrunk by its k-th singular value whenever it is full (Ghashami, Liberty, Phillips, Woodruff, 2016)."""

    def __init__(self, rows: Tensor, rank: int) -> None:
        self.rank, self.sketch = rank, rows[:0]
        self.update(rows)

    def update(self, rows: Tensor) -> None:
        for part in rows.split(self.rank):
            _, sizes, vectors = torch.linalg.svd(torch.cat((self.sketch, part)), full_matrices=False)
            if len(sizes) > self.rank:
                sizes = (sizes[: self.rank].square() - sizes[self.rank].square()).clamp(min=0).sqrt()
            self.sketch = sizes[: self.rank, None] * vectors[: self.rank]
        self.basis = vectors[: self.rank].T


class Fixed(FreshSVD):
    """The SVD of the first window for good."""

    def update(self, rows: Tensor) -> None:
        pass


ARMS: dict[str, Callable[[Tensor, int], Rival]] = {
    "tracker": Ours,
    "tracker, rule on": lambda rows, rank: Ours(rows, rank, rule=True),
    "SVD": FreshSVD,
    "svd_lowrank": FreshLowRank,
    "incremental SVD": IncrementalSVD,
    "Oja": Oja,
    "Frequent Directions": FrequentDirections,
    "first SVD, fixed": Fixed,
}
