"""What is kept of every step's exact states, in a few numbers per cell: taken live, where the states are at hand anyway.

Recomputing them later would cost a replay for each look; keeping whole states would cost a hundred times as much. Bounded: of a
long run the newest steps are kept. How the states are looked into is in `looking`, what is found in them in `detectors`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

LATENT_BYTES = PROBABILITY_BYTES = 4 << 20  # of one run, latents of each state; on a 9×9 board 3,200 updates, of 11 tokens 1,170
LONGEST_PERIOD = 8  # H cycles back that a state is compared with
RETURNS_KEPT = 4_096  # H cycles
_SPARE = 64  # older values that may lie around before they are removed together

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Digest:
    """One step's states in short. All on the CPU.

    cells: (T, 4) fp32 of the state that this step updated, see `Reader.cells`. Where the step updated z_H, else None: probabilities,
    (T, vocab) fp32; returns, ‖z_t − z_{t−p}‖ / ‖z_t‖ of whole states, with t and p in H cycles, for p from 1 to `LONGEST_PERIOD` as
    far as states are at hand.
    """

    cells: Tensor
    probabilities: Tensor | None = None
    returns: tuple[float, ...] | None = None


class Returns:
    """How near the state z_H comes to where it was some H cycles ago. Holds the last `LONGEST_PERIOD` states by reference."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, Tensor]] = deque(maxlen=LONGEST_PERIOD)

    def add(self, index: int, z_H: Tensor) -> tuple[float, ...]:
        """The state (P + T, D) of the H cycle that ended at step `index`; its relative distances to those before, the last one first."""
        now = z_H.float()
        past = [state for _, state in reversed(self._past)]
        self._past.append((index, now))
        if not past:
            return ()
        size, *distances = torch.stack([now.norm(), *((now - state).norm() for state in past)]).tolist()
        return tuple(distance / size if size > 0 else 0.0 for distance in distances)

    def rewind(self, index: int) -> None:
        """Forget later steps; those in between that are no longer held leave the next distances fewer."""
        self._past = deque(((step, state) for step, state in self._past if step <= index), maxlen=LONGEST_PERIOD)


class _Column(Generic[T]):
    """The newest values of some steps, in order of steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[T] = []

    def add(self, step: int, value: T, most: int) -> None:
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) >= most + _SPARE:
            del self.steps[:_SPARE], self.values[:_SPARE]

    def cut(self, length: int) -> None:
        place = bisect_left(self.steps, length)
        del self.steps[place:], self.values[place:]

    def between(self, start: int, stop: int) -> list[tuple[int, T]]:
        """Steps in [start, stop) with their values."""
        span = slice(bisect_left(self.steps, start), bisect_left(self.steps, stop))
        return list(zip(self.steps[span], self.values[span], strict=True))


class StateTrail:
    """The digests of a run by step, the newest `LATENT_BYTES` and `PROBABILITY_BYTES` of them."""

    def __init__(self) -> None:
        self._cells: dict[bool, _Column[Tensor]] = {True: _Column(), False: _Column()}  # of z_H and of z_L
        self._probabilities: _Column[Tensor] = _Column()
        self._returns: _Column[tuple[float, ...]] = _Column()

    def add(self, step: int, digest: Digest) -> None:
        """Keep the digest of the next step."""
        updates_answer = digest.probabilities is not None
        self._cells[updates_answer].add(step, digest.cells, LATENT_BYTES // max(1, digest.cells.nbytes))
        if digest.probabilities is not None:
            self._probabilities.add(step, digest.probabilities, PROBABILITY_BYTES // max(1, digest.probabilities.nbytes))
        if digest.returns is not None:
            self._returns.add(step, digest.returns, RETURNS_KEPT)

    def cut(self, length: int) -> None:
        """Forget steps from `length` on."""
        columns: list[_Column[Any]] = [*self._cells.values(), self._probabilities, self._returns]
        for column in columns:
            column.cut(length)

    def probabilities(self, start: int, stop: int) -> list[tuple[int, Tensor]]:
        """(step, (T, vocab) fp32) of the z_H updates in [start, stop) that are kept."""
        return self._probabilities.between(start, stop)

    def cells(self, state: str, start: int, stop: int) -> list[tuple[int, Tensor]]:
        """(step, (T, 4) fp32) of the updates of "z_H" or "z_L" in [start, stop) that are kept, see `Reader.cells`."""
        return self._cells[state == "z_H"].between(start, stop)

    def returns(self, step: int) -> tuple[float, ...]:
        """`Digest.returns` of a step; empty where it did not update z_H or is no longer kept."""
        found = self._returns.between(step, step + 1)
        return found[0][1] if found else ()
