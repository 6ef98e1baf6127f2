"""Windows of several processes as one: sketches, energies, sums and drawn rows are added up, so that all hold and decide the same.

Every process sees its own samples of each application, equally many, in the order of its rank; what a window shows then is what one process
would have seen with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laser_studio.errors import CompressionError
from laser_studio.laser.tracker import Open, SubspaceTracker


@dataclass(frozen=True)
class Group:
    """The processes that train one model together: a group of torch.distributed, the default one with None."""

    group: Any = None

    @property
    def rank(self) -> int:
        """Which of them this one is."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """How many they are."""
        return dist.get_world_size(self.group)

    def merge(self, trackers: Sequence[SubspaceTracker]) -> None:
        """Make the open window of each tracker, the same sites in the same order everywhere, that of all processes.

        Raises `CompressionError` in every process where they have not seen the same number of observations.
        """
        opened = [tracker.snapshot().open for tracker in trackers]
        tensors = [each for one in opened for each in _tensors(one)]
        device = next((each.device for each in tensors), torch.device("cpu"))
        totals = torch.tensor([float(part.total) for one in opened for part in one.parts], dtype=torch.float64, device=device)
        self._same_everywhere(len(totals), sum(each.numel() for each in tensors), device)
        flat = torch.cat([each.reshape(-1) for each in tensors]) if tensors else torch.zeros(0, device=device)
        dist.all_reduce(totals, group=self.group)
        dist.all_reduce(flat, group=self.group)
        sums = iter(flat.split([each.numel() for each in tensors]))
        energies = iter(totals.tolist())
        for tracker, one in zip(trackers, opened, strict=True):
            tracker.restore(replace(tracker.snapshot(), open=_added(one, sums, energies, self.size)))

    def _same_everywhere(self, parts: int, numbers: int, device: torch.device) -> None:
        own = torch.tensor([parts, numbers, -parts, -numbers], device=device)
        dist.all_reduce(own, op=dist.ReduceOp.MAX, group=self.group)
        if own.tolist() != [parts, numbers, -parts, -numbers]:
            raise CompressionError(
                "the processes have not seen the same activations: each needs as many samples and forwards as the others, all finite"
            )


def _tensors(opened: Open) -> list[Tensor]:
    parts = [each for part in opened.parts for each in (part.row_sum, *(rows for rows, _ in part.sample))]
    return [each for each in (opened.sketch, opened.offset, opened.gram, *parts) if each is not None]


def _added(opened: Open, sums: Iterator[Tensor], energies: Iterator[float], size: int) -> Open:
    """The window with each tensor, in the order of `_tensors`, and each energy replaced by the sum over the processes."""

    def of(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else next(sums).view(tensor.shape)

    sketch, offset, gram = of(opened.sketch), of(opened.offset), of(opened.gram)
    parts = []
    for part in opened.parts:
        row_sum = next(sums).view(part.row_sum.shape)
        sample = tuple((next(sums).view(rows.shape), weight) for rows, weight in part.sample)
        parts.append(part._replace(total=next(energies), rows=part.rows * size, row_sum=row_sum, sample=sample))
    return Open(sketch, tuple(parts), offset, gram)
