"""Pairs of runs: equal but for LASER, tabled and drawn, and gone on with where they were stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from laser_studio.cli import app
from laser_studio.errors import TrainingError
from laser_studio.lab.recipes import Recipe, get_recipe
from laser_studio.lab.runs import Observer
from laser_studio.lab.study import Study, study

CHANGES = ["train.steps=4", "train.batch_size=8", "train.eval_every=2", "data.phases=[{start: 0, puzzles: 20}]", "model.hidden_size=32"]


def recipe(*more: str) -> Recipe:
    return get_recipe("sudoku-4x4", variant="mixer", changes=[*CHANGES, "train.cooldown=0", *more])


def compare(subject: Recipe, folder: Path, stop: bool = False, seeds: int = 2) -> tuple[Study | None, list[tuple[str, int]]]:
    begun: list[tuple[str, int]] = []

    def observer_of(arm: str, seed: int) -> Observer:
        begun.append((arm, seed))
        return Observer(should_stop=lambda: stop and (arm, seed) == ("plain", 1))

    found = study(subject, range(seeds), folder, torch.device("cpu"), command="study", held_out=10, observer_of=observer_of)
    return found, begun


def test_at_full_rank_both_arms_are_the_same_run(tmp_path: Path) -> None:
    subject = recipe("laser.enabled=true", "laser.rank=100%", "laser.min_fidelity=0")
    stopped, _ = compare(subject, tmp_path, stop=True)
    assert stopped is None and not (tmp_path / "study.csv").exists()
    found, begun = compare(subject, tmp_path)
    assert found is not None and begun == [("plain", 0), ("laser", 0), ("plain", 1), ("laser", 1)]
    assert found.differences == [0, 0] and [one.seed for one in found.of("laser")] == [0, 1]
    assert all(one.saving == 0 for one in found.of("plain")) and all(one.saving > 0.5 for one in found.of("laser"))
    rows = (tmp_path / "study.csv").read_text().splitlines()
    assert rows[0].startswith("arm,seed,exact") and len(rows) == 5
    picture = (tmp_path / "study.svg").read_text()
    assert "laser, seed 1" in picture and "plain, seed 0" in picture
    assert "+0.0 pt" in str(found)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="enable it"):
        compare(recipe(), tmp_path)
    subject = recipe("laser.enabled=true")
    (tmp_path / "plain-0").mkdir()
    (tmp_path / "plain-0" / "result.json").write_text("nothing")
    with pytest.raises(TrainingError, match="delete it"):
        compare(replace(subject), tmp_path)


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    changes = [part for one in [*CHANGES, "train.cooldown=0"] for part in ("--set", one)]
    options = [
        "--variant",
        "mixer",
        "--seeds",
        "1",
        "--budget",
        "",
        "--held-out",
        "10",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "study"),
    ]
    result = CliRunner().invoke(app, ["study", "sudoku-4x4", *options, *changes], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "seed    plain    LASER" in result.output and (tmp_path / "study" / "study.svg").exists()
