"""Breakpoints, watches and bookmarks as links carry them, checked for size; whether they fit a run is the engine's to say.

In a link each is one value, its parts separated by `~`::

    break=fidelity < 0.9~hits=3~once~log=step {index}~name=b1~off
    watch=min fidelity(*.mlp.*)~name=MLPs
    mark=12~first~the first box is right

The first part is always there, the others may be missing (of a bookmark: the last ones). `%` and `~` stand in text as %25 and %7E.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from pydantic import field_validator

from laser_studio.settings import setting, settings
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.studio.live import LiveSession

MOST = {"break": 64, "watch": 16, "mark": 64}  # as many as a run may have
MAX_EXPRESSION = 1_000
MAX_STEP = 1_000_000


def _one_line(text: str, most: int) -> str:
    if len(text) > most or not text.isprintable():
        raise ValueError(f"at most {most} printable characters")
    return text


@settings(StudioError)
class BreakpointView:
    """A breakpoint; `laser_studio.debugger.Breakpoint` says what each part means."""

    expression: str = setting(help="Where to stop, such as fidelity < 0.9.")
    enabled: bool = setting(default=True, help="Whether it counts and stops.")
    hits: int | str = setting(default=1, help='Which of the frames where it holds count: 3, "== 3", "% 2".')
    once: bool = setting(default=False, help="Off after it has counted once.")
    log: str = setting(default="", help="A message to log in place of stopping; {…} holds expressions.")
    name: str = setting(default="", help="How it is called.")

    @field_validator("expression", "hits", "log", "name")
    @classmethod
    def _readable(cls, value: int | str) -> int | str:
        return value if isinstance(value, int) else _one_line(value, MAX_EXPRESSION)

    def text(self) -> str:
        """As a link writes it."""
        parts = [_escaped(self.expression)]
        given = {"hits": "" if self.hits in (1, "1") else str(self.hits), "log": self.log, "name": self.name}
        parts += [f"{name}={_escaped(value)}" for name, value in given.items() if value]
        return "~".join(parts + ["once"] * self.once + ["off"] * (not self.enabled))

    @classmethod
    def read(cls, text: str) -> Self:
        """What `text` says. Raises `StudioError`."""
        expression, *parts = text.split("~")
        given: dict[str, Any] = {"expression": unquote(expression)}
        for part in parts:
            name, equals, value = part.partition("=")
            if part in ("once", "off"):
                given |= {"once": True} if part == "once" else {"enabled": False}
            elif name in ("hits", "log", "name") and equals:
                given[name] = unquote(value)
            else:
                raise StudioError("a breakpoint takes hits=3, once, log=…, name=… and off")
        if given.get("hits", "").isdecimal() and given["hits"].isascii():
            given["hits"] = int(given["hits"][:12])
        return cls(**given)


@settings(StudioError)
class WatchView:
    """A watch."""

    expression: str = setting(help="What to follow, such as fidelity.")
    name: str = setting(default="", help="How it is called.")

    @field_validator("expression", "name")
    @classmethod
    def _readable(cls, value: str) -> str:
        return _one_line(value, MAX_EXPRESSION)

    def text(self) -> str:
        """As a link writes it; a name that is the expression itself is left out."""
        named = f"~name={_escaped(self.name)}" if self.name not in ("", self.expression) else ""
        return _escaped(self.expression) + named

    @classmethod
    def read(cls, text: str) -> Self:
        """What `text` says. Raises `StudioError`."""
        expression, *parts = text.split("~")
        if len(parts) > 1 or not all(part.startswith("name=") for part in parts):
            raise StudioError("a watch takes name=…")
        expression = unquote(expression)
        return cls(expression, unquote(parts[0][len("name=") :]) if parts else expression[:60])


@settings(StudioError)
class BookmarkView:
    """A bookmark."""

    step: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step it stands at.")
    name: str = setting(default="", help="How it is called.")
    note: str = setting(default="", help="One line about it.")

    @field_validator("name", "note")
    @classmethod
    def _readable(cls, value: str) -> str:
        return _one_line(value, MAX_EXPRESSION)

    def text(self) -> str:
        """As a link writes it."""
        return "~".join(
            [str(self.step), *(_escaped(part) for part in ((self.name, self.note) if self.note else (self.name,)) if part or self.note)]
        )

    @classmethod
    def read(cls, text: str) -> Self:
        """What `text` says. Raises `StudioError`."""
        step, *parts = text.split("~")
        if not (step.isascii() and step.isdigit() and len(step) <= 7) or len(parts) > 2:
            raise StudioError("a bookmark is a step, a name and a note")
        return cls(int(step), *map(unquote, parts))


@settings(StudioError)
class Marks:
    """What a user has put into a run to find things in it."""

    breakpoints: tuple[BreakpointView, ...] = setting(default=(), help="Where to stop.")
    watches: tuple[WatchView, ...] = setting(default=(), help="What to follow.")
    bookmarks: tuple[BookmarkView, ...] = setting(default=(), help="Places to come back to.")

    def pairs(self) -> Iterator[tuple[str, str]]:
        """As a link's names and values."""
        for key, name in KINDS.items():
            for view in getattr(self, name):
                yield key, view.text()


KINDS = {"break": "breakpoints", "watch": "watches", "mark": "bookmarks"}  # by their key in links
_VIEWS: Mapping[str, type[BreakpointView] | type[WatchView] | type[BookmarkView]] = {
    "break": BreakpointView,
    "watch": WatchView,
    "mark": BookmarkView,
}


def read_marks(pairs: list[tuple[str, str]], refused: list[tuple[str, str, StudioError]]) -> Marks:
    """The marks among a link's names and values; what cannot be used goes to `refused` with its cause."""
    read: dict[str, tuple[Any, ...]] = {}
    for key, name in KINDS.items():
        views: list[Any] = []
        for text in [value for given, value in pairs if given == key]:
            try:
                if len(views) >= MOST[key]:
                    raise StudioError(f"more than {MOST[key]}")
                views.append(_VIEWS[key].read(text))
            except StudioError as problem:
                refused.append((key, text, problem))
        read[name] = tuple(views)
    return Marks(**read)


def marks_of(session: LiveSession) -> Marks:
    """The marks that a run has."""
    return Marks(
        tuple(BreakpointView(**one.to_dict()) for one in session.breakpoints),
        tuple(WatchView(**one.to_dict()) for one in session.watches),
        tuple(BookmarkView(**one.to_dict()) for one in session.bookmarks),
    )


def put_marks(marks: Marks, session: LiveSession) -> list[str]:
    """Give them to a run; what does not fit it is left out and told, a sentence each."""
    from laser_studio.debugger import Bookmark, Breakpoint, Watch
    from laser_studio.errors import LaserStudioError

    notices = []
    put: list[tuple[str, Any, Any, Any]] = [
        ("break", marks.breakpoints, Breakpoint, session.breakpoints),
        ("watch", marks.watches, Watch, session.watches),
        ("mark", marks.bookmarks, Bookmark, session.bookmarks),
    ]
    for key, views, kind, there in put:
        for view in views:
            try:
                there.add(kind(**{item.name: getattr(view, item.name) for item in fields(kind)}))
            except LaserStudioError as problem:
                notices.append(
                    f"{key}={view.text()[:60]} in the link cannot be used ({str(problem).partition(chr(10))[0][:160]}): left out"
                )
    return notices


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("~", "%7E")
