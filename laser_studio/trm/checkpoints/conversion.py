"""From any supported format to ours or the official one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from laser_studio.errors import CheckpointError
from laser_studio.hub import OnFetch
from laser_studio.trm.checkpoints.loading import load_checkpoint
from laser_studio.trm.checkpoints.needs import Assume
from laser_studio.trm.checkpoints.official import save_official
from laser_studio.trm.checkpoints.own import save_checkpoint
from laser_studio.trm.model import TRM

Target = Literal["studio", "official"]
TARGETS: tuple[Target, ...] = ("studio", "official")


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    to: str = "studio",
    half: bool = False,
    step: int = 0,
    seq_len: int | None = None,
    assume: Assume = None,
    task: str | int | None = None,
    puzzle_identifiers: Sequence[int] | None = None,
    on_fetch: OnFetch | None = None,
) -> TRM:
    """Read `source` as `load_checkpoint` does and write it into `folder`; returns the model.

    to: "studio" writes model.safetensors and config.json (with `half` as fp16), "official" writes step_N (N is `step`) and all_config.yaml,
    which the official code loads. Raises `CheckpointNeeds` and `CheckpointError` as `load_checkpoint` does, and where it cannot be written.
    """
    if to not in TARGETS:
        raise CheckpointError(f"{to[:40]!r} is no format that can be written: use {' or '.join(TARGETS)}")
    if half and to == "official":
        raise CheckpointError("the official format holds full precision: leave half out")
    model = load_checkpoint(
        source, "cpu", seq_len=seq_len, assume=assume, task=task, puzzle_identifiers=puzzle_identifiers, on_fetch=on_fetch
    )
    if to == "official":
        save_official(model, folder, step=step)
    else:
        save_checkpoint(model, folder, half=half)
    return model
