"""Links: what is written is read back, and whatever else stands in an address is refused by name, never with an exception."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from laser_studio.studio.controls import RunOptions, SiteView, TrackerView
from laser_studio.studio.links import MAX_QUERY, View, read_query, write_query
from laser_studio.studio.marks import BookmarkView, BreakpointView, Marks, WatchView

ranks, fidelities = st.floats(1, 100), st.floats(0.5, 1)
# Names as modules have them, and with every sign that links use to separate things.
names = st.one_of(st.sampled_from(["layers.0.mlp.down_proj", "layers.1.self_attn.o_proj"]), st.text("~:%=&+.é x7E", min_size=1, max_size=8))
overrides = st.builds(SiteView, rank=st.none() | ranks, min_fidelity=st.none() | fidelities, enabled=st.booleans()).filter(
    lambda site: site != SiteView()
)
trackers = st.builds(
    TrackerView,
    rank=ranks,
    min_fidelity=fidelities,
    patience=st.integers(1, 20),
    refresh=st.sampled_from(["step", "cycle", "supervision"]),
    measure=st.sampled_from(["energy", "centred", "functional"]),
    growth=st.integers(1, 64),
    sites=st.dictionaries(names, overrides, max_size=3),
)
# Text as people write it, and with every sign that links use to separate things.
lines = st.text("abc~:%=&+.é <>|(1), x7E{}\"'#", max_size=20)
marks = st.builds(
    Marks,
    breakpoints=st.lists(
        st.builds(
            BreakpointView,
            expression=lines.filter(bool),
            enabled=st.booleans(),
            hits=st.one_of(st.integers(1, 10**9), st.sampled_from(["== 3", "% 2 == 1", ">= 4"])),
            once=st.booleans(),
            log=lines,
            name=lines,
        ),
        max_size=3,
    ),
    watches=st.lists(st.builds(WatchView, expression=lines, name=lines.filter(bool)), max_size=3),
    bookmarks=st.lists(st.builds(BookmarkView, step=st.integers(0, 1_000_000), name=lines, note=lines), max_size=3),
)
options = st.builds(
    RunOptions,
    batch=st.integers(1, 64),
    history=st.integers(1, 1024),
    beyond=st.booleans(),
    functional=st.booleans(),
    gradient=st.booleans(),
    best=st.booleans(),
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
    options=options,
    marks=marks,
)


@given(views)
def test_a_view_survives_its_link(view: View) -> None:
    query = "?" + write_query(view)
    assume(len(query) <= MAX_QUERY)  # a run refuses what would make its link longer
    assert read_query(query) == view


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
        ("growth=0", "growth"),
        ("growth=65", "growth"),
        ("measure=gut", "measure"),
        ("batch=0", "batch"),
        ("batch=65", "batch"),
        ("batch=-1", "batch"),
        ("batch=٣", "batch"),
        ("beyond=yes", "beyond"),
        ("best=2", "best"),
        ("history=0", "history"),
        ("history=1025", "history"),
        ("history=256MiB", "history"),
        ("break=s~hit=3", "break"),
        ("break=s~hits", "break"),
        ("break=%07", "break"),
        ("break=" + 1001 * "s", "break"),
        ("watch=s~index", "watch"),
        ("watch=s~name=a~name=b", "watch"),
        ("watch=s%0As", "watch"),
        ("mark=a", "mark"),
        ("mark=-1~a", "mark"),
        ("mark=٣", "mark"),
        ("mark=9999999", "mark"),
        ("mark=3~a~b~c", "mark"),
        ("mark=3~a~" + 1001 * "b", "mark"),
        ("site=a~rank=50", "site"),
        ("site=a~rank=0%25", "site"),
        ("site=a~eps=0.1", "site"),
        ("site=a~eps", "site"),
        ("site=a~on", "site"),
        ("site=a~depth=3", "site"),
        ("site=~off", "site"),
        ("site=%07~off", "site"),
        ("change=5~site=a:depth=3", "change"),
        ("change=5~sites=a", "change"),
        ("change=5~rank=0%25", "change"),
        ("change=5~25%25~0.9", "change"),
        ("change=x~25%25~0.9~3~cycle", "change"),
        ("change=5~25%25~7~3~cycle", "change"),
    ],
)
def test_a_bad_value_falls_back_and_is_named(query: str, word: str) -> None:
    view = read_query(query)
    assert view.tracker == TrackerView() and view.options == RunOptions() and view.step == 0 and view.changes == ()
    assert view.marks == Marks()
    assert len(view.notices) == 1 and word in view.notices[0]


def test_a_bad_value_leaves_the_good_ones() -> None:
    view = read_query("rank=40%25&min_fidelity=9&patience=7&step=12")
    assert (view.tracker.rank, view.tracker.patience, view.step) == (40, 7, 12)
    assert view.tracker.min_fidelity == TrackerView().min_fidelity


def test_a_link_of_before_opens_as_it_did() -> None:
    view = read_query("model=m&puzzle=p&rank=40%25&min_fidelity=0.9&patience=2&refresh=step&change=5~25%25~0.97~3~cycle&step=9")
    assert view == View("m", "p", TrackerView(rank=40, min_fidelity=0.9, patience=2, refresh="step"), ((5, TrackerView()),), 9)


def test_a_change_says_only_what_it_changes() -> None:
    first = TrackerView(sites={"a": SiteView(enabled=False), "b": SiteView(rank=50)})
    second = TrackerView(growth=4, sites={"b": SiteView(rank=50, min_fidelity=0.9)})
    written = parse_qs(write_query(View(tracker=first, changes=((3, second), (7, TrackerView(growth=4))))))
    assert written["site"] == ["a~off", "b~rank=50%"]
    assert written["change"] == ["3~growth=4~site=a~site=b:rank=50%:eps=0.9", "7~site=b"]


def test_a_bad_change_leaves_the_others() -> None:
    view = read_query("change=9~patience=7&change=4~rank=0%25&change=2~growth=4")
    assert view.changes == ((2, TrackerView(growth=4)), (9, TrackerView(growth=4, patience=7)))
    assert len(view.notices) == 1


@pytest.mark.parametrize("query", ["a=1&" * 600, "x" * (MAX_QUERY + 1)])
def test_an_endless_link_opens_with_the_defaults(query: str) -> None:
    view = read_query(query)
    assert view.tracker == TrackerView() and "link" in view.notices[0]


def test_notices_hold_nothing_unprintable_and_are_short() -> None:
    notice = read_query("step=" + "%1b%5b31m" + "9" * 200).notices[0]
    assert notice.isprintable() and len(notice) < 120


def test_the_link_uses_the_policys_words() -> None:
    written = parse_qs(write_query(View("m", "p", TrackerView(rank=25), (), 3)))
    assert written == {
        "model": ["m"], "puzzle": ["p"], "rank": ["25%"], "min_fidelity": ["0.97"], "patience": ["3"], "refresh": ["cycle"],
        "measure": ["energy"], "growth": ["8"], "step": ["3"],
    }  # fmt: skip


def test_marks_are_written_as_people_would() -> None:
    marks = Marks(
        breakpoints=(
            BreakpointView("fidelity < 0.9", hits=3, once=True, name="dip"),
            BreakpointView("reset", enabled=False, log="{s}~{h}"),
        ),
        watches=(WatchView("rank", "rank"), WatchView("residual % 2", "half")),
        bookmarks=(BookmarkView(12, "box", "50 % right"), BookmarkView(3)),
    )
    written = parse_qs(write_query(View(marks=marks)))
    assert written["break"] == ["fidelity < 0.9~hits=3~name=dip~once", "reset~log={s}%7E{h}~off"]
    assert written["watch"] == ["rank", "residual %25 2~name=half"]
    assert written["mark"] == ["12~box~50 %25 right", "3"]


def test_only_so_many_marks_are_read() -> None:
    view = read_query("&".join([f"watch=s~name=a{n}" for n in range(17)] + [f"mark={n}" for n in range(65)]))
    assert (len(view.marks.watches), len(view.marks.bookmarks), len(view.notices)) == (16, 64, 2)
    assert "more than 16" in view.notices[0] and "more than 64" in view.notices[1]
