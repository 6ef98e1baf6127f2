"""One net application of a recorded run, to be done again beside it: exactly, or with activations compressed.

A private copy of the net over the shared weights does the work, so neither the run nor its trackers notice. What is read off it is
the caller's: `looking` takes a site's input, `mixing` what a cell reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from laser_studio.debugger.replacing import Replacing
from laser_studio.debugger.replica import share_weights
from laser_studio.debugger.session import Session
from laser_studio.debugger.stepper import Before
from laser_studio.errors import InspectionError
from laser_studio.laser import find_sites
from laser_studio.laser.patches import Reads, Wrap
from laser_studio.laser.reconstruct import projected
from laser_studio.trm import TRM
from laser_studio.trm.recursion import States, low_injection, net_of, reads


class NetApplication:
    """The net application that led to frame `index`, on the puzzle shown.

    model: a copy whose sites read what interventions of the run had them read; bases: the basis (D, k) that stored each site's input
    then, none before the first window has closed; net: the one applied; z, injection: (1, P + T, D), what it read (injection None where
    nothing was added). Raises `InspectionError` for a step that is not recorded, and for 0.
    """

    def __init__(self, session: Session, index: int) -> None:
        if not 1 <= index <= session.head:
            what = "nothing has been applied at step 0" if index == 0 else f"step {index} is not recorded, the newest is {session.head}"
            raise InspectionError(f"{what}: step on, and look again")
        self.before, self.frame, self.x = session.before(index), session.frames[index], session.embedded(index)
        self.bases = self.before.bases
        self.model: TRM = share_weights(session.model).eval()
        self.sites = find_sites(self.model.net)
        self.reading = as_intervened(session, index, self.before)
        self.reading.attach(self.sites)
        self.rope = self.model.rope(self.x.shape[1], self.x.device)
        states, l, config = States(self.before.z_H[:1], self.before.z_L[:1]), self.frame.l, self.model.config  # noqa: E741
        self.net = net_of(self.model.net, l)
        with torch.no_grad():
            self.z, self.injection = reads(config, states, None if l == "H" else low_injection(config, states, self.x), l)

    def inputs(self, module: nn.Module) -> Tensor:
        """What a module of the net reads in this application, a copy. Raises `InspectionError` where it belongs to a net that rests."""
        seen: list[Tensor] = []

        def call(plain: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor:
            seen.append(x.clone())
            return plain(x, *others)

        patch = Wrap(module, call)
        try:
            self.run()
        finally:
            patch.remove()
        if not seen:
            raise InspectionError(f"the other net is applied at step {self.frame.index}: look at a step of this one")
        return seen[0]

    @torch.no_grad()
    def run(self) -> Tensor:
        """The state it leads to, (1, P + T, D)."""
        return self.net(self.z, self.injection, self.rope)

    @contextmanager
    def compressed(self) -> Iterator[None]:
        """While it lasts, every site that has a basis reads XQQᵀ in place of X; gradients pass through."""
        with reading_compressed(self.sites, self.bases):
            yield


def as_intervened(session: Session, index: int, before: Before) -> Replacing:
    """What the run's site interventions do in net application `index`, at layers it is attached to, as long as it is kept."""
    reading = Replacing(session.course, lambda: index - 1, before.bases.get)
    reading.held = before.held
    return reading


@contextmanager
def reading_compressed(sites: Mapping[str, nn.Linear], bases: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, each of `sites` that has a basis (D, k) reads XQQᵀ in place of X."""
    patches = [Reads(sites[name], partial(projected, basis=basis)) for name, basis in bases.items()]
    try:
        yield
    finally:
        for patch in patches:
            patch.remove()
