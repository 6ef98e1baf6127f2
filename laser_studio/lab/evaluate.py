"""Exact and cell accuracy of a model on a puzzle set, per supervision step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laser_studio.errors import ReportError
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.losses import IGNORED
from laser_studio.trm import TRM


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1] after each supervision step; `puzzles` is N.

    exact: puzzles with every labelled cell right; cell: mean over the puzzles of the share of their labelled cells that is right.
    """

    exact: tuple[float, ...]
    cell: tuple[float, ...]
    puzzles: int


@torch.no_grad()
def evaluate(model: TRM, data: PuzzleSet, *, batch_size: int = 100, on_batch: Callable[[int], object] | None = None) -> Accuracy:
    """Run all `halt_max_steps` supervision steps on every puzzle; `on_batch` is told how many puzzles were just done.

    Raises `ReportError` for puzzles whose tokens or identifiers the model has no row for.
    """
    _require_rows(model, data)
    steps, device = model.config.halt_max_steps, model.H_init.device
    exact, cell = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(data), batch_size):
            batch = data.batch(slice(start, start + batch_size))
            labels = batch.pop("labels")
            labelled = labels != IGNORED
            count = labelled.sum(-1).clamp_min(1)
            batch = {key: value.to(device) for key, value in batch.items()}
            carry = model.initial_carry(batch)
            for step in range(steps):
                carry, outputs = model(carry, batch)
                right = outputs.logits.argmax(-1).cpu() == labels
                exact[step] += (right | ~labelled).all(-1).sum()
                cell[step] += (right.sum(-1).double() / count).sum()
            if on_batch is not None:
                on_batch(len(labels))
    finally:
        model.train(was_training)
    return Accuracy(tuple((exact / len(data)).tolist()), tuple((cell / len(data)).tolist()), len(data))


def _require_rows(model: TRM, data: PuzzleSet) -> None:
    """An index without a row would kill a CUDA context, so it is looked for before anything runs."""
    config = model.config
    if int(data.inputs.max()) >= config.vocab_size:
        raise ReportError(f"this model knows {config.vocab_size} tokens, these puzzles have more: it was trained on another task")
    largest = 0 if data.identifiers is None else int(data.identifiers.max())
    if config.puzzle_emb_ndim and largest >= config.num_puzzle_identifiers:
        raise ReportError(
            f"this model has rows for {max(0, config.num_puzzle_identifiers - 1):,} tasks and images, these puzzles ask for {largest:,}: "
            "it can only be asked about tasks it was trained on"
        )
