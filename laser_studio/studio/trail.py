"""What replies need from all frames up to the step shown, kept up to date frame by frame: a reply costs no more at step 10,000."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser_studio.debugger import Frame

_ANGLES = ("angles", "best_angles")


class Trail:
    """Follows a run's frames. Whoever drops recorded frames calls `cut`, and `follow` takes in what is new."""

    def __init__(self) -> None:
        self._tracker = array("d")  # seconds up to and with each step
        self._total = array("d")
        self._updates: list[int] = []  # steps that updated z_H
        # Per kind of angle and site, the steps that have some.
        self._turned: dict[str, dict[str, list[int]]] = {kind: {} for kind in _ANGLES}

    def __len__(self) -> int:
        return len(self._total)

    def cut(self, length: int) -> None:
        """Forget the frames from index `length` on."""
        del self._tracker[length:], self._total[length:]
        for steps in (self._updates, *(steps for sites in self._turned.values() for steps in sites.values())):
            while steps and steps[-1] >= length:
                steps.pop()

    def follow(self, frames: Sequence[Frame]) -> None:
        """Take in the frames that were recorded since."""
        for index in range(len(self), len(frames)):
            frame = frames[index]
            self._tracker.append(frame.tracker_seconds + (self._tracker[-1] if index else 0.0))
            self._total.append(frame.seconds + (self._total[-1] if index else 0.0))
            if frame.l == "H":
                self._updates.append(index)
            for name, site in frame.sites.items():
                for kind in _ANGLES:
                    if getattr(site, kind) is not None:
                        self._turned[kind].setdefault(name, []).append(index)

    def cost(self, cursor: int) -> float | None:
        """The tracker's time over the bare model's, up to a step; None where no time has passed."""
        tracker, total = self._tracker[cursor], self._total[cursor]
        return tracker / (total - tracker) if total > tracker else None

    def last_update(self, cursor: int) -> int | None:
        """The step that last updated z_H, up to a step. Only such updates can change the answer."""
        return _newest(self._updates, cursor)

    def turns(self, kind: str, frames: Sequence[Frame], cursor: int) -> dict[str, dict[str, Any]]:
        """Per site the newest principal angles up to a step, in degrees, largest first; `kind`: angles, or best_angles."""
        found = {}
        for name, steps in self._turned[kind].items():
            if (step := _newest(steps, cursor)) is not None:
                found[name] = {"step": step, "angles": [round(angle, 3) for angle in getattr(frames[step].sites[name], kind)]}
        return found


def _newest(steps: list[int], cursor: int) -> int | None:
    place = bisect_right(steps, cursor)
    return steps[place - 1] if place else None
