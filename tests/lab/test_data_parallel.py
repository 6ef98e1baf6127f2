"""Compression inside torch's DistributedDataParallel: two processes with half of a batch each against one with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from laser_studio.laser import LaserPolicy, compress
from laser_studio.laser.compress import Mode
from laser_studio.laser.together import Group
from tests.trm.helpers import small_model

GROWS = LaserPolicy(rank=4, min_fidelity=0.97, patience=2, growth=4)
STEPS, BATCH, LENGTH, WIDTH = 6, 8, 14, 32


class Loop(nn.Module):
    """A user's own module that applies the same two layers again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        for _ in range(4):
            state = torch.tanh(state + self.narrow(torch.relu(self.widen(state + x))))
        return state


class NetLoop(nn.Module):
    """The net of a small model, applied three times within one forward: gradients are reduced once per backward."""

    def __init__(self) -> None:
        super().__init__()
        model = small_model()
        self.net, self.rope = model.net, model.rope(LENGTH, torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        for _ in range(3):
            state = self.net(state, x, self.rope)
        return state


def module_for(mode: Mode) -> nn.Module:
    """What is trained, with the same weights at every call."""
    torch.manual_seed(0)
    return Loop() if mode == "linear" else NetLoop()


def trained(mode: Mode, rank: int, size: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    module = module_for(mode)
    parallel = DistributedDataParallel(module) if size > 1 else module
    laser = compress(module, GROWS, mode, group=Group() if size > 1 else None)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, WIDTH, generator=draw)
    fidelities = []
    for _ in range(STEPS):
        x, wanted = (torch.randn(BATCH, LENGTH, 8, generator=draw) @ mixing for _ in range(2))
        mine = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
        with laser:
            loss = (parallel(x[mine]) - wanted[mine]).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        fidelities.append({name: event.fidelity for name, event in laser.step().items()})
    ranks = {name: site.tracker.rank for name, site in laser.stored_sites.items()}
    weights = torch.cat([p.detach().flatten() for p in module.parameters()])
    return {"weights": weights, "ranks": ranks, "fidelities": fidelities}


def member(rank: int, folder: str, mode: Mode) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.save(trained(mode, rank, 2), f"{folder}/told-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("mode", ["linear", "block"])
def test_two_parallel_processes_are_one_with_the_whole_batch(mode: Mode, tmp_path: Path) -> None:
    mp.spawn(member, (str(tmp_path), mode), nprocs=2)
    first, second = (torch.load(tmp_path / f"told-{rank}.pt", weights_only=False) for rank in (0, 1))
    alone = trained(mode, 0, 1)
    assert torch.equal(first["weights"], second["weights"]) and first["ranks"] == second["ranks"]
    assert first["fidelities"] == second["fidelities"]
    assert first["ranks"] == alone["ranks"] and any(rank > GROWS.rank_for(WIDTH) for rank in alone["ranks"].values())
    for here, there in zip(first["fidelities"], alone["fidelities"], strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    start = torch.cat([p.detach().flatten() for p in module_for(mode).parameters()])
    moved = alone["weights"] - start
    assert float((first["weights"] - alone["weights"]).norm() / moved.norm()) < 1e-3
