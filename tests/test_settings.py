"""Settings classes: one table of ranges, one error class, one sentence per bad field."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, Literal

import pytest

from laser_studio.errors import PolicyError
from laser_studio.settings import SettingInfo, describe, setting, settings


@settings(PolicyError)
class Oven:
    """An example."""

    degrees: float = setting(default=180.0, low=30, high=250, unit="°C", help="Heat.")
    minutes: int = setting(default=20, low=1, high=600, unit="min", help="Time.")
    mode: Literal["fan", "grill"] = setting(default="fan", help="How.")


def test_defaults_positions_and_replace() -> None:
    assert (Oven().degrees, Oven().minutes, Oven().mode) == (180.0, 20, "fan")
    assert Oven(200.0, 5) == Oven(degrees=200.0, minutes=5)
    assert dataclasses.replace(Oven(), minutes=7).minutes == 7
    assert hash(Oven()) == hash(Oven())
    assert pickle.loads(pickle.dumps(Oven(minutes=3))) == Oven(minutes=3)


@pytest.mark.parametrize("minutes", [1, 600])
def test_ranges_are_inclusive(minutes: int) -> None:
    assert Oven(minutes=minutes).minutes == minutes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minutes": 0}, r"^Oven: minutes: input should be greater than or equal to 1 \(got 0\)$"),
        ({"minutes": 601}, r"less than or equal to 600 \(got 601\)"),
        ({"degrees": float("nan")}, "degrees: input should be a finite number"),
        ({"degrees": float("inf")}, "degrees"),
        ({"minutes": "soon"}, r"minutes: .*integer.* \(got soon\)"),
        ({"minutes": 1.5}, "minutes"),
        ({"minutes": None}, r"minutes: .*\(got None\)"),
        ({"mode": "boil"}, r"mode: input should be 'fan' or 'grill' \(got boil\)"),
        ({"colour": 1}, "colour: unexpected keyword argument"),
        ({"minutes": 0, "mode": "boil"}, "minutes: .*; mode: "),
    ],
)
def test_refused_in_a_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        Oven(**values)
    assert "pydantic" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_long_value_is_cut() -> None:
    with pytest.raises(PolicyError) as caught:
        Oven(mode="x" * 10_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Oven().minutes = 3  # type: ignore[misc]


def test_describe_is_the_one_table() -> None:
    table = describe(Oven)
    assert list(table) == ["degrees", "minutes", "mode"]
    assert table["minutes"] == SettingInfo("minutes", 20, 1, 600, "min", "Time.")
    assert (table["mode"].low, table["mode"].high, table["mode"].unit) == (None, None, "")
