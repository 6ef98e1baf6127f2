"""From what the trackers of one step say to the frame's sites, events and bytes; used by every kind of run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from laser_studio.debugger.frames import Event, EventKind, Frame, SiteFrame
from laser_studio.debugger.history import History
from laser_studio.debugger.keyframes import Keyframe
from laser_studio.debugger.measures import Cosines, Effects
from laser_studio.debugger.spectra import Shares
from laser_studio.laser import LaserPolicy, TrackerEvent
from laser_studio.laser.ledger import EMPTY, LedgerLine

TrainingLine = Callable[[int, int, int], LedgerLine]  # of rows, width and rank


@dataclass
class Folded:
    """One step: what each site's tracker gave, and what happened. spectra: each site's `TrackerEvent.shares`."""

    sites: dict[str, SiteFrame] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    spectra: dict[str, torch.Tensor | Shares] = field(default_factory=dict)
    full: int = 0
    stored: int = 0


class Folder:
    """Keeps activations as the trackers stored them and tells each site's part of a frame; counts resets and break-evens on the way.

    dims: width of each site; dtype: of the activations kept, for all sites or each; training: the ledger line of a training step,
    where there is one.
    """

    def __init__(
        self,
        history: History,
        dims: Mapping[str, int],
        dtype: torch.dtype | Mapping[str, torch.dtype],
        training: TrainingLine | None = None,
    ) -> None:
        self.history, self.dims, self.dtype, self._training = history, dims, dtype, training
        self.resets = 0
        self.break_even: int | None = None
        self._even: dict[str, int] = {}
        self._closings: dict[str, TrackerEvent] = {}  # of sites that have not told them yet

    def fold(
        self,
        index: int,
        policy: LaserPolicy,
        observed: Mapping[str, TrackerEvent],
        closed: Mapping[str, TrackerEvent],
        *,
        effects: Effects | None = None,
        cosines: Cosines | None = None,
        best: bool = False,
        keyframe: Keyframe | None = None,
    ) -> Folded:
        """Step `index` with the observations of each site and the windows it closed; `keyframe`: of this step, to be kept."""
        folded = Folded()
        for name, event in observed.items():
            self._store(index, name, policy, event, folded)
        folded.events += self.close(index, closed)
        if keyframe is not None:
            self.history.mark(keyframe)
        for name, event in observed.items():
            folded.sites[name] = self._site(index, name, event, self._closings.pop(name, None), effects, cosines, best)
        if note := self.history.hold_budget():
            folded.events.append(Event(index, "budget", f"history full: {note}"))
        if self.break_even is None and self.history.ledger.saving > 0:
            self.break_even = index
        return folded

    def follow(self, other: Folder) -> None:
        """Hold what another folder of the same sites holds; its tensors are shared."""
        self.history, self.resets, self.break_even = other.history.copy(), other.resets, other.break_even
        self._even = dict(other._even)

    def rewind(self, frame: Frame) -> None:
        """Go on from a keyframe's frame: forget what was kept and found after it."""
        self.history.cut(frame.index)
        self.resets = frame.resets
        self._even = {name: step for name, step in self._even.items() if step <= frame.index}
        if self.break_even is not None and self.break_even > frame.index:
            self.break_even = None
        self._closings.clear()

    def close(self, index: int, closed: Mapping[str, TrackerEvent]) -> list[Event]:
        """Windows that ended, as events of step `index`; the kept coefficients go over to the new bases.

        A site that is not seen at that step tells of its window (fidelity, angles) when it is seen next.
        """
        events = []
        for name, closing in closed.items():
            if closing.new_basis is None or not closing.sums.values[2]:  # nothing was observed in it
                continue
            self.history.sites[name].rebase(closing.new_basis)
            if (kind := _kind(closing)) is not None:
                seconds = closing.seconds if kind in ("reset", "started") else None
                events.append(Event(index, kind, closing.cause, name, closing.fidelity, closing.fidelity_after, seconds))
            self.resets += closing.action == "reset"
            self._closings[name] = closing
        return events

    def _store(self, index: int, name: str, policy: LaserPolicy, event: TrackerEvent, folded: Folded) -> None:
        site = self.history.site(name, self.dims[name], policy.for_site(name).min_fidelity)
        data, dtype = None, self.dtype if isinstance(self.dtype, torch.dtype) else self.dtype[name]
        if event.coefficients is not None and event.basis is not None:
            data = event.coefficients.to(dtype)
            site.add(index, data, event.basis, event.energy)
            if event.shares is not None:
                folded.spectra[name] = event.shares
        elif event.kept_exact is not None:
            data = event.kept_exact.to(dtype)
            site.add_exact(index, data)
        if data is not None:
            folded.full += len(data) * self.dims[name] * data.element_size()
            folded.stored += data.nbytes

    def _site(
        self,
        index: int,
        name: str,
        event: TrackerEvent,
        closing: TrackerEvent | None,
        effects: Effects | None,
        cosines: Cosines | None,
        best: bool,
    ) -> SiteFrame:
        dim, site, last = self.dims[name], self.history.sites[name], closing or event
        ledger = site.ledger
        if ledger.saving > 0:
            self._even.setdefault(name, index)
        rows = len(event.coefficients) if event.coefficients is not None else len(event.kept_exact) if event.kept_exact is not None else 0
        effect = effects.sites.get(name) if effects is not None else None
        return SiteFrame(
            fidelity=event.fidelity,
            centred=event.centred_fidelity,
            window_fidelity=closing.fidelity if closing is not None and closing.closes else None,
            rank=last.rank,
            dim=dim,
            action=last.action,
            cause=last.cause,
            state=last.state,
            misses=last.misses,
            angles=closing.angles if closing is not None else None,
            history=ledger,
            training=self._training(rows, dim, last.rank) if self._training is not None else EMPTY,
            retained=site.retained,
            versions=site.versions,
            break_even=self._even.get(name),
            carried=site.carried,
            functional=effect.fidelity if effect is not None else None,
            flips=effect.flips if effect is not None else None,
            gradient=cosines.sites.get(name) if cosines is not None else None,
            best=closing.best_fidelity if closing is not None and best else None,
            best_angles=closing.best_angles if closing is not None and best else None,
        )


def _kind(closing: TrackerEvent) -> EventKind | None:
    """What a closed window is reported as; None where nothing happened."""
    if closing.action == "reset":
        return "reset"
    if closing.cause.startswith(("rank set", "rank cut")):
        return "policy"
    if closing.action == "grow":
        return "grew"
    if closing.cause.startswith("turned"):
        return "turned"
    if closing.cause.startswith("basis started"):
        return "started"
    if closing.cause.startswith("saturated"):
        return "saturated"
    return "miss" if closing.misses else None
