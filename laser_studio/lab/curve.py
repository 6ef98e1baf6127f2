"""The picture of a training run, drawn from its log."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_studio.errors import TrainingError
from laser_studio.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#1f2937", "#d8dee8", "#ffffff"
STYLE: Any = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "laser-studio", "text.color": INK, "axes.labelcolor": INK}
EXACT, TRAINING, CELL, LOSS = "#0b6bcb", "#5aa9e6", "#2f9e44", "#b4530a"


def read_log(log: Path) -> list[dict[str, str]]:
    """The rows of a run's log, one per evaluation, as texts by column."""
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


def finish(figure: Figure, target: Path) -> None:
    """Give all axes a quiet grid without a box, and write the picture as SVG; within `STYLE`."""
    for axes in figure.axes:
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def draw_curve(log: Path, target: Path, *, title: str) -> None:
    """Exact accuracy (validation and training), cell accuracy and loss against optimiser steps, as SVG. Raises `TrainingError`."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    rows = read_log(log)
    if not rows:
        raise TrainingError(f"{log.name} has no evaluations to draw")
    steps = [int(row["step"]) for row in rows]

    def column(name: str, scale: float = 1.0) -> list[float]:
        return [scale * float(row[name]) for row in rows]

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained", facecolor=PAPER)
        shares, losses = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        marker = "o" if len(steps) < 40 else ""
        shares.plot(steps, column("exact", 100), color=EXACT, marker=marker, markersize=3, label="exact, validation")
        shares.plot(steps, column("training_exact", 100), color=TRAINING, linestyle="--", label="exact, training samples as they halt")
        shares.plot(steps, column("cell", 100), color=CELL, linestyle=":", label="cells, validation")
        shares.set(ylabel="right (%)", ylim=(-2, 102), title=title)
        shares.legend(frameon=False, loc="center right", fontsize=9)
        losses.plot(steps, column("loss"), color=LOSS, marker=marker, markersize=3)
        losses.set(ylabel="loss", xlabel="optimiser step", yscale="log")
        finish(figure, target)
