"""Training a shipped model again: the same recipe gives the same accuracy, and a card that claims too much is found out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from laser_studio.assets import asset_root
from laser_studio.cli import app
from laser_studio.errors import TrainingError
from laser_studio.lab import reproduce, runs
from laser_studio.lab.recipes import get_recipe
from laser_studio.lab.report import wilson
from laser_studio.lab.reproduce import Outcome, read_card, retrain, trained_on_cpu
from laser_studio.lab.runs import Observer, run
from tests.lab.test_train import BRIEF, TINY

CPU = torch.device("cpu")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the shipped files: two models of a moment's training, one of which says it was trained on a GPU."""
    monkeypatch.setattr(runs, "VALIDATION_PUZZLES", 10)
    monkeypatch.setattr(reproduce, "asset_root", lambda: tmp_path)
    monkeypatch.setattr(reproduce, "asset_path", lambda *parts: tmp_path.joinpath(*parts))
    trained = run(get_recipe("sudoku-4x4", changes=[*TINY, *BRIEF]), tmp_path / "run", CPU, command="train it", held_out=40)
    assert trained is not None
    for name, device in (("small", None), ("large", "NVIDIA H200, then cpu")):
        folder = tmp_path / "checkpoints" / name
        shutil.copytree(trained.folder, folder)
        if device:
            record = json.loads((folder / "config.json").read_text())
            record["details"]["device"] = device
            (folder / "config.json").write_text(json.dumps(record))
    return tmp_path


def test_a_model_trained_again_reaches_its_card_and_resumes(shelf: Path) -> None:
    assert trained_on_cpu() == ["small"]
    card = read_card("small")
    assert (card.puzzles, card.recipe.train.steps) == (40, 40)
    steps: list[int] = []
    stopping = Observer(on_step=lambda told: steps.append(told.step), should_stop=lambda: len(steps) == 15)
    assert retrain(card, shelf / "again", CPU, observer=stopping) is None
    outcome = retrain(card, shelf / "again", CPU, observer=Observer(on_step=lambda told: steps.append(told.step)))
    assert outcome is not None and steps == list(range(1, 41))
    assert outcome.exact == card.exact and outcome.reached and "reached" in str(outcome)


def test_what_falls_short_by_more_than_chance_is_said() -> None:
    card = replace(read_card("sudoku-4x4"), exact=0.95, puzzles=1000)
    for exact, reached in ((0.99, True), (0.95, True), (0.93, True), (0.90, False), (0.0, False)):
        outcome = Outcome(card, exact, *wilson(exact * 1000, 1000, 0.99))
        assert outcome.reached is reached and ("FALLS SHORT" in str(outcome)) is not reached


def test_unknown_names_and_cards_without_figures_are_refused(shelf: Path) -> None:
    with pytest.raises(TrainingError, match="choose of large, small"):
        read_card("../small")
    file = shelf / "checkpoints" / "small" / "config.json"
    file.write_text("{}")
    with pytest.raises(TrainingError, match="does not say"):
        read_card("small")


def test_the_command_ends_with_a_verdict(shelf: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "small", "--out", str(shelf / "out")])
    assert result.exit_code == 0 and "small: " in result.output and "reached" in result.output
    file = shelf / "checkpoints" / "small" / "config.json"
    record = json.loads(file.read_text())
    record["details"] |= {"exact_accuracy": 1.0, "held_out_puzzles": 40}
    file.write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["reproduce", "small", "--out", str(shelf / "out")])
    assert result.exit_code == 1 and "FALLS SHORT" in result.output


def test_every_shipped_recipe_can_be_read() -> None:
    names = sorted(path.parent.name for path in (asset_root() / "checkpoints").glob("*/config.json"))
    assert [read_card(name).name for name in names] == names and set(trained_on_cpu()) <= set(names)
