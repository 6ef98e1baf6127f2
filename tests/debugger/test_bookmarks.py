"""Bookmarks: in order of their steps, each under a name of its own; what cannot be used is refused and nothing is changed."""

from __future__ import annotations

import pytest

from laser_studio.debugger import Bookmark, Bookmarks
from laser_studio.debugger.bookmarks import MAX_BOOKMARKS
from laser_studio.errors import BookmarkError


def test_they_lie_in_order_of_steps() -> None:
    marks = Bookmarks()
    assert marks.add(30, note="late").name == "m1"
    assert marks.add(7, "first").name == "first" and marks.add(7).name == "m2"
    assert [(mark.step, mark.name) for mark in marks] == [(7, "first"), (7, "m2"), (30, "m1")]
    assert marks.at(7) == (Bookmark(7, "first"), Bookmark(7, "m2")) and marks.at(8) == ()
    assert marks["m1"].note == "late" and "m1" in marks and len(marks) == 3


def test_a_name_never_means_another_one_later() -> None:
    marks = Bookmarks()
    assert marks.add(1).name == "m1"
    marks.remove("m1")
    assert marks.add(2).name == "m2"
    marks.add(3, "m3")
    assert marks.add(4).name == "m4"


def test_name_and_note_can_be_changed() -> None:
    marks = Bookmarks()
    marks.add(5)
    marks.add(5)
    assert marks.change("m1", note="box 1 is right") == Bookmark(5, "m1", "box 1 is right")
    assert marks.change("m1", to="box 1") == Bookmark(5, "box 1", "box 1 is right")
    assert [mark.name for mark in marks] == ["box 1", "m2"]
    for to in ("m2", "", "a\tb", "x" * 61):
        with pytest.raises(BookmarkError):
            marks.change("box 1", to=to)
    with pytest.raises(BookmarkError):
        marks.change("box 1", note="x" * 301)
    assert marks["box 1"].note == "box 1 is right"


@pytest.mark.parametrize(
    "wrong",
    [{"step": -1}, {"step": 1.0}, {"step": True}, {"step": 1_000_001}, {"step": "3"}, {"step": 1, "name": "a\nb"}, {"step": 1, "note": 3},
     {"name": "a"}, {"step": 1, "where": 2}, 3, "text", {"step": 1, "note": "x" * 301}, {"step": 2, "name": "kept"}],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_whole(wrong: object) -> None:
    marks = Bookmarks()
    marks.add(1, "kept", "a note")
    before = marks.to_list()
    with pytest.raises(BookmarkError):
        marks.load([{"step": 4, "name": "kept"}, wrong])
    assert marks.to_list() == before
    marks.load(before)
    assert marks.to_list() == before == [{"step": 1, "name": "kept", "note": "a note"}]


def test_there_is_an_end_to_them() -> None:
    marks = Bookmarks()
    for step in range(MAX_BOOKMARKS):
        marks.add(step)
    with pytest.raises(BookmarkError, match="at most 64"):
        marks.add(99)
    with pytest.raises(BookmarkError, match="there is no bookmark 'x'"):
        marks.remove("x")
    marks.clear()
    assert len(marks) == 0
