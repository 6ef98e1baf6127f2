"""Who dominates whom: a table of cases, and the properties that any points have."""

from __future__ import annotations

import random

import pytest

from laser_studio.lab.front import Point, Tolerance, dominators

EXACT = Tolerance(0, 0, 0)


@pytest.mark.parametrize(
    ("points", "tolerance", "wanted"),
    [
        ({"a": (10, 1, 1), "b": (5, 1, 1)}, EXACT, {"a": ("b",), "b": ()}),
        ({"a": (10, 1, 1), "b": (5, 2, 1)}, EXACT, {"a": (), "b": ()}),  # a trade
        ({"a": (10, 1, 1), "b": (10, 1, 1)}, EXACT, {"a": (), "b": ()}),  # twins
        ({"a": (10, 1, 0.9), "b": (5, 1.01, 0.9)}, Tolerance(0.01, 0.02, 0.001), {"a": ("b",), "b": ()}),  # slower by nothing that counts
        ({"a": (10, 1, 1), "b": (9.95, 1, 0.9999)}, Tolerance(0.01, 0.02, 0.001), {"a": (), "b": ()}),  # equal within the tolerance
        ({"a": (10, 1, 1), "b": (5, 1, 0.998)}, Tolerance(0.01, 0.02, 0.001), {"a": (), "b": ()}),
        ({"a": (10, 1, 1), "b": (5, 1, 1), "c": (2, 1, 1)}, EXACT, {"a": ("c", "b"), "b": ("c",), "c": ()}),  # the front first
    ],
)
def test_table(points: dict[str, tuple[float, float, float]], tolerance: Tolerance, wanted: dict[str, tuple[str, ...]]) -> None:
    assert dominators({name: Point(*point) for name, point in points.items()}, tolerance) == wanted


def test_the_front_without_tolerance_is_the_pareto_front() -> None:
    draw = random.Random(0)
    points = {str(i): Point(draw.randrange(6), draw.randrange(6), draw.randrange(6)) for i in range(60)}
    found = dominators(points, EXACT)
    for name, point in points.items():
        keys = (point.saved, point.time, -point.cosine)
        better = {
            other
            for other, one in points.items()
            if (mine := (one.saved, one.time, -one.cosine)) != keys and all(a <= b for a, b in zip(mine, keys, strict=True))
        }
        assert set(found[name]) == better
        assert not better or not found[found[name][0]]  # somebody on the front dominates, and is named first
