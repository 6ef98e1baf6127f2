"""One live run: the recursion with its tracker, read as frames, and the history behind it, one net application at a time.

`Machine` goes forward, or on from a keyframe, and holds all mutable state of a run; `Session` adds the cursor, going back and
policies over time. Two machines built alike and advanced alike yield equal frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from laser_studio.debugger.folding import Folded, Folder
from laser_studio.debugger.frames import Event, Frame
from laser_studio.debugger.history import History
from laser_studio.debugger.interventions import Planned
from laser_studio.debugger.keyframes import Keyframe, TravelSettings
from laser_studio.debugger.measures import Cosines, Effects
from laser_studio.debugger.reading import Reader, Reading
from laser_studio.debugger.replica import share_weights
from laser_studio.debugger.spectra import Shares
from laser_studio.debugger.state_trail import Digest, Returns
from laser_studio.debugger.stepper import Stepper
from laser_studio.debugger.training_ledger import TrainingLedger, measure_saved
from laser_studio.laser import LaserPolicy
from laser_studio.laser.ledger import EMPTY, LedgerLine, SavedBytes
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM


class Machine:
    """A run of `model` on `puzzles`, the first of which is shown; `advance` gives the next frame. The model's own modules are not touched.

    `saved` takes a measurement of an equal machine over, which spares making it again; `course` are the run's interventions.
    """

    def __init__(
        self,
        model: TRM,
        puzzles: Sequence[Puzzle],
        policy: LaserPolicy,
        *,
        travel: TravelSettings,
        saved: SavedBytes | None = None,
        course: Sequence[Planned] = (),
    ) -> None:
        self.stepper = Stepper(model, puzzles, policy, course)
        self.model = self.stepper.model
        if saved is None:  # on another copy: ours would feed the trackers
            saved = measure_saved(share_weights(model).eval(), self.stepper.z_H.shape[1])
        self.training = TrainingLedger(self.model, saved)
        self.sites = {name: layer.in_features for name, layer in self.stepper.tap.sites.items()}
        self.folder = Folder(History(travel.history_bytes), self.sites, self.model.forward_dtype, self._training_line)
        self.spectra: Mapping[str, Tensor | Shares] = {}  # of the step done last
        self.digest: Digest | None = None  # of the step done last
        self._returns = Returns()
        self._keyframe_every = max(1, round(travel.keyframe_steps / model.config.steps_per_supervision))  # supervision steps
        self._latent = (*self.reader.place(self.stepper.z_H), *self.reader.place(self.stepper.z_L))
        self._reading = self.reader.read(self.stepper.z_H)
        self.frame = self._frame(0, (0, 0, 0), self._reading, self._reading, 0.0, Folded())

    @property
    def reader(self) -> Reader:
        """Reads states as answers to the puzzles as they are now."""
        return self.stepper.reader

    @property
    def history(self) -> History:
        """What is kept of the activations, and the keyframes."""
        return self.folder.history

    def close(self) -> None:
        """Remove all patches and drop what is held."""
        self.stepper.close()
        self.folder.history = History(self.history.budget_bytes)

    def follow(self, other: Machine, keyframe: Keyframe, frame: Frame) -> None:
        """Go on from a keyframe of a run that was the same up to there, and its frame, with all that it kept by then."""
        self.folder.follow(other.folder)
        self._returns.follow(other._returns)
        self.rewind(keyframe, frame)

    @torch.no_grad()
    def rewind(self, keyframe: Keyframe, frame: Frame) -> None:
        """Go on from a keyframe of this run and its frame; what was kept of later steps is forgotten."""
        self.stepper.load(keyframe)
        self.folder.rewind(frame)
        self._returns.rewind(keyframe.index)
        self.spectra, self.digest = {}, None
        self._latent, self._reading, self.frame = frame.latent, self.reader.read(keyframe.carry.z_H), frame

    @torch.no_grad()
    def advance(self) -> Frame:
        """One net application; returns its frame, which becomes `self.frame`."""
        started = time.perf_counter()
        index = self.frame.index + 1
        stepped = self.stepper.advance(lambda: self.reader.labels(self._reading.answer))
        started += stepped.beside_seconds  # what is measured beside the run is no part of its time
        step, observed, closed = stepped.step, stepped.observed, stepped.closed
        folded = self.folder.fold(
            index,
            self.stepper.policy,
            observed,
            closed,
            effects=stepped.effects,
            cosines=stepped.cosines,
            best=self.stepper.measures.best,
            keyframe=self.stepper.keyframe() if step.carry is not None and self._is_keyframe(step.s) else None,
        )
        self.spectra = folded.spectra

        found = self.stepper.before
        assert found is not None
        state, rested = (step.z_H, found.z_H) if step.ends_cycle else (step.z_L, found.z_L)
        residuals = (state - rested).float().flatten(1).norm(dim=1).tolist()  # per puzzle
        before = self._reading
        if step.ends_cycle or stepped.disturbed:  # z_H rests during the L cycles, so what is read from it does as well
            self._reading = self.reader.read(step.z_H)
        self.digest = Digest(
            self.reader.cells(state, rested).cpu(),
            self._reading.probabilities.float().cpu() if step.ends_cycle else None,
            self._returns.add(index, step.z_H[0]) if step.ends_cycle else None,
        )
        folded.events += _news(index, before, self._reading)
        if finite := all(map(math.isfinite, residuals)):
            place = self.reader.place(state)
            if stepped.disturbed:
                self._latent = (*self.reader.place(step.z_H), *self.reader.place(step.z_L))
            else:
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
            effects=stepped.effects,
            cosines=stepped.cosines,
            ends_supervision=step.carry is not None,
            finite=finite,
            tracker_seconds=sum(event.seconds for event in tracker),
            started=started,
        )
        return self.frame

    def _is_keyframe(self, s: int) -> bool:
        """Whether one is due after supervision step `s`. Within the trained depth they lie twice as far apart: bases weigh most there."""
        return s % (self._keyframe_every * (2 if s <= self.model.config.halt_max_steps else 1)) == 0

    def _training_line(self, rows: int, dim: int, rank: int) -> LedgerLine:
        return self.training.site(rows // len(self.reader.puzzles), dim, rank)

    def _resting(self, seen: Collection[str]) -> dict[str, LedgerLine]:
        """Training lines of sites that have a tracker and were not applied at this step: those of an HRM's other net."""
        length, config = self.stepper.z_H.shape[1], self.model.config
        resting = {name: tracker for name, tracker in self.stepper.tap.trackers.items() if name not in seen} if seen else {}
        rows = {name: config.hidden_size if ".mlp_t." in name else length for name in resting}
        return {name: self.training.site(rows[name], self.sites[name], tracker.rank) for name, tracker in resting.items()}

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
        lines = {name: site.training for name, site in sites.items()} | self._resting(sites)
        ranks = {name: line.basis_bytes // (4 * self.sites[name]) for name, line in lines.items()}
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
            training_all=self.training.everything(ranks, lines),
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
