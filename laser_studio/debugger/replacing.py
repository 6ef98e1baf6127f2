"""Patches that replace what sites read, while an intervention of the run acts. One `Replacing` belongs to one module tree."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from laser_studio.debugger.interventions import Planned, SiteIntervention
from laser_studio.laser.patches import Reads

Directions = Mapping[tuple[int, str], Tensor]  # by place in the course and site: (D, m), those that are held


class Replacing:
    """The site interventions of a course at work.

    index: net applications done so far; basis: the basis (D, k) of a site now, None where there is none. A tap sees what
    reaches the site.
    """

    def __init__(self, course: Sequence[Planned], index: Callable[[], int], basis: Callable[[str], Tensor | None]) -> None:
        self._course = [
            (number, planned.at, planned.what) for number, planned in enumerate(course) if isinstance(planned.what, SiteIntervention)
        ]
        self._index, self._basis = index, basis
        self._patches: list[Reads] = []
        self.held: Directions = {}

    def attach(self, layers: Mapping[str, nn.Linear]) -> None:
        """Patch the layers that interventions concern."""
        owner = weakref.ref(self)  # a module must not keep a forgotten run alive

        def instead(site: str, x: Tensor) -> Tensor:
            replacing = owner()
            return x if replacing is None else replacing.read(site, x)

        for site, layer in layers.items():
            if any(what.concerns(site) for _, _, what in self._course):
                self._patches.append(Reads(layer, partial(instead, site)))

    def detach(self) -> None:
        """Take every patch away."""
        for patch in self._patches:
            patch.remove()
        self._patches = []

    def hold(self, sites: Sequence[str]) -> None:
        """Take the directions of those that begin now and hold theirs."""
        held = dict(self.held)
        for number, at, what in self._course:
            if at == self._index() and what.holds:
                for site in sites:
                    if what.concerns(site) and (basis := self._basis(site)) is not None:
                        held[number, site] = what.directions(basis).clone()  # not the whole basis it is a part of
        self.held = held

    def read(self, site: str, x: Tensor) -> Tensor:
        """What the site reads in place of x (…, D)."""
        for number, at, what in self._course:
            if what.concerns(site) and what.acts(at, self._index()) and (directions := self._directions(number, site, what)) is not None:
                x = what.replaced(x, directions)
        return x

    def _directions(self, number: int, site: str, what: SiteIntervention) -> Tensor | None:
        if what.holds:
            return self.held.get((number, site))
        basis = self._basis(site)
        return None if basis is None else what.directions(basis)
