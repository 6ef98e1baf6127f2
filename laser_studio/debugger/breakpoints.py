"""Breakpoints: conditions over frames that stop a run or write to its log, with hit conditions, one shot and on/off.

`Breakpoint` is the plain description, which goes to and from dictionaries. `Breakpoints` holds those of one run, counts how often
each held, and is asked by the `Session` at every step forward. What the conditions may say is in `expressions`.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from laser_studio.debugger.expressions import Bound, Expression, Scope
from laser_studio.debugger.frames import Frame
from laser_studio.errors import BreakpointError, ExpressionError

MAX_BREAKPOINTS = 64
MAX_TEMPLATE = 500  # characters
MAX_NAME = 60
MAX_HITS = 1_000_000_000
LOG_LENGTH = 10_000  # entries kept, the newest

UNTIL = "until"  # what `Session.run`'s own condition is called where it is told as a hit

_HITS = re.compile(r"\s*(?P<sign>>=|<=|==|=|>|<|%)?\s*(?P<number>[0-9]{1,10})\s*(?:==\s*(?P<rest>[0-9]{1,10})\s*)?")


@dataclass(frozen=True)
class Breakpoint:
    """A condition to stop at.

    expression: see docs/breakpoints.md; hits: which of the frames where it holds count, numbered from 1. A plain n means from the
    n-th on (so 1: all of them); "> n", ">= n", "== n", "<= n", "< n" compare; "% n" takes every n-th, "% n == r" those that leave r.
    once: after it has counted it is off. log: a message in place of stopping; {…} holds expressions, doubled braces stand for
    themselves. name: how it is called, given by `Breakpoints.add` where left empty.

    Raises `ExpressionError` for expression and log, `BreakpointError` for the rest.
    """

    expression: str
    enabled: bool = field(default=True, kw_only=True)
    hits: int | str = field(default=1, kw_only=True)
    once: bool = field(default=False, kw_only=True)
    log: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        Expression(self.expression).require_condition()
        for flag in ("enabled", "once"):
            if not isinstance(getattr(self, flag), bool):
                raise BreakpointError(f"{flag} of a breakpoint is true or false, not {_shown(getattr(self, flag))}")
        for key, most in (("log", MAX_TEMPLATE), ("name", MAX_NAME)):
            text = getattr(self, key)
            if not isinstance(text, str) or len(text) > most:
                raise BreakpointError(f"{key} of a breakpoint is text of at most {most} characters, not {_shown(text)}")
        if not self.log.isprintable():
            raise BreakpointError(f"log of a breakpoint is one line of printable characters, not {_shown(self.log)}")
        if self.name == UNTIL or not self.name.isprintable():
            raise BreakpointError(f"a breakpoint cannot be called {_shown(self.name)}: choose printable characters, and not {UNTIL!r}")
        _counts(self.hits)
        _pieces(self.log)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Breakpoint:
        """The breakpoint a dictionary describes; settings that are not named keep their defaults. Unknown ones are refused."""
        if not isinstance(data, Mapping):
            raise BreakpointError(f"a breakpoint is described by a dictionary, not {_shown(data)}")
        known = [item.name for item in fields(cls)]
        if unknown := [key for key in data if key not in known]:
            raise BreakpointError(f"a breakpoint has no {_shown(unknown[0])}: known are {', '.join(known)}")
        if "expression" not in data:
            raise BreakpointError("a breakpoint needs an expression, such as fidelity < 0.9")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Hit:
    """A breakpoint that counted at a step; `message` is what it logged, "" where it stops. Its count is then `count`.

    The condition given to `Session.run` itself is told under the name "until", with its text, or "" for a callable.
    """

    name: str
    expression: str
    step: int
    count: int = 1
    message: str = ""


@dataclass(slots=True)
class _Armed:
    """A breakpoint bound to the run."""

    settings: Breakpoint
    condition: Bound
    counts: Callable[[int], bool]
    message: Callable[[Frame, Frame | None], str]
    held: int = 0


class Breakpoints:
    """The breakpoints of one run, in the order they were added.

    >>> session.breakpoints.add("fidelity < 0.9 | reset", hits=3).name               # doctest: +SKIP
    'b1'

    log: what logging breakpoints wrote, in order, also where the cursor passed a frame twice; the newest 10,000.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.log: deque[Hit] = deque(maxlen=LOG_LENGTH)
        self.logged = 0  # how many there have been in all, so that a reader knows which are new
        self._armed: dict[str, _Armed] = {}
        self._given = 0  # names given so far; a name never means another breakpoint later

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter([armed.settings for armed in self._armed.values()])

    def __len__(self) -> int:
        return len(self._armed)

    def __contains__(self, name: object) -> bool:
        return name in self._armed

    def __getitem__(self, name: str) -> Breakpoint:
        return self._find(name).settings

    @property
    def counts(self) -> dict[str, int]:
        """How often each held while it was enabled, since it was added, counts were reset or the run was restarted."""
        return {name: armed.held for name, armed in self._armed.items()}

    @property
    def can_stop(self) -> bool:
        """Whether one of them may stop a run."""
        return any(armed.settings.enabled and not armed.settings.log for armed in self._armed.values())

    def add(self, breakpoint: Breakpoint | str, **settings: Any) -> Breakpoint:  # noqa: A002 - the word it is called by everywhere
        """Take a breakpoint, or make one of an expression and settings; returns it with its name.

        Raises `ExpressionError` where it does not fit this run, `BreakpointError` for a name that is taken and for too many.
        """
        if isinstance(breakpoint, str):
            try:
                breakpoint = Breakpoint(breakpoint, **settings)  # noqa: A001
            except TypeError:
                unknown = [key for key in settings if key not in {item.name for item in fields(Breakpoint)}]
                raise BreakpointError(f"a breakpoint has no setting {', '.join(unknown)}") from None
        elif settings:
            raise BreakpointError("settings go with an expression; a breakpoint that is made already has its own")
        if len(self) >= MAX_BREAKPOINTS:
            raise BreakpointError(f"a run has at most {MAX_BREAKPOINTS} breakpoints: remove one first")
        if breakpoint.name in self._armed:
            raise BreakpointError(f"there is a breakpoint {breakpoint.name!r} already: choose another name or remove that one")
        given = self._given
        name = breakpoint.name
        while not name or name in self._armed:
            given += 1
            name = f"b{given}"
        named = replace(breakpoint, name=name)
        self._armed[name] = self._arm(named)
        self._given = given
        return named

    def change(self, name: str, *, to: str | None = None, expression: str | None = None) -> Breakpoint:
        """Give one another name, another expression, or both, where it stands; returns it.

        Its count goes on under another name, and begins anew with another expression. Raises as `add`, and changes nothing then.
        """
        old = self._find(name)
        now = old.settings
        new = replace(now, name=now.name if to is None else to, expression=now.expression if expression is None else expression)
        if not new.name:
            raise BreakpointError("a breakpoint needs a name")
        if new.name != name and new.name in self._armed:
            raise BreakpointError(f"there is a breakpoint {new.name!r} already: choose another name or remove that one")
        armed = self._arm(new)
        armed.held = old.held if new.expression == now.expression else 0
        self._armed = {new.name if key == name else key: armed if key == name else kept for key, kept in self._armed.items()}
        return new

    def remove(self, name: str) -> Breakpoint:
        """Take one away; returns it. Raises `BreakpointError` for an unknown name."""
        self._find(name)
        return self._armed.pop(name).settings

    def enable(self, name: str) -> None:
        """Let it count again, from where its count was. Raises `BreakpointError` for an unknown name."""
        self._switch(self._find(name), True)

    def disable(self, name: str) -> None:
        """Keep it, but neither count nor stop. Raises `BreakpointError` for an unknown name."""
        self._switch(self._find(name), False)

    def clear(self) -> None:
        """Take all away; the log stays."""
        self._armed.clear()

    def reset_counts(self) -> None:
        """Count from nothing again."""
        for armed in self._armed.values():
            armed.held = 0

    def to_list(self) -> list[dict[str, Any]]:
        """All of them as JSON-ready values, without their counts."""
        return [breakpoint.to_dict() for breakpoint in self]  # noqa: A001

    def load(self, described: object) -> None:
        """Take these in place of those there are; all, or, where one cannot be used, none. Raises as `add`."""
        if not isinstance(described, Iterable) or isinstance(described, str | bytes | Mapping):
            raise BreakpointError(f"breakpoints are a list of dictionaries, not {_shown(described)}")
        fresh = Breakpoints(self.scope)
        fresh._given = self._given
        for item in described:
            fresh.add(Breakpoint.from_dict(item))
        self._armed, self._given = fresh._armed, fresh._given

    def consult(self, frame: Frame, before: Frame | None) -> tuple[Hit, ...]:
        """The breakpoints to stop for now that the run has come from `before` to `frame`; counts them, and writes those that log.

        All of them are asked, so the counts do not depend on which one stops first.
        """
        stops = []
        for name, armed in self._armed.items():
            if not armed.settings.enabled or not armed.condition.holds(frame, before):
                continue
            armed.held += 1
            if not armed.counts(armed.held):
                continue
            hit = Hit(name, armed.settings.expression, frame.index, armed.held, armed.message(frame, before))
            if armed.settings.log:
                self.log.append(hit)
                self.logged += 1
            else:
                stops.append(hit)
            if armed.settings.once:
                self._switch(armed, False)
        return tuple(stops)

    def holding(self, frame: Frame, before: Frame | None) -> tuple[Hit, ...]:
        """The enabled breakpoints that stop and whose condition holds at `frame`, whatever their hits say; nothing is counted."""
        return tuple(
            Hit(name, armed.settings.expression, frame.index, armed.held)
            for name, armed in self._armed.items()
            if armed.settings.enabled and not armed.settings.log and armed.condition.holds(frame, before)
        )

    def _arm(self, settings: Breakpoint) -> _Armed:
        condition = Expression(settings.expression).bind(self.scope)
        return _Armed(settings, condition, _counts(settings.hits), _message(settings.log, self.scope))

    def _switch(self, armed: _Armed, enabled: bool) -> None:
        armed.settings = replace(armed.settings, enabled=enabled)

    def _find(self, name: str) -> _Armed:
        if name not in self._armed:
            raise BreakpointError(f"there is no breakpoint {_shown(name)}: there are {', '.join(self._armed) or 'none'}")
        return self._armed[name]


def _counts(hits: object) -> Callable[[int], bool]:
    """Whether the n-th time counts. Raises `BreakpointError`."""
    if isinstance(hits, int) and not isinstance(hits, bool) and 1 <= hits <= MAX_HITS:
        return lambda count: count >= hits
    found = _HITS.fullmatch(hits) if isinstance(hits, str) and len(hits) <= 40 else None
    number = int(found["number"]) if found else 0
    rest = int(found["rest"]) if found and found["rest"] else 0
    if found is None or not 1 <= number <= MAX_HITS or (found["rest"] is not None and (found["sign"] != "%" or rest >= number)):
        raise BreakpointError(f'hits of a breakpoint are a number from 1, or such as ">= 3", "== 3" and "% 2 == 0", not {_shown(hits)}')
    sign = found["sign"]
    match sign:
        case "%":
            return lambda count: count % number == rest
        case "==" | "=":
            return lambda count: count == number
        case ">":
            return lambda count: count > number
        case "<":
            return lambda count: count < number
        case "<=":
            return lambda count: count <= number
    return lambda count: count >= number


def _pieces(template: str) -> list[str | Expression]:
    """A log message as text and expressions in turn. Raises `ExpressionError`."""
    pieces: list[str | Expression] = []
    at = 0
    while at < len(template):
        letter = template[at]
        if template[at : at + 2] in ("{{", "}}"):
            pieces.append(letter)
            at += 2
        elif letter == "{":
            end = template.find("}", at)
            if end < 0:
                raise ExpressionError(f"there is no }} for the {{ at character {at + 1} of the log message", position=at)
            try:
                pieces.append(Expression(template[at + 1 : end]))
            except ExpressionError as failure:
                place = None if failure.position is None else at + 1 + failure.position
                raise ExpressionError(f"in the log message, {failure}", position=place) from None
            at = end + 1
        elif letter == "}":
            reason = f"there is no {{ for the }} at character {at + 1} of the log message: write }}}} for the sign"
            raise ExpressionError(reason, position=at)
        else:
            end = min((found for sign in "{}" if (found := template.find(sign, at)) >= 0), default=len(template))
            pieces.append(template[at:end])
            at = end
    return pieces


def _message(template: str, scope: Scope) -> Callable[[Frame, Frame | None], str]:
    """What a log message says at a frame. Raises `ExpressionError`."""
    pieces: list[str | Bound] = []
    for piece in _pieces(template):
        try:
            pieces.append(piece if isinstance(piece, str) else piece.bind(scope))
        except ExpressionError as failure:
            raise ExpressionError(f"in the log message, {failure}") from None
    return lambda frame, before: "".join(piece if isinstance(piece, str) else said(piece, frame, before) for piece in pieces)


def said(bound: Bound, frame: Frame, before: Frame | None) -> str:
    """A value as text: six digits, whole numbers in full, yes or no of a condition, a dash for nothing."""
    number = bound.value(frame, before)
    if number is None:
        return "–"
    if bound.expression.is_condition:
        return "yes" if number else "no"
    return str(int(number)) if number == math.floor(number) and abs(number) < 1e15 else f"{number:.6g}"


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > MAX_HITS:
        return "so large a number"
    if isinstance(value, str):
        return repr(value[:40] + "…" * (len(value) > 40))
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"
