"""Taps: patches that hand the input of every linear layer of a module to a tracker of its own.

Works on any `nn.Module`; the sites are its `nn.Linear` submodules. A tap sees, it never changes: outputs, gradients
and random state of the module are those of the untapped one. Patches and not hooks, because for a module with a hook torch calls
forward in a way that costs the host more than all the rest of a tap does.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laser_studio.errors import PolicyError
from laser_studio.laser.event import TrackerEvent
from laser_studio.laser.later import LateEvents, Later, Look
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.tracker import Snapshot, SubspaceTracker, refresh_together


@dataclass(frozen=True, eq=False)
class TapSnapshot:
    """The settings of a tap and the state of every tracker it had, by reference."""

    policy: LaserPolicy
    trackers: dict[str, Snapshot]


def find_sites(module: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of `module` by their dotted names, in order; shared layers once, under their first name.

    >>> list(find_sites(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
    ['0', '2']
    """
    return {name or "linear": child for name, child in module.named_modules() if isinstance(child, nn.Linear)}


class SiteTap:
    """A tracker for every enabled site of a module, fed by patches of their forwards while attached.

    >>> import torch
    >>> layer = nn.Sequential(nn.Linear(4, 4))
    >>> with SiteTap(layer, LaserPolicy(rank=2)) as tap:
    ...     _ = layer(torch.ones(3, 4))
    ...     list(tap.take()), tap.refresh()["0"].rank
    (['0'], 2)

    On a GPU the windows of a module that sees the same shapes in each are put off to their end and all sites are worked on at once; the
    events then are made when they are looked at. What they say is the same.

    What is seen is what the layer reads: what its forward pre-hooks leave of an input, whenever they were put there. Other patches,
    as those of compression, act after that. A layer's `forward` called by itself is seen too, a copy of the module is not.

    Trackers are made when a site is first seen, on the device of what it sees, and live as long as the tap. With `keep_windows`
    (an attribute too) all of them hold the activations of every window until its refresh; set later, it acts from the next window to begin.
    Raises `PolicyError` where the policy names a site the module does not have or does not fit a site's width.
    """

    def __init__(self, module: nn.Module, policy: LaserPolicy, keep_windows: bool = False) -> None:
        self._handles: list[Look | RemovableHandle] = []
        self.sites = find_sites(module)
        if not self.sites:
            raise PolicyError(f"{type(module).__name__} has no linear layers to track")
        self._fused = [child for child in module.modules() if isinstance(child, nn.TransformerEncoderLayer)]
        self._trackers: dict[str, SubspaceTracker] = {}
        self._later = Later()
        self._events: dict[str, TrackerEvent] = {}
        self._policy = self._checked(policy)
        self._keep_windows = keep_windows

    @property
    def trackers(self) -> dict[str, SubspaceTracker]:
        """The tracker of each site that has been seen."""
        self._catch_up()
        return self._trackers

    @property
    def keep_windows(self) -> bool:
        """Whether windows are held from their start on, whatever the rule needs."""
        return self._keep_windows

    @keep_windows.setter
    def keep_windows(self, keep: bool) -> None:
        self._keep_windows = keep
        for tracker in self.trackers.values():
            tracker.keep(keep)

    @property
    def policy(self) -> LaserPolicy:
        """The policy of all sites, with its overrides."""
        return self._policy

    @property
    def attached(self) -> bool:
        """Whether the patches are in place."""
        return bool(self._handles)

    def attach(self) -> Self:
        """Put the patches in place; harmless where they are."""
        if not self._handles:
            tap = weakref.ref(self)  # a module must not keep a forgotten tap and its trackers alive

            def see(name: str, x: Tensor) -> None:
                if (owner := tap()) is not None:
                    owner._see(name, x)

            self._handles = [Look(layer, name, self._later, see) for name, layer in self.sites.items()]
            # In eval mode these do not call their linear layers, unless there is a hook.
            self._handles += [layer.register_forward_pre_hook(_nothing) for layer in self._fused]
        return self

    def detach(self) -> None:
        """Take every patch away; trackers and events not yet taken stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    def __del__(self) -> None:
        self.detach()

    def take(self) -> Mapping[str, TrackerEvent]:
        """The observations since the last `take`, in order of application; of a site applied more than once, the last."""
        if self._later.on and not self._events and (late := self._later.take(self._taken_now)) is not None:
            return late
        self._catch_up()
        events, self._events = self._events, {}
        return events

    def basis_read_with(self, name: str) -> Tensor | None:
        """The basis (D, k) of a site's newest observation, or, where none waits to be taken, the one in force; None without."""
        self._catch_up()
        if (event := self._events.get(name)) is not None:
            return event.basis
        tracker = self.trackers.get(name)
        return None if tracker is None else tracker.basis

    def refresh(self, functional: Mapping[str, float] | None = None) -> Mapping[str, TrackerEvent]:
        """Close the window of every tracker; their closing events by site. functional: what single sites are judged by, see there."""
        given = functional or {}
        if self._later.on and not given and (window := self._later.close(self._trackers)) is not None:
            return LateEvents(lambda: window.closed)
        events = refresh_together(list(self.trackers.values()), [given.get(name) for name in self.trackers])
        self._later.window_over(self._trackers)
        return dict(zip(self._trackers, events, strict=True))

    def turn(self, observed: Mapping[str, TrackerEvent]) -> dict[str, TrackerEvent]:
        """Turn the bases of those sites whose newest observation fell off; what they tell, by site. See `SubspaceTracker.turn`."""
        told = {name: self.trackers[name].turn(event) for name, event in observed.items() if name in self.trackers}
        return {name: event for name, event in told.items() if event is not None}

    def set_policy(self, policy: LaserPolicy) -> None:
        """Other settings for every site, from the next refresh on. A site switched off loses its tracker, one switched on starts anew."""
        policy = self._checked(policy)
        self._catch_up()
        self._policy = policy
        self._trackers = {name: tracker for name, tracker in self._trackers.items() if policy.enabled_for(name)}
        for name, tracker in self._trackers.items():
            tracker.set_policy(policy.for_site(name))

    def snapshot(self) -> TapSnapshot:
        """The state of every tracker, settings included; cheap: see `SubspaceTracker.snapshot`."""
        return TapSnapshot(self._policy, {name: tracker.snapshot() for name, tracker in self.trackers.items()})

    def restore(self, snapshot: TapSnapshot) -> None:
        """Go on from `snapshot`, bit for bit: trackers made since are dropped, and so are events not yet taken."""
        self._catch_up()
        self._policy, self._events = snapshot.policy, {}
        trackers = {name: self.trackers.get(name) or self._new_tracker(name) for name in snapshot.trackers}
        for name, tracker in trackers.items():
            tracker.restore(snapshot.trackers[name])
        self._trackers = trackers

    def _see(self, name: str, x: Tensor) -> None:
        if name not in self._trackers and not self._policy.enabled_for(name):
            return
        if self._later.on:  # not what was expected next
            self._catch_up()
            self._later.stop()
        self._observe(name, x)
        self._later.note(name, x)

    def _observe(self, name: str, x: Tensor) -> None:
        if name not in self._trackers:
            self._trackers[name] = self._new_tracker(name)
        self._events.pop(name, None)  # so that the order is that of the last application
        self._events[name] = self._trackers[name].observe(x)

    def _catch_up(self) -> None:
        """Do now what was put off, so that trackers and events are those of this moment."""
        later = self._later
        if not later.on:
            return
        untaken, waiting = later.catch_up(self._trackers)
        self._events |= untaken
        for name, x in waiting:
            if name in self._trackers or self._policy.enabled_for(name):
                self._observe(name, x)
        if (taken := later.taken) is not None:
            later.taken, events, self._events = None, self._events, {}
            taken.come_from(lambda: events)

    def _taken_now(self) -> Mapping[str, TrackerEvent]:
        """The events that were taken of the open window, before it closed."""
        taken = self._later.taken
        self._catch_up()
        assert taken is not None
        return taken.made

    def _new_tracker(self, name: str) -> SubspaceTracker:
        settings = self._policy.for_site(name)
        return SubspaceTracker(self.sites[name].in_features, settings, name=name, keep_windows=self._keep_windows)

    def _checked(self, policy: LaserPolicy) -> LaserPolicy:
        policy.check_sites({name: layer.in_features for name, layer in self.sites.items()})
        return policy


def _nothing(module: nn.Module, args: tuple[object, ...]) -> None:
    """A hook that does nothing."""
