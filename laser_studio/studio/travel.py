"""Moving through a run by more than single steps, and what its page is told of breakpoints, watches, bookmarks and the history kept.

`go` moves, within the time of a reply; a page that has not arrived asks again. `Travel` is the part of a run that remembers where
breakpoints counted, and tells it with each reply.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from laser_studio.studio.marks import Marks, marks_of
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.debugger import Hit
    from laser_studio.studio.live import LiveSession
    from laser_studio.studio.requests import CommandRequest, PageRequest
    from laser_studio.studio.run import Run

MOST_HITS = 2_000  # the newest that are remembered
HITS_PER_REPLY = 200
CURVE_ROWS = 500  # values of each watch per reply, so that old frames can be opened between two pictures; a page asks again
LOOK_BACK = 2_000  # frames looked at per reply when running back


class Travel:
    """What a run's page needs to know of moving in time.

    version: changes whenever breakpoints, watches or bookmarks do. stopped: the hits at the step where this request stopped.
    arrived, target: whether a travel has ended, and where it goes (None: where something happens).
    """

    def __init__(self) -> None:
        self.version = 1
        self.hits: deque[tuple[int, str, str]] = deque(maxlen=MOST_HITS)  # step, breakpoint, what it logged ("" where it stopped)
        self.counted = 0  # hits in all
        self._logged = 0
        self._linked: tuple[int, Marks] | None = None
        self.begin()

    def begin(self) -> None:
        """A page asks something new."""
        self.stopped: tuple[Hit, ...] = ()
        self.arrived = True
        self.target: int | None = None

    def saw(self, session: LiveSession) -> None:
        """The session has made a step: take in what counted there."""
        self.stopped = session.stopped_by
        breakpoints = session.breakpoints
        new = breakpoints.logged - self._logged
        if new:
            self._logged = breakpoints.logged
            for hit in list(breakpoints.log)[-new:]:
                self._count(hit)
        for hit in self.stopped:
            self._count(hit)
        if (new or self.stopped) and any(one.once and not one.enabled for one in breakpoints):
            self.changed()  # one shot, and off since

    def _count(self, hit: Hit) -> None:
        self.hits.append((hit.step, hit.name, hit.message))
        self.counted += 1

    def changed(self) -> None:
        """Breakpoints, watches or bookmarks are others now."""
        self.version += 1

    def linked(self, session: LiveSession) -> Marks:
        """The marks as a link holds them, made anew only where they have changed: every reply has a link."""
        if self._linked is None or self._linked[0] != self.version:
            self._linked = self.version, marks_of(session)
        return self._linked[1]

    def more(self, run: Run, request: PageRequest) -> dict[str, Any]:
        """See `RunPart.more`."""
        session = run.session
        frame = session.frame
        before = session.frames[frame.index - 1] if frame.index else None
        first = self.counted - len(self.hits)
        start = max(request.hits_since, first, self.counted - HITS_PER_REPLY)
        told: dict[str, Any] = {
            "stopped": [[hit.name, hit.step, hit.count] for hit in self.stopped],
            "arrived": self.arrived,
            "target": self.target,
            "counts": session.breakpoints.counts,
            "hits": {"start": start, "rows": list(self.hits)[start - first :], "total": self.counted},
            "now": session.watches.values(frame, before),
            "curves": self._curves(run, request),
            "kept": kept_json(session),
        }
        return {"travel": told if request.marks_known == self.version else told | self.marks(run)}

    def marks(self, run: Run) -> dict[str, Any]:
        """All breakpoints, watches and bookmarks, and the version of them."""
        session = run.session
        return {
            "version": self.version,
            "breakpoints": session.breakpoints.to_list(),
            "watches": [watch.to_dict() | {"condition": watch.is_condition} for watch in session.watches],
            "bookmarks": session.bookmarks.to_list(),
        }

    def _curves(self, run: Run, request: PageRequest) -> dict[str, Any]:
        """Values of each watch from where the page has all of them, and the steps before which what it has is still true."""
        session = run.session
        valid = run.valid_before(request.epoch)
        start = min(request.curves_since, session.head + 1, valid)
        rows = session.watches.curves(session.frames, start, start + CURVE_ROWS) if len(session.watches) else {}
        return {"start": start, "valid": valid, "rows": rows}

    def close(self) -> None:
        """See `RunPart.close`."""


def kept_json(session: LiveSession) -> dict[str, Any] | None:
    """What going back in time holds, for the page; None of a run that keeps no activations here."""
    kept = getattr(session, "kept", None)
    if kept is None:
        return None
    return {
        "budget": kept.budget_bytes,
        "coefficients": kept.coefficient_bytes,
        "bases": kept.basis_bytes,
        "keyframes": kept.keyframe_bytes,
        "total": kept.total,
        "from": kept.activations_from,
        "count": len(kept.keyframes),
        "thinned": kept.thinned,
        "replay": kept.longest_replay,
        "said": kept.said,
    }


def go(run: Run, request: CommandRequest, seconds: float) -> None:
    """Over, out, back by a size, on to the next stop or back to the last one, as far as `seconds` allow."""
    session, travel = run.session, run.travel
    if request.name == "back":
        session.seek(session.end_before(request.size))
    elif request.name == "run_back":
        session.run_back(breakpoints=True, max_steps=LOOK_BACK)
        travel.stopped = session.stopped_by
        travel.arrived = bool(travel.stopped) or session.frame.index == 0
    elif request.name == "run":
        travel.arrived = _run_on(run, seconds)
    else:
        there = session.end_after(request.size) if request.name == "over" else session.way_out()
        travel.target = request.value or there
        travel.arrived = _walk_to(run, travel.target, seconds)


def _walk_to(run: Run, target: int, seconds: float) -> bool:
    """Step by step past breakpoints, which count on the way; whether it is over."""
    session, until = run.session, time.perf_counter() + seconds
    while session.frame.index < target and not run.finished:
        before = session.frame
        run.step()
        if session.frame is before:  # a recording that has no more steps yet
            return True
        if time.perf_counter() >= until:
            return session.frame.index >= target or run.finished
    return True


def _run_on(run: Run, seconds: float) -> bool:
    """To the next frame where a breakpoint stops or something happens; whether it is over."""
    from laser_studio.debugger import Expression
    from laser_studio.debugger.breakpoints import UNTIL
    from laser_studio.debugger.breakpoints import Hit as StoppedBy
    from laser_studio.debugger.stepping import EVENT

    session, until = run.session, time.perf_counter() + seconds
    happens = Expression(EVENT).bind(session.breakpoints.scope).holds
    while not run.finished:
        before = session.frame
        run.step()
        frame = session.frame
        if frame is before:
            return True
        if happens(frame, before):
            run.travel.stopped = (StoppedBy(UNTIL, EVENT, frame.index), *run.travel.stopped)
        if run.travel.stopped:
            return True
        if time.perf_counter() >= until:
            return False
    return True


def room_for(run: Run, more: Marks) -> None:
    """Raises `StudioError` where a link to this run could not hold `more` marks beside all that it holds."""
    from laser_studio.studio.links import write_query
    from laser_studio.studio.run import LONGEST_LINK

    there, view = run.travel.linked(run.session), run.view()
    together = Marks(there.breakpoints + more.breakpoints, there.watches + more.watches, there.bookmarks + more.bookmarks)
    if len(write_query(view.with_marks(together))) > LONGEST_LINK:
        raise StudioError("more breakpoints, watches and bookmarks than a link to this run can hold: remove some, or write less")
