"""Breakpoints, watches and bookmarks: adding, changing, removing; what can be typed, what is wrong with what was typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, fields
from typing import TYPE_CHECKING, Any

from laser_studio.errors import ExpressionError
from laser_studio.settings import setting, settings
from laser_studio.studio.inquiries.inquiry import Context, Inquiry, InquiryRequest
from laser_studio.studio.links import MAX_STEP
from laser_studio.studio.marks import BookmarkView, BreakpointView, Marks, WatchView
from laser_studio.studio.registry import StudioError
from laser_studio.studio.travel import room_for

if TYPE_CHECKING:
    from laser_studio.studio.run import Run


@settings(StudioError)
class TextRequest(InquiryRequest):
    """An expression that is being typed. `condition`: it is to stop a run, so a number will not do."""

    _: KW_ONLY
    expression: str = setting(help="What was typed.")
    condition: bool = setting(default=True, help="Whether it has to be a condition.")
    log: str = setting(default="", help="The message it is to log.")


@settings(StudioError)
class BreakpointRequest(InquiryRequest):
    """A new breakpoint."""

    _: KW_ONLY
    expression: str = setting(help="Where to stop.")
    hits: int | str = setting(default=1, help="Which of the frames where it holds count.")
    once: bool = setting(default=False, help="Off after it has counted once.")
    log: str = setting(default="", help="A message in place of stopping.")
    label: str = setting(default="", help="How it is called.")


@settings(StudioError)
class NameRequest(InquiryRequest):
    """One of those there are."""

    _: KW_ONLY
    which: str = setting(help="How it is called.")


@settings(StudioError)
class SwitchRequest(NameRequest):
    """A breakpoint is switched on or off."""

    _: KW_ONLY
    enabled: bool = setting(help="Whether it counts and stops.")


@settings(StudioError)
class EditRequest(NameRequest):
    """Another name or expression for a breakpoint."""

    _: KW_ONLY
    label: str | None = setting(default=None, help="Its new name.")
    expression: str | None = setting(default=None, help="Its new expression.")


@settings(StudioError)
class WatchRequest(InquiryRequest):
    """A new watch."""

    _: KW_ONLY
    expression: str = setting(help="What to follow.")
    label: str = setting(default="", help="How it is called.")


@settings(StudioError)
class BookmarkRequest(InquiryRequest):
    """A new bookmark, at the step shown where no other is named."""

    _: KW_ONLY
    step: int | None = setting(default=None, low=0, high=MAX_STEP, unit="steps", help="Where it stands.")
    label: str = setting(default="", help="How it is called.")
    note: str = setting(default="", help="One line about it.")


@settings(StudioError)
class NoteRequest(NameRequest):
    """Another name or note for a bookmark."""

    _: KW_ONLY
    label: str | None = setting(default=None, help="Its new name.")
    note: str | None = setting(default=None, help="Its new note.")


def _problem(expression: str, failure: ExpressionError) -> dict[str, Any]:
    """What is wrong with a text, and with which of its characters, for the field it was typed into."""
    cause, _, shown = str(failure).partition("\n")
    first, last = (shown.rpartition("\n")[2].rfind(sign) for sign in (" ", "^"))
    end = None if failure.position is None else min(max(len(expression), 1), failure.position + max(1, last - first))
    return {"problem": {"cause": cause[:400], "position": failure.position, "end": end}}


def _changed(run: Run, **more: Any) -> dict[str, Any]:
    """What the page needs after a change: all marks, and its new link."""
    run.travel.changed()
    return {"travel": run.travel.marks(run), "counts": run.session.breakpoints.counts, "link": run.link(), **more}


def _check(context: Context, run: Run, request: TextRequest) -> dict[str, Any]:
    from laser_studio.debugger import Breakpoint, Expression, Watch

    scope = run.session.breakpoints.scope
    try:
        Expression(request.expression).bind(scope)
        (Breakpoint if request.condition else Watch)(request.expression)
    except ExpressionError as failure:
        return _problem(request.expression, failure)
    frame = run.session.frame
    before = run.session.frames[frame.index - 1] if frame.index else None
    return {"now": Expression(request.expression).bind(scope).value(frame, before)}


def _add_breakpoint(context: Context, run: Run, request: BreakpointRequest) -> dict[str, Any]:
    from laser_studio.debugger import Breakpoint

    hits = int(request.hits) if isinstance(request.hits, str) and request.hits.isdecimal() and len(request.hits) < 12 else request.hits
    settings_of: dict[str, Any] = {"hits": hits, "once": request.once, "log": request.log, "name": request.label}
    try:
        breakpoint = Breakpoint(request.expression, **settings_of)  # noqa: A001
        room_for(run, Marks(breakpoints=(BreakpointView(**breakpoint.to_dict()),)))
        added = run.session.breakpoints.add(breakpoint)
    except ExpressionError as failure:
        if "log message" in str(failure):
            raise StudioError(str(failure).replace("\n", " ")) from None
        return _problem(request.expression, failure)
    return _changed(run, added=added.name)


def _change_breakpoint(context: Context, run: Run, request: EditRequest) -> dict[str, Any]:
    from laser_studio.debugger import Breakpoint

    try:
        longer = Breakpoint(request.expression or "reset", name=request.label or "")
        room_for(run, Marks(breakpoints=(BreakpointView(**longer.to_dict()),)))
        run.session.breakpoints.change(request.which, to=request.label, expression=request.expression)
    except ExpressionError as failure:
        return _problem(request.expression or "", failure)
    return _changed(run)


def _switch_breakpoint(context: Context, run: Run, request: SwitchRequest) -> dict[str, Any]:
    breakpoints = run.session.breakpoints
    (breakpoints.enable if request.enabled else breakpoints.disable)(request.which)
    return _changed(run)


def _remove_breakpoint(context: Context, run: Run, request: NameRequest) -> dict[str, Any]:
    run.session.breakpoints.remove(request.which)
    return _changed(run)


def _clear_breakpoints(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    run.session.breakpoints.clear()
    return _changed(run)


def _add_watch(context: Context, run: Run, request: WatchRequest) -> dict[str, Any]:
    from laser_studio.debugger import Watch

    try:
        watch = Watch(request.expression, request.label)
        room_for(run, Marks(watches=(WatchView(**watch.to_dict()),)))
        added = run.session.watches.add(watch)
    except ExpressionError as failure:
        return _problem(request.expression, failure)
    return _changed(run, added=added.name)


def _remove_watch(context: Context, run: Run, request: NameRequest) -> dict[str, Any]:
    run.session.watches.remove(request.which)
    return _changed(run)


def _add_bookmark(context: Context, run: Run, request: BookmarkRequest) -> dict[str, Any]:
    from laser_studio.debugger import Bookmark

    bookmark = Bookmark(run.session.frame.index if request.step is None else request.step, request.label, request.note)
    if bookmark.step > run.farthest:
        raise StudioError(f"this run ends at step {run.farthest:,}: a bookmark stands before it")
    room_for(run, Marks(bookmarks=(BookmarkView(**bookmark.to_dict()),)))
    return _changed(run, added=run.session.bookmarks.add(bookmark).name)


def _change_bookmark(context: Context, run: Run, request: NoteRequest) -> dict[str, Any]:
    from laser_studio.debugger import Bookmark

    longer = Bookmark(0, request.label or "", request.note or "")
    room_for(run, Marks(bookmarks=(BookmarkView(**longer.to_dict()),)))
    run.session.bookmarks.change(request.which, to=request.label, note=request.note)
    return _changed(run)


def _remove_bookmark(context: Context, run: Run, request: NameRequest) -> dict[str, Any]:
    run.session.bookmarks.remove(request.which)
    return _changed(run)


def _words(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    """Everything that can be typed into an expression, for completion."""
    from laser_studio.debugger.vocabulary import offers

    return {"words": [list(offer) for offer in offers()], "sites": list(run.session.sites)}


def _inside(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    """Every site of the net application that led to the step shown, in order."""
    from laser_studio.debugger import Session
    from laser_studio.debugger.inside import summaries
    from laser_studio.studio.subject import about_site

    session = run.session
    if not isinstance(session, Session):
        raise StudioError("a recording holds no weights: what its sites returned cannot be computed again")
    sites = []
    for one in summaries(session, session.frame.index):
        plain = {item.name: getattr(one, item.name) for item in fields(one)}
        cells = {
            name: None if plain[name] is None else [float(f"{x:.4g}") for x in plain[name]] for name in ("inputs", "outputs", "read_back")
        }
        sites.append(about_site(one.site, one.dim_in) | plain | cells)
    return {"step": session.frame.index, "sites": sites}


def _inquiry(request: type[Any], work: Callable[..., dict[str, Any]]) -> Inquiry:
    return Inquiry(request, work)


INQUIRIES = {
    "travel.check": _inquiry(TextRequest, _check),
    "travel.inside": _inquiry(InquiryRequest, _inside),
    "travel.words": _inquiry(InquiryRequest, _words),
    "breakpoints.add": _inquiry(BreakpointRequest, _add_breakpoint),
    "breakpoints.change": _inquiry(EditRequest, _change_breakpoint),
    "breakpoints.switch": _inquiry(SwitchRequest, _switch_breakpoint),
    "breakpoints.remove": _inquiry(NameRequest, _remove_breakpoint),
    "breakpoints.clear": _inquiry(InquiryRequest, _clear_breakpoints),
    "watches.add": _inquiry(WatchRequest, _add_watch),
    "watches.remove": _inquiry(NameRequest, _remove_watch),
    "bookmarks.add": _inquiry(BookmarkRequest, _add_bookmark),
    "bookmarks.change": _inquiry(NoteRequest, _change_bookmark),
    "bookmarks.remove": _inquiry(NameRequest, _remove_bookmark),
}
