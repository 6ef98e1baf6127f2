"""Going back over recorded frames to where something holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from laser_studio.debugger.breakpoints import UNTIL, Breakpoints, Hit
from laser_studio.debugger.frames import Frame

EVENT = "reset | grew | answer_changed"
"""What running back looks for where nothing is asked for."""

Holds = Callable[[Frame, Frame | None], bool]


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
