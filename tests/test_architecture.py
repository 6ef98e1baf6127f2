"""The shape of the package: which way imports point, and which names other code may rely on."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Names fixed by the design, by the module that users import them from.
PUBLIC_NAMES = {
    "laser_studio.trm": ["TRM", "TRMConfig", "load_checkpoint", "save_checkpoint"],
    "laser_studio.laser": ["LaserPolicy", "SubspaceTracker"],
    "laser_studio.puzzles": ["get_domain", "load_puzzles"],
    "laser_studio": ["watch"],
    "laser_studio.debugger": ["Session", "WatchedRun", "Watcher"],
    "laser_studio.errors": ["CheckpointError", "LaserStudioError", "PolicyError", "PuzzleError", "RecordingError"],
    "laser_studio.cli": ["app"],
}


def check_contract(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the import contract on the package in `root`, whatever else is installed."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)


def test_imports_point_one_way(repository: Path) -> None:
    result = check_contract(repository)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "statement", "broken"),
    [
        ("trm/layers.py", "import laser_studio.puzzles", "laser_studio.trm is not allowed to import laser_studio.puzzles"),
        ("laser/__init__.py", "import laser_studio.trm", "laser_studio.laser is not allowed to import laser_studio.trm"),
        ("debugger/__init__.py", "import laser_studio.lab", "laser_studio.debugger is not allowed to import laser_studio.lab"),
        ("lab/data.py", "import gradio", "laser_studio is not allowed to import gradio"),
        ("cli/bench.py", "import plotly.graph_objects", "laser_studio is not allowed to import plotly"),
        ("shortcuts.py", "", "shortcuts"),  # a module that no layer holds
    ],
)
def test_contract_notices_a_wrong_import(repository: Path, tmp_path: Path, file: str, statement: str, broken: str) -> None:
    shutil.copy(repository / "pyproject.toml", tmp_path)
    package = tmp_path / "laser_studio"
    shutil.copytree(repository / "laser_studio", package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / file).open("a") as source:
        source.write(f"\n{statement}\n")
    result = check_contract(tmp_path)
    assert result.returncode != 0
    assert broken in " ".join(result.stdout.split())


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PUBLIC_NAMES.items() for name in names])
def test_public_name_is_importable(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_all_lists_only_what_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    listed = getattr(loaded, "__all__", [])
    assert [name for name in listed if not hasattr(loaded, name)] == []
    assert len(set(listed)) == len(listed)


def test_engine_runs_without_the_screen(repository: Path) -> None:
    """Every module but the studio's can be imported where Gradio and Plotly are not installed."""
    program = """
import importlib, pkgutil, sys
sys.modules["gradio"] = sys.modules["plotly"] = None  # an import of either now fails
import laser_studio
names = [found.name for found in pkgutil.walk_packages(laser_studio.__path__, "laser_studio.")]
names = [name for name in names if not name.startswith("laser_studio.studio")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10
