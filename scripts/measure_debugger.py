"""Time travel, branches and comparisons in one session: `python scripts/measure_debugger.py [CHECKPOINT] [--steps 300] [--rounds 10]`.

A run goes on past the trained depth for so many steps. Then come seeks to random steps (seed 0), each restoring the exact state there and
comparing it, bit for bit, with what it was the first time; branches of every kind from random steps, each gone on with, restored at
random steps and compared in the same way; and comparisons with the run. The branches are closed, and what is held is read again: bytes of
all live tensors, each storage once, and resident memory. All of that is done round after round in the same session.

Ends with exit code 1 where a state differs, or where more is held after the last round than after the first.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from laser_studio.debugger import (  # noqa: E402
    ChangeCycles,
    ChangeState,
    EditToken,
    Intervention,
    Reconstruct,
    ScaleDirection,
    Session,
    compare,
    first_divergence,
)
from laser_studio.laser import LaserPolicy  # noqa: E402
from laser_studio.memory import give_back_freed  # noqa: E402
from laser_studio.puzzles import load_puzzles  # noqa: E402
from laser_studio.trm import load_checkpoint  # noqa: E402


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def live_bytes() -> int:
    """Bytes of all tensors that anything holds, each storage once."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) is torch.Tensor or type(one) is torch.nn.Parameter:
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def leaves(value: Any) -> Iterator[Any]:
    """Everything in nested dataclasses, tuples and mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, item.name) for item in fields(value))
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def state_of(session: Session, step: int) -> tuple[Any, ...]:
    """All of a recorded step's exact state: tensors copied, numbers as they are."""
    state = session.state(step)
    parts = leaves((state.z_H, state.z_L, dict(state.trackers)))
    return tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in parts)


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two states are equal to the last bit."""
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


def interventions(session: Session, draw: random.Random) -> list[Intervention]:
    """One of each kind, at random places."""
    site = draw.choice(list(session.sites))
    height, width = session.puzzle.shape
    return [
        Reconstruct(rank=draw.choice(["6.25%", "12.5%", "25%"])),
        Reconstruct(sites=(site,), basis="held", steps=draw.randint(5, 40)),
        ScaleDirection(site=site, index=draw.randrange(4), factor=draw.choice([0.0, 2.0])),
        ChangeState(state=draw.choice(["H", "L"])),
        ChangeState(state="L", change="noise", size=0.3, seed=draw.randrange(100)),
        EditToken(row=draw.randint(1, height), column=draw.randint(1, width), value=draw.randint(0, 2)),
        ChangeCycles(level="L", change=draw.choice([1, 2]), every=draw.random() < 0.5),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint", nargs="?", default=str(REPOSITORY / "assets/checkpoints/sudoku-6x6"))
    options.add_argument("--puzzles", default="sudoku-6x6", help="bundled set whose first puzzle is run")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--seeks", type=int, default=50)
    options.add_argument("--branches", type=int, default=20)
    options.add_argument("--comparisons", type=int, default=10)
    options.add_argument("--further", type=int, default=30, help="steps each branch goes on")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--history-mib", type=int, default=64)
    options.add_argument("--device", default="cpu")
    given = options.parse_args()
    model, puzzle = load_checkpoint(given.checkpoint, device=given.device), load_puzzles(given.puzzles)[0]
    print(f"device {given.device}, {torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")

    policy = LaserPolicy(rank="25%", min_fidelity=0.97)
    run = Session(model, puzzle, policy=policy, beyond=True, history_bytes=given.history_mib << 20)
    draw = random.Random(0)
    targets = [draw.randrange(given.steps + 1) for _ in range(given.seeks)]
    first = {}
    for step in range(given.steps + 1):
        run.seek(step)
        if step in targets:
            first[step] = state_of(run, step)
    frames = list(run.frames)
    give_back_freed()
    print(
        f"{run.head} steps; history {run.kept.total / 2**20:.1f} MiB of {given.history_mib}; live tensors {live_bytes() / 2**20:.1f} MiB, "
        f"resident {resident_bytes() / 2**20:.0f} MiB"
    )

    wrong, held = 0, []
    for number in range(1, given.rounds + 1):
        seeking, branching, comparing = [], [], []
        for target in targets:
            begun = time.perf_counter()
            run.restore(target)
            seeking.append(time.perf_counter() - begun)
            wrong += not same(state_of(run, target), first[target])
        branches: list[Session] = []
        while len(branches) < given.branches:
            at = draw.randrange(6, given.steps - given.further)
            for what in interventions(run, draw)[: given.branches - len(branches)]:
                begun = time.perf_counter()
                branch = run.branch(at, what)
                branching.append(time.perf_counter() - begun)
                branches.append(branch)
        for branch in branches:
            at = branch.head
            states = {}
            for _ in range(given.further):
                branch.step()
                states[branch.head] = state_of(branch, branch.head)
            for step in draw.sample(range(at + 1, branch.head + 1), 5):
                wrong += not same(state_of(branch, step), states[step])
        peak = live_bytes()
        for branch in draw.sample(branches, min(given.comparisons, len(branches))):
            begun = time.perf_counter()
            compare(run, branch, draw.randrange(1, branch.head + 1))
            first_divergence(run, branch)
            comparing.append(time.perf_counter() - begun)
        wrong += list(run.frames) != frames
        for branch in branches:
            branch.close()
        del branch, states
        branches.clear()
        run.restore(targets[-1])  # what a replay holds depends on where it stands
        gc.collect()
        give_back_freed()
        held.append((live_bytes(), resident_bytes()))
        milliseconds = [1e3 * statistics.median(seconds) for seconds in (seeking, branching, comparing)]
        print(
            "round {}: p50 of restore {:.0f} ms, branch {:.0f} ms, compare {:.0f} ms; ".format(number, *milliseconds)
            + f"live tensors {peak / 2**20:.1f} MiB with {given.branches} branches, {held[-1][0] / 2**20:.1f} MiB without; "
            f"resident {held[-1][1] / 2**20:.0f} MiB; history {run.kept.total / 2**20:.1f} MiB; states that differ so far: {wrong}",
            flush=True,
        )
    grown = held[-1][0] - held[0][0], held[-1][1] - held[0][1]
    print(
        f"from the first round to the last: live tensors {grown[0]:+,} bytes, resident {grown[1] / 2**20:+.1f} MiB; {wrong} states differ"
    )
    if wrong or grown[0] > 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
