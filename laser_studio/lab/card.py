"""The card of a trained checkpoint: what was trained, how, on what, and how well it does. Written beside the weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from laser_studio.files import atomic_path
from laser_studio.lab.evaluate import Accuracy
from laser_studio.lab.recipes import Recipe
from laser_studio.lab.train import Trainer
from laser_studio.trm import TRM, save_checkpoint

RECIPE_FILE = "recipe.yaml"
MEASURES = {"givens": "givens", "path": "steps from start to goal", "side": "cells on the longest side of a task"}


def export(model: TRM, trainer: Trainer, recipe: Recipe, accuracy: Accuracy, *, command: str, step: int, folder: Path) -> None:
    """Write model.safetensors (halves), config.json, recipe.yaml and README.md of a trained model into `folder`.

    accuracy: of the model as given; where its weights are halves already, as in a run's `best/`, it is that of the file. step: the
    optimiser step the weights are from.
    """
    details = {
        "task": recipe.task.name,
        "variant": recipe.variant,
        "domain": recipe.task.domain,
        "size": [recipe.task.size, recipe.task.size],
        "batch_size": recipe.train.batch_size,
        "optimiser_steps": step,
        "train_puzzles": sum(len(stage.data) for stage in trainer.stages),
        "exact_accuracy": accuracy.exact[-1],
        "cell_accuracy": accuracy.cell[-1],
        "held_out_puzzles": accuracy.puzzles,
        "seed": recipe.train.seed,
        "training_seconds": round(trainer.seconds),
        "device": ", then ".join(trainer.devices),
        "torch": torch.__version__,
        "command": command,
    }
    save_checkpoint(model, folder, details=details, half=True)
    with atomic_path(folder / RECIPE_FILE) as temporary:
        temporary.write_text(_recipe_text(recipe), encoding="utf-8")
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(_card(model, trainer, recipe, accuracy, details), encoding="utf-8")


def _recipe_text(recipe: Recipe) -> str:
    head = f"# The whole recipe of a {recipe.task.name} model: python -m laser_studio train {recipe.task.name} --config {RECIPE_FILE}\n"
    return head + recipe.text()


def _card(model: TRM, trainer: Trainer, recipe: Recipe, accuracy: Accuracy, details: dict[str, Any]) -> str:
    config, settings, task = asdict(model.config), asdict(recipe.train), recipe.task
    parameters = sum(p.numel() for p in model.parameters())
    rows = "\n".join(
        f"| {step} | {100 * exact:.1f} % | {100 * cell:.1f} % |"
        for step, (exact, cell) in enumerate(zip(accuracy.exact, accuracy.cell, strict=True), 1)
    )
    shown = ", ".join(
        f"{name} {config[name]}" for name in ("hidden_size", "num_heads", "L_layers", "H_cycles", "L_cycles", "halt_max_steps")
    )
    hyper = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in ("eval_every", "save_every", "compile"))
    sets = "; ".join(
        f"from step {stage.start:,}: {len(stage.data):,} puzzles, {low} to {high} {MEASURES[task.measure]}"
        + (f", mazes of {size} cells a side" if (size := phase.size) else "")
        for stage, phase in zip(trainer.stages, recipe.data.phases, strict=True)
        for low, high in [recipe.within(phase)]
    )
    return f"""# {task.name}, {recipe.variant}

A Tiny Recursive Model with {parameters:,} parameters ({shown}; {recipe.variant}), trained for LASER Studio.

| what | value |
| --- | --- |
| command | `{details["command"]}` |
| recipe | {hyper} |
| training puzzles | {sets}; {_drawn(recipe)} |
| held out | {task.judged[0]} to {task.judged[1]} {MEASURES[task.measure]}; {_held_out(recipe)} |
| device | {details["device"]}, torch {details["torch"]} |
| time in optimiser steps | {trainer.seconds / 60:.0f} minutes |
| weights | average of step {details["optimiser_steps"]:,} of {trainer.step:,}, the best of {len(trainer.evaluations)} validations |
| exact accuracy | {100 * accuracy.exact[-1]:.1f} % of {accuracy.puzzles:,} held-out puzzles |
| cell accuracy | {100 * accuracy.cell[-1]:.1f} % of all cells{" of the answer and its end markers" if task.rules else ""} |

Measured again by `python -m laser_studio evaluate CHECKPOINT --puzzles {accuracy.puzzles}`:

| supervision step | exact | cell |
| --- | --- | --- |
{rows}

![Accuracy and loss against optimiser steps](curve.svg)
"""


def _drawn(recipe: Recipe) -> str:
    """Where the training puzzles come from."""
    seed = recipe.train.seed
    if not recipe.task.rules:
        return f"drawn from seed {seed}, each turned into a random symmetric image whenever it is drawn"
    return (
        f"demonstrations of {recipe.task.rules} training tasks of ARC-AGI-1, each task as it is and in up to {recipe.data.augmentations} "
        f"images (turned, colours renamed) with identifiers of their own, drawn from seed {seed}"
    )


def _held_out(recipe: Recipe) -> str:
    """Why the puzzles a model is judged by are new to it."""
    if not recipe.task.rules:
        return "none is a symmetric image of anything trained on"
    return "the test pairs of the same tasks, as they are, which nothing was trained on; about a quarter of the tasks chose the weights"
