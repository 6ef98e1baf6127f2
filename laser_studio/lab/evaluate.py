"""Exact and cell accuracy of a model on a puzzle set, per supervision step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laser_studio.lab.data import PuzzleSet
from laser_studio.trm import TRM


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1] after each supervision step; `puzzles` is N."""

    exact: tuple[float, ...]
    cell: tuple[float, ...]
    puzzles: int


@torch.no_grad()
def evaluate(model: TRM, data: PuzzleSet, *, batch_size: int = 100, on_batch: Callable[[int], object] | None = None) -> Accuracy:
    """Run all `halt_max_steps` supervision steps on every puzzle; `on_batch` is told how many puzzles were just done."""
    steps, device = model.config.halt_max_steps, model.H_init.device
    exact, cell = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        for inputs, labels in zip(data.inputs.split(batch_size), data.labels.split(batch_size), strict=True):
            batch = {"inputs": inputs.to(device), "puzzle_identifiers": torch.zeros(len(inputs), dtype=torch.long, device=device)}
            carry = model.initial_carry(batch)
            for step in range(steps):
                carry, outputs = model(carry, batch)
                right = outputs.logits.argmax(-1).cpu() == labels
                exact[step] += right.all(-1).sum()
                cell[step] += right.double().mean(-1).sum()
            if on_batch is not None:
                on_batch(len(inputs))
    finally:
        model.train(was_training)
    return Accuracy(tuple((exact / len(data)).tolist()), tuple((cell / len(data)).tolist()), len(data))
