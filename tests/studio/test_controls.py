"""The controls' settings: ranges and defaults are the policy's, changes are checked, and they become what the engine takes."""

from __future__ import annotations

from typing import Any

import pytest

from laser_studio.debugger import Measures
from laser_studio.debugger.keyframes import TravelSettings
from laser_studio.laser import LaserPolicy
from laser_studio.settings import describe
from laser_studio.studio.controls import CONTROLS, OPTIONS, RunOptions, SiteView, TrackerView, changed, changed_options, number
from laser_studio.studio.presets import PRESETS, presets_json
from laser_studio.studio.registry import StudioError

DOWN = "layers.0.mlp.down_proj"


def test_ranges_and_defaults_are_the_policys() -> None:
    policy = describe(LaserPolicy)
    for name in ("min_fidelity", "patience", "refresh", "measure", "growth"):
        assert CONTROLS[name].default == policy[name].default
    for name in ("min_fidelity", "patience", "growth"):
        low, high = policy[name].low, policy[name].high
        assert low is not None and high is not None
        assert low <= (CONTROLS[name].low or 0) < (CONTROLS[name].high or 0) <= high


def test_measures_and_batch_are_the_sessions() -> None:
    assert set(OPTIONS) == {"batch", "beyond", "history", *describe(Measures)}
    assert RunOptions().history_bytes == describe(TravelSettings)["history_bytes"].default == 256 << 20
    assert RunOptions(functional=True, best=True).measures() == Measures(functional=True, best=True)


def test_settings_become_a_policy() -> None:
    tracker = TrackerView(
        rank=40,
        min_fidelity=0.9,
        patience=2,
        refresh="step",
        measure="centred",
        growth=5,
        sites={DOWN: SiteView(rank=50, min_fidelity=0.9), "x": SiteView(enabled=False)},
    )
    assert tracker.policy() == LaserPolicy(
        rank="40%",
        min_fidelity=0.9,
        patience=2,
        refresh="step",
        measure="centred",
        growth=5,
        sites={DOWN: {"rank": "50%", "min_fidelity": 0.9}, "x": {"enabled": False}},
    )


def test_every_measure_is_one_the_policy_knows() -> None:
    for measure in ("energy", "centred", "functional"):
        assert TrackerView(measure=measure).policy().measure == measure


def test_a_site_without_a_difference_is_no_override() -> None:
    assert TrackerView(sites={"a": SiteView(enabled=True)}) == TrackerView()


def test_changes_of_sites_leave_the_other_sites() -> None:
    tracker = changed(TrackerView(), {"sites": {"a": {"rank": 50}, "b": {"enabled": False}}})
    assert tracker.to_json()["sites"] == {"a": {"rank": 50}, "b": {"enabled": False}}
    tracker = changed(tracker, {"patience": 5, "sites": {"a": {"min_fidelity": 0.9}}})
    assert tracker.to_json()["sites"] == {"a": {"min_fidelity": 0.9}, "b": {"enabled": False}} and tracker.patience == 5
    assert changed(tracker, {"sites": {"a": None, "b": {}}}) == TrackerView(patience=5)
    assert changed(tracker, {"sites": None}) == TrackerView(patience=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"release": True},
        {"growth": 0},
        {"growth": 2.5},
        {"measure": "gut"},
        {"rank": 0},
        {"rank": "many"},
        {"refresh": "hourly"},
        {"min_fidelity": float("nan")},
        {"sites": []},
        {"sites": {"a": 5}},
        {"sites": {"a": {"patience": 3}}},
        {"sites": {"a": {"rank": 101}}},
        {"sites": {"a": {"min_fidelity": float("inf")}}},
        {"sites": {"": {"enabled": False}}},
        {"sites": {"x" * 5_000: {"enabled": False}}},
        {"sites": {"\x1b[31m": {"enabled": False}}},
        {"sites": {"a": {"\x1b[31m" * 900: 1}}},
        {"sites": {f"s{i}": {"enabled": False} for i in range(300)}},
    ],
)
def test_changes_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(StudioError) as caught:
        changed(TrackerView(), changes)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("changes", [{"batch": 4}, {"beyond": "maybe"}, {"best": 7}, {"depth": 1}])
def test_options_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(StudioError):
        changed_options(RunOptions(), changes)


def test_options_change_one_by_one() -> None:
    assert changed_options(RunOptions(batch=4, best=True), {"beyond": True, "batch": 4}) == RunOptions(batch=4, beyond=True, best=True)


@pytest.mark.parametrize("value", [25.0, 0.97, 1 / 3, 0.9999999, 99.99999999, 1.0])
def test_numbers_are_written_as_short_as_they_can_be_read_back(value: float) -> None:
    assert float(number(value)) == value and len(number(value)) <= len(repr(value))


def test_presets_are_usable_and_explained() -> None:
    assert set(PRESETS) == {"paper", "exact", "aggressive"}
    for name, preset in presets_json().items():
        assert preset["help"].endswith(".") and changed(TrackerView(), preset["settings"]) == PRESETS[name][1]
        assert PRESETS[name][1] != TrackerView()
