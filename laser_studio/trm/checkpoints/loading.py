"""`load_checkpoint`: from a path to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from laser_studio.device import resolve_device
from laser_studio.errors import CheckpointError
from laser_studio.hub import OnFetch, is_reference, obtain
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.families import read_foreign
from laser_studio.trm.checkpoints.json_files import read_json
from laser_studio.trm.checkpoints.loaded import Loaded, build
from laser_studio.trm.checkpoints.needs import Answers, Assume
from laser_studio.trm.checkpoints.own import FORMAT, MARK, read_own
from laser_studio.trm.checkpoints.payload import Payload, read_payload
from laser_studio.trm.checkpoints.places import CONFIG_FILE, find_weights
from laser_studio.trm.checkpoints.puzzle_rows import choose_rows
from laser_studio.trm.checkpoints.words import shown
from laser_studio.trm.model import TRM

T = TypeVar("T")


def load_checkpoint(
    path_or_hub_ref: str | Path,
    device: str | torch.device = "auto",
    *,
    seq_len: int | None = None,
    assume: Assume = None,
    task: str | int | None = None,
    puzzle_identifiers: Sequence[int] | None = None,
    on_fetch: OnFetch | None = None,
) -> TRM:
    """Load a TRM, or one of its relatives, in evaluation mode.

    path_or_hub_ref: a file of weights of any supported family (docs/checkpoints.md), or the folder of one, of which the latest
    step is taken; or a folder written by `save_checkpoint`; or hf://owner/name[/file][@revision], which is fetched from the Hugging
    Face Hub into its cache (`laser_studio.hub`; on_fetch is told the size before and the progress). device: see `resolve_device`.
    seq_len: tokens of a puzzle, for rope and "none" models, whose tensors do not tell it; without it a `dataset.json`
    beside the file is asked, and else `model.config.seq_len` stays None and each batch gives it.
    assume: what neither tensors nor a configuration beside them tell, by name, or "official" for the official values.
    task: one trained task (a name of `identifiers.json`, or its number): the model gets this row of the puzzle embedding alone, as
    row 0. puzzle_identifiers: the rows to keep, in this order. Without either a small puzzle embedding is kept whole.

    `model.details` holds what is known about the checkpoint ("source", "file", "hub" with the commit of what came from there, the
    details saved with it), and under "warnings" a sentence per tensor that is not finite. Official parameters become fp32, as the
    official code keeps them.

    Raises `CheckpointNeeds` for what it cannot know and is not told, `CheckpointError` for whatever cannot be used, `DeviceError` for
    the device.

    >>> load_checkpoint("assets/checkpoints/sudoku-6x6").config.vocab_size  # doctest: +SKIP
    8
    """
    target = resolve_device(device)
    answers = Answers(assume)
    asked = Asked(seq_len, answers, answers.task if task is None else task, puzzle_identifiers, on_fetch)
    file, loaded = read_checkpoint(path_or_hub_ref, asked)
    return build(loaded, shown(file.name)).to(target)


def read_checkpoint(path_or_hub_ref: str | Path, asked: Asked) -> tuple[Path, Loaded]:
    """The file with the weights, and what it holds, checked but not yet a model."""
    file, loaded = read_source(path_or_hub_ref, asked)
    return file, _readable(file, lambda: choose_rows(file, loaded, asked))


def read_source(path_or_hub_ref: str | Path, asked: Asked) -> tuple[Path, Loaded]:
    """The same before rows of the puzzle embedding are chosen: a large one is still in the file, on the meta device."""
    if is_reference(path_or_hub_ref):
        path, found = obtain(path_or_hub_ref, asked.on_fetch)
        file, loaded = read_source(path, asked)
        return file, replace(loaded, details=loaded.details | {"hub": found.pinned})
    path = Path(path_or_hub_ref)
    file = _readable(path, lambda: find_weights(path))
    return file, _readable(file, lambda: _read(file, asked))


def _readable(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as failure:
        raise CheckpointError(f"{shown(path.name)} cannot be read: {failure.strerror or 'unknown fault of the disk'}") from None


def _read(file: Path, asked: Asked) -> Loaded:
    payload = read_payload(file)
    loaded = _named(file, payload, asked)
    return replace(loaded, warnings=(*loaded.warnings, *payload.warnings))


def _named(file: Path, payload: Payload, asked: Asked) -> Loaded:
    if file.suffix != ".safetensors":
        return read_foreign(file, payload, asked)
    beside = file.parent / CONFIG_FILE
    ours = MARK in payload.tensors or not payload.tensors or (beside.is_file() and read_json(beside).get("format") == FORMAT)
    return read_own(file, payload, asked.seq_len) if ours else read_foreign(file, payload, asked)
