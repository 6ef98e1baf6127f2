"""What an expression over frames is, once read: a tree of these nodes, and its spelling.

`grammar` makes trees of text and `write` makes text of trees; `expressions` evaluates them. A node knows whether it is a condition, how
deep it is and whether it looks at the frame before, and nothing of any run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from laser_studio.debugger.vocabulary import WORDS, OfFrame, is_truth

Span = tuple[int, int]  # first character and the one behind the last

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
OR, AND, NOT, COMPARE, ADD, MULTIPLY, MINUS, ATOM = range(1, 9)
BINDING = {"or": OR, "and": AND, **dict.fromkeys(COMPARISONS, COMPARE), "+": ADD, "-": ADD}
BINDING |= dict.fromkeys(("*", "/", "%"), MULTIPLY)

_PLAIN_SITE = re.compile(r'[^\s"(),]+')


@dataclass(frozen=True)
class Node:
    """A part of an expression. span: its characters in the text, which two equal trees may differ in."""

    span: Span = field(default=(0, 0), compare=False, kw_only=True)

    @property
    def children(self) -> tuple[Node, ...]:
        """The parts it is made of."""
        return ()

    @property
    def truth(self) -> bool:
        """Whether it is a condition; otherwise it is a number."""
        return False

    def __post_init__(self) -> None:
        # Asked at every level while parsing: kept, or reading a deep tree would take time of the square of its depth.
        object.__setattr__(self, "depth", 1 + max((child.depth for child in self.children), default=0))
        object.__setattr__(self, "looks_back", self._looks_back or any(child.looks_back for child in self.children))

    depth: int = field(init=False, compare=False, repr=False, default=1)
    looks_back: bool = field(init=False, compare=False, repr=False, default=False)

    @property
    def _looks_back(self) -> bool:
        return False


@dataclass(frozen=True)
class Number(Node):
    """A literal, finite and not negative."""

    value: float


@dataclass(frozen=True)
class Name(Node):
    """A word of the vocabulary that stands alone."""

    name: str

    @property
    def truth(self) -> bool:
        return is_truth(WORDS[self.name])

    @property
    def _looks_back(self) -> bool:
        word = WORDS[self.name]
        return isinstance(word, OfFrame) and word.looks_back


@dataclass(frozen=True)
class SiteName(Node):
    """A site in full, a part of its name, or a pattern."""

    text: str


@dataclass(frozen=True)
class AtSites(Node):
    """A word of some sites."""

    name: str
    sites: tuple[SiteName, ...]

    @property
    def truth(self) -> bool:
        return is_truth(WORDS[self.name])


@dataclass(frozen=True)
class AtCell(Node):
    """A word of the cell in that row and column, both from 1."""

    name: str
    row: int
    column: int


@dataclass(frozen=True)
class AtH(Node):
    """`l == H`, or `l != H` where not `same`."""

    same: bool

    @property
    def truth(self) -> bool:
        return True


@dataclass(frozen=True)
class Reduce(Node):
    """min, max or mean of one word over sites or cells."""

    how: str
    of: Name | AtSites

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Call(Node):
    """A function of values."""

    function: str
    arguments: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.arguments

    @property
    def truth(self) -> bool:
        return self.function in ("becomes", "known") or (self.function == "prev" and self.arguments[0].truth)

    @property
    def _looks_back(self) -> bool:
        return self.function in ("prev", "becomes")


@dataclass(frozen=True)
class Changed(Node):
    """`x changed`: a value differs from that at the frame before."""

    of: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.of,)

    @property
    def truth(self) -> bool:
        return True

    @property
    def _looks_back(self) -> bool:
        return True


@dataclass(frozen=True)
class Unary(Node):
    """`-` of a number or `not` of a condition."""

    operator: str
    of: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.of,)

    @property
    def truth(self) -> bool:
        return self.operator == "not"


@dataclass(frozen=True)
class Binary(Node):
    """Arithmetic or a comparison of two numbers."""

    operator: str
    left: Node
    right: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    @property
    def truth(self) -> bool:
        return self.operator in COMPARISONS


@dataclass(frozen=True)
class Logic(Node):
    """Two or more conditions joined by `and` or by `or`."""

    operator: str
    parts: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.parts

    @property
    def truth(self) -> bool:
        return True


def write(node: Node) -> str:
    """The expression as text, with as few brackets as it takes; `parse(write(node)) == node`."""
    match node:
        case Number(value):
            return str(int(value)) if value.is_integer() and value < 1e15 else repr(value)
        case Name(name):
            return name
        case SiteName(text):
            return text if _PLAIN_SITE.fullmatch(text) else f'"{text}"'
        case AtSites(name, sites):
            return f"{name}({', '.join(map(write, sites))})"
        case AtCell(name, row, column):
            return f"{name}({row}, {column})"
        case AtH(same):
            return "l == H" if same else "l != H"
        case Reduce(how, of):
            return f"{how}({write(of)})"
        case Call(function, arguments):
            return f"{function}({', '.join(map(write, arguments))})"
        case Changed(of):
            return f"{_wrapped(of, ATOM)} changed"
        case Unary("not", of):
            return f"not {_wrapped(of, NOT)}"
        case Unary(_, of):
            return f"-{_wrapped(of, MINUS)}"
        case Binary(operator, left, right):
            binding = BINDING[operator]
            return f"{_wrapped(left, binding)} {operator} {_wrapped(right, binding + 1)}"
        case Logic(operator, parts):
            return f" {operator} ".join(_wrapped(part, BINDING[operator] + 1) for part in parts)
    raise AssertionError(f"no node of the grammar: {node!r}")


def _wrapped(node: Node, weakest: int) -> str:
    return write(node) if _strength(node) >= weakest else f"({write(node)})"


def _strength(node: Node) -> int:
    match node:
        case Unary(operator, _):
            return NOT if operator == "not" else MINUS
        case Binary(operator, _, _) | Logic(operator, _):
            return BINDING[operator]
        case AtH():
            return COMPARE
        case Changed():
            return ATOM - 1
    return ATOM
