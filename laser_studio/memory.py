"""Giving freed memory back to the system: long runs free and take so many small tensors that glibc's heap stays full of holes."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None  # another C library, or another system: its heap is its own affair


def give_back_freed() -> None:
    """Let the C library hand free pages back (glibc's `malloc_trim`); takes some milliseconds, does nothing elsewhere."""
    if (trim := _trim()) is not None:
        trim(0)
