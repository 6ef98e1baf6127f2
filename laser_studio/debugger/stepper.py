"""The model's recursion with the tracker beside it, one net application at a time: what a live run and a replay have in common.

Everything the next step depends on is here and nothing that is only shown: a replay that skips frames, readings and the history
goes through exactly the states the live run went through.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laser_studio.debugger.interventions import ChangeState, Intervention, Planned, SiteIntervention, edited, scheduled
from laser_studio.debugger.keyframes import Keyframe
from laser_studio.debugger.measures import Cosines, Cycle, Effects, Measures, Probe
from laser_studio.debugger.reading import Reader
from laser_studio.debugger.replacing import Directions, Replacing
from laser_studio.debugger.replica import share_weights
from laser_studio.debugger.schedule import Schedule
from laser_studio.laser import LaserPolicy, SiteTap, TrackerEvent
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM, RecursionStep
from laser_studio.trm.recursion import States, changed


@dataclass(frozen=True, eq=False)
class Before:
    """What a net application found: states (B, P + T, D), by reference, and the basis (D, k) that each site's input was stored with.

    start: all states as the H cycle under way found them; held: the directions that interventions hold.
    """

    z_H: Tensor
    z_L: Tensor
    start: States
    bases: Mapping[str, Tensor]
    held: Directions


@dataclass(frozen=True, eq=False)
class Stepped:
    """One net application: what the trackers observed and closed, what was measured beside it and how long that took in seconds.

    disturbed: an intervention changed states, tokens or cycles just before it.
    """

    step: RecursionStep
    observed: Mapping[str, TrackerEvent]
    closed: Mapping[str, TrackerEvent]
    effects: Effects | None
    cosines: Cosines | None
    beside_seconds: float
    disturbed: bool


class Stepper:
    """A run of `model` on `puzzles` that only goes forward, or on from a keyframe. The model's own modules are not touched.

    index: net applications done; z_H, z_L: (B, P + T, D) the states after them, levels: the low states of hier6; start: all states as the
    H cycle under way found them; before: what the last of them found, None where it was not done here. course: the interventions, in the
    order they act where they begin at the same step; reader: reads states as answers to the puzzles as they have been edited by now.
    """

    def __init__(self, model: TRM, puzzles: Sequence[Puzzle], policy: LaserPolicy, course: Sequence[Planned] = ()) -> None:
        self._original = model
        self.model = share_weights(model).eval()
        self._puzzles = tuple(puzzles)
        self._course = tuple(planned for planned in course if not (isinstance(planned.what, SiteIntervention) and planned.what.idle))
        self.schedule = Schedule(model.config, scheduled(self._course))
        self.reader = Reader(self.model, puzzles)
        self.tap = SiteTap(self.model.net, policy).attach()
        self._replacing = self._new_replacing()
        self._replacing.attach(self.tap.sites)
        self.measures = Measures()
        self._probe: Probe | None = None
        self._steps: Iterator[RecursionStep] = iter(())
        self._loaded = False
        self.index = 0
        self._carry = self.model.initial_carry(self.reader.batch)
        self.z_H, self.z_L = self._carry.z_H, self._carry.z_L
        self.levels = self._carry.levels
        self.start = self._carry.states
        self.before: Before | None = None
        self._whole = True  # nothing was changed within the H cycle under way

    @property
    def policy(self) -> LaserPolicy:
        """The tracker's settings in force."""
        return self.tap.policy

    def settle(self, policy: LaserPolicy, measures: Measures) -> None:
        """Settings and figures from the next step on (the best basis: from the next window on)."""
        if policy != self.policy:
            self.tap.set_policy(policy)
        self.measures = measures
        if self.tap.keep_windows != measures.best or self._loaded:  # trackers come from a keyframe as that left them
            self.tap.keep_windows = measures.best
        self._loaded = False

    def close(self) -> None:
        """Remove all patches and drop what is held."""
        self._replacing.detach()
        self.tap.detach()
        self._rest()
        self._probe = self.before = None

    def keyframe(self) -> Keyframe:
        """The state now; only where a supervision step has just ended."""
        return Keyframe(self.index, self._carry, self.tap.snapshot(), self._replacing.held)

    def load(self, keyframe: Keyframe) -> None:
        """Go on from a keyframe of this run, bit for bit, once settled on what was in force there."""
        self._rest()
        self.index, self._carry = keyframe.index, keyframe.carry
        self.z_H, self.z_L = keyframe.carry.z_H, keyframe.carry.z_L
        self.levels = self._carry.levels
        self.start = self._carry.states
        self.before, self._whole = None, True
        self.tap.restore(keyframe.tap)
        self._replacing.held = keyframe.held
        self._read_as_edited([planned for planned in self._course if planned.at < self.index])
        self._loaded = True

    @torch.no_grad()
    def embedded(self, index: int | None = None) -> Tensor:
        """The puzzle shown as the net reads it, x (1, P + T, D); at net application `index`, where that is not the next one."""
        batch = (self.reader if index is None else self._reader_of([planned for planned in self._course if planned.at < index])).batch
        return self.model.embedding(batch["inputs"][:1], batch["puzzle_identifiers"][:1], self.model.forward_dtype)

    @torch.no_grad()
    def advance(self, labels: Callable[[], Tensor] | None = None) -> Stepped:
        """One net application. labels: (T,) token ids for the gradient's cosine; without them only what the rule needs is measured."""
        disturbed = self._intervene()
        bases = {name: tracker.basis for name, tracker in self.tap.trackers.items() if tracker.basis is not None}
        self.before = Before(self.z_H, self.z_L, self.start, bases, self._replacing.held)
        step = self._next_step()
        observed = self.tap.take()
        asked = time.perf_counter()
        effects, cosines = self._measured(step, labels)
        beside = time.perf_counter() - asked
        refresh = self.policy.refresh
        closed: Mapping[str, TrackerEvent]
        if step.ends_cycle if refresh == "cycle" else step.carry is not None and refresh == "supervision":
            judged = {name: effect.fidelity for name, effect in effects.sites.items()} if effects is not None else None
            closed = self.tap.refresh(functional=judged)
        else:
            closed = {name: event for name, event in observed.items() if event.closes} or self.tap.turn(observed)
        self.index += 1
        self.z_H, self.z_L, self.levels = step.z_H, step.z_L, step.levels
        if step.ends_cycle:
            self.start = States(step.z_H, step.z_L, step.levels)
            self._whole = True
        return Stepped(step, observed, closed, effects, cosines, beside, disturbed)

    def _intervene(self) -> bool:
        """Carry out what begins here; True where states, tokens or cycles are others now."""
        due = [planned.what for planned in self._course if planned.at == self.index]
        within = self.schedule.done(self.index) if self._course else (0, 0)
        if within[1] and any(isinstance(what, SiteIntervention) for what in (*due, *self._ending())):
            self._whole = False
        if not due:
            return False
        self._replacing.hold(list(self.tap.sites))
        if all(isinstance(what, SiteIntervention) for what in due):
            return False
        self._rest()
        found = self.z_H, self.z_L, self.reader
        for what in due:
            if isinstance(what, ChangeState):
                value = what.applied(self.z_H if what.state == "H" else self.z_L)
                self._take(changed(self.model.config, self._states(), what.state, value))
        self._read_as_edited([planned for planned in self._course if planned.at <= self.index])
        if within[1]:
            self._whole = self._whole and all(one is other for one, other in zip(found, (self.z_H, self.z_L, self.reader), strict=True))
        else:
            self.start = self._states()
        data = {**self._carry.current_data, **self.reader.batch}
        self._carry = replace(self._carry.going_on(), z_H=self.z_H, z_L=self.z_L, levels=self.levels, current_data=data)
        self._steps = self.model.recurse(self._carry, self.reader.batch, done=within, cycles=self.schedule.cycles(self.index))
        return True

    def _states(self) -> States:
        return States(self.z_H, self.z_L, self.levels)

    def _take(self, states: States) -> None:
        self.z_H, self.z_L, self.levels = states.z_H, states.z_L, states.levels

    def _ending(self) -> Iterator[Intervention]:
        """What acted up to now and no longer does."""
        for at, what in ((planned.at, planned.what) for planned in self._course):
            if isinstance(what, SiteIntervention) and what.steps is not None and at + what.steps == self.index:
                yield what

    def _read_as_edited(self, course: Sequence[Planned]) -> None:
        self.reader = self._reader_of(course)

    def _reader_of(self, course: Sequence[Planned]) -> Reader:
        puzzle = edited(self._puzzles[0], course)
        return self.reader if puzzle == self.reader.puzzle else Reader(self.model, (puzzle, *self._puzzles[1:]))

    def _new_replacing(self) -> Replacing:
        run = weakref.ref(self)  # the patches outlive neither the run nor keep it alive

        def index() -> int:
            stepper = run()
            return -1 if stepper is None else stepper.index

        def basis(site: str) -> Tensor | None:
            stepper = run()
            return None if stepper is None else stepper.tap.basis_read_with(site)

        return Replacing(self._course, index, basis)

    def _next_step(self) -> RecursionStep:
        step = next(self._steps, None)
        if step is None:
            self._steps = self.model.recurse(self._carry, self.reader.batch, cycles=self.schedule.cycles(self.index))
            step = next(self._steps)
        if step.carry is not None:
            # Past the trained depth the run goes on from its states; only a fresh session restarts them.
            self._carry = step.carry.going_on()
        return step

    def _rest(self) -> None:
        """Leave the supervision step under way. Its generator must end before another begins: it drops the model's casts as it does."""
        if isinstance(self._steps, Generator):
            self._steps.close()
        self._steps = iter(())

    def _measured(self, step: RecursionStep, labels: Callable[[], Tensor] | None) -> tuple[Effects | None, Cosines | None]:
        """The functional figures of the H cycle that ends here, as far as they are asked for and there are bases to ask about."""
        shown = labels is not None
        functional = (self.measures.functional and shown) or self._triggers_on_function()
        gradient = self.measures.gradient and shown
        if not step.ends_cycle or not self._whole or not (functional or gradient):
            return None, None
        bases = {name: tracker.basis for name, tracker in self.tap.trackers.items() if tracker.basis is not None}
        if not bases or not step.z_H.isfinite().all():
            return None, None
        if self._probe is None:
            self._probe = Probe(self._original)
            self._replacing.attach(self._probe.layers)
        given = torch.tensor(self.reader.domain.given(self.reader.puzzle), device=step.z_H.device)
        cycle = Cycle(
            z_H=self.start.z_H[:1],
            z_L=self.start.z_L[:1],
            x=self.embedded(),
            end=step.z_H[:1],
            open_cells=~given,
            labels=labels() if labels is not None else self.reader.batch["inputs"][0],
            updates=self.schedule.done(self.index)[1],
            levels=tuple(level[:1] for level in self.start.levels),
        )
        effects = self._probe.effects(cycle, bases) if functional else None
        return effects, self._probe.cosines(cycle, bases) if gradient else None

    def _triggers_on_function(self) -> bool:
        return "functional" in (self.policy.measure, *(override.get("measure") for override in self.policy.sites.values()))
