"""One live run: the model's recursion, the tracker beside it and the history behind it, advanced one net application at a time.

`Machine` only goes forward and holds all mutable state of a run; `Session` adds the cursor, going back and policies over
time. Two machines built alike and advanced alike yield equal frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from laser_studio.debugger.folding import Folded, Folder
from laser_studio.debugger.frames import Event, Frame
from laser_studio.debugger.history import History
from laser_studio.debugger.measures import Cosines, Cycle, Effects, Measures, Probe
from laser_studio.debugger.reading import Reader, Reading
from laser_studio.debugger.replica import share_weights
from laser_studio.debugger.spectra import Shares
from laser_studio.debugger.training_ledger import TrainingLedger, measure_saved
from laser_studio.laser import LaserPolicy, SiteTap
from laser_studio.laser.ledger import EMPTY, LedgerLine, SavedBytes
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM, RecursionStep


class Machine:
    """A run of `model` on `puzzles`, the first of which is shown; `advance` gives the next frame. The model's own modules are not touched.

    `saved` takes a measurement of an equal machine over, which spares making it again.
    """

    def __init__(
        self, model: TRM, puzzles: Sequence[Puzzle], policy: LaserPolicy, *, history_bytes: int, saved: SavedBytes | None = None
    ) -> None:
        self._original = model
        self.model = share_weights(model).eval()
        self.reader = Reader(self.model, puzzles)
        self.policy = policy
        self.measures = Measures()
        self._carry = self.model.initial_carry(self.reader.batch)
        self.training = TrainingLedger(self.model, saved or measure_saved(self.model, self._carry.z_H.shape[1]))
        self.tap = SiteTap(self.model.net, policy).attach()
        self.sites = {name: layer.in_features for name, layer in self.tap.sites.items()}
        self.folder = Folder(History(history_bytes), self.sites, self.model.forward_dtype, self._training_line)
        self.spectra: Mapping[str, Tensor | Shares] = {}  # of the step done last
        self._probe: Probe | None = None
        self._steps: Iterator[RecursionStep] = iter(())
        self._z = {"H": self._carry.z_H, "L": self._carry.z_L}
        self._start = (self._carry.z_H, self._carry.z_L)  # of the H cycle under way
        self._latent = (*self.reader.place(self._carry.z_H), *self.reader.place(self._carry.z_L))
        self._reading = self.reader.read(self._carry.z_H)
        self.frame = self._frame(0, (0, 0, 0), self._reading, self._reading, 0.0, Folded())

    @property
    def history(self) -> History:
        """What is kept of the activations."""
        return self.folder.history

    def set_policy(self, policy: LaserPolicy) -> None:
        """The tracker's settings from the next step on."""
        self.policy = policy
        self.tap.set_policy(policy)

    def set_measures(self, measures: Measures) -> None:
        """Which figures are computed beside the run, from the next step on (the best basis: from the next window on)."""
        self.measures = measures
        self.tap.keep_windows = measures.best

    def close(self) -> None:
        """Remove all hooks and drop what is held."""
        self.tap.detach()
        self._steps = iter(())
        self._probe = None
        self.folder.history = History(self.history.budget_bytes)

    @torch.no_grad()
    def advance(self) -> Frame:
        """One net application; returns its frame, which becomes `self.frame`."""
        started = time.perf_counter()
        index, step = self.frame.index + 1, self._next_step()
        observed = self.tap.take()
        asked = time.perf_counter()
        effects, cosines = self._measured(step)
        started += time.perf_counter() - asked  # what is measured beside the run is no part of its time
        due = step.ends_cycle if self.policy.refresh == "cycle" else step.carry is not None and self.policy.refresh == "supervision"
        if due:
            judged = {name: effect.fidelity for name, effect in effects.sites.items()} if effects is not None else None
            closed = self.tap.refresh(functional=judged)
        else:
            closed = {name: event for name, event in observed.items() if event.closes} or self.tap.turn(observed)
        folded = self.folder.fold(index, self.policy, observed, closed, effects=effects, cosines=cosines, best=self.measures.best)
        self.spectra = folded.spectra

        kind, state = ("H", step.z_H) if step.ends_cycle else ("L", step.z_L)
        residuals = (state - self._z[kind]).float().flatten(1).norm(dim=1).tolist()  # per puzzle
        self._z[kind] = state
        if step.ends_cycle:
            self._start = (step.z_H, step.z_L)
        before = self._reading
        if step.ends_cycle:  # z_H rests during the L cycles, so what is read from it does as well
            self._reading = self.reader.read(step.z_H)
        folded.events += _news(index, before, self._reading)
        if finite := all(map(math.isfinite, residuals)):
            place = self.reader.place(state)
            self._latent = (*place, *self._latent[2:]) if step.ends_cycle else (*self._latent[:2], *place)
            tracker = [*observed.values(), *(event for name, event in closed.items() if event is not observed.get(name))]
        else:
            tracker = []
            folded.events.append(Event(index, "not finite", f"activations are not finite at step {index}: the run ends here"))
        self.frame = self._frame(
            index,
            (step.s, step.h, step.l),
            self._reading,
            before,
            residuals[0] if finite else 0.0,
            folded,
            effects=effects,
            cosines=cosines,
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

    def _measured(self, step: RecursionStep) -> tuple[Effects | None, Cosines | None]:
        """The functional figures of the H cycle that ends here, as far as they are asked for and there are bases to ask about."""
        functional = self.measures.functional or self._triggers_on_function()
        if not step.ends_cycle or not (functional or self.measures.gradient):
            return None, None
        bases = {name: tracker.basis for name, tracker in self.tap.trackers.items() if tracker.basis is not None}
        if not bases or not step.z_H.isfinite().all():
            return None, None
        if self._probe is None:
            self._probe = Probe(self._original)  # a copy of our own model would feed our taps
        given = self.reader.domain.given(self.reader.puzzle)
        batch = self.reader.batch
        cycle = Cycle(
            z_H=self._start[0][:1],
            z_L=self._start[1][:1],
            x=self.model.embedding(batch["inputs"][:1], batch["puzzle_identifiers"][:1], self.model.forward_dtype),
            end=step.z_H[:1],
            open_cells=~torch.tensor(given, device=step.z_H.device),
            labels=self.reader.labels(self._reading.answer),
        )
        effects = self._probe.effects(cycle, bases) if functional else None
        return effects, self._probe.cosines(cycle, bases) if self.measures.gradient else None

    def _triggers_on_function(self) -> bool:
        return "functional" in (self.policy.measure, *(override.get("measure") for override in self.policy.sites.values()))

    def _training_line(self, rows: int, dim: int, rank: int) -> LedgerLine:
        return self.training.site(rows // len(self.reader.puzzles), dim, rank)

    def _frame(
        self,
        index: int,
        address: tuple[int, int, int | str],
        reading: Reading,
        before: Reading,
        residual: float,
        folded: Folded,
        *,
        effects: Effects | None = None,
        cosines: Cosines | None = None,
        ends_supervision: bool = False,
        finite: bool = True,
        tracker_seconds: float = 0.0,
        started: float | None = None,
    ) -> Frame:
        sites = folded.sites
        lines = {name: site.training for name, site in sites.items()}
        device = self.model.H_init.device
        cuda = device.type == "cuda"
        return Frame(
            index=index,
            s=address[0],
            h=address[1],
            l=address[2],  # type: ignore[arg-type]  # an int or "H"
            answer=reading.answer,
            confidence=reading.confidence,
            changed=reading.changed_from(before),
            wrong=reading.wrong,
            right=reading.verdict.right,
            total=reading.verdict.total,
            solved=reading.verdict.solved,
            q_halt=reading.q_halt if finite else 0.0,
            halt_probability=1 / (1 + math.exp(-reading.q_halt)) if finite and reading.q_halt > -700 else 0.0,
            residual=residual,
            sites=sites,
            history=self.history.ledger,
            training=sum(lines.values(), EMPTY),
            training_all=self.training.everything({name: site.rank for name, site in sites.items()}, lines),
            break_even=self.folder.break_even,
            resets=self.folder.resets,
            events=tuple(folded.events),
            ends_supervision=ends_supervision,
            finite=finite,
            latent=self._latent,
            step_full=folded.full,
            step_stored=folded.stored,
            batch=len(self.reader.puzzles),
            batch_solved=reading.solved,
            batch_right=reading.right,
            functional=effects.together.fidelity if effects is not None else None,
            kl=effects.together.kl if effects is not None else None,
            flips=effects.together.flips if effects is not None else None,
            gradient=cosines.together if cosines is not None else None,
            allocated=torch.cuda.memory_allocated(device) if cuda else None,
            peak=torch.cuda.max_memory_allocated(device) if cuda else None,
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
