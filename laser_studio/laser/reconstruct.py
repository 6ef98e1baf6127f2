"""What if the module *used* its compressed activations: every site reads XQQᵀ in place of X, with the basis it had before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from laser_studio.laser.event import TrackerEvent
from laser_studio.laser.patches import Reads
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.sites import SiteTap


class ReconstructedSites:
    """While entered, every enabled site of `module` computes on the reconstruction of its input, of its tracker's rank.

    >>> import torch
    >>> layer = nn.Sequential(nn.Linear(4, 1, bias=False))
    >>> with torch.no_grad(), ReconstructedSites(layer, LaserPolicy(rank=1, max_rank=1)) as sites:
    ...     x = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    ...     exact = layer(x)                            # the first window has no basis yet and is read as it is
    ...     events = sites.refresh()
    ...     bool((layer(x) - exact).abs().max() < 1e-6), float(layer(torch.tensor([[0.0, 5, 0, 0]])).detach())
    (True, 0.0)

    Trackers see what reaches the site, not its reconstruction; they are refreshed by `refresh`. Meant for evaluation: the in-place
    steps of a module without gradient stay harmless, since a site's input is never changed, only replaced.
    """

    def __init__(self, module: nn.Module, policy: LaserPolicy) -> None:
        self._tap = SiteTap(module, policy)
        self._patches: list[Reads] = []

    def __enter__(self) -> Self:
        self._tap.attach()
        self._patches = [Reads(layer, partial(self._reconstructed, name)) for name, layer in self._tap.sites.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for patch in self._patches:
            patch.remove()
        self._patches = []
        self._tap.detach()

    def refresh(self) -> Mapping[str, TrackerEvent]:
        """Close every tracker's window; the closing events by site."""
        self._tap.take()
        return self._tap.refresh()

    def _reconstructed(self, name: str, x: Tensor) -> Tensor:
        tracker = self._tap.trackers.get(name)
        return x if tracker is None or tracker.basis is None else projected(x, tracker.basis)


def projected(x: Tensor, basis: Tensor) -> Tensor:
    """XQQᵀ of x (…, D) and Q (D, k), computed in fp32, returned in x's dtype."""
    return ((x.float() @ basis) @ basis.T).to(x.dtype)
