"""Runs of the training page on disk: their folders and records, and the models they keep. No torch here.

A run's folder holds `run.json` (what was asked for), `recipe.yaml`, the newest state (`lab.saved_runs`), and models: `evaluated/STEP-SIDE`
of the steps that were evaluated, spread evenly, and `opened/STEP-SIDE` of those that somebody opened in the debugger. Names that a page
sends are compared with what lies here, never used as a path.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser_studio.errors import TrainingError
from laser_studio.files import atomic_path
from laser_studio.lab.saved_runs import SIDES, Side, newest_state, read_summary
from laser_studio.studio.registry import StudioError

RUN_FILE = "run.json"
SETS_FOLDER = "sets"  # of all runs: the same task has the same training puzzles
EVALUATED, OPENED = "evaluated", "opened"
MOST_MODELS = 8  # steps of each kind of which a run keeps models
MAX_RUNS = 20

_RUN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-\d{1,6}")
_MODEL = re.compile(rf"(\d{{1,9}})-({'|'.join(SIDES)})")


@dataclass(frozen=True)
class TrainedModel:
    """A model that a run keeps, and the name under which the studio opens it."""

    run: str
    step: int
    side: Side
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.run}@{self.step}-{self.side}"


def make_run(root: Path, task: str, variant: str, laser: Mapping[str, Any], created: str) -> str:
    """A folder for a new run; its name. Raises `StudioError` where there are too many, or none can be written."""
    if len(runs(root)) >= MAX_RUNS:
        raise StudioError(f"{MAX_RUNS} runs are kept here, and no more: delete one from the list of kept runs")
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.name.rpartition("-")[2]) for path in root.iterdir() if _RUN.fullmatch(path.name)), default=0)
        name = f"{task}-{variant}-{number}"
        (root / name).mkdir()
        record = {"task": task, "variant": variant, "laser": dict(laser), "created": created}
        with atomic_path(root / name / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    except OSError as failure:
        cause = failure.strerror or "unknown fault of the disk"
        raise StudioError(
            f"the folder for runs cannot be written ({cause}): name another when the studio is started, with --runs"
        ) from None
    return name


def runs(root: Path) -> dict[str, Path]:
    """Folders of the runs that are kept, by name, the newest first."""
    if not root.is_dir():
        return {}
    found = [path for path in root.iterdir() if _RUN.fullmatch(path.name) and (path / RUN_FILE).is_file()]
    return {path.name: path for path in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2]))}


def run_folder(root: Path, name: str) -> Path:
    """The folder of a run. Raises `StudioError` (expired) for a name that no run here has."""
    folder = runs(root).get(name)
    if folder is None:
        raise StudioError("this run is not kept here any more: start another", expired=True)
    return folder


def about_run(folder: Path) -> dict[str, Any]:
    """What was asked for, and how the run stands: task, variant, laser, created; step, steps, exact by side (None before the first state).

    Raises `TrainingError` where it cannot be read.
    """
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        about = {name: record[name] for name in ("task", "variant", "laser", "created")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise TrainingError(f"{folder.name} cannot be read: delete it from the list of kept runs") from None
    state = newest_state(folder)
    standing = read_summary(state) if state is not None else {"step": 0, "steps": None, "exact": dict.fromkeys(SIDES), "seconds": [0, 0]}
    return {"run": folder.name, **about, **standing}


def delete_run(folder: Path) -> None:
    """Take a run away with all it keeps."""
    # First out of sight, so that what is half deleted is no run.
    (folder / RUN_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def models(folder: Path) -> list[TrainedModel]:
    """The models that a run keeps, by step; of one that was both evaluated and opened, the opened one."""
    found = {}
    for kind in (EVALUATED, OPENED):
        for path in (folder / kind).glob("*/config.json"):
            if match := _MODEL.fullmatch(path.parent.name):
                side: Side = "laser" if match[2] == "laser" else "plain"
                found[int(match[1]), side] = TrainedModel(folder.name, int(match[1]), side, path.parent)
    return [found[key] for key in sorted(found)]


def listed(folder: Path) -> list[list[Any]]:
    """The same for a page: name, step and side of each."""
    return [[model.name, model.step, model.side] for model in models(folder)]


def is_complete(about: Mapping[str, Any]) -> bool:
    """Whether all steps are done of a run that `about_run` tells about."""
    return about["steps"] is not None and about["step"] >= about["steps"]


def model_folder(folder: Path, kind: str, step: int, side: Side) -> Path:
    """Where a run keeps the model of that step and side."""
    return folder / kind / f"{step}-{side}"


def thin_out(folder: Path, kind: str) -> None:
    """Of too many steps with models take one away: of those evaluated the one whose neighbours are nearest, of those opened the oldest."""

    def made(step: int) -> list[float]:
        paths = [model_folder(folder, kind, step, side) for side in SIDES]
        return [path.stat().st_mtime for path in paths if path.is_dir()]

    kept = {int(match[1]) for path in (folder / kind).glob("*") if (match := _MODEL.fullmatch(path.name))}
    while len(kept) > MOST_MODELS:
        steps = sorted(kept)
        if kind == OPENED:
            leaves = min(steps, key=lambda step: max(made(step)))
        else:
            leaves = steps[min(range(1, len(steps) - 1), key=lambda n: steps[n + 1] - steps[n - 1])]
        kept.remove(leaves)
        for side in SIDES:
            shutil.rmtree(model_folder(folder, kind, leaves, side), ignore_errors=True)


def find_model(root: Path, name: str) -> TrainedModel | None:
    """The model that a run keeps under that name; None where none does."""
    run, at, _ = name.rpartition("@")
    folder = runs(root).get(run) if at else None
    return next((model for model in models(folder) if model.name == name), None) if folder is not None else None
