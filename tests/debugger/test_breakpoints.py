"""Breakpoints on real runs of a tiny model: they stop exactly where a plain loop over the frames finds the condition."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laser_studio.debugger import Breakpoint, Breakpoints, Expression, Frame, Hit, Scope, Session
from laser_studio.errors import BreakpointError, ExpressionError, LaserStudioError
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM
from tests.debugger.conftest import tiny_model

POLICY = LaserPolicy(rank="25%", min_fidelity=0.95, patience=2, growth=2)
SITE = "layers.1.mlp.down_proj"
Plain = Callable[[Frame, Frame], bool]


@pytest.fixture(scope="module")
def whole() -> list[Frame]:
    """All frames of the run that every session below makes."""
    session = Session(tiny_model(), get_domain("sudoku").generate(3, size=4, difficulty="easy"), policy=POLICY)
    session.run()
    return list(session.frames)


@pytest.fixture
def session(model: TRM, puzzle: Puzzle) -> Session:
    return Session(model, puzzle, policy=POLICY)


def first(frames: list[Frame], holds: Plain, after: int = 0) -> int | None:
    """Index of the first frame behind `after` where it holds."""
    return next((t for t in range(after + 1, len(frames)) if holds(frames[t], frames[t - 1])), None)


def happened(frame: Frame, kind: str, site: str | None = None) -> bool:
    return any(event.kind == kind and site in (None, event.site) for event in frame.events)


def hits(session: Session) -> tuple[Hit, ...]:
    """What it stopped by; asked anew each time, which the type checker would not believe of an attribute."""
    return session.stopped_by


CASES: list[tuple[str, Plain]] = [
    ("reset", lambda f, _: happened(f, "reset")),
    ("grew(1.mlp.down_proj)", lambda f, _: happened(f, "grew", SITE)),
    ("fidelity < 0.9", lambda f, _: min(site.fidelity for site in f.sites.values()) < 0.9),
    (f"fidelity({SITE}) < 0.93", lambda f, _: f.sites[SITE].fidelity < 0.93),
    ("rank(layers.0.*) > 10", lambda f, _: any(site.rank > 10 for name, site in f.sites.items() if name.startswith("layers.0."))),
    ("cell(2, 3) changed", lambda f, before: f.answer[6] != before.answer[6]),
    ("confidence(4, 4) < 0.25", lambda f, _: f.confidence[15] < 0.25),
    ("residual < 7 & s > 2", lambda f, _: f.residual < 7 and f.s > 2),
    ("s == 2 & h == 2 & l == H", lambda f, _: (f.s, f.h, f.l) == (2, 2, "H")),
    ("!(answer_changed or l != H) and index > 4", lambda f, before: f.answer == before.answer and f.l == "H" and f.index > 4),
    ("diverged", lambda f, before: f.right < before.right),
    ("mean_fidelity - fidelity > 0.05", lambda f, _: (f.mean_fidelity or 0) - min(site.fidelity for site in f.sites.values()) > 0.05),
    ("not_finite | solved", lambda f, _: False),
    ("q_halt > 0", lambda f, _: f.q_halt > 0),
]


@pytest.mark.parametrize(("text", "holds"), CASES, ids=[text for text, _ in CASES])
def test_a_run_stops_at_every_frame_where_a_plain_loop_finds_it(session: Session, whole: list[Frame], text: str, holds: Plain) -> None:
    session.breakpoints.add(text, name="here")
    expected = [t for t in range(1, len(whole)) if holds(whole[t], whole[t - 1])]
    stops: list[int] = []
    while True:
        frame = session.run()
        assert frame == whole[frame.index]
        if not hits(session):
            break
        assert hits(session) == (Hit("here", text, frame.index, len(stops) + 1),)
        stops.append(frame.index)
        if session.finished:
            break
    assert stops == expected and session.breakpoints.counts == {"here": len(expected)}
    assert session.finished


def test_the_cases_above_do_stop_somewhere(whole: list[Frame]) -> None:
    found = {text: first(whole, holds) for text, holds in CASES}
    assert {text for text, index in found.items() if index is None} <= {"not_finite | solved"}


def test_until_takes_an_expression_and_says_that_it_stopped(session: Session, whole: list[Frame]) -> None:
    text = "reset | fidelity < 0.9 | answer_changed"

    def holds(f: Frame, before: Frame) -> bool:
        return happened(f, "reset") or min(site.fidelity for site in f.sites.values()) < 0.9 or f.answer != before.answer

    at = 0
    while (expected := first(whole, holds, at)) is not None:
        at = session.run(until=text).index
        assert at == expected and hits(session) == (Hit("until", text, at),)
    assert at > 1
    session.run(until=Expression(text))
    assert session.finished and not hits(session)
    session.restart()
    assert session.run(until=lambda f: f.index == 5).index == 5 and hits(session) == (Hit("until", "", 5),)
    assert session.run(max_steps=2).index == 7 and not hits(session)


def test_until_and_breakpoints_may_stop_a_run_together(session: Session) -> None:
    session.breakpoints.add("index == 3")
    session.run(until="index == 3")
    assert [hit.name for hit in hits(session)] == ["until", "b1"]


def test_what_cannot_be_understood_stops_before_the_first_step(session: Session) -> None:
    for text in ("explosion", "fidelity", "fidelity(nowhere) < 1", "cell(5, 1) changed", ""):
        with pytest.raises(ExpressionError):
            session.run(until=text)
        with pytest.raises(ExpressionError):
            session.breakpoints.add(text)
    assert session.head == 0 and len(session.breakpoints) == 0


def test_a_step_reports_and_goes_on(session: Session, whole: list[Frame]) -> None:
    session.breakpoints.add("cycle", name="H")
    session.breakpoints.add("index % 2 == 0", name="even")
    session.breakpoints.add("index > 0", enabled=False, name="off")
    for t in range(1, 13):
        frame = session.step()
        assert frame.index == t
        assert [hit.name for hit in hits(session)] == ["H"] * (whole[t].l == "H") + ["even"] * (t % 2 == 0)
    assert session.breakpoints.counts == {"H": 4, "even": 6, "off": 0}
    session.back()
    assert not hits(session)
    session.seek(20)  # to go somewhere is not to look for something
    assert not hits(session) and session.breakpoints.counts == {"H": 4, "even": 6, "off": 0}
    session.seek(11)
    session.step()
    assert session.breakpoints.counts == {"H": 5, "even": 7, "off": 0}
    session.restart()
    assert set(session.breakpoints.counts.values()) == {0}


def test_larger_steps_tell_all_that_they_passed(session: Session) -> None:
    session.breakpoints.add("index % 2 == 0", name="even")
    session.breakpoints.add("cycle", name="H")
    assert session.step("supervision").index == 6
    assert [(hit.name, hit.step) for hit in hits(session)] == [("even", 2), ("H", 3), ("even", 4), ("even", 6), ("H", 6)]
    assert session.step("cycle").index == 9 and [(hit.name, hit.step) for hit in hits(session)] == [("even", 8), ("H", 9)]
    assert session.out().index == 12 and [hit.step for hit in hits(session)] == [10, 12, 12]
    session.back("supervision")
    assert hits(session) == () and session.breakpoints.counts == {"even": 6, "H": 4}


def test_running_back_takes_the_same_expressions(session: Session, whole: list[Frame]) -> None:
    session.breakpoints.add("index > 0", name="always")
    session.seek(24)
    text = "cell(2, 3) changed | residual < 7"
    found = [t for t in range(1, 24) if whole[t].answer[6] != whole[t - 1].answer[6] or whole[t].residual < 7]
    assert [session.run_back(text).index for _ in range(len(found) + 1)] == [*reversed(found), 0]
    assert [(hit.name, hit.step) for hit in hits(session)] == [("until", 0)]  # the residual of frame 0 is 0
    assert session.breakpoints.counts == {"always": 0}
    session.seek(24)
    assert session.run_back("index < 0").index == 0 and hits(session) == ()
    with pytest.raises(ExpressionError, match="compare it"):
        session.run_back("fidelity")


def test_running_back_stops_where_a_breakpoint_holds_and_counts_nothing(session: Session) -> None:
    session.breakpoints.add("index % 5 == 0", name="fives", hits=3)
    session.breakpoints.add("index == 18", name="logs", log="here")
    session.breakpoints.add("index == 17", name="off", enabled=False)
    session.seek(19)
    assert session.run_back("index == 12", breakpoints=True).index == 15
    assert [(hit.name, hit.step, hit.count) for hit in hits(session)] == [("fives", 15, 0)]
    assert session.run_back("index == 12", breakpoints=True).index == 12 and [hit.name for hit in hits(session)] == ["until"]
    assert session.run_back("index == 0", breakpoints=True, max_steps=1).index == 11 and hits(session) == ()
    assert session.run_back("index == 10", breakpoints=True).index == 10 and [hit.name for hit in hits(session)] == ["until", "fives"]
    assert session.breakpoints.counts == {"fives": 0, "logs": 0, "off": 0} and not session.breakpoints.log


def test_the_end_of_the_run_is_not_hit_again(session: Session) -> None:
    session.breakpoints.add("index > 0", name="always")
    session.seek(session.length - 1)
    session.step()
    assert session.finished and len(hits(session)) == 1
    session.step()
    assert not hits(session) and session.breakpoints.counts == {"always": 1}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [3, 4, 5, 6, 7, 8]),
        ("3", [3, 4, 5, 6, 7, 8]),
        (">=3", [3, 4, 5, 6, 7, 8]),
        ("> 3", [4, 5, 6, 7, 8]),
        ("== 3", [3]),
        ("= 3", [3]),
        ("< 3", [1, 2]),
        ("<= 3", [1, 2, 3]),
        ("% 3", [3, 6]),
        ("% 2 == 0", [2, 4, 6, 8]),
        ("%2==1", [1, 3, 5, 7]),
    ],
)
def test_hit_conditions(session: Session, setting: int | str, expected: list[int]) -> None:
    session.breakpoints.add("l == H", hits=setting)
    stops = []
    while not session.finished:
        session.run()
        stops += [hit.count for hit in hits(session)]
        assert not hits(session) or session.frame.index == 3 * hits(session)[0].count  # an H cycle has three steps here
    assert stops == expected and session.breakpoints.counts["b1"] == 8


def test_one_shot_is_off_after_it_counted(session: Session) -> None:
    session.breakpoints.add("cycle", once=True, hits=2)
    assert session.run().index == 6
    assert not session.breakpoints["b1"].enabled and len(session.breakpoints) == 1
    session.run()
    assert session.finished and not hits(session) and session.breakpoints.counts == {"b1": 2}
    session.restart()
    session.breakpoints.enable("b1")
    assert session.run().index == 6


def test_a_log_is_written_in_place_of_stopping(session: Session, whole: list[Frame]) -> None:
    message = "at {index}: F {fidelity}, {{F before}} {prev(fidelity)}, changed {answer_changed}, {kl}, {cell(1, 1) / 3}"
    session.breakpoints.add("cycle", log=message, name="told", hits="% 2")
    session.run()
    assert session.finished and not hits(session)

    def least(frame: Frame) -> str:
        value = min(site.fidelity for site in frame.sites.values())
        return f"{value:.6g}" if value != int(value) else str(int(value))

    def thirds(value: int) -> str:
        return str(value // 3) if value % 3 == 0 else f"{value / 3:.6g}"

    expected = [
        f"at {t}: F {least(whole[t])}, {{F before}} {least(whole[t - 1])}, "
        f"changed {'yes' if whole[t].answer != whole[t - 1].answer else 'no'}, –, {thirds(whole[t].answer[0])}"
        for t in range(6, 25, 6)
    ]
    assert [entry.message for entry in session.breakpoints.log] == expected
    assert [(entry.name, entry.step, entry.count) for entry in session.breakpoints.log] == [("told", 6 * n, 2 * n) for n in (1, 2, 3, 4)]
    session.restart()
    session.run(max_steps=6)
    assert len(session.breakpoints.log) == 5  # what is passed twice is told twice


def test_breakpoints_are_kept_switched_and_removed(session: Session) -> None:
    breakpoints = session.breakpoints
    assert [breakpoints.add("reset").name, breakpoints.add("grew", name="mine").name, breakpoints.add("miss").name] == ["b1", "mine", "b2"]
    assert [b.expression for b in breakpoints] == ["reset", "grew", "miss"] and "mine" in breakpoints and "b9" not in breakpoints
    breakpoints.disable("b1")
    assert [b.enabled for b in breakpoints] == [False, True, True]
    breakpoints.enable("b1")
    assert all(b.enabled for b in breakpoints)
    assert breakpoints.remove("b2").expression == "miss"
    assert breakpoints.add("halt").name == "b3"  # a name is not given twice
    for act in (breakpoints.remove, breakpoints.enable, breakpoints.disable, breakpoints.__getitem__):
        with pytest.raises(BreakpointError, match="there are b1, mine, b3"):
            act("b2")
    with pytest.raises(BreakpointError, match="already"):
        breakpoints.add("reset", name="mine")
    breakpoints.clear()
    assert list(breakpoints) == [] and not breakpoints.can_stop
    for _ in range(64):
        breakpoints.add("reset")
    with pytest.raises(BreakpointError, match="at most 64"):
        breakpoints.add("reset")


def test_breakpoints_go_to_plain_values_and_back(model: TRM, puzzle: Puzzle, session: Session) -> None:
    session.breakpoints.add("fidelity<.9|reset", hits="% 2", name="a")
    session.breakpoints.add("cell(1,2) changed", enabled=False, once=True, log="{index}")
    plain = json.loads(json.dumps(session.breakpoints.to_list()))
    other = Session(model, puzzle, policy=POLICY)
    other.breakpoints.load(plain)
    assert list(other.breakpoints) == list(session.breakpoints)
    assert [Breakpoint.from_dict(item) for item in plain] == list(session.breakpoints)
    assert [other.run().index, *other.breakpoints.counts.values()] == [session.run().index, *session.breakpoints.counts.values()]
    assert Breakpoint.from_dict({"expression": "reset"}) == Breakpoint("reset")


BAD: list[tuple[Any, str]] = [
    (None, "dictionary"),
    (["reset"], "dictionary"),
    ({}, "needs an expression"),
    ({"expression": 3}, "text, not int"),
    ({"expression": "fidelity"}, "compare it"),
    ({"expression": "reset", "hit": 3}, "no 'hit'"),
    ({"expression": "reset", 5: 3}, "no 5"),
    ({"expression": "reset", "enabled": 1}, "true or false"),
    ({"expression": "reset", "once": "no"}, "true or false"),
    ({"expression": "reset", "hits": True}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": 0}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": 2.0}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": 10**5000}, "so large"),
    ({"expression": "reset", "hits": "3 times"}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": "% 0"}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": "% 2 == 2"}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": "> 2 == 1"}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": "9" * 5000}, "hits of a breakpoint"),
    ({"expression": "reset", "hits": None}, "hits of a breakpoint"),
    ({"expression": "reset", "name": 3}, "name of a breakpoint"),
    ({"expression": "reset", "name": "x" * 61}, "name of a breakpoint"),
    ({"expression": "reset", "name": "until"}, "cannot be called"),
    ({"expression": "reset", "name": "a\nb"}, "cannot be called"),
    ({"expression": "reset", "log": "x" * 501}, "log of a breakpoint"),
    ({"expression": "reset", "log": "\ud800"}, "printable"),
    ({"expression": "reset", "log": "{fidelty}"}, "in the log message, unknown name"),
    ({"expression": "reset", "log": "a {"}, "no } for the { at character 3"),
    ({"expression": "reset", "log": "a } b"}, "no { for the } at character 3"),
    ({"expression": "reset", "log": "{}"}, "expression is expected"),
    ({"expression": 'fidelity("\ud800") < 1'}, "printable"),
]


@pytest.mark.parametrize(("data", "words"), BAD, ids=[f"{n}" for n in range(len(BAD))])
def test_what_comes_from_outside_is_checked(session: Session, data: Any, words: str) -> None:
    with pytest.raises(LaserStudioError) as caught:
        Breakpoint.from_dict(data)
    assert isinstance(caught.value, BreakpointError | ExpressionError) and words in str(caught.value) and len(str(caught.value)) < 1_500
    session.breakpoints.add("reset")
    with pytest.raises(LaserStudioError):
        session.breakpoints.load([{"expression": "grew"}, data])
    assert [b.expression for b in session.breakpoints] == ["reset"]  # all or none


@pytest.mark.parametrize("data", [None, "reset", {"expression": "reset"}, 3, [{"expression": "reset", "name": "a"}] * 2])
def test_a_list_of_breakpoints_is_checked_as_a_whole(session: Session, data: Any) -> None:
    with pytest.raises(BreakpointError):
        session.breakpoints.load(data)
    with pytest.raises(ExpressionError, match="no site"):
        session.breakpoints.load([{"expression": "reset", "log": "{fidelity(nowhere)}"}])
    with pytest.raises(BreakpointError, match="no setting hit"):
        session.breakpoints.add("reset", hit=3)
    with pytest.raises(BreakpointError, match="its own"):
        session.breakpoints.add(Breakpoint("reset"), hits=3)
    assert len(session.breakpoints) == 0


def test_log_messages_say_where_they_are_wrong() -> None:
    with pytest.raises(ExpressionError) as caught:
        Breakpoint("reset", log="{index}: {q_hlat}")
    assert caught.value.position == 10 and "did you mean q_halt" in str(caught.value)


def test_a_breakpoint_is_enough_to_run_past_the_trained_depth(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=POLICY, beyond=True)
    session.breakpoints.add("index > 0", log="passed")
    with pytest.raises(ValueError, match="until"):
        session.run()  # a log never stops it
    session.breakpoints.add(f"index == {session.length + 4}")
    assert session.run().index == session.length + 4
    assert session.breakpoints.counts == {"b1": session.length + 4, "b2": 1}


def test_breakpoints_change_nothing_of_the_run(model: TRM, puzzle: Puzzle, whole: list[Frame]) -> None:
    session = Session(model, puzzle, policy=POLICY)
    for text, _ in CASES:
        session.breakpoints.add(text, log="{fidelity}")
    session.run()
    assert list(session.frames) == whole


def test_a_changed_policy_is_seen_by_breakpoints_as_on_screen(session: Session) -> None:
    session.breakpoints.add("rank(1.mlp.down_proj) > 8")
    session.seek(9)
    session.set_policy(replace(POLICY, rank=12))
    frame = session.run()
    assert frame.sites[SITE].rank == session.evaluate("rank(1.mlp.down_proj)") and frame.sites[SITE].rank > 8
    assert all(f.sites[SITE].rank <= 8 for f in session.frames[10 : frame.index])


def test_the_log_keeps_the_newest(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    monkeypatch.setattr("laser_studio.debugger.breakpoints.LOG_LENGTH", 5)
    breakpoints = Breakpoints(Scope())
    breakpoints.add("index > 0", log="{index}")
    session.run()
    for before, frame in zip(session.frames[:-1], session.frames[1:], strict=True):
        breakpoints.consult(frame, before)
    assert [entry.message for entry in breakpoints.log] == ["20", "21", "22", "23", "24"]


def test_the_documentations_code_runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    text = (repository / "docs" / "breakpoints.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/breakpoints.md", "exec"), names)
    session, curves = names["session"], names["curves"]
    assert session.frame.index > 0 and session.breakpoints.counts["b1"] == len(session.breakpoints.log) > 0
    frames = session.frames[1:]
    expected = [min(site.fidelity for name, site in frame.sites.items() if ".mlp." in name) - 0.97 for frame in frames]
    assert curves["margin of the MLPs"] == [None, *expected] and len(curves["answer_changed"]) == len(session.frames)


def test_one_is_changed_where_it_stands_and_counts_anew_with_another_expression(session: Session) -> None:
    stops = session.breakpoints
    for name in ("a", "b", "c"):
        stops.add("index > 0", name=name, hits="% 3", log="at {index}")
    session.run(max_steps=2)
    assert stops.counts == {"a": 2, "b": 2, "c": 2}
    renamed = stops.change("b", to="middle")
    assert (renamed.name, renamed.hits, renamed.log) == ("middle", "% 3", "at {index}") and "b" not in stops
    assert stops.counts == {"a": 2, "middle": 2, "c": 2}, "in its place, and its count goes on"
    assert stops.change("middle", expression="index > 1").expression == "index > 1"
    assert stops.counts == {"a": 2, "middle": 0, "c": 2}
    session.run(max_steps=2)
    assert stops.counts == {"a": 4, "middle": 2, "c": 4}
    before, counts = stops.to_list(), stops.counts
    for wrong, error in (
        ({"to": "c"}, BreakpointError), ({"to": ""}, BreakpointError), ({"to": "until"}, BreakpointError),
        ({"expression": "q_hlat > 0"}, ExpressionError), ({"expression": "index"}, ExpressionError),
        ({"expression": "fidelity(nowhere) < 1"}, ExpressionError),
    ):  # fmt: skip
        with pytest.raises(error):
            stops.change("middle", **wrong)
    with pytest.raises(BreakpointError, match="there is no breakpoint"):
        stops.change("b", to="d")
    assert (stops.to_list(), stops.counts) == (before, counts)
