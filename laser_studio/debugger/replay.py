"""Replay: any recorded step's exact state, from the nearest keyframe, without disturbing the live run at its head.

A replay has a module tree of its own over the shared weights, computes no frames and keeps no history. It goes through the very
states of the live run: same weights, same settings in force at each step, same private random rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laser_studio.debugger.frames import Frame
from laser_studio.debugger.keyframes import Keyframe
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.stepper import Stepper
from laser_studio.laser import LaserPolicy, Snapshot

InForce = Callable[[int], tuple[LaserPolicy, Measures]]  # of the steps after a given one


@dataclass(frozen=True, eq=False)
class Restored:
    """The exact state after a recorded step. Tensors are shared with the run: read them, do not write to them.

    frame: as it was recorded; z_H, z_L: (B, P + T, D) in the forward dtype; trackers: each site's whole tracker state, `.basis`
    (D, k) among it (None before the first window has closed); replayed: net applications computed again to get here.
    """

    frame: Frame
    z_H: Tensor
    z_L: Tensor
    trackers: Mapping[str, Snapshot]
    replayed: int


@dataclass(frozen=True, eq=False)
class SiteVisit:
    """One linear layer at work within a net application: exact inputs (N, D) and outputs (N, D′), copies, in the dtype computed in."""

    site: str
    inputs: Tensor
    outputs: Tensor


class Replay:
    """Restores states of one run, given its nearest keyframe. `fresh` makes a stepper at step 0."""

    def __init__(self, fresh: Callable[[], Stepper], in_force: InForce) -> None:
        self._fresh, self._in_force = fresh, in_force
        self._stepper: Stepper | None = None

    def close(self) -> None:
        """Remove its hooks and forget where it was."""
        if self._stepper is not None:
            self._stepper.close()
        self._stepper = None

    def to(self, index: int, keyframe: Keyframe | None) -> tuple[Stepper, int]:
        """A stepper at step `index`, and how many steps it took; `keyframe`: the last one up to there, None for the start."""
        base = 0 if keyframe is None else keyframe.index
        stepper = self._stepper
        if stepper is None or (keyframe is None and stepper.index > index):
            self.close()
            stepper = self._stepper = self._fresh()
        if not base <= stepper.index <= index and keyframe is not None:
            stepper.load(keyframe)
        steps = index - stepper.index
        while stepper.index < index:
            stepper.settle(*self._in_force(stepper.index))
            stepper.advance()
        return stepper, steps

    def after(self, index: int, keyframe: Keyframe | None) -> Stepper:
        """A stepper that has just done net application `index`; `keyframe`: the last one before it."""
        stepper = self._stepper
        if stepper is None or stepper.index != index or stepper.before is None:
            stepper, _ = self.to(index - 1, keyframe)
            stepper.settle(*self._in_force(stepper.index))
            stepper.advance()
        return stepper

    def inside(self, index: int, keyframe: Keyframe | None) -> tuple[SiteVisit, ...]:
        """Every site within net application `index`, in order; `keyframe`: the last one before it."""
        stepper, _ = self.to(index - 1, keyframe)
        stepper.settle(*self._in_force(stepper.index))
        with _visits(stepper.tap.sites) as visits:
            stepper.advance()
        return tuple(visits)


def restored(stepper: Stepper, frame: Frame, replayed: int) -> Restored:
    """The state a stepper is in, which is that of `frame`."""
    return Restored(frame, stepper.z_H, stepper.z_L, dict(stepper.tap.snapshot().trackers), replayed)


@contextmanager
def _visits(sites: Mapping[str, nn.Linear]) -> Iterator[list[SiteVisit]]:
    """What each of the layers reads and gives while the context lasts."""
    visits: list[SiteVisit] = []

    def hook_for(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs, outputs = (torch.clone(each).flatten(0, -2) for each in (args[0], output))  # what follows may change them in place
            visits.append(SiteVisit(name, inputs, outputs))

        return hook

    handles = [layer.register_forward_hook(hook_for(name)) for name, layer in sites.items()]
    try:
        yield visits
    finally:
        for handle in handles:
            handle.remove()
