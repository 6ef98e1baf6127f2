"""Links: what is written is read back, and whatever else stands in an address is refused by name, never with an exception."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.laser import LaserPolicy
from laser_studio.settings import describe
from laser_studio.studio.links import CONTROLS, MAX_QUERY, TrackerView, View, changed, read_query, write_query
from laser_studio.studio.registry import StudioError

trackers = st.builds(
    TrackerView,
    rank=st.integers(1, 100),
    min_fidelity=st.integers(500, 1000).map(lambda value: value / 1000),
    patience=st.integers(1, 20),
    refresh=st.sampled_from(["step", "cycle", "supervision"]),
)
views = st.builds(
    View,
    model=st.text(min_size=1, max_size=40),
    puzzle=st.sampled_from(["easy-0001", "generated:hard:123"]),
    tracker=trackers,
    changes=st.lists(st.tuples(st.integers(1, 500), trackers), max_size=4, unique_by=lambda item: item[0]).map(
        lambda items: tuple(sorted(items, key=lambda item: item[0]))
    ),
    step=st.integers(0, 10_000),
)


@given(views)
def test_a_view_survives_its_link(view: View) -> None:
    assert read_query("?" + write_query(view)) == view


@given(st.text(max_size=300))
def test_no_query_raises(text: str) -> None:
    view = read_query(text)
    assert 0.5 <= view.tracker.min_fidelity <= 1 and 1 <= view.tracker.rank <= 100 and view.step >= 0


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("rank=0%25", "rank"),
        ("rank=-5%25", "rank"),
        ("rank=nan%25", "rank"),
        ("rank=32", "rank"),
        ("rank=101%25", "rank"),
        ("min_fidelity=1.5", "min_fidelity"),
        ("min_fidelity=inf", "min_fidelity"),
        ("min_fidelity=x", "min_fidelity"),
        ("patience=0", "patience"),
        ("patience=2.5", "patience"),
        ("patience=1e9", "patience"),
        ("refresh=never", "refresh"),
        ("step=-1", "step"),
        ("step=9999999", "step"),
        ("step=٣", "step"),
        ("change=5~25%25~0.9", "change"),
        ("change=x~25%25~0.9~3~cycle", "change"),
        ("change=5~25%25~7~3~cycle", "change"),
    ],
)
def test_a_bad_value_falls_back_and_is_named(query: str, word: str) -> None:
    view = read_query(query)
    assert view.tracker == TrackerView() and view.step == 0 and view.changes == ()
    assert len(view.notices) == 1 and word in view.notices[0]


def test_a_bad_value_leaves_the_good_ones() -> None:
    view = read_query("rank=40%25&min_fidelity=9&patience=7&step=12")
    assert (view.tracker.rank, view.tracker.patience, view.step) == (40, 7, 12)
    assert view.tracker.min_fidelity == TrackerView().min_fidelity


@pytest.mark.parametrize("query", ["a=1&" * 500, "x" * (MAX_QUERY + 1)])
def test_an_endless_link_opens_with_the_defaults(query: str) -> None:
    view = read_query(query)
    assert view.tracker == TrackerView() and "link" in view.notices[0]


def test_notices_hold_nothing_unprintable_and_are_short() -> None:
    notice = read_query("step=" + "%1b%5b31m" + "9" * 200).notices[0]
    assert notice.isprintable() and len(notice) < 120


def test_ranges_and_defaults_are_the_policys() -> None:
    policy = describe(LaserPolicy)
    for name in ("min_fidelity", "patience", "refresh"):
        assert CONTROLS[name].default == policy[name].default
    for name in ("min_fidelity", "patience"):
        low, high = policy[name].low, policy[name].high
        assert low is not None and high is not None
        assert low <= (CONTROLS[name].low or 0) < (CONTROLS[name].high or 0) <= high


def test_settings_become_a_policy() -> None:
    policy = TrackerView(rank=40, min_fidelity=0.9, patience=2, refresh="step").policy()
    assert policy == LaserPolicy(rank="40%", min_fidelity=0.9, patience=2, refresh="step")


def test_the_link_uses_the_policys_words() -> None:
    written = parse_qs(write_query(View("m", "p", TrackerView(rank=25), (), 3)))
    assert written == {
        "model": ["m"], "puzzle": ["p"], "rank": ["25%"], "min_fidelity": ["0.97"], "patience": ["3"], "refresh": ["cycle"], "step": ["3"],
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"growth": 3}, {"rank": 0}, {"rank": "many"}, {"refresh": "hourly"}, {"min_fidelity": float("nan")}])
def test_changes_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(StudioError):
        changed(TrackerView(), changes)
