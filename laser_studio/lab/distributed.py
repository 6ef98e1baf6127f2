"""Training by several processes, each with its part of every batch, to the state that one process would reach with all of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # imported later, as by an optimiser, it holds the group, whose threads then outlive it
from torch import Tensor

from laser_studio.errors import TrainingError
from laser_studio.laser.together import Group

PATIENCE = timedelta(hours=2)  # others wait while the first evaluates


@dataclass(frozen=True)
class Team:
    """The processes of one run: rank of this one, and how many they are. A team of one does nothing at all."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that evaluates, writes and speaks."""
        return self.rank == 0

    @property
    def group(self) -> Group | None:
        """What `compress` is given."""
        return Group() if self.size > 1 else None

    def part(self, tensor: Tensor) -> Tensor:
        """This process's samples of a whole batch (B, …)."""
        if self.size == 1:
            return tensor
        each = len(tensor) // self.size
        return tensor[self.rank * each : (self.rank + 1) * each].clone()

    def whole(self, part: Tensor) -> Tensor:
        """The batch (B, …) of all parts (B / size, …), in every process."""
        if self.size == 1:
            return part
        as_bytes = part.contiguous().view(torch.uint8) if part.dtype == torch.bool else part.contiguous()
        parts = [torch.empty_like(as_bytes) for _ in range(self.size)]
        dist.all_gather(parts, as_bytes)
        return torch.cat(parts).view(part.dtype)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make each gradient the mean over all processes; one of none counts as zero where another has one."""
        if self.size == 1:
            return
        gradients = []
        for p in parameters:
            if p.requires_grad:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                gradients.append(p.grad)
        flat = torch.cat([each.reshape(-1) for each in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, values in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(values.view(gradient.shape))

    def anyone(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        if self.size == 1:
            return wish
        wishes: list[bool | None] = [None] * self.size
        dist.all_gather_object(wishes, wish)
        return any(wishes)

    def from_leader(self, value: Any) -> Any:
        """What the leading process has, in every process; others hand in None."""
        if self.size > 1:
            told = [value]
            dist.broadcast_object_list(told, src=0)
            value = told[0]
        return value


ALONE = Team()


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """The team that torchrun started this process for; a team of one without torchrun. Backend: NCCL on CUDA, Gloo elsewhere."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 2 or "RANK" not in os.environ:
        yield ALONE
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as problem:
        kind = type(problem).__name__
        raise TrainingError(f"the processes of this run cannot reach one another ({kind}): start them with torchrun") from None
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """Of this process where torchrun started several on one machine: each has a CUDA device of its own."""
    local = os.environ.get("LOCAL_RANK", "")
    return torch.device("cuda", int(local)) if device.type == "cuda" and local.isdecimal() else device
