"""Replay: any recorded step's exact state, from the nearest keyframe, without disturbing the live run at its head.

A replay has a module tree of its own over the shared weights, computes no frames and keeps no history. It goes through the very
states of the live run: same weights, same settings in force at each step, same private random rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from laser_studio.debugger.frames import Frame
from laser_studio.debugger.keyframes import Keyframe
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.stepper import Before, Stepper
from laser_studio.laser import LaserPolicy, Snapshot
from laser_studio.laser.patches import Wrap

PASSED_KEPT = 64  # as many steps as lie between two keyframes, by reference: their states, and each window's bases once

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
        self._passed: OrderedDict[int, Before] = OrderedDict()  # of the steps passed last, so that looking back step by step replays once

    def close(self) -> None:
        """Remove its patches and forget where it was."""
        if self._stepper is not None:
            self._stepper.close()
        self._stepper = None
        self._passed.clear()

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
            self._advance(stepper)
        return stepper, steps

    def before(self, index: int, keyframe: Keyframe | None) -> Before:
        """What net application `index` found; `keyframe`: the last one before it. Those passed last are still at hand."""
        if index not in self._passed:
            stepper, _ = self.to(index - 1, keyframe)
            self._advance(stepper)
        return self._passed[index]

    def inside(self, index: int, keyframe: Keyframe | None) -> tuple[SiteVisit, ...]:
        """Every site within net application `index`, in order; `keyframe`: the last one before it."""
        stepper, _ = self.to(index - 1, keyframe)
        with _visits(stepper.tap.sites) as visits:
            self._advance(stepper)
        return tuple(visits)

    def _advance(self, stepper: Stepper) -> None:
        stepper.settle(*self._in_force(stepper.index))
        stepper.advance()
        assert stepper.before is not None
        self._passed[stepper.index] = stepper.before
        self._passed.move_to_end(stepper.index)
        while len(self._passed) > PASSED_KEPT:
            self._passed.popitem(last=False)


def restored(stepper: Stepper, frame: Frame, replayed: int) -> Restored:
    """The state a stepper is in, which is that of `frame`."""
    return Restored(frame, stepper.z_H, stepper.z_L, dict(stepper.tap.snapshot().trackers), replayed)


@contextmanager
def _visits(sites: Mapping[str, nn.Linear]) -> Iterator[list[SiteVisit]]:
    """What each of the layers reads and gives while the context lasts."""
    visits: list[SiteVisit] = []

    def call(name: str, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        output = plain(x)
        inputs, outputs = (torch.clone(each).flatten(0, -2) for each in (x, output))  # what follows may change them in place
        visits.append(SiteVisit(name, inputs, outputs))
        return output

    patches = [Wrap(layer, partial(call, name)) for name, layer in sites.items()]
    try:
        yield visits
    finally:
        for patch in patches:
            patch.remove()
