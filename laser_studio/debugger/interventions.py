"""Interventions: what is changed in a run at some step, as validated records with JSON both ways and a sentence each.

An intervention says what is done; `Planned` adds from which step on. How a run carries it out is in `stepper` (states, tokens,
cycles) and `replacing` (what sites read). Nothing here computes on activations but the two lines that replace a site's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor

from laser_studio.debugger.schedule import CycleChange, Schedule
from laser_studio.errors import InterventionError, LaserStudioError, PolicyError
from laser_studio.laser import LaserPolicy
from laser_studio.laser.linalg import private_generator
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.settings import describe, setting, settings

MOST_INTERVENTIONS = 16  # in force or behind in one run
MOST_SITES = 64  # named by one intervention
LONGEST_STEP = 10_000_000
Kept = Literal["held", "live"]


@dataclass(frozen=True)
class Place:
    """Where a branch begins: the step, each site's width and the rank of its basis (0: none yet), the puzzle and the order of steps."""

    at: int
    sites: Mapping[str, int]
    ranks: Mapping[str, int]
    puzzle: Puzzle
    schedule: Schedule


class Intervention(ABC):
    """What is done to a run. Concrete ones are frozen settings classes; `kind` names them in JSON."""

    kind: ClassVar[str]

    @abstractmethod
    def sentence(self) -> str:
        """What is done, in words."""

    @abstractmethod
    def check(self, place: Place) -> None:
        """Raise `InterventionError` where it cannot be done there, or would do nothing for want of something to act on."""

    def span(self, at: int) -> str:
        """From which step on and for how long it acts, in words."""
        return f"once, after step {at}"

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON-ready values, `kind` among them."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]  # every concrete class is a dataclass

    def short_json(self) -> dict[str, Any]:
        """The same without what has its default, for links."""
        usual = {name: info.default for name, info in describe(type(self)).items()}
        return {name: value for name, value in self.to_json().items() if name == "kind" or value != usual[name]}


@settings(InterventionError)
class EditToken(Intervention):
    """Another value in one cell of the puzzle that the model reads, from the next net application on."""

    kind: ClassVar[str] = "edit"
    row: int = setting(low=1, high=1_000, help="Row of the cell, counted from 1.")
    column: int = setting(low=1, high=1_000, help="Column of the cell, counted from 1.")
    value: int = setting(low=0, high=1_000, help="Cell value in the puzzle's own numbers; 0 is a blank of a Sudoku and a wall of a maze.")

    def sentence(self) -> str:
        return f"cell R{self.row}C{self.column} of the puzzle set to {self.value}"

    def span(self, at: int) -> str:
        return f"from step {at + 1} on"

    def check(self, place: Place) -> None:
        self.applied(place.puzzle)

    def applied(self, puzzle: Puzzle) -> Puzzle:
        """The puzzle with that cell changed. Its solution stays where it still is one, else it is looked for.

        Raises `InterventionError` for a cell or value the puzzle does not have.
        """
        if self.row > puzzle.height or self.column > puzzle.width:
            raise InterventionError(f"there is no cell R{self.row}C{self.column} on a board of {puzzle.height}×{puzzle.width}")
        domain, cell = get_domain(puzzle.domain), (self.row - 1) * puzzle.width + self.column - 1
        changed = replace(puzzle, cells=(*puzzle.cells[:cell], self.value, *puzzle.cells[cell + 1 :]))
        try:
            domain.encode(changed)
        except LaserStudioError as problem:
            raise InterventionError(str(problem)) from None
        if changed == puzzle:
            return puzzle
        if puzzle.solution is not None and domain.blank is not None and self.value in (domain.blank, puzzle.solution[cell]):
            return changed
        return domain.with_solution(replace(changed, solution=None))


class SiteIntervention(Intervention):
    """One that replaces what sites read, while it acts. The trackers still see what reaches the site."""

    steps: int | None

    @property
    def idle(self) -> bool:
        """Whether sites read what they would without it, to the last bit."""
        return False

    @property
    @abstractmethod
    def holds(self) -> bool:
        """Whether its directions are those of the step it begins at, whatever the bases do afterwards."""

    @abstractmethod
    def concerns(self, site: str) -> bool:
        """Whether it acts at that site."""

    @abstractmethod
    def directions(self, basis: Tensor) -> Tensor:
        """What it needs of a site's basis (D, k): orthonormal columns (D, m)."""

    @abstractmethod
    def replaced(self, x: Tensor, directions: Tensor) -> Tensor:
        """What the site reads in place of x (…, D)."""

    def span(self, at: int) -> str:
        return f"from step {at + 1} on" if self.steps is None else f"steps {at + 1} to {at + self.steps}"

    def acts(self, at: int, index: int) -> bool:
        """Whether it acts on the net application after `index`, having begun at `at`."""
        return at <= index and (self.steps is None or index < at + self.steps)


@settings(InterventionError)
class Reconstruct(SiteIntervention):
    """What if the model used its compressed activations: sites compute on XQQᵀ in place of X.

    The basis is the tracker's at each step (`live`), or the one of the step where the branch begins, for good (`held`). A smaller
    rank takes its first columns, which orthogonal iteration orders by their energy as a stream becomes steady. A site without a
    basis yet reads X.
    """

    kind: ClassVar[str] = "reconstruct"
    sites: tuple[str, ...] = setting(default=(), help="The sites by name; empty: all that are tracked.")
    rank: int | str | None = setting(
        default=None, unit="directions", help="Directions used, as a number or a part of the width; empty: all that are in force."
    )
    basis: Kept = setting(default="live", help="The tracker's basis as it turns, or held as it is where the branch begins.")
    steps: int | None = setting(default=None, low=1, high=LONGEST_STEP, unit="steps", help="How long it acts; empty: to the end.")

    @field_validator("rank")
    @classmethod
    def _rank(cls, value: int | str | None) -> int | str | None:
        if value is not None:
            try:
                LaserPolicy(rank=value)
            except PolicyError as problem:
                raise ValueError(str(problem).removeprefix("LaserPolicy: rank: ")) from None
        return value

    @model_validator(mode="after")
    def _bounded(self) -> Any:
        if len(self.sites) > MOST_SITES:
            raise ValueError(f"at most {MOST_SITES} sites can be named: leave them empty for all")
        return self

    @property
    def holds(self) -> bool:
        return self.basis == "held"

    def sentence(self) -> str:
        where = ", ".join(self.sites[:3]) + (f" and {len(self.sites) - 3} more" if len(self.sites) > 3 else "") or "every site"
        rank = "the basis in force" if self.rank is None else f"rank {self.rank}"
        return f"{where} reads its reconstruction from {rank}" + (", held" if self.holds else "")

    def check(self, place: Place) -> None:
        _check_sites(self.sites, place)
        if self.holds and not any(place.ranks.get(site) for site in self.sites or place.sites):
            raise InterventionError(f"there is no basis to hold at step {place.at} yet: branch later, or use the live one")

    def concerns(self, site: str) -> bool:
        return not self.sites or site in self.sites

    def directions(self, basis: Tensor) -> Tensor:
        return basis if self.rank is None else basis[:, : LaserPolicy(rank=self.rank).rank_for(len(basis))]

    def replaced(self, x: Tensor, directions: Tensor) -> Tensor:
        return ((x.float() @ directions) @ directions.T).to(x.dtype)


@settings(InterventionError)
class ScaleDirection(SiteIntervention):
    """One direction q of a site's basis ablated (factor 0) or scaled: the site reads X + (factor − 1)·Xqqᵀ."""

    kind: ClassVar[str] = "scale"
    site: str = setting(help="The site by name.")
    index: int = setting(default=0, low=0, high=65_535, help="Which direction of the basis, counted from 0, the strongest first.")
    factor: float = setting(default=0.0, low=-100, high=100, help="What the part along it is multiplied with; 0 removes it.")
    basis: Kept = setting(default="held", help="The direction as it is where the branch begins, or as it turns.")
    steps: int | None = setting(default=None, low=1, high=LONGEST_STEP, unit="steps", help="How long it acts; empty: to the end.")

    @property
    def idle(self) -> bool:
        return self.factor == 1

    @property
    def holds(self) -> bool:
        return self.basis == "held"

    def sentence(self) -> str:
        done = "ablated" if self.factor == 0 else f"scaled by {self.factor:g}"
        return f"direction {self.index} of {self.site} {done}" + ("" if self.holds else ", as it turns")

    def check(self, place: Place) -> None:
        _check_sites((self.site,), place)
        rank = place.ranks.get(self.site, 0)
        if not rank:
            raise InterventionError(f"{self.site} has no basis at step {place.at} yet: branch after its first window has closed")
        if self.index >= rank:
            raise InterventionError(f"{self.site} has {rank} directions at step {place.at}: choose one from 0 to {rank - 1}")

    def concerns(self, site: str) -> bool:
        return site == self.site

    def directions(self, basis: Tensor) -> Tensor:
        return basis[:, self.index : self.index + 1]

    def replaced(self, x: Tensor, directions: Tensor) -> Tensor:
        return x + (((self.factor - 1) * (x.float() @ directions)) @ directions.T).to(x.dtype)


@settings(InterventionError)
class ChangeState(Intervention):
    """A state set to zero, or moved by noise of a given relative size, before the next net application.

    Noise: Gaussian under a private generator, scaled so that ‖δ‖ is `size` · ‖z‖ of each puzzle.
    """

    kind: ClassVar[str] = "state"
    state: Literal["H", "L"] = setting(default="H", help="z_H, the answer's state, or z_L, the reasoning state.")
    change: Literal["zero", "noise"] = setting(default="zero", help="Set to zero, or moved by noise.")
    size: float = setting(default=0.1, low=0, high=100, help="Of the noise, relative to the state's norm.")
    seed: int = setting(default=0, low=0, high=2**63 - 1, help="Seed of the noise; the global random state is never used.")

    def sentence(self) -> str:
        if self.change == "zero":
            return f"z_{self.state} set to zero"
        return f"noise of {self.size:g} of its norm added to z_{self.state} (seed {self.seed})"

    def check(self, place: Place) -> None:
        pass

    def applied(self, z: Tensor) -> Tensor:
        """The state z (B, P + T, D) after the change; z itself stays."""
        if self.change == "zero":
            return torch.zeros_like(z)
        if self.size == 0:
            return z
        rows = [self._noise(row, z[row]) for row in range(len(z))]
        return (z.float() + torch.stack(rows).to(z.device)).to(z.dtype)

    def _noise(self, row: int, z: Tensor) -> Tensor:
        # Each puzzle of a batch has its own draw, so that the first gets the same whatever runs along with it.
        drawn = torch.randn(z.shape, generator=private_generator("state", self.seed, self.state, row))
        return drawn * (self.size * float(z.float().norm()) / float(drawn.norm()))


@settings(InterventionError)
class ChangeCycles(Intervention):
    """More or fewer L updates in the H cycle under way, or H cycles in the supervision step under way; in all to come, too, if asked."""

    kind: ClassVar[str] = "cycles"
    level: Literal["L", "H"] = setting(default="L", help="L updates of an H cycle, or H cycles of a supervision step.")
    change: int = setting(default=1, low=-1_000, high=1_000, unit="cycles", help="How many are added; below 0: skipped.")
    every: bool = setting(default=False, help="In every one from here on, not only in the one under way.")

    @field_validator("change")
    @classmethod
    def _some(cls, value: int) -> int:
        if value == 0:
            raise ValueError("give a number of cycles to add, or below 0 to skip")
        return value

    def sentence(self) -> str:
        count, what = abs(self.change), "L update" if self.level == "L" else "H cycle"
        where = "H cycle" if self.level == "L" else "supervision step"
        done = "added to" if self.change > 0 else "left out of"
        return f"{count} {what}{'s' * (count > 1)} {done} {'every' if self.every else 'the'} {where}{'' if self.every else ' under way'}"

    def span(self, at: int) -> str:
        return f"from step {at + 1} on" if self.every else f"once, from step {at + 1} on"

    def check(self, place: Place) -> None:
        cycles, (h, made) = place.schedule.cycles(place.at), place.schedule.done(place.at)
        left = cycles[h] - made if self.level == "L" else len(cycles) - h - 1
        if self.change < 0 and not self.every and not left:
            what = "L update of this H cycle" if self.level == "L" else "H cycle of this supervision step"
            raise InterventionError(f"no {what} is left to skip at step {place.at}")

    def planned(self, at: int) -> CycleChange:
        """What it does to the order of steps."""
        return CycleChange(at, self.level, self.change, self.every)


_KINDS: dict[str, type[Intervention]] = {kind.kind: kind for kind in (EditToken, Reconstruct, ScaleDirection, ChangeState, ChangeCycles)}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Planned:
    """An intervention and the step it begins after."""

    at: int
    what: Intervention

    @property
    def text(self) -> str:
        """All of it in one sentence."""
        return f"{self.what.sentence()}, {self.what.span(self.at)}"

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; `at` stands beside the settings."""
        return {"at": self.at, **self.what.to_json()}


def read_intervention(data: object) -> Intervention:
    """The intervention a dictionary describes, as `to_json` gives it. Raises `InterventionError`."""
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise InterventionError("an intervention is described by a dictionary with a kind")
    kind = _KINDS.get(str(data.get("kind", ""))[:40])
    if kind is None:
        raise InterventionError(f"no intervention is called {str(data.get('kind', ''))[:40]!r}: there are {', '.join(KINDS)}")
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]  # every concrete class is a dataclass
    if unknown := [key for key in data if key not in (*known, "kind")]:
        raise InterventionError(f"{kind.kind} has no {unknown[0][:40]!r}: it has {', '.join(known)}")
    return kind(**{key: value for key, value in data.items() if key != "kind"})


def read_planned(data: object) -> Planned:
    """The same with its step, `at`."""
    if not isinstance(data, Mapping):
        raise InterventionError("an intervention is described by a dictionary with a kind")
    at = data.get("at")
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at <= LONGEST_STEP:
        raise InterventionError(f"an intervention begins after a step from 0 to {LONGEST_STEP:,}")
    return Planned(at, read_intervention({key: value for key, value in data.items() if key != "at"}))


def edited(puzzle: Puzzle, course: Iterable[Planned]) -> Puzzle:
    """The puzzle after all edits of a course."""
    for planned in course:
        if isinstance(planned.what, EditToken):
            puzzle = planned.what.applied(puzzle)
    return puzzle


def scheduled(course: Sequence[Planned]) -> list[CycleChange]:
    """The changes of cycles in a course."""
    return [planned.what.planned(planned.at) for planned in course if isinstance(planned.what, ChangeCycles)]


def _check_sites(named: Sequence[str], place: Place) -> None:
    unknown = [site for site in named if site not in place.sites]
    if unknown:
        raise InterventionError(f"no site is called {unknown[0][:80]}; the sites are {', '.join(place.sites)[:400]}")
    off = [site for site in named if site not in place.ranks]
    if off and place.at:
        raise InterventionError(f"{off[0]} is not tracked at step {place.at}, so it has no basis: switch it on first")
