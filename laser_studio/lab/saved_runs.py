"""Where a paired run keeps its states, and what can be read of one without torch: names of files, the newest state, its record.

`paired` writes them; whoever lists runs or shows one that rests reads them here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args

from laser_studio.errors import TrainingError

Side = Literal["laser", "plain"]
SIDES: tuple[Side, ...] = get_args(Side)
LIVE = ("rank", "min_fidelity", "patience", "growth")  # settings of LASER that may change while it trains
HISTORY_FILE = "history.json"
SUMMARY_FILE = "summary.json"

_STATE = re.compile(r"state-(\d{8,})\.(\d{1,18})")


def live_values(settings: object) -> dict[str, Any]:
    """The values of `LIVE` in settings of LASER."""
    return {name: getattr(settings, name) for name in LIVE}


def state_name(step: int, number: int) -> str:
    """Name of the folder of the state that was written as the `number`-th."""
    return f"state-{step:08d}.{number}"


def states(folder: Path) -> list[Path]:
    """The whole states in a run's folder, the one written last at the end."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _STATE.fullmatch(path.name)), key=number_of)


def number_of(state: Path) -> int:
    """As which one a state was written."""
    match = _STATE.fullmatch(state.name)
    assert match is not None
    return int(match[2])


def newest_state(folder: Path) -> Path | None:
    """The state written last; None where there is none."""
    found = states(folder)
    return found[-1] if found else None


def read_record(state: Path) -> dict[str, Any]:
    """The history of a state and the settings in force, as plain data. Raises `TrainingError` where they cannot be read."""
    return _read(state / HISTORY_FILE, {"history", "laser", "asked"})


def read_summary(state: Path) -> dict[str, Any]:
    """How a run stood when the state was written: step, steps, exact by side, seconds. Raises `TrainingError` where it cannot be read."""
    return _read(state / SUMMARY_FILE, {"step", "steps", "exact", "seconds"})


def _read(file: Path, keys: set[str]) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not keys <= set(record):
            raise ValueError("other content")
        return record
    except (OSError, ValueError, RecursionError) as failure:
        raise TrainingError(
            f"{file.parent.name} cannot be read ({type(failure).__name__}): delete that folder to start the run afresh"
        ) from failure
