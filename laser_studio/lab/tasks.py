"""The tasks a TRM can be trained on: architecture, hyperparameters and sets under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from laser_studio.errors import TrainingError
from laser_studio.lab.data import PuzzleSet, sudoku_set
from laser_studio.lab.train import TrainSettings
from laser_studio.puzzles.sudoku_rules import Split
from laser_studio.trm import TRMConfig


@dataclass(frozen=True)
class Task:
    """`puzzles(count, seed, split)` draws a set; `train_puzzles` is how many the recipe trains on; `size` is (rows, columns)."""

    name: str
    domain: str
    size: tuple[int, int]
    data_note: str
    config: TRMConfig
    settings: TrainSettings
    train_puzzles: int
    puzzles: Callable[[int, int, Split], PuzzleSet]


def _sudoku_6x6(count: int, seed: int, split: Split) -> PuzzleSet:
    return sudoku_set(6, count, seed, split, givens=(9, 22))


TASKS = {
    "sudoku-6x6": Task(
        name="sudoku-6x6",
        domain="sudoku",
        size=(6, 6),
        data_note="9 to 22 givens, one solution each; no held-out solution was trained on, whatever its digits are called",
        config=TRMConfig(
            vocab_size=8,
            seq_len=36,
            hidden_size=128,
            num_heads=4,
            H_cycles=3,
            L_cycles=4,
            halt_max_steps=8,
            # The prefix is more than a name of the puzzle: RoPE knows distances only, and four tokens at the front are
            # what a cell can measure its own row and column against. Without them training stalled.
            puzzle_emb_ndim=128,
            puzzle_emb_len=4,
            forward_dtype="float32",
        ),
        settings=TrainSettings(),
        train_puzzles=5_600,
        puzzles=_sudoku_6x6,
    ),
}


def get_task(name: str) -> Task:
    """The task of that name; raises `TrainingError` listing those there are."""
    try:
        return TASKS[name]
    except KeyError:
        raise TrainingError(f"unknown task {name!r}: choose one of {', '.join(sorted(TASKS))}") from None
