"""A run with its branches: who they are, where each first parts from what it was branched from, and whom it is compared with.

A family is a part of each of its runs. All of them share one place in the registry and one lock, so whoever works on one may look
at the others. No torch is imported before there is something to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from laser_studio.errors import InterventionError, LaserStudioError
from laser_studio.studio.findings import Findings
from laser_studio.studio.registry import StudioError
from laser_studio.studio.run import LONGEST_LINK, Run

if TYPE_CHECKING:
    from laser_studio.debugger import Divergence, Session
    from laser_studio.debugger.interventions import Planned
    from laser_studio.studio.beside import Beside
    from laser_studio.studio.channel import Channel
    from laser_studio.studio.requests import PageRequest

MOST_BRANCHES = 12  # of one page
HISTORY_SHARE = 4  # a branch has this part of its run's byte budget
MOST_HISTORY = 64  # MiB, and no more than so much
LONGEST_NAME = 40
MAIN = "main"  # what a run that is no branch is called


@dataclass
class Member:
    """One run of a family. `parent`: id of the run it was branched from; None of the first. `colour`: its place in a palette."""

    id: str
    run: Run
    name: str
    colour: int = 0
    parent: str | None = None
    parted: Divergence | None = None
    epochs: tuple[int, int] = (-1, -1)  # of it and its parent, when `parted` was found


@dataclass
class Family:
    """The runs of one page, by id, in the order they were made; `beside`: the run that the page compares its own with."""

    members: dict[str, Member] = field(default_factory=dict)
    beside: Beside | None = None

    def of(self, run: Run) -> Member:
        """The member that a run is."""
        return next(member for member in self.members.values() if member.run is run)

    def add(self, run_id: str, run: Run, name: str, parent: str | None) -> Member:
        """Take in a run, which tells of its family from now on."""
        taken = {member.colour for member in self.members.values()}
        colour = min(set(range(MOST_BRANCHES + 1)) - taken)
        member = self.members[run_id] = Member(run_id, run, name, colour, parent)
        run.parts.append(self)
        return member

    def remove(self, run_id: str) -> None:
        """Forget a branch; those made from it hang on what it was made from."""
        gone = self.members.pop(run_id)
        for member in self.members.values():
            if member.parent == run_id:
                member.parent, member.parted = gone.parent, None
        if self.beside is not None and gone.run in (self.beside.run, self.beside.other):
            self.part()

    def free_name(self, wanted: str) -> str:
        """The name, with a number where another member has it already."""
        names = {member.name for member in self.members.values()}
        return next(name for number in range(1, 100) if (name := wanted if number == 1 else f"{wanted} ({number})") not in names)

    def part(self) -> None:
        """Compare no longer."""
        if self.beside is not None:
            self.beside.close()
        self.beside = None

    def more(self, run: Run, request: PageRequest) -> dict[str, Any]:
        """See `RunPart.more`."""
        return {"branches": self.told(run)}

    def told(self, run: Run) -> dict[str, Any]:
        """What the page's list of branches shows."""
        return {
            "here": self.of(run).id,
            "most": MOST_BRANCHES,
            "list": [self._told(member) for member in self.members.values()],
        }

    def _told(self, member: Member) -> dict[str, Any]:
        session = member.run.session
        head = session.frames[-1]
        own = member.run.course
        parent = self.members.get(member.parent or "")
        parted = None if parent is None else self._parted(member, parent)
        return {
            "id": member.id,
            "name": member.name,
            "colour": member.colour,
            "at": own[-1].at if own else None,
            "text": [planned.text for planned in own],
            "edited": edited_cells(member.run),
            "parent": parent.name if parent is not None else None,
            "solved": head.solved,
            "head": head.index,
            "parted": None if parted is None else {"model": parted.model, "answer": parted.answer, "checked": parted.checked},
        }

    def _parted(self, member: Member, parent: Member) -> Divergence:
        from laser_studio.debugger import first_divergence

        mine, theirs = _session(member.run), _session(parent.run)
        epochs = mine.epoch, theirs.epoch
        known = member.parted if epochs == member.epochs else None
        member.parted, member.epochs = first_divergence(mine, theirs, known), epochs
        return member.parted

    def close(self) -> None:
        """See `RunPart.close`."""
        self.part()


def family_of(run_id: str, run: Run) -> Family:
    """The family of a run, made where it has none yet. Raises `StudioError` for a run that nothing can be branched from."""
    for part in run.parts:
        if isinstance(part, Family):
            return part
    _session(run)
    family = Family()
    family.add(run_id, run, MAIN, None)
    return family


def branch_of(run: Run, branched: Session) -> Run:
    """The run of a session that was branched from that of `run`. Raises `StudioError` where a link could not hold it."""
    at = branched.branched_at or 0

    def until(changes: dict[int, Any]) -> dict[int, Any]:
        return {step: value for step, value in changes.items() if step <= at}

    measured = until(run.measured) or {0: run.options}
    subject: Any = run.subject
    history = run.options.history if run.course else min(MOST_HISTORY, max(1, run.options.history // HISTORY_SHARE))
    branched.history_bytes = history << 20
    options = replace(
        run.options, history=history, **{name: getattr(measured[max(measured)], name) for name in ("functional", "gradient", "best")}
    )
    branch = Run(
        branched,
        replace(subject, puzzle=branched.puzzle),
        until(run.settings),
        options,
        pending={step: tracker for step, tracker in run.pending.items() if step > at},
        measured=measured,
        remade={step for step in run.remade if step <= at},
        parts=[Findings()],
    )
    if len(branch.link()) > LONGEST_LINK:
        raise StudioError("this branch would need more than a link can hold: name fewer sites, or branch from an earlier run")
    return branch


def begun(described: Sequence[tuple[int, dict[str, Any]]], *arguments: Any, **options: Any) -> tuple[Session, list[str]]:
    """A session with what a link does to it, and what of that cannot be done; `arguments` and `options` are the session's."""
    from laser_studio.debugger import Session
    from laser_studio.debugger.interventions import Planned, read_intervention

    course: list[Planned] = []
    problems = []
    for at, data in described:
        try:
            course.append(Planned(at, read_intervention(data)))
        except LaserStudioError as problem:
            problems.append(f"what the link does at step {at} cannot be done ({str(problem)[:200]}): left out")
    while True:
        try:
            return Session(*arguments, **options, course=course), problems
        except InterventionError as problem:
            gone = course.pop()
            problems.append(f"what the link does at step {gone.at} cannot be done ({str(problem)[:200]}): left out")


def joined(channel: Channel, run_id: str, family: Family, branch: Run, name: str, parent: str | None) -> Member:
    """Take a run into the page's place and family. Raises `StudioError`, and closes the run, where there is no room or no page any more."""
    if len(family.members) > MOST_BRANCHES:
        branch.close()
        raise StudioError(f"a page holds {MOST_BRANCHES} branches: delete one first")
    return family.add(channel.registry.join(run_id, branch), branch, family.free_name(name), parent)


def short_name(planned: Planned) -> str:
    """What a branch is called until somebody names it."""
    values = planned.what.to_json()
    match values["kind"]:
        case "edit":
            word = f"R{values['row']}C{values['column']} = {values['value']}"
        case "reconstruct":
            word = "compressed" if values["rank"] is None else f"rank {values['rank']}"
        case "scale":
            word = f"direction {values['index']} × {values['factor']:g}"
        case "state":
            word = f"z_{values['state']} = 0" if values["change"] == "zero" else f"z_{values['state']} + noise"
        case _:
            word = f"{values['change']:+d} {values['level']} cycle{'s' * (abs(values['change']) > 1)}"
    return f"{word} @ {planned.at}"


def edited_cells(run: Run) -> list[int]:
    """The cells of the board that a run's interventions have edited, row by row."""
    cells = []
    for planned in run.course:
        values = planned.what.to_json()
        if values["kind"] == "edit":
            cells.append((values["row"] - 1) * run.subject.about()["puzzle"]["width"] + values["column"] - 1)
    return cells


def _session(run: Run) -> Session:
    from laser_studio.debugger import Session

    if not isinstance(run.session, Session):
        raise StudioError("a recording cannot be branched: there is no model here to run it again")
    return run.session
