"""Whether a puzzle fits a model, and which row of the puzzle embedding it is asked under. Judged before anything runs.

A token or a row without weights would end a CUDA context, so that every way into a model goes through here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.puzzles.arc_tasks import subset
from laser_studio.trm import TRM


def fitted(model: TRM, puzzle: Puzzle) -> Puzzle:
    """The puzzle on a board of the model's size, where its kind has larger boards than what stands on them. Raises `PuzzleError`."""
    count = model.config.seq_len
    side = round(count**0.5) if count is not None else 0
    return get_domain(puzzle.domain).fitted(puzzle, side) if side and side * side == count else puzzle


def tokens_of(model: TRM, puzzle: Puzzle) -> NDArray[np.int64]:
    """The tokens (T,) of a puzzle that fits. Raises `PuzzleError` that says which size is needed."""
    config, shape = model.config, f"{puzzle.height}×{puzzle.width}"
    domain = get_domain(puzzle.domain)
    ids = domain.encode(puzzle)
    if config.seq_len is not None and len(ids) != config.seq_len:
        raise PuzzleError(
            f"a {shape} {puzzle.domain} has {len(ids)} cells, this model takes {config.seq_len}: choose a puzzle of its size, or a model "
            f"of {len(ids)} cells"
        )
    if domain.vocab_size(puzzle) > config.vocab_size:
        most = domain.vocab_size(puzzle) - 1
        raise PuzzleError(f"a {shape} {puzzle.domain} needs tokens up to {most}, this model knows 0 to {config.vocab_size - 1}")
    return ids


def require_fit(model: TRM, puzzle: Puzzle) -> None:
    """Raises `PuzzleError` where the model cannot be asked about the puzzle."""
    tokens_of(model, fitted(model, puzzle))
    row_of(model, puzzle)


def row_of(model: TRM, puzzle: Puzzle) -> int:
    """The row of the puzzle embedding of a puzzle's task; 0 where the model or the puzzle knows of none. Raises `PuzzleError`."""
    config = model.config
    if not config.puzzle_emb_ndim or not (puzzle.task or puzzle.identifier):
        return 0
    names = _names(model)
    if puzzle.task and names:
        if puzzle.task in names:
            return names.index(puzzle.task)
        trained = "this one task" if len(names) == 1 else f"{len(names):,} tasks and images"
        shown = ", ".join(name for name in names[:4] if name)
        raise PuzzleError(
            f"this model knows {trained} ({shown}{' …' if len(names) > 4 else ''}), not {puzzle.task[:40]}: an ARC model answers only for "
            "the tasks it was trained on; choose one of these, or load the model with this task's row"
        )
    if puzzle.identifier is None:
        return 0
    kept = model.details.get("puzzle_identifiers")  # of a large table the rows that were asked for, by their place in the model
    if isinstance(kept, list):
        if puzzle.identifier not in kept:
            shown = ", ".join(str(row) for row in kept[:4])
            raise PuzzleError(
                f"this puzzle's task is row {puzzle.identifier:,} of the puzzle embedding, this model was loaded with "
                f"row{'s' * (len(kept) > 1)} {shown}{' …' if len(kept) > 4 else ''}: load it with this task's"
            )
        return kept.index(puzzle.identifier)
    if config.num_puzzle_identifiers <= 1:
        return 0
    if not 0 <= puzzle.identifier < config.num_puzzle_identifiers:
        raise PuzzleError(
            f"this puzzle's task is row {puzzle.identifier:,} of the puzzle embedding, this model has rows 0 to "
            f"{config.num_puzzle_identifiers - 1:,}: it was trained on other tasks"
        )
    return puzzle.identifier


def _names(model: TRM) -> list[str]:
    """The tasks a model knows, by row; empty where it does not tell."""
    details: dict[str, Any] = model.details
    names = details.get("tasks")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    kind, _, size = str(details.get("task", "")).partition("-")
    if kind == "arc" and size.isdecimal() and int(size) <= 30:
        return ["", *(task.name for task in subset(int(size)))]
    return []
