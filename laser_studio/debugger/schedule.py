"""Which net application stands at which index, and where a step of some size ends.

Sizes are single net applications, H cycles and supervision steps. Their lengths are fixed, but for what an intervention changed:
then from some step on a supervision step may have other H cycles, and these other L updates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from laser_studio.trm import TRMConfig

Size = Literal["net", "cycle", "supervision"]
SIZES: tuple[Size, ...] = ("net", "cycle", "supervision")
Cycles = tuple[int, ...]  # the L updates of each H cycle of a supervision step


@dataclass(frozen=True, slots=True)
class CycleChange:
    """From step `at` on: `change` more (or fewer) L updates of the H cycle under way, or H cycles of the supervision step under way.

    every: of all that follow, too. What has been done already stays done, and a supervision step has one H cycle at least.
    """

    at: int
    level: Literal["L", "H"]
    change: int
    every: bool = False


@dataclass(frozen=True, slots=True)
class _Segment:
    """Supervision steps of the same cycles, from supervision step `s` on, which begins after net application `start`."""

    start: int
    s: int
    cycles: Cycles

    @property
    def length(self) -> int:
        return sum(self.cycles) + len(self.cycles)


class Schedule:
    """The order of net applications of a run: arithmetic where nothing was changed.

    >>> from laser_studio.trm import TRMConfig
    >>> config = TRMConfig(vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_cycles=2, L_cycles=2, halt_max_steps=4)
    >>> Schedule(config).length, Schedule(config, [CycleChange(7, "L", 3)]).length
    (24, 27)
    """

    def __init__(self, config: TRMConfig, changes: Iterable[CycleChange] = ()) -> None:
        self._usual: Cycles = (config.L_cycles,) * config.H_cycles
        self._trained = config.halt_max_steps
        self._segments = [_Segment(0, 1, self._usual)]
        for change in sorted(changes, key=lambda change: change.at):
            self._change(change)

    @property
    def segments(self) -> list[tuple[int, int, Cycles]]:
        """Runs of equal supervision steps: the net application each begins after, its first supervision step, L updates per H cycle."""
        return [(segment.start, segment.s, segment.cycles) for segment in self._segments]

    @property
    def length(self) -> int:
        """Net applications up to the trained depth."""
        segment = next(each for each in reversed(self._segments) if each.s <= self._trained + 1)
        return segment.start + (self._trained + 1 - segment.s) * segment.length

    def cycles(self, index: int) -> Cycles:
        """L updates of each H cycle of the supervision step that is under way after `index`, or begins there."""
        return self._supervision(index)[0].cycles

    def done(self, index: int) -> tuple[int, int]:
        """H cycles finished in that supervision step, and L updates made since."""
        segment, begun = self._supervision(index)
        left = index - begun
        for h, updates in enumerate(segment.cycles):
            if left <= updates:
                return h, left
            left -= updates + 1
        raise AssertionError("a step lies within its supervision step")

    def next_end(self, index: int, size: Size) -> int:
        """The end of a step of that size that comes first past `index`. Raises ValueError for a size that is none."""
        if _known(size) == "net":
            return index + 1
        segment, begun = self._supervision(index)
        h, made = self.done(index)
        return begun + segment.length if size == "supervision" else index + segment.cycles[h] - made + 1

    def begun(self, index: int, size: Size) -> int:
        """Where the step of that size began that is under way after `index`; `index` itself at the end of one."""
        if _known(size) == "net":
            return index
        return self._supervision(index)[1] if size == "supervision" else index - self.done(index)[1]

    def previous_end(self, index: int, size: Size) -> int:
        """The end of a step of that size that comes last before `index`; 0 at the start of time."""
        return self.begun(max(0, index - 1), size)

    def way_out(self, index: int) -> int:
        """Where what is under way ends: the H cycle within one, else the supervision step."""
        return self.next_end(index, "cycle" if self.done(index)[1] else "supervision")

    def _supervision(self, index: int) -> tuple[_Segment, int]:
        """The cycles of the supervision step under way after `index`, and the index at which it began."""
        segment = next(each for each in reversed(self._segments) if each.start <= index)
        return segment, index - (index - segment.start) % segment.length

    def _change(self, change: CycleChange) -> None:
        segment, begun = self._supervision(change.at)
        h, made = self.done(change.at)
        s = segment.s + (begun - segment.start) // segment.length
        now, usual = list(segment.cycles), self._usual
        if change.level == "L":
            now[h] = max(made, now[h] + change.change)
            if change.every:
                now[h + 1 :] = [max(0, updates + change.change) for updates in now[h + 1 :]]
                usual = tuple(max(0, updates + change.change) for updates in usual)
        else:
            updates, count = usual[-1], len(now) + change.change
            now = now[: max(h + 1, count)] + [updates] * (count - len(now))
            if change.every:
                usual = (updates,) * max(1, len(usual) + change.change)
        if begun == segment.start:
            self._segments.pop()
        changed = _Segment(begun, s, tuple(now))
        self._segments += [changed, _Segment(begun + changed.length, s + 1, usual)]
        self._usual = usual


def _known(size: Size) -> Size:
    if size not in SIZES:
        raise ValueError(f"unknown size of step {size!r:.80}: use one of {', '.join(SIZES)}")
    return size
