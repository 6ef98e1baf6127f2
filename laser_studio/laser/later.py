"""Windows of all sites of a module put off to their end, where a GPU works on them at once; the tap of `sites` decides by it.

Only steady windows are put off: those after which, if they reach ε, nothing changes but that every basis has turned. Whether they did
reach it is read one window later, when the figures have long arrived. Where one did not, it is gone through again as it would have
been in the first place: its activations are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from laser_studio.laser import rule
from laser_studio.laser.event import Seen, TrackerEvent, Window
from laser_studio.laser.patches import Patch
from laser_studio.laser.tracker import EMPTY, LARGEST, Snapshot, SubspaceTracker, in_plain_fp32
from laser_studio.laser.window_graph import Numbers, Observed, SiteResult, WindowGraph

MOST_OF_MEMORY = 1 / 32
"""Share of a device's memory that the activations of a window may take to be put off: they are all held, and copied once."""
ALIKE = 2
"""Windows in a row that must have been alike before the next is put off."""


def pays(x: Tensor) -> bool:
    """Whether work on x may cost more to start than to do."""
    return x.is_cuda


@lru_cache(maxsize=16)
def most_bytes(device: torch.device) -> float:
    """Activations of a window beyond which nothing is put off there."""
    return torch.cuda.get_device_properties(device).total_memory * MOST_OF_MEMORY if device.type == "cuda" else 2**28


class LateEvents(Mapping[str, TrackerEvent]):
    """Events by site, made when the first of them is looked at."""

    def __init__(self, make: Callable[[], Mapping[str, TrackerEvent]]) -> None:
        self._make = make
        self._made: Mapping[str, TrackerEvent] | None = None

    def come_from(self, make: Callable[[], Mapping[str, TrackerEvent]]) -> None:
        """Be made in another way, if nobody has looked yet."""
        self._make = make

    @property
    def made(self) -> Mapping[str, TrackerEvent]:
        """The events themselves."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, site: str) -> TrackerEvent:
        return self.made[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


class Outcome:
    """What one window left on the device, and the figures of it that the host reads."""

    def __init__(self, graph: WindowGraph, flat: Tensor) -> None:
        self.graph, self._flat = graph, flat

    @cached_property
    def numbers(self) -> Numbers:
        """Figures of all sites; waits for the device where they have not arrived."""
        return self.graph.numbers()

    def figures(self, site: str) -> tuple[float, float, int]:
        """(Σ‖Z‖², Σ‖X‖², N) of a site."""
        place, (times, rows) = self.graph.sites.index(site), self.graph.size(site)
        return self.numbers.kept[place], self.numbers.total[place], times * rows

    def fidelity(self, site: str) -> float:
        """Σ‖Z‖² / Σ‖X‖²."""
        return Window(self.figures(site), ()).fidelity

    def result(self, site: str) -> SiteResult:
        """Tensors of a site, its own memory."""
        return SiteResult(*(each.clone() for each in self.graph.result(self._flat, site)))


class Before(NamedTuple):
    """States of the trackers before a window: `later` steady windows after the `snapshots`, the newest of them with outcome `newest`.

    Each of them only turned the bases, so the newest tells all.
    """

    snapshots: Mapping[str, Snapshot]
    later: int = 0
    newest: Outcome | None = None

    def of(self, site: str) -> Snapshot:
        """The state of one tracker."""
        first = self.snapshots[site]
        if self.newest is None:
            return first
        basis = self.newest.result(site).basis
        return replace(first, window=first.window + self.later, basis=basis, open=EMPTY, reference=self.newest.fidelity(site))


class LateWindow:
    """A window that was worked on at once; what its trackers would have reported and become is made when it is asked for.

    The graph holds its activations until the next window is loaded: one that is not `steady` must be asked for before that.
    """

    def __init__(self, trackers: Mapping[str, SubspaceTracker], before: Before, outcome: Outcome) -> None:
        self.outcome = outcome
        self._trackers, self._before = dict(trackers), before
        self._observed: dict[str, TrackerEvent] = {}

    @cached_property
    def steady(self) -> bool:
        """Whether every site reached ε, so that turning the bases was all there was to do."""
        outcome, trackers = self.outcome, self._trackers
        for site, kept, total, finite in zip(outcome.graph.sites, *outcome.numbers, strict=True):
            if not (finite and 0 < total < LARGEST and rule.reaches(kept / total, trackers[site].policy)):
                return False
        return True

    @property
    def observed(self) -> dict[str, TrackerEvent]:
        """The event of the last observation of each site, in order of application."""
        self._closing  # noqa: B018  # where the window was not steady the observations are gone through again
        last = {one.site: place for place, one in enumerate(self.outcome.graph.seen)}
        return {site: self._observed[site] for site in sorted(last, key=last.__getitem__) if site in self._observed}

    @property
    def closed(self) -> dict[str, TrackerEvent]:
        """The closing events."""
        return self._closing[0]

    @property
    def after(self) -> dict[str, Snapshot]:
        """The states after the window."""
        return self._closing[1]

    @cached_property
    def _closing(self) -> tuple[dict[str, TrackerEvent], dict[str, Snapshot]]:
        events, after = {}, {}
        with in_plain_fp32(self.outcome.graph.device):
            for site, tracker in self._trackers.items():
                twin = tracker.twin()
                twin.restore(self._before.of(site))
                events[site] = self._turned(twin, site) if self.steady else self._again(twin, site)
                after[site] = twin.snapshot()
        return events, after

    def _turned(self, twin: SubspaceTracker, site: str) -> TrackerEvent:
        started, result, figures = perf_counter(), self.outcome.result(site), self.outcome.figures(site)
        _, rows = self.outcome.graph.size(site)
        self._observed[site] = twin.report(Seen(result.energy, result.last_row_sum, rows, result.stored))
        return twin.close_turned(Window(figures, [result.row_sum]), result.sketch, result.basis, started)

    def _again(self, twin: SubspaceTracker, site: str) -> TrackerEvent:
        for x in self.outcome.graph.activations(site):
            self._observed[site] = twin.observe(x.clone())
        return twin.refresh()


class Later:
    """What a tap puts off, and how its trackers catch up when somebody looks at them.

    on: whether observations are put off now; taken: events that were taken of the open window and not looked at yet.

    A `Look` runs at every layer of every step, and host time is what putting off is to save: what it does stands in one place, with no
    calls to others.
    """

    def __init__(self) -> None:
        self.on = False
        self.taken: LateEvents | None = None
        self._waiting: list[Tensor] = []  # these two lists stay the same objects: looks hold them
        self._versions: list[int] = []  # of those that wait, when they were seen
        self._all_tell = True  # their versions, as far as was seen
        self._noted: list[Observed] = []
        self._bytes = 0
        self._last: list[Observed] = []
        self._alike = 0
        self._never = False
        self._graph: WindowGraph | None = None
        self._due: tuple[Observed, ...] = ()  # what the open window is expected to show; nothing where what comes is not to be put off
        self._newest: LateWindow | None = None
        self._untaken: LateWindow | None = None
        self._since: Before | None = None

    def note(self, site: str, x: Tensor) -> None:
        """An observation that was not put off, of a window whose like may be."""
        if self._never or not pays(x):
            return
        self._bytes += x.nbytes
        self._noted.append(Observed(site, x.shape, x.dtype))
        if self._bytes <= most_bytes(x.device):
            self._keep(x)

    def window_over(self, trackers: Mapping[str, SubspaceTracker]) -> None:
        """A window has closed that was not put off: put off the next if it is like this one and the one before."""
        seen, self._noted, self._bytes = self._noted, [], 0
        self._alike, self._last = self._alike + 1 if seen == self._last else 1, seen
        devices = {x.device for x in self._waiting}
        if self._let_go(len(seen)) or self._alike < ALIKE or len(devices) != 1 or not _all_steady(trackers):
            return
        if {one.site for one in seen} != set(trackers) or len(set(seen)) > len(trackers):  # a site in several shapes
            return
        ranks = {site: tracker.rank for site, tracker in trackers.items()}
        if self._graph is None or self._graph.seen != tuple(seen) or self._graph.ranks != ranks:
            device = devices.pop()
            with in_plain_fp32(device):  # buffers made in inference mode could be written to nowhere else
                self._graph = WindowGraph(seen, ranks, device)
        self.on, self._due = True, self._graph.seen

    def close(self, trackers: Mapping[str, SubspaceTracker]) -> LateWindow | None:
        """Close the window that was put off; None where it is not what was expected, so that `catch_up` has it to hand out."""
        graph = self._graph
        if graph is None or len(self._waiting) != len(graph.seen) or self._changed():
            return None
        if self._newest is not None and not self._newest.steady:
            self._settle(trackers)
        before = self._since
        if before is None:
            if not _all_steady(trackers) or {site: tracker.rank for site, tracker in trackers.items()} != graph.ranks:
                return None
            before = Before({site: tracker.snapshot() for site, tracker in trackers.items()})
        with in_plain_fp32(graph.device):
            if before.newest is None:
                graph.set_bases({site: tracker.basis for site, tracker in trackers.items() if tracker.basis is not None})
            graph.load(self._waiting)
            outcome = Outcome(graph, graph.run())
        self._forget()
        self._due = graph.seen
        newest = self._newest = LateWindow(trackers, before, outcome)
        self._since = Before(before.snapshots, before.later + 1, outcome)
        if self.taken is not None:
            self.taken.come_from(lambda: newest.observed)
            self.taken, self._untaken = None, None
        else:
            self._untaken = newest
        return newest

    def take(self, now: Callable[[], Mapping[str, TrackerEvent]]) -> LateEvents | None:
        """What was observed since the last time, its events to be made later; None where it cannot be told without catching up.

        now: makes them of a window that is still open.
        """
        if not self._waiting:
            window, self._untaken = self._untaken, None
            return None if window is None else LateEvents(lambda: window.observed)
        if self._untaken is not None or self.taken is not None:
            return None
        self.taken, self._due = LateEvents(now), ()
        return self.taken

    def catch_up(self, trackers: Mapping[str, SubspaceTracker]) -> tuple[dict[str, TrackerEvent], list[tuple[str, Tensor]]]:
        """Bring the trackers to where the last window that closed has left them.

        Returns the events of it that nobody has taken, and the observations of the open window, now the caller's to hand out. One whose
        tensor has been changed since is left out, and nothing is put off again: the module changes in place what its layers read.
        """
        untaken = {} if self._untaken is None else self._untaken.observed
        self._settle(trackers)
        order = () if self._graph is None else self._graph.seen
        waiting = [(one.site, x) for one, x, then in zip(order, self._waiting, self._versions, strict=False) if _version(x) == then]
        if self._waiting:
            self.stop()
        self._let_go(len(self._waiting))
        return untaken, waiting

    def stop(self) -> None:
        """Observe as things come, until windows have been alike again."""
        self.on, self._alike, self._due = False, 0, ()

    def _keep(self, x: Tensor) -> None:
        self._all_tell = self._all_tell and not x.is_inference()
        self._waiting.append(x.detach() if x.requires_grad else x)
        self._versions.append(_version(x))

    def _let_go(self, seen: int) -> bool:
        """Hold what waits no longer. True where it is not all that was seen, or windows of this module are never to be put off."""
        self._never = self._never or self._changed()
        partial = len(self._waiting) != seen
        self._forget()
        return partial or self._never

    def _forget(self) -> None:
        self._waiting.clear()
        self._versions.clear()

    def _changed(self) -> bool:
        return self._versions != ([x._version for x in self._waiting] if self._all_tell else [_version(x) for x in self._waiting])

    def _settle(self, trackers: Mapping[str, SubspaceTracker]) -> None:
        if self._newest is not None:
            for site, after in self._newest.after.items():
                trackers[site].restore(after)
        self._newest = self._untaken = self._since = None


class Look(Patch):
    """Keeps what one layer reads, as an observation of `site`, until its window closes.

    see: takes it at once where windows are not put off, or it is not the one that was expected.
    """

    first = True

    def __init__(self, layer: nn.Module, site: str, later: Later, see: Callable[[str, Tensor], None]) -> None:
        self._site, self._later, self._see = site, later, see
        self._waiting, self._versions = later._waiting, later._versions
        super().__init__(layer)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        x = args[0] if args else kwargs["input"]
        later, waiting = self._later, self._waiting
        due, place = later._due, len(waiting)
        # Shape and dtype have to be read of every tensor once. Here that takes no longer than it would at the close, what a tracker
        # refuses is refused within the forward, and what waits never takes more memory than the window it stands for.
        if place >= len(due) or due[place] != (self._site, x.shape, x.dtype):
            self._see(self._site, x)
            return self._plain(*args, **kwargs)
        try:
            version = x._version if later._all_tell else _version(x)
        except RuntimeError:  # made in inference mode; to ask each first whether it is would take longer than to read its version
            version, later._all_tell = _version(x), False
        self._versions.append(version)
        waiting.append(x.detach() if x.requires_grad else x)
        return self._plain(*args, **kwargs)


def _version(x: Tensor) -> int:
    """How often x has been changed in place; one that does not tell counts as never changed."""
    return 0 if x.is_inference() else x._version


def _all_steady(trackers: Mapping[str, SubspaceTracker]) -> bool:
    return bool(trackers) and all(tracker.steady for tracker in trackers.values())
