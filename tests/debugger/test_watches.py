"""Watches: their curves equal what is read off the frames by hand, also over packed frames; what does not fit is refused whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from laser_studio.debugger import Frame, Session, Watch, Watches
from laser_studio.debugger.watches import MAX_WATCHES
from laser_studio.errors import ExpressionError, LaserStudioError, WatchError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM


@pytest.fixture
def session(model: TRM, puzzle: Puzzle) -> Session:
    return Session(model, puzzle, policy=LaserPolicy(rank="25%", min_fidelity=0.9), seed=0, beyond=True)


BY_HAND: dict[str, Callable[[Frame, Frame | None], float | None]] = {
    "residual": lambda frame, before: frame.residual,
    "min fidelity(*.mlp.*)": lambda frame, before: min((s.fidelity for n, s in frame.sites.items() if ".mlp." in n), default=None),
    "residual - prev(residual)": lambda frame, before: None if before is None else frame.residual - before.residual,
    "answer_changed": lambda frame, before: float(bool(frame.changed)),
    "rank(layers.0.mlp.down_proj) / dim(layers.0.mlp.down_proj)": lambda frame, before: (
        frame.sites["layers.0.mlp.down_proj"].rank / frame.sites["layers.0.mlp.down_proj"].dim if frame.sites else None
    ),
}


def test_curves_equal_what_the_frames_say(session: Session) -> None:
    for text in BY_HAND:
        assert session.watches.add(text).name == text
    session.seek(session.length)
    frames = list(session.frames)
    by_hand = {
        text: [read(frame, before) for before, frame in zip([None, *frames], frames, strict=False)] for text, read in BY_HAND.items()
    }
    curves = session.watches.curves(session.frames, 0, len(frames))
    assert curves == {text: pytest.approx(values) for text, values in by_hand.items()}
    assert session.watches.curves(session.frames, 7, 12) == {text: values[7:12] for text, values in curves.items()}
    assert session.watches.values(frames[7], frames[6]) == {text: values[7] for text, values in curves.items()}
    assert curves["residual"][7] == session.evaluate("residual", 7)
    assert any(value is None for value in curves["min fidelity(*.mlp.*)"])  # frame 0 has no sites
    nothing = session.watches.curves(session.frames, 20, 3), session.watches.curves(session.frames, 99, 120)
    assert all(values == [] for curves in nothing for values in curves.values())


def test_packed_frames_are_read_too(session: Session) -> None:
    session.watches.add("index", "t")
    session.seek(700)
    assert session.frames.packed_bytes > 0  # type: ignore[attr-defined]
    assert session.watches.curves(session.frames, 0, 701) == {"t": [float(t) for t in range(701)]}


def test_names_and_bounds(session: Session) -> None:
    watches = session.watches
    assert [watches.add("fidelity").name for _ in range(2)] == ["fidelity", "fidelity #2"]
    long = " + ".join(["residual"] * 12)
    assert len(watches.add(long).name) == 60
    assert watches.add(long).name.endswith("#2") and watches.add("residual", "mine").name == "mine" and "mine" in watches
    with pytest.raises(WatchError, match="already"):
        watches.add("residual", "mine")
    with pytest.raises(WatchError, match="there is no watch 'other'"):
        watches.remove("other")
    assert watches.remove("mine") == Watch("residual", "mine")
    for wrong in ("a\nb", "x" * 61, 3):
        with pytest.raises(WatchError, match="name of a watch"):
            watches.add("residual", wrong)  # type: ignore[arg-type]
    with pytest.raises(ExpressionError, match="did you mean"):
        watches.add("fidelty")
    with pytest.raises(ExpressionError, match="no site"):
        watches.add("fidelity(nowhere)")
    while len(watches) < MAX_WATCHES:
        watches.add("q_halt")
    with pytest.raises(WatchError, match="at most 16"):
        watches.add("q_halt")
    assert len(watches) == MAX_WATCHES


def test_they_go_to_plain_values_and_back(session: Session) -> None:
    session.watches.add("fidelity < 0.9", "low")
    session.watches.add("residual")
    described = session.watches.to_list()
    fresh = Watches(session.scope)
    fresh.load(described)
    assert list(fresh) == list(session.watches) and [watch.is_condition for watch in fresh] == [True, False]
    wrong: list[object] = [
        "text", 3, [{"expression": "residual"}, {"expression": "nothing"}], [{"name": "a"}], [{"expression": "s", "colour": 1}], [3],
        [{"expression": "s"}] * 17, [{"expression": "s", "name": "a"}] * 2,
    ]  # fmt: skip
    for one in wrong:
        with pytest.raises(LaserStudioError):
            fresh.load(one)
        assert fresh.to_list() == described
    fresh.clear()
    assert not len(fresh)


def test_they_change_nothing_of_the_run(model: TRM, puzzle: Puzzle, session: Session) -> None:
    plain = Session(model, puzzle, policy=LaserPolicy(rank="25%", min_fidelity=0.9), seed=0)
    session.watches.add("mean(confidence)")
    session.bookmarks.add(3)
    session.breakpoints.add("index > 0")
    assert [session.step() for _ in range(12)] == [plain.step() for _ in range(12)]
