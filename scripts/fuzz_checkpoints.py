"""Open thousands of spoiled checkpoints and count what comes of them: each must open or be refused in words, fast and in little memory.

    python scripts/fuzz_checkpoints.py --cases 2000

Cases are made by seed (tests/attacks/mutations.py) from a small model in each container. They are opened by a process that is watched:
if it dies or answers to a case neither with a model nor with a `CheckpointError`, the case is kept in --keep and the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import platform
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from laser_studio.errors import CheckpointError
from laser_studio.trm import load_checkpoint, save_checkpoint
from laser_studio.untrusted.listing import LIMITS
from tests.attacks.mutations import mutated
from tests.trm.helpers import small_model, write_official

CONTAINERS = ("zip", "safetensors", "legacy")
SLOW_SECS = 5.0
CLOCK_SECS = 60.0


def sound(container: str, folder: Path) -> tuple[Path, bytes]:
    """(the file to spoil, beside its configuration; its sound content)"""
    if container == "safetensors":
        save_checkpoint(small_model(), folder)
        return folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    file = write_official(folder, small_model())
    if container == "legacy":
        weights, made = torch.load(file, weights_only=True), io.BytesIO()
        torch.save(weights, made, _use_new_zipfile_serialization=False)
        return file, made.getvalue()
    return file, file.read_bytes()


def work(connection: Connection, container: str, folder: Path) -> None:
    """Opens the cases whose seeds come in; answers (outcome, seconds)."""
    torch.set_num_threads(1)
    file, content = sound(container, folder)
    begin_kb = _peak_kb()
    while (seed := connection.recv()) is not None:
        file.write_bytes(mutated(content, container, seed))
        begin = time.perf_counter()
        try:
            load_checkpoint(file, device="cpu")
            outcome = "opened"
        except CheckpointError as refused:
            outcome = re.sub(r"[:;(].*", "", str(refused).replace(file.name, "FILE"))
            outcome = " ".join(re.sub(r"\d+", "N", outcome).split()[:6])
        except BaseException as failure:
            outcome = f"FAULT {type(failure).__name__}: {failure}"[:300]
        connection.send((outcome, time.perf_counter() - begin))
    connection.send((begin_kb // 1024, _peak_kb() // 1024))


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(container: str, cases: int, first: int, keep: Path) -> bool:
    """Run the cases of one container and print what came of them; whether all was well."""
    outcomes, seconds, faults, usage = Counter[str](), list[float](), list[str](), (0, 0)
    with tempfile.TemporaryDirectory() as place:
        _, content = sound(container, Path(place))
        seeds = iter(range(first, first + cases))
        seed: int | None = next(seeds, None)
        while seed is not None:
            ours, theirs = multiprocessing.Pipe()
            worker = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, container, Path(place)))
            worker.start()
            theirs.close()
            alive = True
            while seed is not None and alive:
                ours.send(seed)
                try:
                    outcome, took = ours.recv() if ours.poll(CLOCK_SECS) else ("FAULT no answer", CLOCK_SECS)
                except EOFError:
                    outcome, took, alive = "FAULT the process died", 0.0, False
                if outcome.startswith("FAULT"):
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{container}-{seed}").write_bytes(mutated(content, container, seed))
                    faults.append(f"seed {seed}: {outcome}")
                    alive = alive and took < CLOCK_SECS
                outcomes[outcome] += 1
                seconds.append(took)
                seed = next(seeds, None)
            if alive:
                ours.send(None)
                usage = max(usage, ours.recv(), key=lambda pair: pair[1])
            worker.kill()
            worker.join()
    seconds.sort()
    slow = sum(one > SLOW_SECS for one in seconds)
    print(f"{container}: {cases} cases from seed {first}, {outcomes['opened']} opened, {len(faults)} faults, {slow} over {SLOW_SECS:g} s")
    print(f"  seconds: median {seconds[len(seconds) // 2]:.3f}, 99 % {seconds[len(seconds) * 99 // 100]:.3f}, most {seconds[-1]:.3f}")
    print(f"  peak memory of the process that opens them: {usage[0]} MB before the first, {usage[1]} MB after the last")
    for outcome, count in outcomes.most_common(12):
        print(f"  {count:6d}  {outcome}")
    for fault in faults[:20]:
        print(f"  {fault}")
    return not faults and not slow


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2_000, help="of each container; default %(default)s")
    parser.add_argument("--first", type=int, default=0, help="first seed; default %(default)s")
    parser.add_argument("--container", choices=CONTAINERS, action="append", help="repeatable; default: all")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where cases that went wrong are kept; default %(default)s")
    flags = parser.parse_args()
    print(f"Python {platform.python_version()}, torch {torch.__version__}; the process that looks in may take {LIMITS.memory >> 20} MiB")
    well = [fuzz(container, flags.cases, flags.first, flags.keep) for container in flags.container or CONTAINERS]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
