"""Branches of a page's run: make, rename, delete. Opening one is opening its run (`channel.open` with its id)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any

from laser_studio.settings import setting, settings
from laser_studio.studio.family import LONGEST_NAME, MOST_BRANCHES, branch_of, family_of, joined, short_name
from laser_studio.studio.inquiries.inquiry import Context, Inquiry, InquiryRequest
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.studio.run import Run

MOST_AT_ONCE = 4  # interventions of one branch


@settings(StudioError)
class AddRequest(InquiryRequest):
    """A page makes a branch from the step it shows."""

    _: KW_ONLY
    what: list[dict[str, Any]] = setting(help="The interventions, as `Intervention.to_json` gives them.")
    title: str = setting(default="", help="What the branch is called; empty: after what is done.")


@settings(StudioError)
class NameRequest(InquiryRequest):
    """A page renames a branch."""

    _: KW_ONLY
    branch: str = setting(help="Id of the branch.")
    title: str = setting(help="What it is called.")


@settings(StudioError)
class BranchRequest(InquiryRequest):
    """A page deletes a branch."""

    _: KW_ONLY
    branch: str = setting(help="Id of the branch.")


def add(context: Context, run: Run, request: AddRequest) -> dict[str, Any]:
    """A branch from the step shown; its id. The page opens it when it likes."""
    from laser_studio.debugger.interventions import read_intervention

    if not 1 <= len(request.what) <= MOST_AT_ONCE:
        raise StudioError(f"a branch is made by 1 to {MOST_AT_ONCE} interventions at once")
    family = family_of(context.run_id, run)
    if len(family.members) > MOST_BRANCHES:
        raise StudioError(f"a page holds {MOST_BRANCHES} branches: delete one first")
    what = [read_intervention(one) for one in request.what]
    session: Any = run.session
    branched = session.branch(session.frame.index, what)
    try:
        branch = branch_of(run, branched)
    except BaseException:
        branched.close()
        raise
    name = _name(request.title) if request.title.strip() else short_name(branched.course[-1])
    made = joined(context.channel, context.run_id, family, branch, name, context.run_id)
    return {"made": made.id, "branches": family.told(run)}


def rename(context: Context, run: Run, request: NameRequest) -> dict[str, Any]:
    """Another name for a branch."""
    family = family_of(context.run_id, run)
    member = _member(family.members, request.branch)
    name = _name(request.title)
    if name != member.name:
        member.name = family.free_name(name)
    return {"branches": family.told(run)}


def delete(context: Context, run: Run, request: BranchRequest) -> dict[str, Any]:
    """Close a branch and free what it held."""
    family = family_of(context.run_id, run)
    member = _member(family.members, request.branch)
    if member.run is run:
        raise StudioError("this branch is the one shown: open another one first")
    if member.parent is None:
        raise StudioError("the run that the branches were made from stays: close the page, or open another puzzle")
    family.remove(member.id)
    context.channel.registry.part(member.id)
    return {"branches": family.told(run)}


def _member(members: Any, branch: str) -> Any:
    if branch not in members:
        raise StudioError("there is no such branch any more: it was deleted, or the page is an old one")
    return members[branch]


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise StudioError(f"a branch is called by 1 to {LONGEST_NAME} printable characters")
    return name


INQUIRIES = {
    "branches.add": Inquiry(AddRequest, add),
    "branches.rename": Inquiry(NameRequest, rename),
    "branches.delete": Inquiry(BranchRequest, delete),
}
