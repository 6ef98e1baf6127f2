"""What a caller of `load_checkpoint` may say beside the path, as the readers take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from laser_studio.hub import OnFetch
from laser_studio.trm.checkpoints.needs import Answers


@dataclass
class Asked:
    """seq_len: tokens of a puzzle; answers: what is assumed; task, rows: which rows of the puzzle embedding are wanted (None: all);
    on_fetch: told of a download."""

    seq_len: int | None = None
    answers: Answers = field(default_factory=lambda: Answers(None))
    task: str | int | None = None
    rows: Sequence[int] | None = None
    on_fetch: OnFetch | None = None
