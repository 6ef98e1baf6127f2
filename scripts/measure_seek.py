"""How long going back takes: `python scripts/measure_seek.py [CHECKPOINT] [--steps 2000] [--seeks 50] [--keyframe-steps 30]`.

A run goes on past the trained depth for so many steps. Then seeks to random steps (seed 0) are timed, each restoring the exact
state there, trackers included, from the nearest keyframe by replay. Every fifth of them is checked against a second run that
never went back. Last come changes of the settings at random steps, each timed to the next new frame.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from laser_studio.debugger import Session  # noqa: E402
from laser_studio.laser import LaserPolicy  # noqa: E402
from laser_studio.puzzles import load_puzzles  # noqa: E402
from laser_studio.trm import load_checkpoint  # noqa: E402


def told(name: str, seconds: list[float]) -> str:
    """Median, 95th percentile and worst, in milliseconds."""
    median, p95, worst = statistics.median(seconds), statistics.quantiles(seconds, n=100, method="inclusive")[94], max(seconds)
    return f"{name}: p50 {1e3 * median:.0f} ms, p95 {1e3 * p95:.0f} ms, worst {1e3 * worst:.0f} ms of {len(seconds)}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint", nargs="?", default=str(REPOSITORY / "assets/checkpoints/sudoku-6x6"))
    options.add_argument("--puzzles", default="sudoku-6x6", help="bundled set whose first puzzle is run")
    options.add_argument("--steps", type=int, default=2_000)
    options.add_argument("--seeks", type=int, default=50)
    options.add_argument("--changes", type=int, default=10)
    options.add_argument("--keyframe-steps", type=int, default=30)
    options.add_argument("--history-mib", type=int, default=256)
    options.add_argument("--device", default="cpu")
    given = options.parse_args()
    model, puzzle = load_checkpoint(given.checkpoint, device=given.device), load_puzzles(given.puzzles)[0]
    policy = LaserPolicy(rank="25%", min_fidelity=0.97)

    def session(past: int) -> Session:
        made = Session(
            model, puzzle, policy=policy, beyond=True, history_bytes=given.history_mib << 20, keyframe_steps=given.keyframe_steps
        )
        made.seek(past)
        return made

    started = time.perf_counter()
    run = session(given.steps)
    print(f"device {given.device}, {torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    took = time.perf_counter() - started
    savings = ", ".join(f"{run.frames[step].history.saving:.1%} at step {step}" for step in (min(run.length, run.head), run.head))
    print(f"{given.steps} steps in {took:.1f} s; net saving {savings}")
    print(run.kept)

    draw = random.Random(0)
    targets = [draw.randrange(given.steps + 1) for _ in range(given.seeks)]
    seconds, busy, replayed, states = [], [], [], {}
    for place, target in enumerate(targets):
        begun, own = time.perf_counter(), time.process_time()
        state = run.restore(target)
        if given.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        busy.append(time.process_time() - own)
        replayed.append(state.replayed)
        if place % 5 == 0:
            states[target] = state
    print(told("seek with the exact state restored", seconds), f"; {statistics.mean(replayed):.1f} steps replayed on average")
    print(told("the same in time of this process, whatever else the machine does", busy))

    straight = session(0)
    for target in sorted(states):
        expected, got = straight.restore(target), states[target]
        same = torch.equal(expected.z_H, got.z_H) and torch.equal(expected.z_L, got.z_L) and expected.frame == got.frame
        bases = [(expected.trackers[name].basis, snapshot.basis) for name, snapshot in got.trackers.items()]
        if not (same and all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in bases)):
            sys.exit(f"step {target} is not the same as in a run that never went back")
    print(f"{len(states)} of these states equal those of a run that never went back, bit for bit (z_H, z_L, bases, frame)")

    seconds = []
    for change in range(given.changes):
        run.seek(draw.randrange(run.head // 2, run.head))  # each drops the future, so that runs get shorter
        begun = time.perf_counter()
        run.set_policy(replace(policy, min_fidelity=0.9 + 0.001 * change))
        run.step()
        seconds.append(time.perf_counter() - begun)
    print(told("change of settings far back to the first new frame", seconds))


if __name__ == "__main__":
    main()
