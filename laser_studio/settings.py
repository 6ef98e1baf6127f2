"""Settings as frozen dataclasses whose ranges, units and help live in one place.

`@settings(SomeError)` turns a class into a frozen, validated dataclass (pydantic does the checking) that raises
`SomeError` with one readable sentence per bad field. Sliders, command-line flags and URL keys read the same
`describe()` table, so a range is written once. Used by every layer; knows none of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import annotated_types
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from laser_studio.errors import LaserStudioError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SettingInfo:
    """What a control, flag or URL key needs to know about one field."""

    name: str
    default: Any
    low: float | None
    high: float | None
    unit: str
    help: str


def setting(*, default: Any = ..., low: float | None = None, high: float | None = None, unit: str = "", help: str) -> Any:  # noqa: A002 - the word users know from command lines
    """A field of a settings class: default, inclusive range, unit and one sentence of help."""
    return Field(default, ge=low, le=high, description=help, json_schema_extra={"unit": unit})


@dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def settings(error: type[LaserStudioError]) -> Callable[[type[T]], type[T]]:
    """Class decorator: frozen dataclass, unknown and non-finite values refused, failures raised as `error`."""

    def decorate(cls: type[T]) -> type[T]:
        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        built: Any = pydantic_dataclass(frozen=True, config=config)(cls)
        validate = built.__init__

        @functools.wraps(validate)
        def init(self: Any, *args: Any, **values: Any) -> None:
            try:
                validate(self, *args, **values)
            except ValidationError as failure:
                raise error(f"{cls.__name__}: {_sentence(failure)}") from None

        built.__init__ = init
        return built

    return decorate


def _sentence(failure: ValidationError) -> str:
    parts = []
    for problem in failure.errors(include_url=False)[:5]:
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        given = problem.get("input")
        shown = f" (got {str(given)[:80]})" if isinstance(given, int | float | str | bool) or given is None else ""
        parts.append(f"{name[:80]}: {message}{shown}" if name else message)
    # names and values may be a stranger's: no line breaks or escape codes in a message
    return "".join(char if char.isprintable() else "?" for char in "; ".join(parts))


def describe(cls: Any) -> dict[str, SettingInfo]:
    """The fields of a settings class in order, with default, inclusive range, unit and help."""
    table = {}
    for name, field in cls.__pydantic_fields__.items():
        low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
        high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        table[name] = SettingInfo(name, field.default, low, high, str(extra.get("unit", "")), field.description or "")  # type: ignore[arg-type]
    return table
