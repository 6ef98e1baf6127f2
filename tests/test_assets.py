"""Shipped files are found in a clone and in an installed package, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from laser_studio import assets
from laser_studio.errors import LaserStudioError


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
