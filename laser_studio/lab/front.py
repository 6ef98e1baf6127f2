"""Which ways to save are on the front of bytes, time and gradient, and which are dominated, by whom. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """saved: bytes kept; time: of a step, in any unit; cosine: of the gradient with the exact one."""

    saved: float
    time: float
    cosine: float


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal: shares of bytes and time, a difference of cosines. Times of equal arms differ by about 2 % from run to run."""

    saved: float = 0.01
    time: float = 0.02
    cosine: float = 0.0005

    def __str__(self) -> str:
        return f"bytes within {self.saved:.0%}, time within {self.time:.0%}, cosine within {self.cosine:g}"


def dominators(points: Mapping[str, Point], tolerance: Tolerance) -> dict[str, tuple[str, ...]]:
    """By name, who is as good on all three, within the tolerance, and beyond it better on one; nobody for those on the front.

    Who is on the front itself comes first, then the order given.
    """
    found = {
        name: tuple(other for other, rival in points.items() if other != name and _dominates(rival, point, tolerance))
        for name, point in points.items()
    }
    return {name: tuple(sorted(others, key=lambda other: bool(found[other]))) for name, others in found.items()}


def _dominates(one: Point, other: Point, tolerance: Tolerance) -> bool:
    return _as_good(one, other, tolerance) and not _as_good(other, one, tolerance)


def _as_good(one: Point, other: Point, tolerance: Tolerance) -> bool:
    return (
        one.saved <= other.saved * (1 + tolerance.saved)
        and one.time <= other.time * (1 + tolerance.time)
        and one.cosine >= other.cosine - tolerance.cosine
    )
