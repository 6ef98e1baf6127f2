"""Keyframes: the whole state a run can go on from, kept now and then, so that going back is one look-up and a short replay.

A keyframe is taken where a supervision step ends: there every window is closed, and what is needed is the carry and each
tracker's snapshot. Tensors are kept by reference, because nobody changes them in place; what that costs is counted by storage.
Which keyframes stay when room is short is decided here; how much room there is, in `history`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from laser_studio.debugger.replacing import Directions
from laser_studio.debugger.storages import Storages, storages_of
from laser_studio.errors import PolicyError
from laser_studio.laser.sites import TapSnapshot
from laser_studio.settings import setting, settings
from laser_studio.trm import Carry


@settings(PolicyError)
class TravelSettings:
    """What going back in time may cost."""

    history_bytes: int = setting(
        default=256 << 20,
        low=64 << 10,
        high=1 << 40,
        unit="bytes",
        help="What activations and keyframes may take together; over it, exact steps are compressed, then the oldest goes.",
    )
    keyframe_steps: int = setting(
        default=30,
        low=1,
        high=1_000_000,
        unit="recursion steps",
        help="About how many steps lie between two keyframes, in whole supervision steps; twice as many within the trained depth.",
    )


@dataclass(frozen=True, eq=False)
class Keyframe:
    """The state after recursion step `index`, which ended a supervision step.

    carry: z_H, z_L (B, P + T, D) in the forward dtype, and the batch they belong to; tap: settings in force and every tracker's
    state; held: the directions (D, m) that interventions of the run hold.
    """

    index: int
    carry: Carry
    tap: TapSnapshot
    held: Directions = field(default_factory=dict)

    def states(self) -> Iterator[Tensor]:
        """The tensors of the model's state."""
        carry = self.carry
        yield from (carry.z_H, carry.z_L, *carry.levels, carry.steps, carry.halted, *carry.current_data.values())

    def tracked(self) -> Iterator[Tensor]:
        """The tensors of the trackers' states: bases, and what a window that is still open has seen; and directions that are held."""
        yield from self.held.values()
        for snapshot in self.tap.trackers.values():
            opened = snapshot.open
            yield from (each for each in (snapshot.basis, opened.sketch, opened.offset, opened.gram) if each is not None)
            for part in opened.parts:
                yield from (part.row_sum, *part.held, *(rows for rows, _ in part.sample))
                if isinstance(part.total, Tensor):
                    yield part.total

    def storages(self) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes by storage, of the model's state, and of the trackers' beside it."""
        states = storages_of(self.states())
        return states, {place: nbytes for place, nbytes in storages_of(self.tracked()).items() if place not in states}


class Keyframes(Collection[Keyframe]):
    """The keyframes of one run by their steps; step 0 needs none, a run begins there."""

    def __init__(self) -> None:
        self._kept: list[Keyframe] = []
        self._held: list[tuple[dict[int, int], dict[int, int]]] = []  # what each holds
        self._states, self._tracked = Storages(), Storages()
        self.thinned = 0  # how many had to go to keep the budget
        self.changes = 0  # of the collection, for whoever keeps a figure of it

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Keyframe]:
        return iter(self._kept)

    def __contains__(self, keyframe: object) -> bool:
        return keyframe in self._kept

    @property
    def steps(self) -> list[int]:
        """Where they stand, ascending."""
        return [keyframe.index for keyframe in self._kept]

    def nearest(self, index: int) -> Keyframe | None:
        """The last one at or before a step; None where only the start is."""
        place = bisect_right(self._kept, index, key=lambda keyframe: keyframe.index)
        return self._kept[place - 1] if place else None

    def longest_replay(self, head: int) -> int:
        """Steps to be computed again, at most, to reach any step up to `head`."""
        stops = [0, *(step for step in self.steps if step <= head), head + 1]
        return max(after - before - 1 for before, after in pairwise(stops))

    def add(self, keyframe: Keyframe) -> None:
        """Keep one more, or the same step's anew."""
        self.cut(keyframe.index - 1)
        held = keyframe.storages()
        self._kept.append(keyframe)
        self._held.append(held)
        self._states.add(held[0])
        self._tracked.add(held[1])
        self.changes += 1

    def cut(self, index: int) -> None:
        """Forget those of later steps."""
        place = bisect_right(self._kept, index, key=lambda keyframe: keyframe.index)
        while len(self._kept) > place:
            self._let_go(len(self._kept) - 1)

    def thin(self) -> bool:
        """Let go of the one whose absence leaves the shortest gap, the oldest of equals; False where there is none.

        So gaps double from the start of time on, and no seek replays more than about twice the mean gap.
        """
        if not self._kept:
            return False
        stops = [0, *self.steps]
        gaps = [after - before for before, after in zip(stops, stops[2:], strict=False)] or [0]
        self._let_go(gaps.index(min(gaps)))  # the newest, whose gap is still open, only where it is the last one left
        self.thinned += 1
        return True

    @property
    def alone(self) -> int:
        """Bytes they would take if they shared nothing."""
        return sum(sum(states.values()) + sum(tracked.values()) for states, tracked in self._held)

    def bytes_beside(self, held: Collection[int]) -> tuple[int, int]:
        """Bytes of states and of trackers, each storage once, without those of the storages in `held`, which are all different."""
        return self._states.beside(held), self._tracked.beside(held)

    def _let_go(self, number: int) -> None:
        del self._kept[number]
        states, tracked = self._held.pop(number)
        self._states.remove(states)
        self._tracked.remove(tracked)
        self.changes += 1
