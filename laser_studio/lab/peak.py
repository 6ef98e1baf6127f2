"""Resident memory of one optimiser step, with and without compression, each in a process of its own: what ledgers are checked against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from laser_studio.errors import TrainingError

MIB = 2**20
WHOLE, BLOCKS = "", "blocks"  # in place of a rank, where nothing is projected


@dataclass(frozen=True)
class Peak:
    """Bytes. held: resident between forward and backward, above what was before; resident: the most in the whole step, transients of
    forward and backward included; saved: kept for backward, as the ledger of compression says, or measured by hooks without it."""

    held: int
    resident: int
    saved: int


@dataclass(frozen=True)
class PeakCheck:
    """Plain autograd beside a compression of the same step."""

    plain: Peak
    compressed: Peak

    @property
    def said(self) -> int:
        """Bytes the ledgers say are gone."""
        return self.plain.saved - self.compressed.saved

    @property
    def seen(self) -> int:
        """Bytes the operating system says are no longer held between forward and backward."""
        return self.plain.held - self.compressed.held

    def __str__(self) -> str:
        columns = ("saved (ledger)", "held (resident)", "peak (resident)", "transients")
        rows = [f"  {'MiB':12}" + "".join(f" {column:>16}" for column in columns)]
        for name, one in (("plain", self.plain), ("compressed", self.compressed)):
            transients = one.resident - one.held
            rows.append(f"  {name:12} {one.saved / MIB:16.1f} {one.held / MIB:16.1f} {one.resident / MIB:16.1f} {transients / MIB:16.1f}")
        peak = self.plain.resident - self.compressed.resident
        rows.append(f"  {'gone':12} {self.said / MIB:16.1f} {self.seen / MIB:16.1f} {peak / MIB:16.1f}")
        share = peak / self.plain.resident
        rows.append(f"  held: {self.seen / self.said:.3f} of what the ledger says is gone; peak: {share:.1%} of plain's is gone")
        return "\n".join(rows)


def check_peak(*, variant: str = "attention", batch: int = 96, storage: str = "int8", rank: str = "") -> PeakCheck:
    """Measure at hidden 128, 97 tokens, 7 net applications with gradient, fp32, on the CPU: 96 puzzles are about 1 GB of activations.

    rank: of the bases; `WHOLE` for places kept whole, `BLOCKS` for those between blocks only. Linux only: the peak is read from the
    kernel. Raises `TrainingError` where a process fails.
    """
    return PeakCheck(_in_a_process(variant, batch, "plain", WHOLE), _in_a_process(variant, batch, storage, rank))


def _in_a_process(variant: str, batch: int, storage: str, rank: str) -> Peak:
    command = [sys.executable, "-m", "laser_studio.lab.peak", variant, str(batch), storage, rank]
    # Blocks from 1 MiB on go back to the system at once, so that what is resident is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MIB), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    if done.returncode:
        raise TrainingError(f"the process that measures the peak failed: {done.stderr.strip().splitlines()[-1][:200]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def _measure(variant: str, batch: int, storage: str, rank: str) -> Peak:
    import gc
    from contextlib import nullcontext

    import torch

    from laser_studio.lab.losses import supervision_loss
    from laser_studio.lab.tasks import get_task
    from laser_studio.lab.train import per_block
    from laser_studio.laser import LaserPolicy, compress
    from laser_studio.laser.ledger import SavedMeter
    from laser_studio.laser.policy import ALL_OFF
    from laser_studio.trm import TRM, TRMConfig

    torch.set_num_threads(1)
    config = TRMConfig(
        vocab_size=11,
        seq_len=81,
        hidden_size=128,
        num_heads=4,
        puzzle_emb_ndim=128,
        H_cycles=1,
        forward_dtype="float32",
        mlp_t=variant == "mixer",
    )
    model = TRM(config, seed=0).eval()
    task = get_task("sudoku-9x9")
    policy = LaserPolicy(sites=ALL_OFF) if rank in (WHOLE, BLOCKS) else LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0)
    kept: Any = per_block(storage) if rank == BLOCKS else storage  # type: ignore[arg-type]  # checked there
    laser = None if storage == "plain" else compress(model, policy, storage=kept)

    held: list[int] = []

    def step(size: int, meter: SavedMeter | None = None) -> None:
        sample = task.puzzles(size, 0, "held-out").batch(slice(None))
        carry = model.initial_carry(sample)
        with laser or nullcontext():
            with meter or nullcontext():
                after, outputs = model(carry, sample)
                loss = supervision_loss(outputs, after.current_data["labels"]).total
            held.append(_status("VmRSS"))
            loss.backward()
        if laser is not None:
            laser.step()

    for _ in range(2):  # bases, gradients, and what libraries take at first use
        step(4)
    if laser is not None:
        laser.books.leave_out(laser.stored_sites)  # the meter's own second forward must not be in the peak
    gc.collect()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forget the peak so far
    step(batch)
    own, resident = held[-1] - before, _status("VmHWM") - before
    if laser is None:
        meter = SavedMeter()
        step(batch, meter)
        excluded = [*model.parameters(), *model.buffers(), *(model.rope(97, model.H_init.device) or ())]
        return Peak(own, resident, sum(meter.by_owners(excluded).values()))
    laser.books.again()
    step(batch)
    return Peak(own, resident, laser.ledger().total.all_saved_bytes)


if __name__ == "__main__":
    found = _measure(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
    print(json.dumps(asdict(found)))
