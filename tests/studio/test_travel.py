"""Travelling on a page: breakpoints stop where the frames it is sent say they hold, sizes of steps are the session's, marks last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from torch import nn

from laser_studio.debugger import Session, watch
from laser_studio.debugger.inside import summaries
from laser_studio.studio.catalogue import Catalogue, RecordingEntry
from laser_studio.studio.channel import Channel
from tests.studio.test_channel import LENGTH, known, opened, session_for, sought

SITE = "layers.0.mlp.down_proj"


def ask(channel: Channel, reply: dict[str, Any], name: str, **values: Any) -> dict[str, Any]:
    answer = channel.inquire({"run": reply["run"], "at": reply["frame"]["index"], "name": name, **values})
    json.dumps(answer, allow_nan=False)
    return answer


def played(channel: Channel, reply: dict[str, Any], steps: int = 100) -> dict[str, Any]:
    again = channel.advance({**known(reply, reply["run"]), "steps": steps})
    assert "error" not in again, again
    json.dumps(again, allow_nan=False)
    return {**again, "run": reply["run"]}


def commanded(channel: Channel, reply: dict[str, Any], name: str, **values: Any) -> dict[str, Any]:
    again = channel.command({**known(reply, reply["run"]), "name": name, **values})
    assert "error" not in again, again
    return {**again, "run": reply["run"]}


@pytest.fixture
def whole(catalogue: Catalogue) -> Session:
    session = session_for(catalogue)
    session.seek(session.length)
    return session


def test_the_fidelity_that_breakpoints_see_is_the_one_on_screen(channel: Channel) -> None:
    shown: list[float] = []
    reply = opened(channel)
    while reply["state"] != "done":
        reply = {**channel.advance({**known(reply, reply["run"]), "steps": 1}), "run": reply["run"]}
        shown.append(reply["frame"]["sites"][SITE]["fidelity"])
    assert shown == [row["sites"][SITE][0] for row in channel.advance({"run": reply["run"], "at": 0, "since": 1})["rows"]]
    for bound in sorted({value for value in shown if value < 1}):  # at each value itself, and just above it
        for sign, expected in (("<", lambda x: x < bound), ("<=", lambda x: x <= bound)):  # noqa: B023 - used at once
            fresh = opened(channel)
            assert ask(channel, fresh, "breakpoints.add", expression=f"fidelity({SITE}) {sign} {bound!r}")["added"] == "b1"
            stops = []
            while fresh["state"] != "done":
                fresh = played(channel, fresh)
                stops += [step for _, step, _ in fresh["travel"]["stopped"]]
                if fresh["travel"]["stopped"]:
                    assert expected(fresh["frame"]["sites"][SITE]["fidelity"]) and fresh["frame"]["index"] == stops[-1]
            assert stops == [step for step, value in enumerate(shown, 1) if expected(value)]


def test_play_stops_and_goes_on(channel: Channel) -> None:
    reply = opened(channel)
    ask(channel, reply, "breakpoints.add", expression="index % 4 == 0", label="fours", hits="% 2")
    ask(channel, reply, "breakpoints.add", expression="cycle", log="cycle {h} of {s}", label="cycles")
    ask(channel, reply, "breakpoints.add", expression="index == 9", once=True)
    reply = played(channel, reply)
    assert reply["travel"]["stopped"] == [["fours", 8, 2]] and reply["frame"]["index"] == 8 and reply["state"] == "paused"
    assert reply["travel"]["counts"] == {"fours": 2, "cycles": 2, "b1": 0}
    assert reply["travel"]["hits"]["rows"] == [(3, "cycles", "cycle 1 of 1"), (6, "cycles", "cycle 2 of 1"), (8, "fours", "")]
    assert len(reply["rows"]) == 8  # also the steps before are sent
    reply = {**channel.advance({**known(reply, reply["run"]), "marks_known": reply["travel"]["version"], "steps": 9}), "run": reply["run"]}
    assert reply["travel"]["stopped"] == [["b1", 9, 1]]
    assert [one["enabled"] for one in reply["travel"]["breakpoints"]] == [True, True, False]
    reply = played(channel, reply)
    assert reply["state"] == "done" and reply["travel"]["stopped"] == [] and reply["travel"]["counts"]["fours"] == 3


def test_seeking_stops_at_none_and_counts_none(channel: Channel) -> None:
    reply = opened(channel)
    ask(channel, reply, "breakpoints.add", expression="index > 0")
    reply = sought(channel, reply, 7)
    assert reply["frame"]["index"] == 7 and reply["travel"]["counts"] == {"b1": 0} and reply["travel"]["stopped"] == []
    reply = commanded(channel, reply, "back")
    assert reply["frame"]["index"] == 6 and reply["travel"]["counts"] == {"b1": 0}
    assert played(channel, reply, 1)["travel"]["stopped"] == [["b1", 7, 1]]  # recorded frames that are passed again are asked


def test_sizes_are_the_sessions(channel: Channel, whole: Session) -> None:
    reply = opened(channel)
    whole.restart()
    path: list[tuple[str, Any]] = [
        ("over", {"size": "cycle"}), ("over", {"size": "net"}), ("out", {}), ("out", {}), ("back", {"size": "supervision"}),
        ("over", {"size": "supervision"}), ("over", {"size": "supervision"}), ("over", {"size": "supervision"}),
        ("back", {"size": "net"}), ("back", {"size": "cycle"}), ("out", {}), ("out", {}),
    ]  # fmt: skip
    for name, how in path:
        reply = commanded(channel, reply, name, **how)
        own = {"over": whole.step, "out": whole.out, "back": whole.back}[name](**how)
        assert reply["frame"]["index"] == own.index and reply["travel"]["arrived"]
    assert reply["state"] == "done" and reply["frame"]["index"] == LENGTH


def test_the_ends_of_time_stop(channel: Channel) -> None:
    reply = opened(channel)
    for size in ("net", "cycle", "supervision"):
        assert commanded(channel, reply, "back", size=size)["frame"]["index"] == 0
    assert commanded(channel, reply, "run_back")["travel"] | {"version": 1} == reply["travel"] | {"version": 1}
    reply = sought(channel, reply, LENGTH)
    for name in ("over", "out", "run"):
        again = commanded(channel, reply, name)
        assert again["frame"]["index"] == LENGTH and again["travel"]["arrived"] and again["travel"]["stopped"] == []


def test_a_travel_goes_on_where_it_was_cut_off(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.channel.SEEK_BUDGET_SECONDS", 0.0)  # one step each
    reply = opened(channel)
    ask(channel, reply, "breakpoints.add", expression="index > 0")
    reached, value = [], 0
    while True:
        reply = commanded(channel, reply, "over", size="supervision", value=value)
        reached.append(reply["frame"]["index"])
        if reply["travel"]["arrived"]:
            break
        value = reply["travel"]["target"]
    assert reached == [1, 2, 3, 4, 5, 6] and reply["travel"]["counts"] == {"b1": 6}


def test_running_on_and_back_stop_where_something_happens(channel: Channel, whole: Session) -> None:
    happens = [f.index for f in whole.frames if {event.kind for event in f.events} & {"reset", "grew", "changed"}]
    reply = opened(channel)
    ask(channel, reply, "breakpoints.add", expression="index == 5", label="five")
    steps, stops = sorted({*happens, 5}), []
    while reply["state"] != "done":
        reply = commanded(channel, reply, "run")
        stops.append(reply["frame"]["index"])
    assert stops == [*steps, *([LENGTH] if steps[-1] < LENGTH else [])]
    reply = sought(channel, reply, LENGTH)
    back = []
    while reply["frame"]["index"]:
        reply = commanded(channel, reply, "run_back")
        back.append(reply["frame"]["index"])
        names = {name for name, _, _ in reply["travel"]["stopped"]}
        assert names == {name for name, at in (("until", happens), ("five", [5])) if back[-1] in at}
    assert back == [step for step in reversed(steps) if step < LENGTH] + [0] and reply["travel"]["counts"]["five"] == 1


def test_watches_are_drawn_from_all_recorded_frames(channel: Channel, whole: Session) -> None:
    reply = sought(channel, opened(channel), 5)
    added = ask(channel, reply, "watches.add", expression=f"fidelity({SITE})", label="down")
    assert added["added"] == "down" and added["travel"]["watches"][0]["condition"] is False
    ask(channel, reply, "watches.add", expression="answer_changed")
    reply = played(channel, reply, 2)
    curves, frames = reply["travel"]["curves"], whole.frames
    assert curves["start"] == 0 and list(curves["rows"]) == ["down", "answer_changed"]
    assert curves["rows"]["down"] == [None, *(frame.sites[SITE].fidelity for frame in frames[1:8])]
    assert reply["travel"]["now"] == {"down": frames[7].sites[SITE].fidelity, "answer_changed": float(bool(frames[7].changed))}
    after = channel.advance({**known(reply, reply["run"]), "curves_since": 8, "steps": 1})["travel"]["curves"]
    assert after["start"] == 8 and after["rows"]["down"] == [frames[8].sites[SITE].fidelity]
    # A dropped future takes its values with it.
    back = sought(channel, reply, 3)
    tuned = channel.tune({**known(back, reply["run"]), "curves_since": 8, "changes": {"rank": 80}})["travel"]["curves"]
    assert tuned["valid"] == 4 and tuned["start"] == 4 and tuned["rows"]["down"] == []
    ask(channel, reply, "watches.remove", which="down")
    assert list(played(channel, back, 1)["travel"]["curves"]["rows"]) == ["answer_changed"]


def test_marks_travel_in_the_link(channel: Channel) -> None:
    reply = sought(channel, opened(channel), 4)
    ask(channel, reply, "breakpoints.add", expression="reset & s > 1", hits="3", once=True, label="late")
    ask(channel, reply, "breakpoints.add", expression="halt", log="{q_halt} ~ 100 %")
    ask(channel, reply, "breakpoints.switch", which="late", enabled=False)
    ask(channel, reply, "watches.add", expression="residual", label="how far")
    ask(channel, reply, "bookmarks.add", label="here", note="nothing yet & all")
    last = ask(channel, reply, "bookmarks.add", step=9)
    again = opened(channel, last["link"])
    assert not again["notices"] and again["target"] == 4
    for what in ("breakpoints", "watches", "bookmarks"):
        assert again["travel"][what] == last["travel"][what] and last["travel"][what]
    assert again["travel"]["bookmarks"] == [{"step": 4, "name": "here", "note": "nothing yet & all"}, {"step": 9, "name": "m1", "note": ""}]
    assert again["travel"]["breakpoints"][0]["hits"] == 3
    assert again["link"].rpartition("&step=")[0] == last["link"].rpartition("&step=")[0]


def test_what_a_link_asks_in_vain_is_told(channel: Channel) -> None:
    reply = opened(channel, "break=fidelity&break=reset&break=fidelty<1&watch=cell(9,9)&watch=rank&mark=3~a&mark=4~a&break=s>1~hits=0")
    assert [one["expression"] for one in reply["travel"]["breakpoints"]] == ["reset"]
    assert len(reply["travel"]["watches"]) == len(reply["travel"]["bookmarks"]) == 1
    notices = " ".join(reply["notices"])
    assert len(reply["notices"]) == 5 and all(word in notices for word in ("compare it", "did you mean", "no such cell", "already", "hits"))


def test_what_is_wrong_with_a_text_is_shown_at_its_place(channel: Channel) -> None:
    reply = opened(channel)
    problem = ask(channel, reply, "breakpoints.add", expression="reset | q_hlat > 0")["problem"]
    assert problem == {"cause": "unknown name 'q_hlat': did you mean q_halt?", "position": 8, "end": 14}
    assert ask(channel, reply, "travel.check", expression="fidelity")["problem"]["cause"].startswith("this is a number")
    assert ask(channel, reply, "travel.check", expression="fidelity", condition=False) == {"now": None}
    assert ask(channel, reply, "travel.check", expression="")["problem"] | {"cause": ""} == {"cause": "", "position": 0, "end": 1}
    assert ask(channel, reply, "travel.check", expression="s < 1") == {"now": 1.0}
    for name, values in (
        ("breakpoints.add", {"expression": "s > 0", "hits": "never"}),
        ("breakpoints.add", {"expression": "s > 0", "log": "{nothing}"}),
        ("breakpoints.add", {"expression": "s > 0", "label": "until"}),
        ("breakpoints.remove", {"which": "b9"}),
        ("bookmarks.add", {"note": "x" * 301}),
        ("bookmarks.add", {"step": 999_999}),
        ("bookmarks.change", {"which": "none", "note": ""}),
        ("watches.remove", {"which": "none"}),
        ("breakpoints.add", {"expression": 3}),
        ("breakpoints.switch", {"which": "b1"}),
        ("breakpoints.change", {"which": "b1", "label": "x"}),
        ("breakpoints.change", {"which": "b1", "expression": 3}),
        ("watches.add", {"expression": "s", "label": "\n"}),
    ):
        answer = ask(channel, reply, name, **values)
        assert set(answer) == {"error", "expired"} and "\n" not in answer["error"], answer
    after = channel.advance({**known(reply, reply["run"]), "steps": 0})["travel"]
    assert (after["breakpoints"], after["watches"], after["bookmarks"], after["counts"]) == ([], [], [], {})


def test_a_breakpoint_is_changed_and_its_link_says_so(channel: Channel) -> None:
    reply = opened(channel)
    ask(channel, reply, "breakpoints.add", expression="reset", hits="% 2")
    ask(channel, reply, "breakpoints.add", expression="index == 90")
    changed = ask(channel, reply, "breakpoints.change", which="b1", label="turns", expression="reset | grew")
    said = [(one["name"], one["expression"], one["hits"]) for one in changed["travel"]["breakpoints"]]
    assert said == [("turns", "reset | grew", "% 2"), ("b2", "index == 90", 1)] and changed["counts"] == {"turns": 0, "b2": 0}
    again = opened(channel, changed["link"])["travel"]["breakpoints"]
    assert [(one["name"], one["expression"], one["hits"]) for one in again] == said
    problem = ask(channel, reply, "breakpoints.change", which="turns", expression="reset | grwe")["problem"]
    assert (problem["position"], problem["end"]) == (8, 12) and "did you mean grew" in problem["cause"]
    assert "already" in ask(channel, reply, "breakpoints.change", which="turns", label="b2")["error"]


def test_there_is_no_more_than_a_link_holds(channel: Channel) -> None:
    reply = opened(channel)
    long = " | ".join(["reset"] * 120)
    answers = [ask(channel, reply, "breakpoints.add", expression=long) for _ in range(10)]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert refused and "link" in refused[0]
    link = channel.advance({**known(reply, reply["run"]), "steps": 0})["link"]
    assert len(opened(channel, link)["travel"]["breakpoints"]) == len(answers) - len(refused)


def test_marks_are_sent_only_when_they_change(channel: Channel) -> None:
    reply = opened(channel)
    version = reply["travel"]["version"]
    again = channel.advance({**known(reply, reply["run"]), "marks_known": version, "steps": 1})["travel"]
    assert "breakpoints" not in again and again["counts"] == {}
    newer = ask(channel, reply, "bookmarks.add", note="a")["travel"]["version"]
    assert newer != version
    assert "bookmarks" in channel.advance({**known(reply, reply["run"]), "marks_known": version, "steps": 0})["travel"]
    assert ask(channel, reply, "bookmarks.change", which="m1", label="start", note="b")["travel"]["bookmarks"] == [
        {"step": 0, "name": "start", "note": "b"}
    ]
    assert ask(channel, reply, "bookmarks.remove", which="start")["travel"]["bookmarks"] == []


def test_the_historys_budget_is_a_setting(channel: Channel) -> None:
    reply = opened(channel, "history=512")
    session = channel.registry.get(reply["run"]).item.session
    assert isinstance(session, Session) and session.history_bytes == 512 << 20 and reply["travel"]["kept"]["budget"] == 512 << 20
    reply = sought(channel, reply, LENGTH)
    kept, told = session.kept, reply["travel"]["kept"]
    assert told["total"] == kept.total == told["coefficients"] + told["bases"] + told["keyframes"]
    assert (told["from"], told["replay"], told["said"], told["count"]) == (1, kept.longest_replay, "", len(kept.keyframes))
    assert "history=512" in reply["link"] and "history_bytes=536870912" in channel.python({"run": reply["run"], "at": 3})["python"]
    tuned = channel.tune({**known(reply, reply["run"]), "changes": {"history": 1}})
    assert tuned["options"]["history"] == 1 and session.history_bytes == 1 << 20 and tuned["epoch"] == reply["epoch"]
    assert tuned["travel"]["kept"]["budget"] == 1 << 20 >= tuned["travel"]["kept"]["total"]
    for wrong in (0, 1025, "much"):
        assert "history" in channel.tune({**known(reply, reply["run"]), "changes": {"history": wrong}})["error"]
    assert session.history_bytes == 1 << 20


def test_everything_that_can_be_typed_is_offered(channel: Channel) -> None:
    from laser_studio.debugger import Expression, Scope
    from laser_studio.debugger.vocabulary import FUNCTIONS, WORDS

    offered = ask(channel, opened(channel), "travel.words")
    names = {form.partition("(")[0] for form, _, _ in offered["words"]}
    assert names >= {*WORDS, *FUNCTIONS} and SITE in offered["sites"]
    scope = Scope(tuple(offered["sites"]), (4, 4))
    for form, kind, meaning in offered["words"]:
        text = form.replace("(site)", f"({SITE})").replace("(row, column)", "(1, 2)").replace("(x, y, …)", "(s, h)")
        expression = Expression(text.replace("(condition)", "(reset)").replace("x changed", "s changed").replace("(x)", "(s)"))
        expression.bind(scope)
        assert meaning and expression.is_condition == (kind == "condition"), form


def test_the_inside_is_the_engines(channel: Channel, catalogue: Catalogue) -> None:
    own = session_for(catalogue)
    own.seek(8)
    reply = opened(channel)
    assert ask(channel, reply, "travel.inside") == {"step": 0, "sites": []}
    reply = sought(channel, reply, 8)
    told = ask(channel, reply, "travel.inside")
    expected = summaries(own, 8)
    assert told["step"] == 8 and [site["label"] for site in told["sites"]][:2] == ["L0 qkv", "L0 o"]
    for site, one in zip(told["sites"], expected, strict=True):
        assert (site["site"], site["input_norm"], site["kept"], site["rank"]) == (one.site, one.input_norm, one.kept, one.rank)
        assert site["inputs"] == pytest.approx(one.inputs, rel=1e-3) and site["read_back"] == pytest.approx(one.read_back, rel=1e-3)
    assert channel.advance({**known(reply, reply["run"]), "steps": 0})["frame"]["index"] == 8


def test_the_script_has_them(channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
    reply = sought(channel, opened(channel), 5)
    ask(channel, reply, "breakpoints.add", expression="index == 9", hits="== 1", label='"nine"')
    ask(channel, reply, "watches.add", expression="residual", label="r")
    ask(channel, reply, "bookmarks.add", note="it's here")
    text = channel.python({"run": reply["run"], "at": 5})["python"]
    names: dict[str, Any] = {}
    exec(compile(text, "view.py", "exec"), names)
    session = names["session"]
    assert f"r = {reply['frame']['residual']}" in capsys.readouterr().out
    assert [mark.note for mark in session.bookmarks] == ["it's here"] and session.run().index == 9
    assert [hit.name for hit in session.stopped_by] == ['"nine"']


def test_a_recordings_new_marks_are_told_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    inner = nn.Linear(8, 8)
    with watch(nn.Sequential(inner, nn.Tanh(), inner), path) as watcher:
        watcher.module(torch.randn(3, 8))
        channel = Channel(Catalogue([], device="cpu", recordings=[RecordingEntry("mine", path, "mine")]))
        reply = opened(channel)
        version = reply["travel"]["version"]
        watcher.bookmark(note="later")
        watcher.module(torch.randn(3, 8))
        told = channel.advance({**known(reply, reply["run"]), "steps": 9, "marks_known": version})
        assert told["travel"]["bookmarks"] == [{"step": 2, "name": "m1", "note": "later"}] and "mark=2~m1~later" in unquote(told["link"])
        channel.registry.close_all()


def test_a_recording_stops_and_has_marks(tmp_path: Path, small_checkpoint: Path) -> None:
    path = tmp_path / "run.jsonl"
    torch.manual_seed(0)
    inner = nn.Linear(8, 8)
    with watch(nn.Sequential(inner, nn.Tanh(), inner), path) as watcher:
        watcher.follow("residual", "r")
        for _ in range(4):
            watcher.module(torch.randn(3, 8))
        watcher.bookmark(note="end")
    channel = Channel(Catalogue([], device="cpu", recordings=[RecordingEntry("mine", path, "mine")]))
    reply = opened(channel, "break=index %25 3 == 0&mark=2~two")
    assert not reply["notices"] and reply["travel"]["kept"] is None
    assert [mark["name"] for mark in reply["travel"]["bookmarks"]] == ["two", "m1"]
    stops = []
    while reply["state"] != "done":
        reply = played(channel, reply)
        stops += [step for _, step, _ in reply["travel"]["stopped"]]
    assert stops == [3, 6]
    assert reply["travel"]["now"] == {"r": reply["frame"]["residual"]} and "mark=2" in reply["link"]
    assert commanded(channel, reply, "back", size="supervision")["frame"]["index"] == 6
    assert "holds no weights" in ask(channel, reply, "travel.inside")["error"]
    channel.registry.close_all()
