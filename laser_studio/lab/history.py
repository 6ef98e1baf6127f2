"""Figures of training steps in memory that does not grow with the run: what is recorded, saved, sent and drawn of a run.

Every step as it is while there is room, then blocks of steps of which the lowest and the highest are kept (nothing is averaged away).
Knows nothing of training and imports no torch, so that a process that only shows a run stays light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from laser_studio.errors import TrainingError

BLOCKS = 2_048  # more than a plot has pixels across; when they are used up, two become one
MOST_NOTES = 1_000
FORMAT = "laser-studio-history"


class History:
    """Steps 1, 2, … of one run.

    `low` and `high` hold, by the name of a figure, one number per block of `size` steps; None where no step of it had the figure.
    `counts` holds, by the name of an event, how often it happened in each block. `notes` are texts and values by step, such as changed
    settings; of very many, the first and the newest are kept.
    """

    def __init__(self, blocks: int = BLOCKS) -> None:
        if blocks < 2 or blocks % 2:
            raise TrainingError(f"a history has an even number of blocks from 2 on, not {blocks}")
        self.limit = blocks
        self.steps = 0
        self.size = 1
        self.low: dict[str, list[float | None]] = {}
        self.high: dict[str, list[float | None]] = {}
        self.counts: dict[str, list[int]] = {}
        self.notes: list[tuple[int, dict[str, Any]]] = []

    @property
    def blocks(self) -> int:
        """Blocks there are; the last may still be filling."""
        return -(-self.steps // self.size)

    def add(self, figures: Mapping[str, float | None], events: Iterable[str] = (), note: Mapping[str, Any] | None = None) -> None:
        """Record the next step. A figure that is None or not finite is none; events are names, repeated as often as they happened."""
        if self.steps == self.limit * self.size:
            self._merge()
        block = self.steps // self.size
        self.steps += 1
        for name, value in figures.items():
            if value is None or not math.isfinite(value):
                continue
            low, high = self.low.setdefault(name, []), self.high.setdefault(name, [])
            for column in (low, high):
                column.extend([None] * (block + 1 - len(column)))
            before_low, before_high = low[block], high[block]
            low[block] = value if before_low is None else min(before_low, value)
            high[block] = value if before_high is None else max(before_high, value)
        for name in events:
            count = self.counts.setdefault(name, [])
            count.extend([0] * (block + 1 - len(count)))
            count[block] += 1
        if note is not None:
            self.notes.append((self.steps, dict(note)))
            if len(self.notes) > MOST_NOTES:
                del self.notes[MOST_NOTES // 2]

    def newest(self, name: str) -> float | None:
        """The newest figure of that name: of a block of several steps, its lowest; None where there is none."""
        return next((value for value in reversed(self.low.get(name, [])) if value is not None), None)

    def _merge(self) -> None:
        self.size *= 2
        for columns, further in ((self.low, min), (self.high, max)):
            for name, column in columns.items():
                columns[name] = [_of_two(column[n : n + 2], further) for n in range(0, len(column), 2)]
        for name, count in self.counts.items():
            self.counts[name] = [sum(count[n : n + 2]) for n in range(0, len(count), 2)]

    def since(self, block: int, size: int) -> dict[str, Any]:
        """What somebody lacks who holds the blocks before `block`, each of `size` steps: plain data. All of it where sizes differ.

        A block that may have been filling when it was sent is sent again: ask from the last one that is held.
        """
        start = min(max(0, block), self.blocks) if size == self.size else 0
        cut = {name: column[start:] for name, column in self.low.items() if len(column) > start}
        return {
            "steps": self.steps,
            "size": self.size,
            "start": start,
            "low": cut,
            # while a block is one step, both are the same
            "high": {name: column[start:] for name, column in self.high.items() if len(column) > start} if self.size > 1 else {},
            "counts": {name: count[start:] for name, count in self.counts.items() if any(count[start:])},
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        notes = [[step, note] for step, note in self.notes]
        return {"format": FORMAT, "limit": self.limit, **self.since(0, 0), "notes": notes}

    @classmethod
    def from_json(cls, data: Any) -> History:
        """What `to_json` gave. Raises `TrainingError` for anything else."""
        try:
            if data["format"] != FORMAT:
                raise ValueError(data["format"])
            history = cls(int(data["limit"]))
            history.steps, history.size = int(data["steps"]), int(data["size"])
            history.low = {str(name): _numbers(column) for name, column in data["low"].items()}
            high = data["high"] if history.size > 1 else data["low"]
            history.high = {str(name): _numbers(column) for name, column in high.items()}
            history.counts = {str(name): [int(count) for count in column] for name, column in data["counts"].items()}
            history.notes = [(int(step), dict(note)) for step, note in data["notes"]]
            held = [len(column) for columns in (history.low, history.high, history.counts) for column in columns.values()]
            if history.size < 1 or history.blocks > history.limit or max(held, default=0) > history.blocks:
                raise ValueError("more blocks than steps")
            return history
        except TrainingError:
            raise
        except Exception as failure:
            raise TrainingError(f"this is no history of a training run ({type(failure).__name__}): start the run afresh") from failure


def _of_two(values: list[float | None], further: Any) -> float | None:
    known = [value for value in values if value is not None]
    return further(known) if known else None


def _numbers(column: Iterable[Any]) -> list[float | None]:
    return [None if value is None else float(value) for value in column]
