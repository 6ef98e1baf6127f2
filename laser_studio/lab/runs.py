"""A whole training run: sets, training, choice of the weights, evaluation, export with card and curve. The command line calls this."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from laser_studio.errors import TrainingError
from laser_studio.files import atomic_path
from laser_studio.lab.card import export
from laser_studio.lab.curve import draw_curve
from laser_studio.lab.distributed import ALONE, Team
from laser_studio.lab.evaluate import Accuracy, evaluate
from laser_studio.lab.recipes import Recipe
from laser_studio.lab.train import BEST_FOLDER, LOG_FILE, Progress, Trainer, fit
from laser_studio.laser.ledger import TotalLine
from laser_studio.trm import load_checkpoint

MODEL_FOLDER = "model"
CURVE_FILE = "curve.svg"
SETS_FOLDER = "sets"
VALIDATION_PUZZLES = 200  # weights are chosen on them, never on the puzzles the accuracy is measured on


@dataclass(frozen=True)
class Trained:
    """A finished run: where its model is, its exact and cell accuracy on held-out puzzles, and with LASER what compression did."""

    folder: Path
    accuracy: Accuracy
    compressed: TotalLine | None = None


@dataclass(frozen=True)
class Observer:
    """Who wants to know: all optional; texts are one line each, `on_evaluated` is told how many puzzles were just done, of how many."""

    on_text: Callable[[str], object] = lambda _: None
    on_step: Callable[[Progress], None] | None = None
    on_evaluated: Callable[[int, int], object] = lambda done, total: None
    should_stop: Callable[[], bool] | None = None


def run(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    *,
    command: str,
    held_out: int = 1000,
    observer: Observer | None = None,
    team: Team = ALONE,
) -> Trained | None:
    """Train a recipe in `folder`, resuming what is there; None where it was stopped before its end.

    What is exported to `folder/model` are the averaged weights of the best validation, in half precision, and the accuracy is theirs
    as read back from disk; of several processes the leading one exports, and the others get None. The curve is drawn whenever training
    ends or is stopped after an evaluation.
    """
    told = observer or Observer()
    wanted = sum(phase.puzzles for phase in recipe.data.phases)
    told.on_text(f"drawing {f'{wanted:,} ' if wanted else ''}training puzzles of {recipe.task.name} …")
    if not team.leads:
        team.from_leader(None)  # the leading process draws the sets, the others read what it kept
    stages = recipe.stages(folder / SETS_FOLDER)
    if team.leads:
        team.from_leader(True)
    trainer = Trainer(recipe.model, recipe.train, stages, device, recipe.laser, team)
    validation = recipe.validation(VALIDATION_PUZZLES)
    complete = fit(trainer, validation, folder, on_step=told.on_step, should_stop=told.should_stop)
    if team.leads and (folder / LOG_FILE).exists():
        draw_curve(folder / LOG_FILE, folder / CURVE_FILE, title=f"{recipe.task.name}, {recipe.variant}")
    if not complete or not team.leads:
        return None
    best = trainer.best
    if best is None:
        raise TrainingError("the run was never evaluated: give it more steps, or a smaller train.eval_every")
    judged = recipe.held_out(held_out)
    told.on_text(f"measuring the weights of step {best[0]:,} on {len(judged):,} held-out puzzles …")
    model = load_checkpoint(folder / BEST_FOLDER, device=str(device))
    target = folder / MODEL_FOLDER
    accuracy = evaluate(model, judged, on_batch=lambda done: told.on_evaluated(done, len(judged)))
    export(model, trainer, recipe, accuracy, command=command, step=best[0], folder=target)
    with atomic_path(target / CURVE_FILE) as temporary:
        shutil.copyfile(folder / CURVE_FILE, temporary)
    return Trained(target, accuracy, None if trainer.laser is None else trainer.laser.ledger().total)
