"""Streams of activations with a known best basis, and short ways to run a tracker over them. Everything is seeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn

from laser_studio.laser import LaserPolicy, SubspaceTracker, TrackerEvent

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(dim: int, seed: int) -> Tensor:
    """A random orthogonal matrix (dim, dim)."""
    return torch.linalg.qr(normal(dim, dim, seed=seed))[0]


def rows_in(directions: Tensor, sizes: Tensor, count: int, seed: int) -> Tensor:
    """(count, D) rows spread along the columns of `directions` (D, m) with deviations `sizes` (m,)."""
    return normal(count, len(sizes), seed=seed) * sizes @ directions.T


def fidelity(x: Tensor, basis: Tensor) -> float:
    return float((x.double() @ basis.double()).square().sum() / x.double().square().sum())


def best_fidelity(x: Tensor, rank: int) -> float:
    energies = torch.linalg.svdvals(x.double()).square()
    return float(energies[:rank].sum() / energies.sum())


def orthonormality_error(basis: Tensor) -> float:
    basis = basis.double()
    return float((basis.T @ basis - torch.eye(basis.shape[1], dtype=torch.float64, device=basis.device)).abs().max())


def window(tracker: SubspaceTracker, *observations: Tensor) -> TrackerEvent:
    """Observe all, then close the window."""
    for x in observations:
        tracker.observe(x)
    return tracker.refresh()


def run(
    policy: LaserPolicy, windows: Iterable[Sequence[Tensor]], *, keep_windows: bool = False
) -> tuple[SubspaceTracker, list[TrackerEvent]]:
    tracker = None
    events = []
    for observations in windows:
        tracker = tracker or SubspaceTracker(observations[0].shape[-1], policy, keep_windows=keep_windows)
        events.append(window(tracker, *observations))
    assert tracker is not None
    return tracker, events


def traces(module: nn.Module) -> int:
    """Hooks and other forwards on a module and all in it."""
    return sum(len(child._forward_pre_hooks) + len(child._forward_hooks) + ("forward" in vars(child)) for child in module.modules())
