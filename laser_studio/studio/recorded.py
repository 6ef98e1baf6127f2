"""A run recorded by `laser_studio.watch` on the page: read along while it grows, and never tuned."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from laser_studio.debugger import WatchedRun
from laser_studio.debugger.watched_run import SETTINGS_ARE_FIXED
from laser_studio.errors import RecordingError
from laser_studio.studio.controls import TrackerView
from laser_studio.studio.registry import StudioError
from laser_studio.studio.run import Run

if TYPE_CHECKING:
    from laser_studio.debugger import Frame
    from laser_studio.studio.requests import PageRequest

READ_SECONDS = 0.1  # of reading on at a time, so that a long recording does not hold up its page
MAX_NOTES = 2_000  # per reply
# What a frame says of puzzles: of a module of one's own there is nothing to say, and nothing is drawn.
_OF_PUZZLES = ("changed", "q_halt", "halt_probability", "right", "batch_solved", "batch_right")


@dataclass(frozen=True)
class RecordedSubject:
    """The watched module, as far as its recording tells."""

    name: str
    label: str
    run: WatchedRun

    @property
    def model(self) -> str:
        """Its name in links and on the page."""
        return self.name

    @property
    def puzzle_id(self) -> None:
        """There is no puzzle."""

    def about(self) -> dict[str, Any]:
        """See `Subject.about`; of the puzzle nothing but that there is none."""
        header = self.run.header
        return {
            "model": {
                "name": self.name,
                "label": self.label,
                "watched": header.module,
                "file": self.run.path.name,
                "device": header.device or "no parameters",
                "dtype": {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}.get(header.dtype, header.dtype),
                "parameters": header.parameters,
                "every": header.every,
                "H_cycles": 1,
                "L_cycles": self._steps_per_forward() - 1,
                "halt_max_steps": 0,
            },
            "puzzle": {
                "id": "",
                "domain": "watched",
                "height": 0,
                "width": 0,
                "cells": [],
                "given": [],
                "blocks": None,
                "symbols": [],
                "difficulty": "",
                "issues": [],
            },
            "puzzles": [],
            "generates": False,
        }

    def _steps_per_forward(self) -> int:
        """Of the first forward; all steps there are where it has not ended."""
        return max(1, next((frame.index for frame in self.run.frames[:4_096] if frame.ends_supervision), self.run.head))

    def script(self) -> tuple[list[str], list[str]]:
        """Raises `StudioError`: nothing can be run again."""
        raise StudioError(f"this run was recorded: read it with laser_studio.debugger.WatchedRun({self.run.path.name[:120]!r})")


def short_of_folders(message: str, path: Path) -> str:
    """A message without the folders of a file: they are nothing to a page's visitor."""
    return message.replace(str(path), path.name)


class RecordedRun(Run):
    """A recording on a page. Every reply reads on in its file; what is wrong with the file is told, and what was read stays."""

    def __init__(self, session: WatchedRun, subject: RecordedSubject) -> None:
        super().__init__(session, subject, {0: TrackerView()})
        self.recording = session

    @property
    def last_step(self) -> int:
        """The newest step so far."""
        return self.recording.head

    @property
    def finished(self) -> bool:
        """Whether the watched run has ended and its last step is shown."""
        return self.recording.finished

    @property
    def state(self) -> str:
        """See `Run.state`; a frame that is not finite is no end here."""
        if not self.finished:
            return "paused"
        return "error" if self.recording.problem else "done"

    @property
    def problem(self) -> str | None:
        """What is wrong with the file, or with the step shown."""
        frame = self.recording.frame
        if self.recording.problem:
            return short_of_folders(self.recording.problem, self.recording.path)
        return None if frame.finite else f"not finite at step {frame.index}"

    def step(self) -> None:
        """The next step, as far as it has been written."""
        if self.recording.frame.index == self.recording.head:
            self.read_on()
        self.recording.seek(self.recording.frame.index + 1)

    def read_on(self) -> None:
        """Take in what was written since."""
        try:
            self.recording.refresh(READ_SECONDS)
        except RecordingError:
            return  # `problem` tells it from now on

    def change(self, changes: dict[str, Any]) -> None:
        """Raises `StudioError`."""
        raise StudioError(SETTINGS_ARE_FIXED)

    def settings_json(self) -> dict[str, Any]:
        """What the run was recorded with, in the policy's own words: a rank may be a number of directions here."""
        policy = self.recording.policy
        names = ("rank", "min_fidelity", "patience", "refresh", "measure", "growth")
        return {name: getattr(policy, name) for name in names} | {"sites": {name: dict(own) for name, own in policy.sites.items()}}

    def row(self, frame: Frame) -> dict[str, Any]:
        """See `Run.row`."""
        return frame.to_row() | dict.fromkeys(_OF_PUZZLES) | {"latent": []}

    def link(self) -> str:
        """See `Run.link`; settings are the recording's."""
        return urlencode({"model": self.subject.model, "step": self.recording.frame.index})

    def more(self, request: PageRequest) -> dict[str, Any]:
        """What only a recording has: noted values since `request.notes_since` as [name, step, value], by name the newest up to the
        step shown, and whether it still grows.
        """
        start = request.notes_since
        rows = self.recording.note_log[start : start + MAX_NOTES]
        noted = {name: self._noted(curve) for name, curve in self.recording.notes.items()}
        return {"notes": {"start": start, "rows": rows}, "noted": noted, "ended": self.recording.ended, **super().more(request)}

    def _noted(self, curve: list[tuple[int, float | None]]) -> float | None:
        """The newest value of a noted curve up to the step shown; None where there is none."""
        place = bisect_right(curve, self.recording.frame.index, key=lambda note: note[0]) - 1
        while place >= 0 and curve[place][1] is None:
            place -= 1
        return curve[place][1] if place >= 0 else None
