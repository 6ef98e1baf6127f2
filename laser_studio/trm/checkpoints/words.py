"""Words for messages about strangers' files: one line, printable, not long. Used by the whole package; opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from laser_studio.untrusted.faults import EXPORT, shown

__all__ = ["EXPORT", "first", "kind_in_words", "shape_in_words", "shown"]


def first(items: Iterable[str], count: int = 5) -> str:
    """The first few of them, and how many more there are."""
    listed = list(items)
    more = f" … and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(shown(item, 160) for item in listed[:count]) + more


def shape_in_words(shape: Sequence[int]) -> str:
    """3×4, or "a scalar"."""
    return "×".join(map(str, shape)) or "a scalar"


def kind_in_words(value: Any) -> str:
    """What an object found in a file is."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device.type}"
        return f"a {str(value.layout).removeprefix('torch.')} {str(value.dtype).removeprefix('torch.')} tensor{where}"
    return f"of type {shown(type(value).__name__, 40)}"
