"""Expressions over frames: conditions to stop at and values to watch, bound to a run and evaluated frame by frame.

>>> Expression("fidelity < .9|reset")
Expression('fidelity < 0.9 or reset')

`Expression` is a checked text, `Scope` what a run has (its sites, the shape of its board), `Bound` both together. Where a value is
missing (a site not seen at a step, a figure not measured, no frame before) there is *nothing*: arithmetic with nothing is nothing,
a comparison with it is false, and no frame makes an evaluation fail. Values that are not finite count as nothing. The language is
told in docs/breakpoints.md.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from laser_studio.debugger import grammar
from laser_studio.debugger.expression_tree import (
    AtCell,
    AtH,
    AtSites,
    Binary,
    Call,
    Changed,
    Logic,
    Name,
    Node,
    Number,
    Reduce,
    SiteName,
    Unary,
    write,
)
from laser_studio.debugger.frames import Frame
from laser_studio.debugger.vocabulary import WORDS, OfCell, OfEvent, OfFrame, OfSite
from laser_studio.errors import ExpressionError

Evaluator = Callable[[Frame, Frame | None], Any]  # of a frame and the one before it: a number, None or a bool
Numbers = Callable[[Frame], Iterable[float | None]]


@dataclass(frozen=True)
class Scope:
    """What names of a run can mean: its sites, and (height, width) of its board, None where it has none."""

    sites: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None


class Expression:
    """A checked expression; `str` gives it in one fixed spelling, and equal expressions have equal trees.

    text: as it was written. Raises `ExpressionError`, which shows the place, the cause and the way out.
    """

    def __init__(self, text: str) -> None:
        self.root = grammar.parse(text)
        self.text = text

    @property
    def is_condition(self) -> bool:
        """Whether it holds or not; otherwise it is a number."""
        return self.root.truth

    def bind(self, scope: Scope) -> Bound:
        """Ready for the frames of a run. Raises `ExpressionError` for a site or cell that it does not have."""
        return Bound(self, _Binder(self.text, scope).evaluator(self.root))

    def require_condition(self) -> Expression:
        """Itself. Raises `ExpressionError` where it is a number."""
        if not self.is_condition:
            grammar.refuse(self.text, self.root.span, "this is a number and cannot stop a run: compare it, as in fidelity < 0.9")
        return self

    @cached_property
    def _spelling(self) -> str:
        return write(self.root)

    def __str__(self) -> str:
        return self._spelling

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)


class Bound:
    """An expression bound to a run."""

    def __init__(self, expression: Expression, evaluator: Evaluator) -> None:
        self.expression = expression
        self._evaluator = evaluator

    def value(self, frame: Frame, before: Frame | None = None) -> float | None:
        """At `frame`, with `before` the frame before it: a number, None for nothing; of a condition 1.0 or 0.0."""
        found = self._evaluator(frame, before)
        return None if found is None else float(found)

    def holds(self, frame: Frame, before: Frame | None = None) -> bool:
        """Whether the condition holds at `frame`."""
        return bool(self._evaluator(frame, before))


class _Binder:
    """Turns a tree into nested functions, once, so that a frame costs only calls."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text, self.scope = text, scope

    def evaluator(self, node: Node) -> Evaluator:
        match node:
            case Number(value):
                return lambda frame, before: value
            case Name(name):
                return self.alone(name)
            case AtSites(name, sites):
                names = self.resolve(sites)
                if isinstance(word := WORDS[name], OfEvent):
                    kind, chosen = word.kind, frozenset(names)
                    return lambda frame, before: any(event.kind == kind and event.site in chosen for event in frame.events)
                assert isinstance(word, OfSite)
                return _reduced(_of_sites(word, names), min if word.least else max)
            case AtCell(name, row, column):
                word = WORDS[name]
                assert isinstance(word, OfCell)
                return _of_cell(word, self.cell(node, row, column))
            case AtH(same):
                return lambda frame, before: (frame.l == "H") is same
            case Reduce(how, of):
                return _reduced(self.numbers(of), _REDUCERS[how])
            case Call(function, arguments):
                if function == "prev" and node.truth:
                    was = self.evaluator(arguments[0])
                    return lambda frame, before: before is not None and was(before, None)
                return _called(function, [self.evaluator(argument) for argument in arguments])
            case Changed(of):
                return _changed(self.evaluator(of))
            case Unary("not", of):
                condition = self.evaluator(of)
                return lambda frame, before: not condition(frame, before)
            case Unary(_, of):
                number = self.evaluator(of)
                return lambda frame, before: None if (x := number(frame, before)) is None else -x
            case Binary(sign, left, right):
                make = _comparison if node.truth else _arithmetic
                return make(_OPERATORS[sign], self.evaluator(left), self.evaluator(right))
            case Logic(sign, parts):
                return (_any if sign == "or" else _all)([self.evaluator(part) for part in parts])
        raise AssertionError(f"no node of the grammar: {node!r}")

    def alone(self, name: str) -> Evaluator:
        """A bare word."""
        match WORDS[name]:
            case OfFrame(of=of, truth=truth):
                return of if truth else lambda frame, before: finite(of(frame, before))
            case OfEvent(kind=kind):
                return lambda frame, before: any(event.kind == kind for event in frame.events)
            case OfSite(alone=alone) as word:
                if alone is not None:
                    return lambda frame, before: finite(alone(frame))
                return _reduced(_of_all_sites(word), min if word.least else max)
            case OfCell() as word:
                return _reduced(word.of, min)
        raise AssertionError(f"no kind of word: {name}")

    def numbers(self, node: Name | AtSites) -> Numbers:
        """What a word says of each site or cell."""
        word = WORDS[node.name]
        if isinstance(word, OfCell):
            return word.of
        assert isinstance(word, OfSite)
        return _of_sites(word, self.resolve(node.sites)) if isinstance(node, AtSites) else _of_all_sites(word)

    def resolve(self, sites: Sequence[SiteName]) -> tuple[str, ...]:
        """The sites that are meant, each once, in the run's order."""
        found = {name for site in sites for name in self.matching(site)}
        return tuple(name for name in self.scope.sites if name in found)

    def matching(self, site: SiteName) -> Sequence[str]:
        """A name in full; else the only one that ends in it at a dot; else the only one that holds it; or all that a pattern fits."""
        wanted, known = site.text, self.scope.sites
        if wanted in known:
            return [wanted]
        if any(sign in wanted for sign in "*?["):
            if found := [name for name in known if fnmatchcase(name, wanted)]:
                return found
            grammar.refuse(self.text, site.span, f"no site fits this pattern: {self.listing()}")
        ending = [name for name in known if name.endswith("." + wanted)]
        found = ending or [name for name in known if wanted and wanted in name]
        if len(found) == 1:
            return found
        if found:
            pattern = ("*." if ending else "*") + wanted + ("" if ending else "*")
            reason = f"{len(found)} sites have this in their names ({_few(found)}): write more of one, or {pattern} for all of them"
            grammar.refuse(self.text, site.span, reason)
        hint = grammar.suggestion(wanted, {part for name in known for part in (name, name.rpartition(".")[2])})
        grammar.refuse(self.text, site.span, f"no site is called so{hint or '; ' + self.listing()}")

    def listing(self) -> str:
        return f"sites are {_few(self.scope.sites, 12)}" if self.scope.sites else "this run has no sites"

    def cell(self, node: Node, row: int, column: int) -> int:
        if self.scope.shape is None:
            grammar.refuse(self.text, node.span, "this run has no board, so there are no cells")
        height, width = self.scope.shape
        if row > height or column > width:
            grammar.refuse(self.text, node.span, f"there is no such cell: rows go from 1 to {height}, columns from 1 to {width}")
        return (row - 1) * width + column - 1


def finite(number: float | None) -> float | None:
    """The number as a float; None where it is nothing, not finite or too large for one."""
    if number is None:
        return None
    try:
        return float(number) if math.isfinite(number) else None
    except OverflowError:  # a whole number that no float can hold
        return None


def _of_sites(word: OfSite, names: Sequence[str]) -> Numbers:
    read = word.of

    def numbers(frame: Frame) -> Iterable[float | None]:
        sites = frame.sites
        return [read(sites[name]) for name in names if name in sites]

    return numbers


def _of_all_sites(word: OfSite) -> Numbers:
    read = word.of
    return lambda frame: [read(site) for site in frame.sites.values()]


def _of_cell(word: OfCell, index: int) -> Evaluator:
    cells = word.of
    return lambda frame, before: finite(found[index]) if index < len(found := cells(frame)) else None


def _reduced(numbers: Numbers, how: Callable[[list[float]], float]) -> Evaluator:
    """Of what has a value; nothing where none has."""

    def evaluate(frame: Frame, before: Frame | None) -> float | None:
        found = [number for number in map(finite, numbers(frame)) if number is not None]
        return finite(how(found)) if found else None

    return evaluate


def _mean(numbers: list[float]) -> float:
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:  # their sum is beyond a float
        return math.inf


_REDUCERS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "mean": _mean}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def _comparison(compare: Callable[[float, float], bool], left: Evaluator, right: Evaluator) -> Evaluator:
    def evaluate(frame: Frame, before: Frame | None) -> bool:
        a, b = left(frame, before), right(frame, before)
        return a is not None and b is not None and compare(a, b)

    return evaluate


def _arithmetic(combine: Callable[[float, float], float], left: Evaluator, right: Evaluator) -> Evaluator:
    def evaluate(frame: Frame, before: Frame | None) -> float | None:
        a, b = left(frame, before), right(frame, before)
        if a is None or b is None:
            return None
        try:
            return finite(combine(a, b))
        except ZeroDivisionError:
            return None

    return evaluate


def _all(parts: list[Evaluator]) -> Evaluator:
    def evaluate(frame: Frame, before: Frame | None) -> bool:
        for part in parts:  # noqa: SIM110 - all() over a generator takes half as long again, and this runs at every frame
            if not part(frame, before):
                return False
        return True

    return evaluate


def _any(parts: list[Evaluator]) -> Evaluator:
    def evaluate(frame: Frame, before: Frame | None) -> bool:
        for part in parts:  # noqa: SIM110
            if part(frame, before):
                return True
        return False

    return evaluate


def _changed(of: Evaluator) -> Evaluator:
    def evaluate(frame: Frame, before: Frame | None) -> bool:
        if before is None:
            return False
        now, then = of(frame, None), of(before, None)
        return now is not None and then is not None and now != then

    return evaluate


def _called(function: str, arguments: list[Evaluator]) -> Evaluator:
    first = arguments[0]
    match function:
        case "prev":
            return lambda frame, before: first(before, None) if before is not None else None
        case "becomes":
            return lambda frame, before: before is not None and first(frame, None) and not first(before, None)
        case "known":
            return lambda frame, before: first(frame, before) is not None
        case "abs":
            return lambda frame, before: None if (x := first(frame, before)) is None else abs(x)
    how = _REDUCERS[function]

    def evaluate(frame: Frame, before: Frame | None) -> float | None:
        found = [argument(frame, before) for argument in arguments]
        return None if None in found else finite(how(found))

    return evaluate


def _few(names: Sequence[str], most: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(name if len(name) <= 80 else name[:79] + "…" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def condition(text: str) -> Expression:
    """A checked expression that holds or not. Raises `ExpressionError`."""
    return Expression(text).require_condition()


__all__ = ["Bound", "Expression", "ExpressionError", "Scope", "condition", "finite"]
