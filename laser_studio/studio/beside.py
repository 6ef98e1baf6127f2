"""`Beside`: the run that a page compares its own with, brought to the same step, and what telling the two apart costs no more than once.

The other run is a branch of the page, or one made for the comparison alone: another model of the task, another puzzle, other
settings of the tracker.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from laser_studio.studio.run import Run

if TYPE_CHECKING:
    from laser_studio.debugger import Comparison, Divergence, Session
    from laser_studio.debugger.replay import Restored

CURVE_POINTS = 2_000  # of the curves over time, one per end of an H cycle; the newest, when a comparison begins
MOST_POINTS = 4_000  # then the curves begin anew
POINTS_PER_REPLY = 500

_VERSIONS = itertools.count(1)


class Beside:
    """`run` is the page's, `other` what it is compared with; `key` names it. free: closes the other run where it lives for this alone."""

    def __init__(self, run: Run, other: Run, key: str, title: str, *, free: Callable[[], None] | None = None) -> None:
        self.run, self.other, self.key, self.title, self._free = run, other, key, title, free
        self._parted: Divergence | None = None
        self._newest: Comparison | None = None
        self._walkers: tuple[Iterator[Restored], Iterator[Restored]] | None = None
        self._forget()

    @property
    def a(self) -> Session:
        session: Any = self.run.session
        return session

    @property
    def b(self) -> Session:
        session: Any = self.other.session
        return session

    def bring(self, at: int, seconds: float) -> int:
        """The other run to step `at`, or on the way there for so long, or to its end; the step it has come to."""
        other, until = self.other, time.perf_counter() + seconds
        if at > other.last_step and self.run.options.beyond and not other.options.beyond:
            other.choose(replace(other.options, beyond=True))
        other.session.seek(min(at, other.session.head))
        while other.session.frame.index < at and not other.finished:
            other.pass_on()
            if time.perf_counter() >= until:
                break
        return other.session.frame.index

    def compared(self, at: int) -> Comparison:
        """Both runs at a step that both have recorded."""
        from laser_studio.debugger import compare

        self._check_epochs()
        if self._newest is not None and self._newest.index == at:  # the page waits for the curves alone
            return self._newest
        found = self._newest = compare(self.a, self.b, at, memo=self._memo)
        if at not in self._known and self._ends(at):
            self._point(at, found.kl)
        return found

    def parted(self) -> Divergence:
        """Where they first part."""
        from laser_studio.debugger import first_divergence

        self._check_epochs()
        self._parted = first_divergence(self.a, self.b, self._parted)
        return self._parted

    def curve(self, version: int, start: int, seconds: float) -> dict[str, Any]:
        """Points of the curves over time that a page which has the first `start` of `version` lacks; works on missing ones for so long.

        version: changes when points that were given are no longer true; points: [step, KL, halting of a, of b], in no order of steps;
        whole: whether all steps recorded by now are among them.
        """
        self._check_epochs()
        until = time.perf_counter() + seconds
        while self._walked < self._last and time.perf_counter() < until:
            self._walk_on()
        first = start if version == self._version else 0
        rows = self._points[first : first + POINTS_PER_REPLY]
        whole = self._walked >= self._last and first + len(rows) == len(self._points)
        return {"version": self._version, "start": first, "points": rows, "whole": whole}

    def close(self) -> None:
        """Free the other run where it was made for this."""
        self._walkers = self._newest = None
        if self._free is not None:
            self._free()

    @property
    def _last(self) -> int:
        return min(self.a.head, self.b.head)

    def _forget(self) -> None:
        from laser_studio.debugger.compare import AngleMemo

        self._epochs = self.a.epoch, self.b.epoch
        self._parted = self._newest = None
        self._memo = AngleMemo()
        self._points: list[list[float | None]] = []
        self._known: set[int] = set()  # the steps of the points
        self._walkers = None
        self._version = next(_VERSIONS)
        self._walked = max(-1, self._last - CURVE_POINTS * (self.a.model.config.L_cycles + 1))  # of a longer run only the newest

    def _check_epochs(self) -> None:
        """What was found of a future that has been dropped since is forgotten."""
        if self._epochs != (self.a.epoch, self.b.epoch):
            self._forget()

    def _ends(self, at: int) -> bool:
        """Whether the answer's state may be another than at the step before."""
        changed = {planned.at + 1 for session in (self.a, self.b) for planned in session.course}
        return at == 0 or at in changed or any(session.frames[at].l == "H" for session in (self.a, self.b))

    def _point(self, at: int, kl: float | None) -> None:
        if len(self._points) >= MOST_POINTS:
            self._forget()
        frames = self.a.frames[at], self.b.frames[at]
        self._points.append([at, kl, frames[0].halt_probability, frames[1].halt_probability])
        self._known.add(at)

    def _walk_on(self) -> None:
        """One step further; both runs are gone through in order, by replays of their own, so that each step costs one step's work."""
        from laser_studio.debugger.compare import kl_of

        index = self._walked + 1
        if index in self._known or not self._ends(index):
            self._walked = index
            return
        if self._walkers is None:
            self._walkers = self.a.walk(index), self.b.walk(index)
        one, other = (next((state for state in walker if state.frame.index == index), None) for walker in self._walkers)
        if one is None or other is None:  # the walks ended before this step was recorded
            self._walkers = None
            return
        self._walked = index
        self._point(index, kl_of(self.a, self.b, one.z_H, other.z_H))
