"""One window of many sites as a single piece of work for a GPU: products, sums and the turn of every basis, captured as a graph.

A GPU is hardly busy with one small activation; what costs time there is to start a dozen kernels for each. Here the activations of a
whole window are copied into buffers of their own by one kernel, and everything a window that reaches ε needs is started by one call.
What to do with such windows, and when, is in `later`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from laser_studio.laser.linalg import SHIFT, orthonormalised_by_cholesky


class Observed(NamedTuple):
    """One observation of a window: the site, and the shape (…, D) and dtype of its activations."""

    site: str
    shape: torch.Size
    dtype: torch.dtype


class Numbers(NamedTuple):
    """What the host reads of a window, by site: Σ‖Z‖², Σ‖X‖², and whether all came out finite."""

    kept: list[float]
    total: list[float]
    finite: list[float]


class SiteResult(NamedTuple):
    """What a window leaves of one site, fp32: Z of its last observation (N, k) and ‖X‖² of it, the sums of the rows of that observation
    and of all (D,), the sketch QᵀXᵀX (k, D), and the next basis (D, k)."""

    stored: Tensor
    energy: Tensor
    last_row_sum: Tensor
    row_sum: Tensor
    sketch: Tensor
    basis: Tensor


@dataclass(frozen=True)
class _Group:
    """Sites alike in width D, rank k, rows N, dtype and number m of observations. x: (S, m, N, D); basis: (S, D, k)."""

    sites: tuple[str, ...]
    x: Tensor
    basis: Tensor

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors of a `SiteResult`, of all sites of the group at once."""
        (sites, _, rows, dim), rank = self.x.shape, self.basis.shape[-1]
        return (sites, rows, rank), (sites,), (sites, dim), (sites, dim), (sites, rank, dim), (sites, dim, rank)

    @property
    def numbers(self) -> int:
        """How many numbers these are."""
        return sum(map(prod, self.parts))


class WindowGraph:
    """Buffers and work for windows in which the sites are seen as `seen` tells, in that order, each in one shape, at the ranks given.

    On a CUDA device the work is captured once and then replayed; elsewhere, and where it cannot be captured, it runs as it is.
    """

    def __init__(self, seen: Sequence[Observed], ranks: Mapping[str, int], device: torch.device) -> None:
        self.seen, self.ranks, self.device = tuple(seen), dict(ranks), device
        times: dict[Observed, int] = {}
        for one in seen:
            times[one] = times.get(one, 0) + 1
        alike: dict[tuple[int, int, int, int, torch.dtype], list[str]] = {}
        for one, count in times.items():
            rows, dim = one.shape[:-1].numel(), one.shape[-1]
            alike.setdefault((count, rows, dim, ranks[one.site], one.dtype), []).append(one.site)
        self._groups = []
        for (count, rows, dim, rank, dtype), sites in alike.items():
            x = torch.empty(len(sites), count, rows, dim, dtype=dtype, device=device)
            basis = torch.zeros(len(sites), dim, rank, dtype=torch.float32, device=device)
            self._groups.append(_Group(tuple(sites), x, basis))
        self.sites = tuple(site for group in self._groups for site in group.sites)
        self._place = {site: (group, index) for group in self._groups for index, site in enumerate(group.sites)}
        self._buffers = self._in_order()
        self._straight: list[bool] | None = None  # which lie row after row in the first window; of a later one both ways to copy are right
        self._flat = torch.empty(sum(group.numbers for group in self._groups), device=device)
        self._figures = torch.empty(3, len(self.sites), dtype=torch.float64, device=device)
        self._read = torch.empty(3, len(self.sites), dtype=torch.float64, pin_memory=device.type == "cuda")
        self._arrived = torch.cuda.Event() if device.type == "cuda" else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured = device.type != "cuda"

    def size(self, site: str) -> tuple[int, int]:
        """Observations of a site in a window, and rows of each."""
        _, times, rows, _ = self._place[site][0].x.shape
        return times, rows

    def activations(self, site: str) -> Tensor:
        """What was loaded of a site, X of every observation: (m, N, D), overwritten by the next `load`."""
        group, index = self._place[site]
        return group.x[index]

    def set_bases(self, bases: Mapping[str, Tensor]) -> None:
        """Begin with these Q (D, k) in place of those that the last window turned to."""
        for group in self._groups:
            torch.stack([bases[site] for site in group.sites], out=group.basis)

    def load(self, activations: list[Tensor]) -> None:
        """Copy the activations of a window, in the order of `seen`."""
        if self._straight is None:
            self._straight = [x.is_contiguous() for x in activations]
        if all(self._straight):
            torch._foreach_copy_(self._buffers, activations)
            return
        if any(self._straight):  # one kernel for all, which it would not be with one that lies otherwise among them
            torch._foreach_copy_(list(compress(self._buffers, self._straight)), list(compress(activations, self._straight)))
        for buffer, x, straight in zip(self._buffers, activations, self._straight, strict=True):
            if not straight:
                buffer.copy_(x)

    def run(self) -> Tensor:
        """Work on what was loaded, turn the bases, and start to read the figures; returns what `result` takes apart."""
        if not self._captured:
            self._capture()
        if self._graph is None:
            self._work()
        else:
            self._graph.replay()
        self._read.copy_(self._figures, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        return self._flat.clone()

    def numbers(self) -> Numbers:
        """The figures of the last `run`; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return Numbers(*self._read.tolist())

    def result(self, flat: Tensor, site: str) -> SiteResult:
        """What one window left of a site, from what `run` gave."""
        wanted, index = self._place[site]
        by_group = flat.split([group.numbers for group in self._groups])
        own = next(part for group, part in zip(self._groups, by_group, strict=True) if group is wanted)
        parts = own.split([prod(shape) for shape in wanted.parts])
        return SiteResult(*(part.view(shape)[index] for part, shape in zip(parts, wanted.parts, strict=True)))

    def _in_order(self) -> list[Tensor]:
        times: dict[str, int] = {}
        buffers = []
        for one in self.seen:
            time = times[one.site] = times.get(one.site, -1) + 1
            buffers.append(self.activations(one.site)[time].view(one.shape))
        return buffers

    def _work(self) -> None:
        flat, figures = [], []
        for group in self._groups:
            x = group.x.float()
            energies = torch.linalg.vector_norm(x, dim=-1).square().sum(-1)  # (S, m), summed as `event.energy` sums
            z = torch.matmul(x, group.basis[:, None])  # (S, m, N, k)
            sketch = torch.matmul(z.mT, x).sum(1)  # (S, k, D); an observation at a time, so that a GPU has enough to share out
            row_sums = x.sum(2)  # (S, m, D)
            kept, total = (group.basis.mT * sketch).sum((1, 2)).double(), energies.double().sum(-1)
            wide = group.basis.double() + sketch.mT.double() / (SHIFT * total)[:, None, None]
            basis = orthonormalised_by_cholesky(wide).float()
            finite = torch.isfinite(basis).all(-1).all(-1) & torch.isfinite(kept) & torch.isfinite(total)
            figures.append(torch.stack((kept, total, finite.double())))
            flat += [z[:, -1], energies[:, -1], row_sums[:, -1], row_sums.sum(1), sketch, basis]
            group.basis.copy_(basis)
        torch.cat([each.reshape(-1) for each in flat], out=self._flat)
        torch.cat(figures, dim=1, out=self._figures)

    def _capture(self) -> None:
        """Capture the work; where that fails it goes on uncaptured. The bases stay those that were set."""
        self._captured = True
        bases = [group.basis.clone() for group in self._groups]
        beside = torch.cuda.Stream(self.device)
        beside.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(beside):
                self._work()  # libraries make their workspaces at the first call, which a capture would not survive
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
                self._work()
            self._graph = graph
        except RuntimeError:
            self._graph = None
        torch.cuda.current_stream(self.device).wait_stream(beside)
        for group, basis in zip(self._groups, bases, strict=True):
            group.basis.copy_(basis)
