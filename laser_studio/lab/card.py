"""The card of a trained checkpoint: what was trained, how, on what, and how well it does. Written beside the weights."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from laser_studio.files import atomic_path
from laser_studio.lab.evaluate import Accuracy
from laser_studio.lab.tasks import Task
from laser_studio.lab.train import Trainer
from laser_studio.trm import save_checkpoint


def export(trainer: Trainer, task: Task, accuracy: Accuracy, command: str, folder: Path) -> None:
    """Write model.safetensors, config.json and README.md of the averaged weights into `folder`."""
    details = {
        "task": task.name,
        "domain": task.domain,
        "size": list(task.size),
        "batch_size": trainer.settings.batch_size,
        "optimiser_steps": trainer.step,
        "train_puzzles": sum(len(stage.data) for stage in trainer.stages),
        "exact_accuracy": accuracy.exact[-1],
        "cell_accuracy": accuracy.cell[-1],
        "held_out_puzzles": accuracy.puzzles,
        "seed": trainer.settings.seed,
        "training_seconds": round(trainer.seconds),
        "device": device_in_words(trainer.device),
        "torch": torch.__version__,
        "command": command,
    }
    save_checkpoint(trainer.averaged(), folder, details=details)
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(_card(trainer, task, accuracy, details), encoding="utf-8")


def device_in_words(device: torch.device) -> str:
    """The device's name and, on a CPU, the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"


def _card(trainer: Trainer, task: Task, accuracy: Accuracy, details: dict[str, Any]) -> str:
    config, settings = asdict(trainer.config), asdict(trainer.settings)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    rows = "\n".join(
        f"| {step} | {100 * exact:.1f} % | {100 * cell:.1f} % |"
        for step, (exact, cell) in enumerate(zip(accuracy.exact, accuracy.cell, strict=True), 1)
    )
    shown = ", ".join(
        f"{name} {config[name]}" for name in ("hidden_size", "num_heads", "L_layers", "H_cycles", "L_cycles", "halt_max_steps")
    )
    recipe = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in ("eval_every", "save_every"))
    return f"""# {task.name}

A Tiny Recursive Model with {parameters:,} parameters ({shown}), trained for LASER Studio.

| what | value |
| --- | --- |
| command | `{details["command"]}` |
| recipe | {recipe} |
| training puzzles | {details["train_puzzles"]:,}, drawn from seed {settings["seed"]}; {task.data_note} |
| device | {details["device"]}, torch {details["torch"]} |
| time in optimiser steps | {trainer.seconds / 60:.0f} minutes |
| exact accuracy | {100 * accuracy.exact[-1]:.1f} % of {accuracy.puzzles} held-out puzzles |
| cell accuracy | {100 * accuracy.cell[-1]:.1f} % of all cells |

Measured again by `python -m laser_studio evaluate assets/checkpoints/{task.name} --puzzles {accuracy.puzzles}`:

| supervision step | exact | cell |
| --- | --- | --- |
{rows}
"""
