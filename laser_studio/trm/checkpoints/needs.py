"""What neither the tensors nor a configuration tell: asked for by name, with the official value proposed. Opens nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from laser_studio.errors import CheckpointError

HOW = "say them (`python -m laser_studio convert` asks for each and writes a checkpoint that tells)"

Assume = Mapping[str, Any] | Literal["official"] | None
"""Answers to needs by name; "official" takes every proposal, {"official": True, …} the rest of them; None answers nothing."""


@dataclass(frozen=True)
class Need:
    """One unknown: a `TRMConfig` field (or "task"), what it decides, the official value, and where there are only some, the choices."""

    name: str
    why: str
    proposed: Any
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.name if self.proposed is None else f"{self.name} (official: {self.proposed})"


class CheckpointNeeds(CheckpointError):  # noqa: N818 - a question rather than a fault
    """A sound checkpoint that cannot be loaded until `needs` are answered: `load_checkpoint(…, assume={need.name: value})`.

    A screen can ask for each need in turn; `proposal` answers all that have an official value.
    """

    def __init__(self, message: str, needs: Sequence[Need]) -> None:
        super().__init__(message)
        self.needs = tuple(needs)

    @property
    def proposal(self) -> dict[str, Any]:
        """The official answers."""
        return {need.name: need.proposed for need in self.needs if need.proposed is not None}


def read_answers(texts: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed for needs, by name, as values: numbers where they are such, true and false, else texts. A task stays a text: the names
    of ARC's may be digits alone.
    """
    return {name: str(text) if name == "task" else _value(text) for name, text in texts.items()}


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    plain = text.strip()
    for read in (int, float):
        try:
            value: int | float = read(plain)
        except ValueError:
            continue
        return value if math.isfinite(value) else plain
    return {"true": True, "yes": True, "false": False, "no": False}.get(plain.lower(), plain)


class Answers:
    """Collects what a reader has to know, takes it from what is assumed, and raises once for all that stays unknown."""

    def __init__(self, assume: Assume) -> None:
        if isinstance(assume, str) and assume != "official":
            raise CheckpointError(f'assume is "official" or a dict of values by name, not {assume[:40]!r}')
        self._assumed: dict[str, Any] = dict(assume) if isinstance(assume, Mapping) else {}
        self._official = assume == "official" or self._assumed.pop("official", False) is True
        self.task: str | int | None = self._assumed.pop("task", None)  # chosen by rows of the embedding, not by a reader
        self._open: list[Need] = []
        self._used: set[str] = set()
        self.taken: dict[str, Any] = {}

    def know(self, name: str, value: Any) -> Any:
        """A value that is known. Refuses an assumption that contradicts it."""
        self._used.add(name)
        if name in self._assumed and self._assumed[name] != value:
            raise CheckpointError(f"{name} is {value}, {str(self._assumed[name])[:40]} was assumed: leave it out")
        return value

    def ask(self, need: Need) -> Any:
        """The assumed value; without one the need is noted and its proposal returned for the time being."""
        self._used.add(need.name)
        if need.name in self._assumed:
            value = self._assumed[need.name]
        elif self._official and need.proposed is not None:
            value = need.proposed
        else:
            self._open.append(need)
            return need.proposed
        self.taken[need.name] = value
        return value

    @property
    def open(self) -> tuple[Need, ...]:
        """What was asked and not answered."""
        return tuple(self._open)

    def rest(self, fields: Collection[str], needs: Sequence[Need]) -> dict[str, Any]:
        """Assumptions nobody asked for, which must be among `fields`; they count as answers. `needs`: what the refusal proposes."""
        left = {name: value for name, value in self._assumed.items() if name not in self._used}
        if odd := [str(name)[:40] for name in left if name not in fields]:
            raise CheckpointError(f"nothing is called {', '.join(odd[:5])} here: assume {', '.join(n.name for n in needs) or 'nothing'}")
        self._used |= set(left)
        self.taken |= left
        return left
