"""Watches: expressions of one run whose values are read over its recorded frames, as curves. Nothing is kept of the values.

A watch is an expression of the language that breakpoints speak (`expressions`), a number or a condition, under a name. Sessions and
recordings hold a `Watches`; who draws the curves asks for the steps that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from laser_studio.debugger.expressions import Bound, Expression, Scope
from laser_studio.debugger.frames import Frame
from laser_studio.errors import WatchError

MAX_WATCHES = 16
MAX_NAME = 60


@dataclass(frozen=True)
class Watch:
    """An expression to follow; `name`: how it is called, its text where left empty.

    Raises `ExpressionError` for the expression, `WatchError` for the name.
    """

    expression: str
    name: str = ""

    def __post_init__(self) -> None:
        Expression(self.expression)
        if not isinstance(self.name, str) or len(self.name) > MAX_NAME or not self.name.isprintable():
            raise WatchError(f"the name of a watch is text of at most {MAX_NAME} printable characters")

    @property
    def is_condition(self) -> bool:
        """Whether its values are 1 and 0: it holds, or it does not."""
        return Expression(self.expression).is_condition

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Watch:
        """The watch a dictionary describes. Unknown settings are refused."""
        if not isinstance(data, Mapping):
            raise WatchError("a watch is described by a dictionary")
        known = [item.name for item in fields(cls)]
        if unknown := [str(key)[:40] for key in data if key not in known]:
            raise WatchError(f"a watch has no {unknown[0]!r}: known are {', '.join(known)}")
        if "expression" not in data:
            raise WatchError("a watch needs an expression, such as fidelity")
        return cls(**data)


class Watches:
    """The watches of one run, in the order they were added.

    >>> session.watches.add("min fidelity(*.mlp.*)", "MLPs").name                    # doctest: +SKIP
    'MLPs'
    >>> session.watches.curves(session.frames, 0, 3)                                 # doctest: +SKIP
    {'MLPs': [None, 1.0, 1.0]}
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._bound: dict[str, tuple[Watch, Bound]] = {}

    def __iter__(self) -> Iterator[Watch]:
        return iter([watch for watch, _ in self._bound.values()])

    def __len__(self) -> int:
        return len(self._bound)

    def __contains__(self, name: object) -> bool:
        return name in self._bound

    def add(self, watch: Watch | str, name: str = "") -> Watch:
        """Follow an expression; returns the watch with its name.

        Raises `ExpressionError` where it does not fit this run, `WatchError` for a name that is taken and for too many.
        """
        given = watch if isinstance(watch, Watch) else Watch(watch, name)
        if isinstance(watch, Watch) and name:
            raise WatchError("a watch that is made already has its own name")
        if len(self) >= MAX_WATCHES:
            raise WatchError(f"a run has at most {MAX_WATCHES} watches: remove one first")
        bound = Expression(given.expression).bind(self.scope)
        named = replace(given, name=given.name or self._free(given.expression))
        if named.name in self._bound:
            raise WatchError(f"there is a watch {named.name!r} already: choose another name or remove that one")
        self._bound[named.name] = named, bound
        return named

    def remove(self, name: str) -> Watch:
        """Take one away; returns it. Raises `WatchError` for an unknown name."""
        if name not in self._bound:
            raise WatchError(f"there is no watch {str(name)[:MAX_NAME]!r}: there are {', '.join(self._bound) or 'none'}")
        return self._bound.pop(name)[0]

    def clear(self) -> None:
        """Take all away."""
        self._bound.clear()

    def values(self, frame: Frame, before: Frame | None) -> dict[str, float | None]:
        """Of each watch its value at `frame`, with `before` the frame before it: None for nothing; of a condition 1.0 or 0.0."""
        return {name: bound.value(frame, before) for name, (_, bound) in self._bound.items()}

    def curves(self, frames: Sequence[Frame], start: int, stop: int) -> dict[str, list[float | None]]:
        """Of each watch its values at the recorded steps [start, stop), as `values` gives them.

        frames: all that are recorded. Old ones lie packed, so each is opened once for all watches.
        """
        found: dict[str, list[float | None]] = {name: [] for name in self._bound}
        start, stop = max(0, start), min(stop, len(frames))
        before = frames[start - 1] if 0 < start < stop and found else None
        for index in range(start, stop if found else start):
            frame = frames[index]
            for name, value in self.values(frame, before).items():
                found[name].append(value)
            before = frame
        return found

    def to_list(self) -> list[dict[str, Any]]:
        """All of them as JSON-ready values."""
        return [watch.to_dict() for watch in self]

    def load(self, described: object) -> None:
        """Take these in place of those there are; all, or, where one cannot be used, none. Raises as `add`."""
        if not isinstance(described, Iterable) or isinstance(described, str | bytes | Mapping):
            raise WatchError("watches are a list of dictionaries")
        fresh = Watches(self.scope)
        for item in described:
            fresh.add(Watch.from_dict(item))
        self._bound = fresh._bound

    def _free(self, expression: str) -> str:
        """The expression's text, cut to the length of a name, with a number behind it where it is taken."""
        text = "".join(letter if letter.isprintable() else " " for letter in expression.strip())
        name, count = text[:MAX_NAME], 1
        while name in self._bound:
            count += 1
            name = f"{text[: MAX_NAME - 4]} #{count}"
        return name
