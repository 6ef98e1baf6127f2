"""Shipped files are found in a clone and in an installed package, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from laser_studio import assets
from laser_studio.errors import LaserStudioError
from laser_studio.lab.report import load_report


def test_a_clone_reads_the_folder_beside_the_package() -> None:
    assert assets.asset_path("puzzles", "sudoku-6x6.json") == assets.asset_path("puzzles/sudoku-6x6.json")
    assert assets.asset_path("puzzles").parent == assets.asset_path() == assets.asset_root()


def test_an_installed_package_reads_its_own_folder_even_beside_a_foreign_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "laser_studio"
    (package / "_assets" / "css").mkdir(parents=True)
    (package.parent / "assets" / "css").mkdir(parents=True)
    monkeypatch.setattr(assets, "_PACKAGE", package)
    assert assets.asset_path("css") == package / "_assets" / "css"


def test_without_assets_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "laser_studio")
    with pytest.raises(LaserStudioError, match="reinstall it, or start it from a complete clone"):
        assets.asset_path("css")


@pytest.mark.parametrize("parts", [("nothing.json",), ("..", "README.md"), ("puzzles", "../../README.md"), ("/etc/hosts",), ("a\0b",)])
def test_nothing_outside_the_assets_can_be_reached(parts: tuple[str, ...]) -> None:
    with pytest.raises(LaserStudioError, match="no shipped file"):
        assets.asset_path(*parts)


MODELS = sorted(path.parent.name for path in (assets.asset_root() / "checkpoints").glob("*/config.json"))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_card_recipe_curve_and_report_and_stands_in_the_readme(name: str, repository: Path) -> None:
    folder = assets.asset_path("checkpoints", name)
    details = json.loads((folder / "config.json").read_text())["details"]
    exact = f"{100 * details['exact_accuracy']:.1f} %"
    assert details["held_out_puzzles"] >= 1_000
    assert f"| exact accuracy | {exact} of 1,000 held-out puzzles |" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "curve.svg", "evaluation.json", "model.safetensors", "recipe.yaml",
    }  # fmt: skip
    report = load_report(folder / "evaluation.json")
    assert report.task == details["task"] and report.arms[0].rank == "" and len(report.arms) > 1
    assert f"| `{name}` | {exact} |" in (repository / "README.md").read_text()


def test_all_models_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in (assets.asset_root() / "checkpoints").rglob("*")) <= 60 * 10**6
