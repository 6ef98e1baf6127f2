"""The grammar of expressions over frames: text to a tree (`expression_tree`).

A hand-written operator-precedence parser (Pratt's method) over a scanner that it drives itself, because a site's name inside
`fidelity(…)` is read by other rules than the rest. Weakest first::

    or |      and &      not !      < <= > >= == !=      + -      * / %      -x      x changed

Conditions and numbers are told apart while reading, so a tree that was parsed always fits together; whether its sites and
cells exist is asked later, of a run. Length and depth are bounded, so that no text costs more than a moment. Every refusal is an
`ExpressionError` that shows the place. Nothing is evaluated here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from laser_studio.debugger.expression_tree import (
    BINDING,
    COMPARE,
    COMPARISONS,
    MINUS,
    NOT,
    OR,
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
    Span,
    Unary,
)  # fmt: skip
from laser_studio.debugger.vocabulary import FUNCTIONS, SYNONYMS, WORDS, OfCell, OfEvent, OfSite
from laser_studio.errors import ExpressionError

MAX_LENGTH = 1_000  # characters
MAX_DEPTH = 40  # of the tree, and of brackets
MAX_ARGUMENTS = 16

_SPELT = {"|": "or", "||": "or", "&": "and", "&&": "and", "!": "not"}
_WORDS_OF_GRAMMAR = ("and", "or", "not", "changed")

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z_.]))"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<operator><=|>=|==|!=|&&|\|\||[<>&|!+\-*/%(),])"
)
_BLANK = re.compile(r"[ \t\r\n]*")
_SITE = re.compile(r'"(?P<quoted>[^"]*)"|(?P<plain>[^\s"(),]+)')


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "number", "name", "operator" or "end"
    text: str
    span: Span

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else _quoted(self.text)


def parse(text: str) -> Node:
    """The tree of an expression. Raises `ExpressionError`."""
    if not isinstance(text, str):
        raise ExpressionError(f"an expression is text, not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH:,} characters, this one has {len(text):,}")
    return _Parser(text).whole()


def refuse(text: str, span: Span, reason: str) -> NoReturn:
    """Raise `ExpressionError` with the reason, the text around `span` and a mark below it."""
    start, end = span[0], max(span[1], span[0] + 1)
    first = max(0, start - 50)
    last = min(max(len(text), start + 1), start + 50)
    before, after = "…" if first else "", "…" if last < len(text) else ""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[first:last])
    mark = " " * (start - first + len(before)) + "^" * (min(end, last) - start)
    raise ExpressionError(f"{reason}\n  {before}{shown}{after}\n  {mark}", position=start)


def suggestion(name: str, among: Iterable[str]) -> str:
    """`: did you mean …?` where one of them is alike, else nothing."""
    close = difflib.get_close_matches(name[:60], tuple(among), 1, 0.6)
    return f": did you mean {close[0]}?" if close else ""


class _Parser:
    """One text, read once from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0  # behind the token looked at
        self.token = self._scan()

    def whole(self) -> Node:
        if self.token.kind == "end":
            self.fail(self.token, "an expression is expected, such as fidelity < 0.9 | reset")
        node = self.expression(OR, 0)
        if self.token.text == ")":
            self.fail(self.token, "there is no ( for this )")
        if self.token.kind != "end":
            hint = suggestion(self.token.text, _WORDS_OF_GRAMMAR) if self.token.kind == "name" else ""
            self.fail(self.token, f"an operator or the end is expected, found {self.token.shown}{hint}")
        return node

    def expression(self, weakest: int, level: int) -> Node:
        """The longest expression from here whose operators bind at least as strongly as `weakest`."""
        node = self.prefix(level)
        while (operator := self.operator()) is not None and BINDING[operator] >= weakest:
            sign, binding = self.advance(), BINDING[operator]
            if operator in ("and", "or"):
                node = self.logic(operator, node, level)
                continue
            if (at_h := self.at_h(node, operator)) is not None:
                node = at_h
            else:
                right = self.expression(binding + 1, level + 1)
                for side in (node, right):
                    self.number(side, f"{sign.text} takes numbers")
                node = self.checked(Binary(operator, node, right, span=(node.span[0], right.span[1])))
            if binding == COMPARE and self.operator() in COMPARISONS:
                self.fail(self.token, "comparisons cannot be chained: write a < x & x < b")
        return node

    def logic(self, operator: str, first: Node, level: int) -> Node:
        parts = [first, self.expression(BINDING[operator] + 1, level + 1)]
        while self.operator() == operator:
            self.advance()
            parts.append(self.expression(BINDING[operator] + 1, level + 1))
        for part in parts:
            self.condition(part)
        return self.checked(Logic(operator, tuple(parts), span=(first.span[0], parts[-1].span[1])))

    def prefix(self, level: int) -> Node:
        if level >= MAX_DEPTH:
            self.fail(self.token, f"too deeply nested: at most {MAX_DEPTH} levels")
        token = self.token
        if (sign := _SPELT.get(token.text, token.text)) in ("not", "-"):
            self.advance()
            node = self.expression(NOT if sign == "not" else MINUS, level + 1)
            if sign == "not":
                self.condition(node)
            else:
                self.number(node, "- takes a number")
            return self.checked(Unary(sign, node, span=(token.span[0], node.span[1])))
        node = self.atom(level)
        if self.token.text == "changed":
            self.no_second_look(node)
            node = self.checked(Changed(node, span=(node.span[0], self.advance().span[1])))
            if self.token.text == "changed":
                self.no_second_look(node)
        return node

    def atom(self, level: int) -> Node:
        token = self.advance()
        if token.kind == "number":
            if not math.isfinite(value := float(token.text)):
                self.fail(token, "this number is too large")
            return Number(value, span=token.span)
        if token.text == "(":
            node = self.expression(OR, level + 1)
            self.close(token)
            return node
        if token.kind != "name" or token.text in ("and", "or"):
            self.fail(token, f"a value is expected, found {token.shown}")
        if token.text in FUNCTIONS:
            return self.function(token, level)
        if token.text not in WORDS:
            self.unknown(token)
        word = WORDS[token.text]
        if self.token.text != "(":
            if isinstance(word, OfCell) and not word.alone:
                self.fail(token, f"{word.name} needs row and column: {word.name}(1, 2)")
            return Name(word.name, span=token.span)
        if isinstance(word, OfCell):
            return self.cell(token)
        if isinstance(word, OfSite | OfEvent):
            return self.sites(token)
        self.fail(self.token, f"{word.name} is of the whole run: it takes nothing in brackets")

    def function(self, token: _Token, level: int) -> Node:
        name = token.text
        if name in ("min", "max", "mean") and self.token.kind == "name" and self.token.text not in FUNCTIONS:  # `min fidelity`
            return self.reduced(token, self.atom(level + 1))
        opening = self.token
        if opening.text != "(":
            self.fail(opening, f"{name} needs its values in brackets: {FUNCTIONS[name].split(':')[0].strip('`')}")
        self.advance()
        arguments = [self.expression(OR, level + 1)]
        while self.token.text == ",":
            if len(arguments) == MAX_ARGUMENTS:
                self.fail(self.token, f"at most {MAX_ARGUMENTS} values in one pair of brackets")
            self.advance()
            arguments.append(self.expression(OR, level + 1))
        end = self.close(opening).span[1]
        if name in ("min", "max", "mean"):
            if len(arguments) == 1:
                return self.reduced(token, arguments[0])
        elif len(arguments) > 1:
            refuse(self.text, arguments[1].span, f"{name} takes one value")
        for argument in arguments:
            if name == "becomes":
                self.condition(argument)
            elif name not in ("prev", "known"):
                self.number(argument, f"{name} takes numbers")
            if name in ("prev", "becomes"):
                self.no_second_look(argument)
        return self.checked(Call(name, tuple(arguments), span=(token.span[0], end)))

    def reduced(self, token: _Token, node: Node) -> Node:
        if not isinstance(node, Name | AtSites) or not isinstance(WORDS[node.name], OfSite | OfCell):
            refuse(self.text, node.span, f"{token.text} takes two or more numbers, or one word of sites or cells, such as fidelity")
        return self.checked(Reduce(token.text, node, span=(token.span[0], node.span[1])))

    def cell(self, token: _Token) -> Node:
        opening = self.advance()
        row = self.whole_number(f"{token.text} takes row and column, counted from 1: {token.text}(1, 2)")
        if self.token.text != ",":
            self.fail(self.token, f"{token.text} takes row and column: a comma is expected, found {self.token.shown}")
        self.advance()
        column = self.whole_number("the column is expected, counted from 1")
        end = self.close(opening)
        return AtCell(token.text, row, column, span=(token.span[0], end.span[1]))

    def whole_number(self, expected: str) -> int:
        token = self.advance()
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 9 or int(token.text) < 1:
            self.fail(token, expected)
        return int(token.text)

    def sites(self, token: _Token) -> Node:
        sites: list[SiteName] = []
        opening = self.token
        self.at = opening.span[1]  # names of sites are read by their own rule from here on
        while True:
            start = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
            found = _SITE.match(self.text, start)
            if found is None:
                reason = f'a site is expected, such as mlp.down_proj, *.mlp.* or "any name"; without one: {token.text}'
                refuse(self.text, (start, start + 1), reason)
            if not found.group().isprintable():
                refuse(self.text, found.span(), "a site's name has printable characters only")
            quoted = found["quoted"]
            sites.append(SiteName(found["plain"] if quoted is None else quoted, span=found.span()))
            self.at = found.end()
            self.token = self._scan()
            if self.token.text != ",":
                break
            if len(sites) == MAX_ARGUMENTS:
                self.fail(self.token, f"at most {MAX_ARGUMENTS} sites in one pair of brackets")
        end = self.close(opening)
        return self.checked(AtSites(token.text, tuple(sites), span=(token.span[0], end.span[1])))

    def at_h(self, left: Node, operator: str) -> Node | None:
        """`H` behind `l ==`, else None."""
        if self.token.text != "H":
            return None
        if not (isinstance(left, Name) and left.name == "l" and operator in ("==", "!=")):
            self.fail(self.token, "H goes only with l == H and l != H")
        return AtH(operator == "==", span=(left.span[0], self.advance().span[1]))

    # What all of these use

    def advance(self) -> _Token:
        """Take the token looked at."""
        token, self.token = self.token, self._scan() if self.token.kind != "end" else self.token
        return token

    def operator(self) -> str | None:
        spelt = _SPELT.get(self.token.text, self.token.text)
        return spelt if spelt in BINDING else None

    def close(self, opening: _Token) -> _Token:
        if self.token.text != ")":
            self.fail(self.token, f") is expected for the ( at character {opening.span[0] + 1}, found {self.token.shown}")
        return self.advance()

    def checked(self, node: Node) -> Node:
        if node.depth > MAX_DEPTH:
            refuse(self.text, node.span, f"too deeply nested: at most {MAX_DEPTH} levels")
        return node

    def condition(self, node: Node) -> None:
        if not node.truth:
            refuse(self.text, node.span, f"this is a number, a condition is expected: compare it, as in {_example(node)}")

    def number(self, node: Node, why: str) -> None:
        if node.truth:
            refuse(self.text, node.span, f"{why}, and this is a condition: join conditions by &, | and !")

    def no_second_look(self, node: Node) -> None:
        if node.looks_back:
            reason = "this looks at the frame before already: prev, becomes, changed and diverged do not go into one another"
            refuse(self.text, node.span, reason)

    def unknown(self, token: _Token) -> NoReturn:
        name = token.text
        if name == "H":
            self.fail(token, "H goes only with l == H and l != H")
        known = (*WORDS, *FUNCTIONS)
        hint = f": did you mean {SYNONYMS[name]}?" if name in SYNONYMS else suggestion(name.lower(), (*known, *_WORDS_OF_GRAMMAR))
        self.fail(token, f"unknown name {_quoted(name)}{hint or '; known are ' + ', '.join(sorted(known))}")

    def fail(self, token: _Token, reason: str) -> NoReturn:
        refuse(self.text, token.span, reason)

    def _scan(self) -> _Token:
        start = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
        if start == len(self.text):
            self.at = start
            return _Token("end", "", (start, start + 1))
        found = _TOKEN.match(self.text, start)
        if found is None:
            letter = self.text[start]
            if letter == "=":
                refuse(self.text, (start, start + 1), "a single = means nothing here: equality is ==")
            if letter in "0123456789.":
                refuse(self.text, (start, start + 1), "this is no number")
            refuse(self.text, (start, start + 1), f"unexpected character {letter!r}")
        self.at = found.end()
        return _Token(found.lastgroup or "", found.group(), found.span())


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _example(node: Node) -> str:
    name = node.name if isinstance(node, Name | AtSites | AtCell) else "x"
    return f"{name} < 0.9"
