"""Rows of the puzzle embedding: an ARC model has hundreds of thousands, of which a task needs one.

The embedding is 99 % of such a file, so only the rows asked for are read. A trained task has a row of its own; row 0 is the blank one,
with which a model trained on ARC solves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.json_files import read_names
from laser_studio.trm.checkpoints.loaded import Loaded
from laser_studio.trm.checkpoints.needs import CheckpointNeeds, Need
from laser_studio.trm.checkpoints.payload import read_rows
from laser_studio.trm.checkpoints.words import first, shown

IDENTIFIERS_FILE = "identifiers.json"
EMBEDDING = "embedding.puzzles"
_NAME_LENGTH = 8  # of an ARC task's, which may be digits alone
_BLANK_WARNING = "row 0 is the blank puzzle identifier: a model trained on ARC solves nothing with it, choose a trained task"


def known_tasks(path: str | Path) -> list[str]:
    """The names in `identifiers.json` beside a checkpoint or in the folder above, by number; empty where there is none."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for place in (folder, folder.parent):
        if (place / IDENTIFIERS_FILE).is_file():
            return read_names(place / IDENTIFIERS_FILE)
    return []


def choose_rows(file: Path, loaded: Loaded, asked: Asked) -> Loaded:
    """`loaded` with the rows asked for. Raises `CheckpointNeeds` where all are too many to keep and none was asked for."""
    table = loaded.tensors.get(EMBEDDING)
    wanted = asked.task is not None or asked.rows is not None
    if table is None:
        if wanted:
            raise CheckpointError(f"{shown(file.name)} has no puzzle embedding: leave the task out")
        return loaded
    if not wanted:
        if table.is_meta:
            raise _which_task(file, table.shape[0])
        return loaded
    if asked.task is not None and asked.rows is not None:
        raise CheckpointError("give a task or puzzle_identifiers, not both")
    rows = [_number(file, asked.task)] if asked.task is not None else list(asked.rows or ())
    if not rows or len(rows) > 4096 or any(isinstance(row, bool) or not isinstance(row, int) for row in rows):
        raise CheckpointError("puzzle_identifiers are 1 to 4096 whole numbers")
    if wrong := [row for row in rows if not 0 <= row < table.shape[0]]:
        raise CheckpointError(f"{shown(file.name)} has puzzle identifiers 0 to {table.shape[0] - 1}, not {wrong[0]}")
    kept = read_rows(file, loaded.original[EMBEDDING], rows) if table.is_meta else table[rows]
    details = loaded.details | {"puzzle_identifiers": rows}
    names = known_tasks(file)
    if names:
        details["tasks"] = [names[row] if row < len(names) else str(row) for row in rows]
    warnings = (*loaded.warnings, _BLANK_WARNING) if 0 in rows and table.shape[0] > 1 else loaded.warnings
    config = replace(loaded.config, num_puzzle_identifiers=len(rows))
    return replace(loaded, config=config, tensors=loaded.tensors | {EMBEDDING: kept.to(torch.float32)}, details=details, warnings=warnings)


def _number(file: Path, task: str | int | None) -> int:
    if isinstance(task, int) and not isinstance(task, bool):
        return task
    names = known_tasks(file)
    if str(task).isdecimal() and not (names and len(str(task)) == _NAME_LENGTH):
        return int(str(task)[:18])
    if not names:
        raise CheckpointError(f"no {IDENTIFIERS_FILE} beside {shown(file.name)}: put the data set's there, or give the task's number")
    if task not in names:
        near = [name for name in names if str(task) and name.startswith(str(task)[:8])] or names[1:]
        raise CheckpointError(f"{IDENTIFIERS_FILE} has no task {shown(str(task))}: it has {first(near)}")
    return names.index(str(task))


def _which_task(file: Path, count: int) -> CheckpointNeeds:
    names = plain_tasks(known_tasks(file))
    listed = (
        f"{IDENTIFIERS_FILE} names {first(names)}"
        if names
        else f"numbers 0 to {count - 1:,}; with the data set's {IDENTIFIERS_FILE} beside the file also by name"
    )
    message = (
        f"{shown(file.name)} has a puzzle embedding of {count:,} rows, one per trained task, and solves a task only with its own (with the "
        f"blank row 0 it scores 0 %): choose a task; {listed}"
    )
    return CheckpointNeeds(message, [Need("task", "the trained task whose row of the puzzle embedding is used", None, tuple(names))])


def plain_tasks(names: Sequence[str]) -> list[str]:
    """The tasks themselves, without blank and augmented copies ("name|||t3|||0213456789")."""
    return [name for name in names[1:] if "|||" not in name]
