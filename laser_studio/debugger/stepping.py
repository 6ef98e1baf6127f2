"""Where a step of some size ends: sizes are single net applications, H cycles and supervision steps, all of fixed length."""

from __future__ import annotations

from typing import Literal

from laser_studio.trm import TRMConfig

Size = Literal["net", "cycle", "supervision"]
SIZES: tuple[Size, ...] = ("net", "cycle", "supervision")


def length_of(size: Size, config: TRMConfig) -> int:
    """Net applications in one step of that size. Raises ValueError for a size that is none."""
    if size not in SIZES:
        raise ValueError(f"unknown size of step {size!r:.80}: use one of {', '.join(SIZES)}")
    return {"net": 1, "cycle": config.L_cycles + 1, "supervision": config.steps_per_supervision}[size]


def next_end(index: int, length: int) -> int:
    """The first multiple of `length` past `index`."""
    return (index // length + 1) * length


def previous_end(index: int, length: int) -> int:
    """The last multiple of `length` before `index`; 0 at the start of time."""
    return max(0, (index - 1) // length * length)


def way_out(index: int, config: TRMConfig) -> int:
    """Where what is under way ends: the H cycle within one, else the supervision step."""
    cycle = length_of("cycle", config)
    return next_end(index, cycle if index % cycle else length_of("supervision", config))
