"""Detectors: what a run does as a whole, found step by step in its recorded frames. Each finding says what was measured.

A run may come to rest (a fixed point), at a wrong answer too, or go round in a circle, or never settle (seen in recursive models by
arXiv 2601.10679); its cells may settle all at once; bases may turn in bursts, and a site may be reset over and over. Every detector
takes one frame at a time and remembers only what the next one needs, so a step costs the same however long the run is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Literal, Protocol, Self

from laser_studio.debugger.frames import Frame, SiteFrame
from laser_studio.debugger.state_trail import LONGEST_PERIOD
from laser_studio.errors import InspectionError
from laser_studio.puzzles import get_domain
from laser_studio.settings import setting, settings

if TYPE_CHECKING:
    from laser_studio.debugger.session import Session

FindingKind = Literal[
    "fixed point", "wrong fixed point", "oscillation", "no fixed point", "critical step", "rotation burst", "frequent resets"
]
MOST_FINDINGS = 256  # kept of one run, the newest


@settings(InspectionError)
class DetectorSettings:
    """From where on something counts as found."""

    rest_change: float = setting(
        default=0.02, low=0.0, high=1.0, unit="of ‖z_H‖", help="At rest: z_H moves by at most this share of its norm over an H cycle."
    )
    rest_cycles: int = setting(default=3, low=1, high=1_000, unit="H cycles", help="So many in a row, with one and the same answer.")
    leave_change: float = setting(
        default=0.05,
        low=0.0,
        high=10.0,
        unit="of ‖z_H‖",
        help="A fixed point is left when z_H moves by more than this, or the answer changes.",
    )
    period_repeats: int = setting(default=2, low=2, high=100, unit="periods", help="An oscillation has come round so often.")
    period_return: float = setting(
        default=0.5,
        low=0.0,
        high=1.0,
        unit="of the way out",
        help="After a period z_H is back within this share of how far it has been from here in between.",
    )
    critical_share: float = setting(
        default=0.5, low=0.01, high=1.0, unit="of the open cells", help="So many take the value they keep at one and the same step."
    )
    burst_turn: float = setting(
        default=0.2,
        low=0.0,
        high=1.0,
        unit="mean sin²θ",
        help="A basis turns in a burst: the mean over its directions of sin² of the angle.",
    )
    burst_factor: float = setting(
        default=2.5, low=1.0, high=1_000.0, unit="× median", help="… and by so many times the median of the site's last 12 changes."
    )
    burst_seen: int = setting(
        default=6, low=1, high=12, unit="changes", help="… once so many are known: the first ones follow the states leaving their start."
    )
    reset_count: int = setting(default=3, low=2, high=1_000, unit="resets", help="A site resets too often: so many of its resets …")
    reset_steps: int = setting(default=100, low=1, high=100_000, unit="recursion steps", help="… lie within so many steps.")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a detector found.

    step: where to look; span: first and last step it holds for so far; measured: figures and the thresholds they were held against,
    by name; text: one sentence with the figures; sites, cells: which ones, where it is about some.
    """

    kind: FindingKind
    step: int
    span: tuple[int, int]
    measured: Mapping[str, float | int | str]
    text: str
    sites: tuple[str, ...] = ()
    cells: tuple[int, ...] = ()


class Log:
    """The newest findings of one detector, in the order they were made. `version` changes with every change."""

    def __init__(self) -> None:
        self.kept: deque[Finding] = deque(maxlen=MOST_FINDINGS)
        self.version = 0

    def add(self, finding: Finding) -> Finding:
        self.kept.append(finding)
        self.version += 1
        return finding

    def renew(self, old: Finding, new: Finding) -> Finding:
        """The same finding with what the run has shown since."""
        for place in range(len(self.kept) - 1, -1, -1):
            if self.kept[place] is old:
                self.kept[place] = new
                self.version += 1
                return new
        return self.add(new)

    def clear(self) -> None:
        self.version += bool(self.kept)
        self.kept.clear()


class Detector(Protocol):
    """One kind of thing to be found."""

    log: Log

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        """The next frame, and how near z_H comes to earlier ones (`Digest.returns`)."""


@dataclass
class _Rest:
    """Fixed points, right and wrong, and runs that reach none."""

    settings: DetectorSettings
    length: int  # of a run to the trained depth, in steps
    log: Log = field(default_factory=Log)
    _changes: list[float] = field(default_factory=list)  # of the H cycles at rest so far
    _since: int = 0
    _open: Finding | None = None
    _calm: bool = False  # whether the run was ever at rest

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        if frame.l != "H" or not returns:
            return
        change, limit = returns[0], self.settings.rest_change
        if self._open and not frame.changed and change <= self.settings.leave_change:
            grown = {**self._open.measured, "last change": change}
            self._open = self.log.renew(self._open, replace(self._open, span=(self._open.span[0], frame.index), measured=grown))
        else:
            if self._open:
                self._left(self._open, frame, change)
            self._open = None
            if frame.changed or not change <= limit:
                self._changes = []
            else:
                self._since = self._since if self._changes else frame.index
                self._changes.append(change)
                if len(self._changes) >= self.settings.rest_cycles:
                    self._found(frame, change)
        if frame.index == self.length and not self._calm:
            self.log.add(
                Finding(
                    "no fixed point",
                    frame.index,
                    (0, frame.index),
                    {"change": change, "at most": limit, "cycles in a row": len(self._changes)},
                    f"no fixed point within the trained depth: z_H still moves by {change:.3g} of its norm in the last H cycle "
                    f"(at rest: {limit:g} or less, {self.settings.rest_cycles} times in a row)",
                )
            )

    def _left(self, finding: Finding, frame: Frame, change: float) -> None:
        """It was no lasting one: a state may come near a fixed point that does not attract, and go on."""
        why = f"{_count(len(frame.changed), 'cell')} changed" if frame.changed else f"z_H moved by {change:.2g} of its norm"
        left = {**finding.measured, "left at step": frame.index, "last change": change}
        self.log.renew(finding, replace(finding, measured=left, text=f"{finding.text}; left at step {frame.index}: {why}"))

    def _found(self, frame: Frame, change: float) -> None:
        self._calm, wrong = True, frame.solved is False
        answer = "its answer cannot be judged" if frame.solved is None else "its answer is right"
        if wrong:
            places = len(frame.wrong or ())  # given cells among them, where the answer does not keep those
            answer = f"its answer is wrong in {_count(places, 'cell')}"
        shrinks = (change / self._changes[0]) ** (1 / (len(self._changes) - 1)) if len(self._changes) > 1 and self._changes[0] > 0 else None
        figures: dict[str, float | int | str] = {
            "change": change,
            "at most": self.settings.rest_change,
            "H cycles": len(self._changes),
            "right": frame.right,
            "open cells": frame.total,
            "wrong": len(frame.wrong or ()),
        }
        if shrinks is not None:
            figures["shrinks by"] = shrinks
        self._open = self.log.add(
            Finding(
                "wrong fixed point" if wrong else "fixed point",
                self._since,
                (self._since, frame.index),
                figures,
                f"z_H is at rest: over {len(self._changes)} H cycles it moved by at most {max(self._changes):.2g} of its norm each, "
                + (f"the last time {change:.2g} (×{shrinks:.2g} per cycle), " if shrinks is not None else "")
                + f"and {answer}; {frame.right} of {frame.total} open cells are right",
                cells=(frame.wrong or ()) if wrong else (),
            )
        )


@dataclass
class _Circle:
    """Answers, or states behind an answer that stands, that come round with a period of 2 to `LONGEST_PERIOD` H cycles."""

    settings: DetectorSettings
    cycle: int  # steps in an H cycle
    log: Log = field(default_factory=Log)
    _answers: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=LONGEST_PERIOD + 1))  # the newest first
    _same: list[int] = field(default_factory=lambda: [0] * (LONGEST_PERIOD + 1))  # H cycles in a row with the answer of p before
    _back: list[int] = field(default_factory=lambda: [0] * (LONGEST_PERIOD + 1))  # H cycles in a row with the state of p before
    _moving: int = 0  # H cycles in a row in which z_H moved
    _open: Finding | None = None  # what was found and still holds
    _period: int = 0  # of that

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        if frame.l != "H":
            return
        self._answers.appendleft(frame.answer)
        limit = self.settings.period_return
        for period in range(1, LONGEST_PERIOD + 1):
            same = len(self._answers) > period and self._answers[period] == frame.answer
            self._same[period] = self._same[period] + 1 if same else 0
            back = 2 <= period <= len(returns) and returns[period - 1] <= limit * max(returns[: period - 1])
            self._back[period] = self._back[period] + 1 if back else 0
        self._moving = self._moving + 1 if returns and returns[0] > self.settings.rest_change else 0
        if self._open and self._holds(self._period):
            grown = {**self._open.measured, **self._figures(self._period, returns)}
            self._open = self.log.renew(self._open, replace(self._open, span=(self._open.span[0], frame.index), measured=grown))
            return
        self._open = None
        for period in range(2, LONGEST_PERIOD + 1):
            if self._holds(period, begins=True):
                self._found(period, frame, returns)
                return

    def _holds(self, period: int, *, begins: bool = False) -> bool:
        """An answer that has gone round `period_repeats` times, back at a state near the old one; or the states alone for as long.

        States of which the answer shows nothing must move: what is at rest goes nowhere, however near it comes to where it was.
        """
        repeats = self.settings.period_repeats
        if self._stands(period):
            return min(self._back[period], self._moving) >= (repeats * period if begins else 1)
        return self._same[period] >= (repeats - 1) * period and self._back[period] >= 1

    def _stands(self, period: int) -> bool:
        """Whether the answer was one and the same throughout the last period."""
        return self._same[1] >= period

    def _figures(self, period: int, returns: Sequence[float]) -> dict[str, float | int | str]:
        return {
            "period": period,
            "period steps": period * self.cycle,
            "back within": returns[period - 1],
            "way out": max(returns[: period - 1]),
        }

    def _found(self, period: int, frame: Frame, returns: Sequence[float]) -> None:
        self._period = period
        stands, repeats = self._stands(period), self.settings.period_repeats
        between = list(self._answers)[: period + 1]
        cells = tuple(cell for cell in range(len(frame.answer)) if len({answer[cell] for answer in between}) > 1)
        what = "the answer stands while z_H goes round" if stands else f"{_count(len(cells), 'cell')} of the answer in it"
        way_out, back = max(returns[: period - 1]), returns[period - 1]
        first = max(0, frame.index - repeats * period * self.cycle)
        self._open = self.log.add(
            Finding(
                "oscillation",
                frame.index,
                (first, frame.index),
                {
                    **self._figures(period, returns),
                    "of the way at most": self.settings.period_return,
                    "periods": repeats,
                    "cells": len(cells),
                    "of": "state" if stands else "answer",
                },
                f"oscillation with period {period} H cycles ({period * self.cycle} steps): {what}, seen {repeats} times; "
                f"after a period z_H is back within {back:.2g} of its norm, having been {way_out:.2g} away",
                cells=cells,
            )
        )


@dataclass
class _Critical:
    """The step at which most of the cells to fill in take the value they keep. Told once the answer stands, and again if it changes."""

    settings: DetectorSettings
    open_cells: Sequence[int] | None  # None: all
    log: Log = field(default_factory=Log)
    _last: dict[int, int] = field(default_factory=dict)  # step of each cell's last change
    _right: dict[int, tuple[int, int]] = field(default_factory=dict)  # right cells before and after each step with changes
    _before: int = 0
    _stood: int = 0

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        if frame.l == "H":
            if frame.changed:
                self._last.update(dict.fromkeys(frame.changed, frame.index))
                self._right[frame.index] = self._before, frame.right
                self._stood = 0
                self.log.clear()  # it is of the answer that stands, and none does
                if len(self._right) > 2 * len(frame.answer) + 2:  # only steps at which a cell settled are asked for
                    settled = set(self._last.values())
                    self._right = {step: right for step, right in self._right.items() if step in settled}
            else:
                self._stood += 1
                if self._stood == self.settings.rest_cycles:
                    self._tell(frame)
        self._before = frame.right

    def _tell(self, frame: Frame) -> None:
        cells = range(len(frame.answer)) if self.open_cells is None else self.open_cells
        settled: dict[int, list[int]] = {}
        for cell in cells:
            settled.setdefault(self._last.get(cell, 0), []).append(cell)
        if not settled or not len(cells):
            return
        step = max(settled, key=lambda at: (len(settled[at]), at))
        count, share = len(settled[step]), len(settled[step]) / len(cells)
        if share < self.settings.critical_share or step == 0:
            return
        before, after = self._right.get(step, (0, 0))
        earlier = sum(len(there) for at, there in settled.items() if at < step)
        self.log.add(
            Finding(
                "critical step",
                step,
                (step, frame.index),
                {
                    "cells": count,
                    "open cells": len(cells),
                    "share": share,
                    "at least": self.settings.critical_share,
                    "settled before": earlier,
                    "right before": before,
                    "right after": after,
                },
                f"critical step: {count} of {len(cells)} open cells ({share:.0%}) take the value they keep at this one step, "
                f"{earlier} had theirs before; right cells go from {before} to {after}",
                cells=tuple(settled[step]),
            )
        )


@dataclass
class _Bursts:
    """Steps at which bases turn far more than they are wont to."""

    settings: DetectorSettings
    log: Log = field(default_factory=Log)
    _usual: dict[str, deque[float]] = field(default_factory=dict)

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        found: dict[str, tuple[float, float]] = {}
        for name, site in frame.sites.items():
            if not site.angles:
                continue
            turn, usual = turned(site), self._usual.setdefault(name, deque(maxlen=12))
            if len(usual) >= self.settings.burst_seen and turn >= max(self.settings.burst_turn, self.settings.burst_factor * median(usual)):
                found[name] = turn, median(usual)
            usual.append(turn)
        if not found:
            return
        most = max(found, key=lambda name: found[name][0])
        (turn, usual_turn), angles = found[most], frame.sites[most].angles or ()
        rest = "" if len(found) == 1 else f", and {_count(len(found) - 1, 'more site')} with it"
        self.log.add(
            Finding(
                "rotation burst",
                frame.index,
                (frame.index, frame.index),
                {
                    "turn": turn,
                    "at least": self.settings.burst_turn,
                    "median": usual_turn,
                    "factor": self.settings.burst_factor,
                    "largest angle": angles[0],
                    "sites": len(found),
                },
                f"rotation burst: the basis of {most} turned by mean sin²θ {turn:.2f} (largest angle {angles[0]:.0f}°), "
                f"its median is {usual_turn:.2g}{rest}",
                sites=(most, *(name for name in found if name != most)),
            )
        )


@dataclass
class _Resets:
    """Sites that are reset again and again."""

    settings: DetectorSettings
    log: Log = field(default_factory=Log)
    _steps: dict[str, deque[int]] = field(default_factory=dict)
    _open: dict[str, Finding] = field(default_factory=dict)  # of sites whose finding still holds

    def observe(self, frame: Frame, returns: Sequence[float]) -> None:
        for event in frame.events:
            if event.kind != "reset" or event.site is None:
                continue
            steps = self._steps.setdefault(event.site, deque(maxlen=self.settings.reset_count))
            steps.append(frame.index)
            if len(steps) < self.settings.reset_count or frame.index - steps[0] > self.settings.reset_steps:
                self._open.pop(event.site, None)
            elif (old := self._open.get(event.site)) is not None:
                told = self._told(event.site, old.span[0], frame, int(old.measured["resets"]) + 1)
                self._open[event.site] = self.log.renew(old, told)
            else:
                self._open[event.site] = self.log.add(self._told(event.site, steps[0], frame, len(steps)))

    def _told(self, site: str, first: int, frame: Frame, resets: int) -> Finding:
        steps = frame.index - first
        rate = 1_000 * (resets - 1) / max(1, steps)
        state: SiteFrame | None = frame.sites.get(site)
        return Finding(
            "frequent resets",
            first,
            (first, frame.index),
            {
                "resets": resets,
                "steps": steps,
                "per 1,000 steps": rate,
                "count": self.settings.reset_count,
                "within": self.settings.reset_steps,
                "rank": state.rank if state is not None else 0,
            },
            f"{site} resets too often: {resets} resets within {steps} steps ({rate:.0f} per 1,000), "
            f"{self.settings.reset_count} within {self.settings.reset_steps} are too many"
            + (f"; its rank is {state.rank} of {state.dim}" if state is not None else ""),
            sites=(site,),
        )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def turned(site: SiteFrame) -> float:
    """How far a site's basis turned at a step: the mean over its directions of sin²θ, θ the principal angles; 0 stays, 1 all new."""
    angles = site.angles or ()
    return sum(math.sin(math.radians(angle)) ** 2 for angle in angles) / max(1, len(angles))


class Detectors:
    """All detectors over one run.

    >>> detectors = Detectors.of(session)                                            # doctest: +SKIP
    >>> session.run()                                                                # doctest: +SKIP
    >>> [finding.text for finding in detectors.follow(session)]                      # doctest: +SKIP

    cycle: steps in an H cycle; length: steps to the trained depth; open_cells: those to fill in, None for all.
    """

    def __init__(
        self, settings: DetectorSettings | None = None, *, cycle: int, length: int, open_cells: Iterable[int] | None = None
    ) -> None:
        self.settings = settings or DetectorSettings()
        self._cycle, self._length = cycle, length
        self._open_cells = None if open_cells is None else tuple(open_cells)
        self._earlier = 0
        self._restart()

    @classmethod
    def of(cls, session: Session, settings: DetectorSettings | None = None) -> Self:
        """Detectors that fit a session; `follow` takes them through its frames."""
        given = get_domain(session.puzzle.domain).given(session.puzzle)
        cells = (cell for cell, fixed in enumerate(given) if not fixed)
        return cls(settings, cycle=session.model.config.L_cycles + 1, length=session.length, open_cells=cells)

    def restart(self) -> None:
        """Forget the run."""
        self._earlier = self.version + 1
        self._restart()

    def _restart(self) -> None:
        self.seen = -1  # index of the last frame observed
        self._epoch = 0
        self._gathered: tuple[int, tuple[Finding, ...]] = -1, ()
        self._detectors: tuple[Detector, ...] = (
            _Rest(self.settings, self._length),
            _Circle(self.settings, self._cycle),
            _Critical(self.settings, self._open_cells),
            _Bursts(self.settings),
            _Resets(self.settings),
        )

    @property
    def version(self) -> int:
        """Changes whenever `findings` do."""
        return self._earlier + sum(detector.log.version for detector in self._detectors)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far, by step, the newest `MOST_FINDINGS` of each detector."""
        if self._gathered[0] != self.version:
            found = (finding for detector in self._detectors for finding in detector.log.kept)
            self._gathered = self.version, tuple(sorted(found, key=lambda finding: finding.step))
        return self._gathered[1]

    def observe(self, frame: Frame, returns: Sequence[float] = ()) -> None:
        """The next frame of the run. returns: see `Digest`; without them nothing can be said of rest and circles."""
        self.seen = frame.index
        usable = returns if all(map(math.isfinite, returns)) else ()
        for detector in self._detectors:
            detector.observe(frame, usable)

    def follow(self, session: Session) -> tuple[Finding, ...]:
        """Observe what a session has recorded since; a run whose recorded future was dropped is gone through anew. Returns `findings`."""
        if session.epoch != self._epoch or session.head < self.seen:
            self.restart()
            self._epoch = session.epoch
        for index in range(self.seen + 1, session.head + 1):
            self.observe(session.frames[index], session.trail.returns(index))
        return self.findings
