"""One live run: the model's recursion, the tracker beside it and the history behind it, advanced one net application at a time.

`Machine` only goes forward and holds all mutable state of a run; `Session` adds the cursor, going back and policies over
time. Two machines built alike and advanced alike yield equal frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch

from laser_studio.debugger.frames import Event, EventKind, Frame, SiteFrame
from laser_studio.debugger.history import History
from laser_studio.debugger.reading import Reader, Reading
from laser_studio.debugger.replica import share_weights
from laser_studio.debugger.training_ledger import TrainingLedger, measure_saved
from laser_studio.laser import LaserPolicy, SiteTap, TrackerEvent
from laser_studio.laser.ledger import EMPTY, SavedBytes
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM, RecursionStep


class Machine:
    """A run of `model` on `puzzle`; `advance` gives the next frame. The model's own modules are not touched.

    `saved` takes a measurement of an equal machine over, which spares making it again.
    """

    def __init__(self, model: TRM, puzzle: Puzzle, policy: LaserPolicy, *, history_bytes: int, saved: SavedBytes | None = None) -> None:
        self.model = share_weights(model).eval()
        self.reader = Reader(self.model, puzzle)
        self.policy = policy
        self.history = History(history_bytes)
        self._carry = self.model.initial_carry(self.reader.batch)
        self.training = TrainingLedger(self.model, saved or measure_saved(self.model, self._carry.z_H.shape[1]))
        self.tap = SiteTap(self.model.net, policy).attach()
        self.sites = {name: layer.in_features for name, layer in self.tap.sites.items()}
        self._steps: Iterator[RecursionStep] = iter(())
        self._z = {"H": self._carry.z_H, "L": self._carry.z_L}
        self._resets = 0
        self._break_even: int | None = None
        self._site_break_even: dict[str, int] = {}
        self._reading = self.reader.read(self._carry.z_H)
        self.frame = self._frame(0, (0, 0, 0), self._reading, (), 0.0, {}, ())

    def set_policy(self, policy: LaserPolicy) -> None:
        """The tracker's settings from the next step on."""
        self.policy = policy
        self.tap.set_policy(policy)

    def close(self) -> None:
        """Remove all hooks and drop what is held."""
        self.tap.detach()
        self._steps = iter(())
        self.history = History(self.history.budget_bytes)

    @torch.no_grad()
    def advance(self) -> Frame:
        """One net application; returns its frame, which becomes `self.frame`."""
        started = time.perf_counter()
        index, step = self.frame.index + 1, self._next_step()
        observed = self.tap.take()
        due = step.ends_cycle if self.policy.refresh == "cycle" else step.carry is not None and self.policy.refresh == "supervision"
        closed = self.tap.refresh() if due else {name: event for name, event in observed.items() if event.closes}
        events: list[Event] = []
        sites = {name: self._site(index, name, event, closed.get(name), events) for name, event in observed.items()}
        if note := self.history.hold_budget():
            events.append(Event(index, "budget", f"history full: {note}"))

        kind, state = ("H", step.z_H) if step.ends_cycle else ("L", step.z_L)
        residual = float((state - self._z[kind]).float().norm())
        self._z[kind] = state
        before = self._reading
        if step.ends_cycle:  # z_H rests during the L cycles, so what is read from it does as well
            self._reading = self.reader.read(step.z_H)
        events += _news(index, before, self._reading)
        if finite := math.isfinite(residual):
            tracker = [*observed.values(), *(closed.values() if due else ())]
        else:
            tracker = []
            events.append(Event(index, "not finite", f"activations are not finite at step {index}: the run ends here"))
        self.frame = self._frame(
            index,
            (step.s, step.h, step.l),
            self._reading,
            self._reading.changed_from(before),
            residual if finite else 0.0,
            sites,
            tuple(events),
            ends_supervision=step.carry is not None,
            finite=finite,
            tracker_seconds=sum(event.seconds for event in tracker),
            started=started,
        )
        return self.frame

    def _next_step(self) -> RecursionStep:
        step = next(self._steps, None)
        if step is None:
            self._steps = self.model.recurse(self._carry, self.reader.batch)
            step = next(self._steps)
        if step.carry is not None:
            # Past the trained depth the run goes on from its states; only a fresh session restarts them.
            self._carry = step.carry.going_on()
        return step

    def _site(self, index: int, name: str, event: TrackerEvent, closing: TrackerEvent | None, events: list[Event]) -> SiteFrame:
        """Keep what the site's tracker gave, and tell it as a frame's part; what happened is added to `events`."""
        dim, dtype, rows = self.sites[name], self.model.forward_dtype, 0
        site = self.history.site(name, dim, self.policy.for_site(name).min_fidelity)
        if event.coefficients is not None and event.basis is not None:
            site.add(index, event.coefficients.to(dtype), event.basis, event.energy)
            rows = len(event.coefficients)
        elif event.kept_exact is not None:
            site.add_exact(index, event.kept_exact.to(dtype))
            rows = len(event.kept_exact)
        last = closing or event
        if closing is not None:
            if closing.new_basis is not None:
                site.rebase(closing.new_basis)
            if (kind := _kind(closing)) is not None:
                seconds = closing.seconds if kind in ("reset", "started") else None
                events.append(Event(index, kind, closing.cause, name, closing.fidelity, closing.fidelity_after, seconds))
            self._resets += closing.action == "reset"
        ledger = site.ledger
        if ledger.saving > 0:
            self._site_break_even.setdefault(name, index)
        return SiteFrame(
            fidelity=event.fidelity,
            window_fidelity=closing.fidelity if closing is not None else None,
            rank=last.rank,
            dim=dim,
            action=last.action,
            cause=last.cause,
            state=last.state,
            misses=last.misses,
            angles=closing.angles if closing is not None else None,
            history=ledger,
            training=self.training.site(rows, dim, last.rank),
            retained=site.retained,
            versions=site.versions,
            break_even=self._site_break_even.get(name),
        )

    def _frame(
        self,
        index: int,
        address: tuple[int, int, int | str],
        reading: Reading,
        changed: tuple[int, ...],
        residual: float,
        sites: dict[str, SiteFrame],
        events: tuple[Event, ...],
        *,
        ends_supervision: bool = False,
        finite: bool = True,
        tracker_seconds: float = 0.0,
        started: float | None = None,
    ) -> Frame:
        history = self.history.ledger
        if history.saving > 0 and self._break_even is None:
            self._break_even = index
        lines = {name: site.training for name, site in sites.items()}
        return Frame(
            index=index,
            s=address[0],
            h=address[1],
            l=address[2],  # type: ignore[arg-type]  # an int or "H"
            answer=reading.answer,
            confidence=reading.confidence,
            changed=changed,
            wrong=reading.wrong,
            right=reading.verdict.right,
            total=reading.verdict.total,
            solved=reading.verdict.solved,
            q_halt=reading.q_halt if finite else 0.0,
            halt_probability=1 / (1 + math.exp(-reading.q_halt)) if finite and reading.q_halt > -700 else 0.0,
            residual=residual,
            sites=sites,
            history=history,
            training=sum(lines.values(), EMPTY),
            training_all=self.training.everything({name: site.rank for name, site in sites.items()}, lines),
            break_even=self._break_even,
            resets=self._resets,
            events=events,
            ends_supervision=ends_supervision,
            finite=finite,
            seconds=time.perf_counter() - started if started is not None else 0.0,
            tracker_seconds=tracker_seconds,
        )


def _news(index: int, before: Reading, now: Reading) -> list[Event]:
    """What happened to the answer."""
    news = []
    if changed := len(now.changed_from(before)):
        news.append(Event(index, "changed", f"{changed} cell{'s' * (changed > 1)} changed"))
    if bool(now.verdict.solved) != bool(before.verdict.solved):
        news.append(Event(index, "solved", "puzzle solved") if now.verdict.solved else Event(index, "unsolved", "solution lost"))
    if now.q_halt > 0 >= before.q_halt:
        news.append(Event(index, "halt", f"the model would stop: q_halt {now.q_halt:.2f}"))
    return news


def _kind(closing: TrackerEvent) -> EventKind | None:
    """What a closed window is reported as; None where nothing happened."""
    if closing.action == "reset":
        return "reset"
    if closing.cause.startswith(("rank set", "rank cut")):
        return "policy"
    if closing.action == "grow":
        return "grew"
    if closing.cause.startswith("basis started"):
        return "started"
    if closing.cause.startswith("saturated"):
        return "saturated"
    return "miss" if closing.misses else None
