"""Two processes with half of every batch each against one with all of it: losses, bases, decisions, states."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from laser_studio.errors import TrainingError
from laser_studio.lab.data import sudoku_set
from laser_studio.lab.distributed import ALONE, Team, joined
from laser_studio.lab.train import STATE_FILE, LaserSettings, Stage, Trainer, TrainSettings, fit
from laser_studio.trm import TRMConfig, load_checkpoint

CONFIG = TRMConfig(
    vocab_size=6,
    seq_len=16,
    hidden_size=32,
    num_heads=2,
    H_cycles=2,
    L_cycles=2,
    halt_max_steps=3,
    forward_dtype="float32",
    puzzle_emb_ndim=32,
)
SETTINGS = TrainSettings(steps=8, batch_size=8, lr=1e-3, warmup=2, eval_every=4, save_every=4)
GROWS = LaserSettings(enabled=True, rank=4, min_fidelity=0.97, patience=2, growth=4)
CHOOSES = LaserSettings(enabled=True, budget="cosine=0.98", recheck=6)


def trainer(laser: LaserSettings, team: Team = ALONE, settings: TrainSettings = SETTINGS) -> Trainer:
    stages = [Stage(0, sudoku_set(4, 30, 0, "train", (6, 10)))]
    return Trainer(CONFIG, settings, stages, torch.device("cpu"), laser, team)


def told(one: Trainer) -> dict[str, Any]:
    assert one.laser is not None
    sites = {name: (site.tracker.basis, site.tracker.state) for name, site in one.laser._sites.items()}
    ledger = one.laser.ledger()
    counts = ledger.total.misses, ledger.total.growths, ledger.total.resets
    weights = torch.cat([p.detach().flatten() for p in one.model.parameters()])
    return {"sites": sites, "counts": counts, "weights": weights, "chosen": one.laser.chosen, "recent": list(one.recent)}


def run(folder: str, laser: LaserSettings, team: Team, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    one, losses = trainer(laser, team, replace(SETTINGS, steps=steps)), []
    fit(one, sudoku_set(4, 4, 0, "held-out", (6, 10)), Path(folder), on_step=lambda progress: losses.append(progress.loss))
    return told(one) | {"losses": losses}


def member(rank: int, folder: str, laser: LaserSettings, steps: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{steps}", rank=rank, world_size=2)
    try:
        torch.save(run(folder, laser, Team(rank, 2), steps), f"{folder}/told-{rank}.pt")
    finally:
        dist.destroy_process_group()
    Path(folder, f"left-{rank}.txt").write_text("".join(threads_of_the_group()))


def threads_of_the_group() -> list[str]:
    """Names of those of Gloo's that run in this process, where Linux tells."""
    return [name for task in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := task.read_text())]


def both(folder: Path, laser: LaserSettings, steps: int) -> list[dict[str, Any]]:
    mp.spawn(member, (str(folder), laser, steps), nprocs=2)
    # threads that outlive the group may let go of a tensor while the interpreter ends, which aborts the process
    assert [(folder / f"left-{rank}.txt").read_text() for rank in (0, 1)] == ["", ""]
    return [torch.load(folder / f"told-{rank}.pt", weights_only=False) for rank in (0, 1)]


def same_span(first: torch.Tensor, second: torch.Tensor) -> bool:
    """But for the last directions of a small window, which are hardly determined."""
    return first.shape == second.shape and float((first - second @ (second.T @ first)).norm()) < 0.05


@pytest.mark.parametrize("laser", [GROWS, CHOOSES], ids=["growing", "by a budget"])
def test_two_processes_are_one_at_the_same_global_batch(laser: LaserSettings, tmp_path: Path) -> None:
    first, second = both(tmp_path, laser, 8)
    assert torch.equal(first["weights"], second["weights"]) and first["counts"] == second["counts"] and first["chosen"] == second["chosen"]
    for name, (basis, state) in first["sites"].items():
        other, its_state = second["sites"][name]
        assert state == its_state and (basis is None) == (other is None) and (basis is None or torch.equal(basis, other))
    alone = run(str(tmp_path / "alone"), laser, ALONE, 8)
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    assert first["counts"] == alone["counts"] and first["recent"] == alone["recent"]
    if laser is CHOOSES:  # half of a batch has other bytes, beside which a basis costs more: what is chosen may differ from one process
        assert set(first["chosen"]) == set(alone["chosen"])
        return
    assert first["counts"][1] > 0
    assert all(basis is None or same_span(basis, alone["sites"][name][0]) for name, (basis, _) in first["sites"].items())


def test_what_two_processes_saved_one_takes_up(tmp_path: Path) -> None:
    both(tmp_path, GROWS, 4)
    one = trainer(GROWS)
    one.load(tmp_path / STATE_FILE)
    straight = run(str(tmp_path / "alone"), GROWS, ALONE, 8)["losses"]
    assert one.step == 4 and [one.advance() for _ in range(4)] == pytest.approx(straight[4:], rel=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused_and_without_torchrun_one_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="shared equally by 3"):
        trainer(GROWS, Team(0, 3))
    for size in ("", "1", "many"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with joined(torch.device("cpu")) as team:
            assert team == ALONE


def test_torchrun_trains_to_a_model_that_loads(tmp_path: Path) -> None:
    recipe = ["train.batch_size=8", "train.eval_every=2", "data.phases=[{start: 0, puzzles: 20}]"]
    recipe += ["model.hidden_size=32", "laser.enabled=true"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "laser_studio", "train"]
    command += ["sudoku-4x4", "--steps", "2", "--held-out", "10", "--device", "cpu", "--threads", "1", "--out", str(tmp_path / "run")]
    command += [part for one in recipe for part in ("--set", one)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out puzzles") == 2  # one process speaks: what it is about to measure, and what it measured
    assert load_checkpoint(tmp_path / "run" / "model").config.hidden_size == 32
