"""Where a step of some size ends: sizes are single net applications, H cycles and supervision steps, all of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from laser_studio.debugger.breakpoints import UNTIL, Breakpoints, Hit
from laser_studio.debugger.frames import Frame
from laser_studio.trm import TRMConfig

EVENT = "reset | grew | answer_changed"
"""What running back looks for where nothing is asked for."""

Holds = Callable[[Frame, Frame | None], bool]

Size = Literal["net", "cycle", "supervision"]
SIZES: tuple[Size, ...] = ("net", "cycle", "supervision")


def length_of(size: Size, config: TRMConfig) -> int:
    """Net applications in one step of that size. Raises ValueError for a size that is none."""
    if size not in SIZES:
        raise ValueError(f"unknown size of step {size!r:.80}: use one of {', '.join(SIZES)}")
    return {"net": 1, "cycle": config.L_cycles + 1, "supervision": config.steps_per_supervision}[size]


def next_end(index: int, length: int) -> int:
    """The first multiple of `length` past `index`."""
    return (index // length + 1) * length


def previous_end(index: int, length: int) -> int:
    """The last multiple of `length` before `index`; 0 at the start of time."""
    return max(0, (index - 1) // length * length)


def way_out(index: int, config: TRMConfig) -> int:
    """Where what is under way ends: the H cycle within one, else the supervision step."""
    cycle = length_of("cycle", config)
    return next_end(index, cycle if index % cycle else length_of("supervision", config))


def last_stop(
    frames: Sequence[Frame], index: int, until: Holds | None, said: str, breakpoints: Breakpoints | None, most: int | None
) -> tuple[int, tuple[Hit, ...]]:
    """The last frame before `index` where a condition or one of the breakpoints holds, and which; else 0, or `most` frames before.

    said: the condition's text; breakpoints: None where they are not asked. Nothing is counted.
    """
    end = 0 if most is None else max(0, index - most)
    while index > end:
        index -= 1
        frame, before = frames[index], frames[index - 1] if index else None
        hits = breakpoints.holding(frame, before) if breakpoints is not None else ()
        if until is not None and until(frame, before):
            hits = (Hit(UNTIL, said, index), *hits)
        if hits:
            return index, hits
    return index, ()
