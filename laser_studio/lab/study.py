"""A recipe with and without LASER, in pairs of equal seeds: the same weights at the start, data, order and exploration in both.

Runs are trained one after the other, each in a folder of its own that an interrupted study goes on from; what they reached is tabled
and their curves are drawn in one picture.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from laser_studio.errors import TrainingError
from laser_studio.files import atomic_path
from laser_studio.lab.curve import INK, PAPER, STYLE, finish, read_log
from laser_studio.lab.recipes import Recipe
from laser_studio.lab.runs import Observer, run
from laser_studio.lab.train import LOG_FILE, LaserSettings

RESULT_FILE = "result.json"
TABLE_FILE, PICTURE_FILE = "study.csv", "study.svg"
ARMS = {"plain": "#5b6472", "laser": "#0b6bcb"}


@dataclass(frozen=True)
class Outcome:
    """One finished run. exact, cell: on `puzzles` held-out ones; step: optimiser step of the weights that were judged; saving: net share
    of all bytes saved for backward that was gone, at the last evaluation, 0 without LASER."""

    arm: str
    seed: int
    exact: float
    cell: float
    puzzles: int
    saving: float


@dataclass(frozen=True)
class Study:
    """All runs, in pairs by seed."""

    title: str
    outcomes: tuple[Outcome, ...]

    def of(self, arm: str) -> list[Outcome]:
        """The runs of one arm, by seed."""
        return sorted((one for one in self.outcomes if one.arm == arm), key=lambda one: one.seed)

    @property
    def differences(self) -> list[float]:
        """Exact accuracy with LASER less that without, by seed."""
        return [laser.exact - plain.exact for laser, plain in zip(self.of("laser"), self.of("plain"), strict=True)]

    def __str__(self) -> str:
        lines = [self.title, f"  {'seed':>4}  {'plain':>7}  {'LASER':>7}  {'difference':>10}  bytes gone"]
        for plain, laser, apart in zip(self.of("plain"), self.of("laser"), self.differences, strict=True):
            lines.append(f"  {plain.seed:4d}  {plain.exact:7.1%}  {laser.exact:7.1%}  {100 * apart:+8.1f} pt  {laser.saving:.2%}")
        plain_mean, laser_mean = (fmean(one.exact for one in self.of(arm)) for arm in ARMS)
        lines.append(f"  mean  {plain_mean:7.1%}  {laser_mean:7.1%}  {100 * fmean(self.differences):+8.1f} pt")
        return "\n".join(lines)


def study(
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path,
    device: torch.device,
    *,
    command: str,
    held_out: int = 1000,
    observer_of: Callable[[str, int], Observer],
) -> Study | None:
    """Train every pair of `recipe`, whose LASER settings are those of the one arm; None where it was stopped.

    observer_of: who is told of the run of an arm and seed. Writes table and picture into `folder`. Raises `TrainingError` for a recipe
    without LASER or fewer than one seed.
    """
    if not recipe.laser.enabled or not seeds:
        raise TrainingError("a study compares a recipe with LASER to the same without: enable it, and give at least one seed")
    outcomes = []
    for seed in seeds:
        for arm in ARMS:
            own = replace(recipe, train=replace(recipe.train, seed=seed), laser=recipe.laser if arm == "laser" else LaserSettings())
            outcome = _outcome(own, arm, seed, folder / f"{arm}-{seed}", device, command, held_out, observer_of(arm, seed))
            if outcome is None:
                return None
            outcomes.append(outcome)
    found = Study(
        f"{recipe.task.name}, {recipe.variant}, {recipe.train.steps:,} steps, seeds {', '.join(map(str, seeds))}", tuple(outcomes)
    )
    _table(found, folder / TABLE_FILE)
    _draw(found, folder)
    return found


def _outcome(
    recipe: Recipe, arm: str, seed: int, folder: Path, device: torch.device, command: str, held_out: int, observer: Observer
) -> Outcome | None:
    """Train one run, or read what it reached where it is finished."""
    result = folder / RESULT_FILE
    if result.exists():
        try:
            return Outcome(**json.loads(result.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise TrainingError(f"{folder.name}/{RESULT_FILE} cannot be read: delete it to measure that run again") from None
    trained = run(recipe, folder, device, command=command, held_out=held_out, observer=observer)
    if trained is None:
        return None
    accuracy, last = trained.accuracy, read_log(folder / LOG_FILE)[-1]
    outcome = Outcome(arm, seed, accuracy.exact[-1], accuracy.cell[-1], accuracy.puzzles, float(last.get("saving", 0)))
    with atomic_path(result) as temporary:
        temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return outcome


def _table(found: Study, target: Path) -> None:
    with atomic_path(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(found.outcomes[0])))
        writer.writeheader()
        writer.writerows(asdict(one) for one in found.outcomes)


def _draw(found: Study, folder: Path) -> None:
    """Validation accuracy and loss of every run against optimiser steps, one colour per arm."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor=PAPER)
        shares, losses = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        for arm, colour in ARMS.items():
            for number, one in enumerate(found.of(arm)):
                rows = read_log(folder / f"{arm}-{one.seed}" / LOG_FILE)
                steps = [int(row["step"]) for row in rows]
                style = {"color": colour, "linestyle": ("-", "--", ":", "-.")[number % 4], "linewidth": 1.4}
                shares.plot(steps, [100 * float(row["exact"]) for row in rows], label=f"{arm}, seed {one.seed}", **style)
                losses.plot(steps, [float(row["loss"]) for row in rows], **style)
        shares.set(ylabel="exact, validation (%)", ylim=(-2, 102), title=found.title)
        shares.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
        losses.set(ylabel="loss", xlabel="optimiser step", yscale="log")
        for axes in (shares, losses):
            axes.tick_params(colors=INK)
        finish(figure, folder / PICTURE_FILE)
