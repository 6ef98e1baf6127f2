"""Names of augmented ARC tasks, `name|||t<trans>|||<perm>`, taken apart and undone, as the official data sets write them.

t0 to t7 are the eight turns and mirror images in the official order (not that of `arc_rules.image`, which this project trains with); perm
tells the new colour of each: perm[c] stands for c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc_rules import Grid

SEPARATOR = "|||"
BLANK = "<blank>"  # the name of row 0
MAX_NAME = 120
IDENTITY = "0123456789"

_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
_WORDS = ("", "turned 90°", "turned 180°", "turned 270°", "mirrored", "upside down", "transposed", "mirrored on the other diagonal")


@dataclass(frozen=True)
class TaskImage:
    """A task under one augmentation: the task's own name, the turn (0 to 7) and the new colours."""

    name: str
    turn: int = 0
    colours: str = IDENTITY

    @property
    def text(self) -> str:
        """The name as data sets write it; of a task as it is, its own."""
        return self.name if self.plain else f"{self.name}{SEPARATOR}t{self.turn}{SEPARATOR}{self.colours}"

    @property
    def plain(self) -> bool:
        """Whether the task is as it is."""
        return self.turn == 0 and self.colours == IDENTITY

    @property
    def words(self) -> str:
        """What was done to the task, in words; empty where nothing was."""
        parts = [_WORDS[self.turn]] if self.turn else []
        if self.colours != IDENTITY:
            parts.append("colours " + " ".join(f"{old}→{new}" for old, new in enumerate(self.colours) if str(old) != new))
        return ", ".join(parts)

    def applied(self, grid: Grid) -> Grid:
        """The grid (height, width) under this augmentation."""
        return _turned(np.asarray([int(colour) for colour in self.colours], dtype=np.uint8)[grid], self.turn)

    def undone(self, grid: Grid) -> Grid:
        """The grid that `applied` would make this one of."""
        back = np.argsort([int(colour) for colour in self.colours]).astype(np.uint8)
        return back[_turned(grid, _INVERSE[self.turn])]


def read_image(text: str) -> TaskImage:
    """The task and augmentation a name tells. Raises `PuzzleError`."""
    if not 1 <= len(text) <= MAX_NAME or not text.isprintable():
        raise PuzzleError(f"the name of a task has 1 to {MAX_NAME} printable characters")
    name, *parts = text.split(SEPARATOR)
    if not parts:
        return TaskImage(name)
    if len(parts) != 2 or not re.fullmatch(r"t[0-7]", parts[0]) or not name or sorted(parts[1]) != list(IDENTITY):
        raise PuzzleError(f"{text[:60]!r} is no name of an augmented task: those read name|||t0…t7|||a permutation of 0123456789")
    return TaskImage(name, int(parts[0][1]), parts[1])


def _turned(grid: Grid, turn: int) -> Grid:
    if turn < 4:
        return np.rot90(grid, turn)
    if turn == 4:
        return np.fliplr(grid)
    if turn == 5:
        return np.flipud(grid)
    return grid.T if turn == 6 else np.fliplr(np.rot90(grid))
