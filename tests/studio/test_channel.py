"""The live channel: what it answers equals what a session of one's own computes, whatever a page does; nothing it is sent hurts."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from laser_studio.debugger import Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.channel import Channel
from laser_studio.studio.links import TrackerView

LENGTH = 12  # 2 supervision steps × 2 H cycles × (2 + 1)


def opened(channel: Channel, query: str = "") -> dict[str, Any]:
    reply = channel.open({"query": query})
    assert "error" not in reply, reply
    return reply


def known(reply: dict[str, Any], run: str) -> dict[str, Any]:
    """What a page that has drawn `reply` sends along."""
    return {"run": run, "at": reply["frame"]["index"], "since": reply["head"] + 1, "epoch": reply["epoch"]}


def session_for(catalogue: Catalogue, tracker: TrackerView = TrackerView()) -> Session:  # noqa: B008 - frozen
    return Session(catalogue.load("small"), catalogue.puzzle("small", catalogue.first_puzzle("small")), policy=tracker.policy())


def plain(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame as the page gets it, without wall times."""
    frame = json.loads(json.dumps({name: value for name, value in frame.items() if name not in ("seconds", "tracker_seconds")}))
    for event in frame["events"]:
        event.pop("seconds")
    for site in frame["sites"].values():
        site.pop("angles", None)
    frame["confidence"] = [round(value, 4) for value in frame["confidence"]]
    return frame


def test_opening_shows_step_0_and_everything_the_page_draws(channel: Channel) -> None:
    reply = opened(channel)
    assert reply["frame"]["index"] == 0 and reply["state"] == "paused" and reply["length"] == LENGTH
    assert [site["label"] for site in reply["sites"]] == [
        f"L{layer} {site}" for layer in (0, 1) for site in ("qkv", "o", "gate·up", "down")
    ]
    assert {site["name"]: site["dim"] for site in reply["sites"]}["layers.0.mlp.down_proj"] == 256
    assert reply["puzzle"]["domain"] == "sudoku" and reply["puzzle"]["blocks"] == (2, 2)
    assert reply["puzzle"]["symbols"] == ["", "1", "2", "3", "4"]
    assert reply["settings"] == TrackerView().to_json()
    assert reply["puzzles"] and reply["notices"] == [] and reply["cost"] is None
    assert "solution" not in json.dumps(reply["puzzle"])


def test_a_fresh_page_opens_a_medium_puzzle(channel: Channel) -> None:
    assert opened(channel)["puzzle"]["difficulty"] == "medium"


def test_steps_equal_a_session_of_ones_own(channel: Channel, catalogue: Catalogue) -> None:
    reply = opened(channel)
    run, session = reply["run"], session_for(catalogue)
    rows = list(reply["rows"])
    for _ in range(LENGTH):
        reply = channel.advance({**known(reply, run), "steps": 1})
        assert plain(reply["frame"]) == plain(session.step().to_json())
        rows += reply["rows"]
    assert reply["state"] == "done"
    assert [row["index"] for row in rows] == list(range(LENGTH + 1))
    for row, frame in zip(rows, session.frames, strict=True):
        assert row["sites"] == frame.to_row()["sites"] and row["residual"] == frame.residual
    assert channel.advance({**known(reply, run), "steps": 1})["frame"]["index"] == LENGTH  # the end is an end, not an error


def test_angles_of_the_newest_refresh_stay_on_screen(channel: Channel, catalogue: Catalogue) -> None:
    reply = opened(channel)
    run, session = reply["run"], session_for(catalogue)
    session.seek(7)
    reply = channel.command({**known(reply, run), "name": "seek", "value": 7})
    newest = max(
        index for index in range(8) if session.frames[index].sites and session.frames[index].sites["layers.0.mlp.down_proj"].angles
    )
    angles = session.frames[newest].sites["layers.0.mlp.down_proj"].angles
    assert angles is not None
    assert reply["turns"]["layers.0.mlp.down_proj"] == {"step": newest, "angles": [round(angle, 3) for angle in angles]}


def test_the_last_update_of_the_answer_stays_on_screen(channel: Channel) -> None:
    reply = opened(channel)
    assert reply["update"] is None
    at_update = channel.command({**known(reply, reply["run"]), "name": "seek", "value": 3})
    after = channel.advance({**known(at_update, reply["run"]), "steps": 1})
    assert at_update["update"] == {"step": 3, "cells": at_update["frame"]["changed"]} == after["update"]


def test_a_reply_the_page_threw_away_does_no_harm(channel: Channel) -> None:
    first = opened(channel)
    lost = channel.advance({**known(first, first["run"]), "steps": 5})
    assert lost["frame"]["index"] == 5
    again = channel.advance({**known(first, first["run"]), "steps": 1})  # the page still shows step 0 and has no row after it
    assert again["frame"]["index"] == 1
    assert [row["index"] for row in again["rows"]] == [1, 2, 3, 4, 5]


def test_back_restart_and_seek(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    reply = channel.command({**known(reply, run), "name": "seek", "value": 6})
    assert reply["frame"]["index"] == 6 and [row["index"] for row in reply["rows"]] == [1, 2, 3, 4, 5, 6]
    reply = channel.command({**known(reply, run), "name": "back"})
    assert reply["frame"]["index"] == 5 and reply["rows"] == [] and reply["head"] == 6
    reply = channel.command({**known(reply, run), "name": "restart"})
    assert reply["frame"]["index"] == 0
    assert channel.command({**known(reply, run), "name": "back"})["frame"]["index"] == 0
    reply = channel.command({**known(reply, run), "name": "seek", "value": 1_000})
    assert reply["frame"]["index"] == LENGTH and reply["state"] == "done"


def test_settings_act_from_the_next_step_and_drop_the_future(channel: Channel, catalogue: Catalogue) -> None:
    reply = opened(channel)
    run, session = reply["run"], session_for(catalogue)
    reply = channel.command({**known(reply, run), "name": "seek", "value": 8})
    reply = channel.command({**known(reply, run), "name": "seek", "value": 4})
    before = reply["epoch"]
    reply = channel.tune({**known(reply, run), "changes": {"rank": 60, "min_fidelity": 1.0, "patience": 1}})
    assert reply["epoch"] > before and reply["head"] == 4
    assert reply["settings"] == {"rank": 60, "min_fidelity": 1.0, "patience": 1, "refresh": "cycle"}
    session.seek(4)
    session.set_policy(LaserPolicy(rank="60%", min_fidelity=1.0, patience=1))
    while reply["state"] == "paused":
        reply = channel.advance({**known(reply, run), "steps": 1})
        assert plain(reply["frame"]) == plain(session.step().to_json())
    assert reply["frame"]["resets"] > 0


def test_rows_after_a_change_replace_those_before(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    far = channel.command({**known(reply, run), "name": "seek", "value": 9})
    near = channel.command({**known(far, run), "name": "seek", "value": 3})
    tuned = channel.tune({**known(near, run), "changes": {"rank": 80}})
    assert tuned["start"] == 4 and tuned["rows"] == []
    on = channel.advance({**known(tuned, run), "steps": 1})
    assert [row["index"] for row in on["rows"]] == [4]


def test_a_page_that_missed_the_change_gets_its_rows_anew(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    far = channel.command({**known(reply, run), "name": "seek", "value": 9})
    near = channel.command({**known(far, run), "name": "seek", "value": 3})
    channel.tune({**known(near, run), "changes": {"rank": 80}})  # this reply is lost
    on = channel.advance({**known(near, run), "steps": 1})
    assert on["start"] == 4 and [row["index"] for row in on["rows"]] == [4]


def test_a_page_from_long_ago_gets_everything(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.channel.EPOCHS_REMEMBERED", 2)
    reply = opened(channel)
    run = reply["run"]
    old = reply = channel.command({**known(reply, run), "name": "seek", "value": 6})
    for rank in (30, 40, 50, 60):
        reply = channel.command({**known(reply, run), "name": "seek", "value": 5})
        reply = channel.tune({**known(reply, run), "changes": {"rank": rank}})
        reply = channel.advance({**known(reply, run), "steps": 1})
    again = channel.advance({**known(old, run), "at": 6, "steps": 0})
    assert again["start"] == 0 and [row["index"] for row in again["rows"]] == list(range(7))


def test_restart_keeps_the_settings_as_they_are_now(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    reply = channel.command({**known(reply, run), "name": "seek", "value": 4})
    reply = channel.tune({**known(reply, run), "changes": {"rank": 60}})
    reply = channel.command({**known(reply, run), "name": "restart"})
    assert reply["settings"]["rank"] == 60 and reply["frame"]["index"] == 0
    assert "change=" not in reply["link"]


def test_settings_are_those_of_the_step_shown(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    reply = channel.command({**known(reply, run), "name": "seek", "value": 4})
    reply = channel.tune({**known(reply, run), "changes": {"rank": 60}})
    reply = channel.advance({**known(reply, run), "steps": 1})
    assert reply["settings"]["rank"] == 60
    assert channel.command({**known(reply, run), "name": "seek", "value": 2})["settings"]["rank"] == 25


def test_a_link_gives_the_same_view_even_after_changes_on_the_way(channel: Channel) -> None:
    reply = opened(channel, "rank=40%25&min_fidelity=0.99")
    run = reply["run"]
    reply = channel.command({**known(reply, run), "name": "seek", "value": 4})
    reply = channel.tune({**known(reply, run), "changes": {"rank": 20, "refresh": "step"}})
    reply = channel.command({**known(reply, run), "name": "seek", "value": 9})
    again = opened(channel, reply["link"])
    assert again["frame"]["index"] == 0 and again["target"] == 9
    again = channel.command({**known(again, again["run"]), "name": "seek", "value": 9})
    assert plain(again["frame"]) == plain(reply["frame"])
    assert again["link"] == reply["link"] and again["settings"] == reply["settings"]


def test_a_link_past_the_end_or_to_what_is_not_here_says_so(channel: Channel) -> None:
    reply = opened(channel, "model=../../etc&puzzle=none&step=99")
    assert reply["target"] == LENGTH and reply["model"]["name"] == "small"
    assert len(reply["notices"]) == 3


def test_generated_puzzles_have_an_address(channel: Channel) -> None:
    first, again = opened(channel, "puzzle=generated:hard:123"), opened(channel, "puzzle=generated:hard:123")
    assert first["puzzle"]["id"] == "generated:hard:123" and first["puzzle"]["cells"] == again["puzzle"]["cells"]
    assert first["puzzles"][0][1] == "generated:hard:123"
    other = opened(channel, "puzzle=generated:hard:124")
    assert other["puzzle"]["cells"] != first["puzzle"]["cells"]


def test_two_runs_do_not_disturb_one_another(channel: Channel, catalogue: Catalogue) -> None:
    """Each of two runs driven at once from two threads gives the frames of its solo run, bit for bit."""
    settings = [TrackerView(rank=25), TrackerView(rank=70, min_fidelity=0.9, refresh="step")]
    got: list[list[Any]] = [[], []]

    def drive(which: int) -> None:
        query = "&".join(f"{name}={value}" for name, value in settings[which].to_json().items() if name != "rank")
        reply = opened(channel, f"{query}&rank={settings[which].rank:g}%25")
        run = reply["run"]
        while reply["state"] == "paused":
            reply = channel.advance({**known(reply, run), "steps": 1})
            got[which].append(plain(reply["frame"]))

    threads = [threading.Thread(target=drive, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for which in (0, 1):
        session = session_for(catalogue, settings[which])
        assert got[which] == [plain(session.step().to_json()) for _ in range(LENGTH)]


def test_one_model_serves_all_runs(channel: Channel, catalogue: Catalogue) -> None:
    model = catalogue.load("small")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    reply = opened(channel)
    channel.command({**known(reply, reply["run"]), "name": "seek", "value": LENGTH})
    assert catalogue.load("small") is model
    assert all((value == weights[name]).all() for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_closing_frees_the_run_and_the_page_is_told(channel: Channel) -> None:
    run = opened(channel)["run"]
    assert channel.close({"run": run}) == {"closed": True} and len(channel.registry) == 0
    reply = channel.advance({"run": run, "at": 0, "steps": 1})
    assert reply["expired"] and "reload" in reply["error"]
    assert channel.close({"run": run}) == {"closed": True}


def test_opening_anew_replaces_the_old_run(channel: Channel) -> None:
    first = opened(channel)["run"]
    second = channel.open({"query": "", "replaces": first})["run"]
    assert len(channel.registry) == 1 and channel.registry.get(second)


@pytest.mark.parametrize(
    "data", [None, 1, "x", [], ["a"], {"nonsense": 1}, {"run": 5}, {str(i): i for i in range(100)}, {"run": "x" * 10_000}]
)
@pytest.mark.parametrize("name", ["advance", "command", "tune", "close", "open"])
def test_nonsense_is_answered_with_one_plain_message(channel: Channel, name: str, data: Any) -> None:
    reply = getattr(channel, name)(data)
    if name in ("open", "close") and "error" not in reply:
        return
    assert set(reply) == {"error", "expired"}
    assert reply["error"].isprintable() and 0 < len(reply["error"]) < 400 and "Traceback" not in reply["error"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("advance", {"steps": -1}),
        ("advance", {"steps": 10**9}),
        ("advance", {"at": "three"}),
        ("advance", {"at": float("nan")}),
        ("advance", {"since": -4}),
        ("advance", {"epoch": [1]}),
        ("command", {"name": "explode"}),
        ("command", {"name": "seek", "value": -2}),
        ("command", {"name": "seek", "value": 1e30}),
        ("tune", {"changes": {"rank": 0}}),
        ("tune", {"changes": {"rank": float("inf")}}),
        ("tune", {"changes": {"__class__": "x"}}),
        ("tune", {"changes": {"min_fidelity": {"a": 1}}}),
        ("tune", {"changes": "all"}),
    ],
)
def test_values_out_of_range_change_nothing(channel: Channel, name: str, change: dict[str, Any]) -> None:
    first = opened(channel)
    reply = getattr(channel, name)({"run": first["run"], "at": 0, **change})
    assert set(reply) == {"error", "expired"} and not reply["expired"]
    after = channel.advance({"run": first["run"], "at": 0, "steps": 0})
    assert plain(after["frame"]) == plain(first["frame"]) and after["settings"] == first["settings"]


def test_an_engine_failure_reaches_the_page_as_words_and_the_log_as_a_traceback(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(channel)

    def fail(_: Session) -> None:
        raise RuntimeError("secret/path/of/the/server")

    monkeypatch.setattr(Session, "step", fail)
    reply = channel.advance({"run": first["run"], "at": 0, "steps": 1})
    assert "secret" not in reply["error"] and "secret" in caplog.text


def test_the_tracker_cost_is_the_ratio_of_measured_times(channel: Channel) -> None:
    reply = opened(channel)
    reply = channel.command({**known(reply, reply["run"]), "name": "seek", "value": 6})
    frames = channel.registry.get(channel.registry.get(next(iter(channel.registry._entries))).id).item.session.frames
    tracker = sum(frame.tracker_seconds for frame in frames[:7])
    total = sum(frame.seconds for frame in frames[:7])
    assert reply["cost"] == pytest.approx(tracker / (total - tracker))


def test_everything_sent_is_strict_json(channel: Channel) -> None:
    reply = opened(channel)
    run = reply["run"]
    for request in (
        channel.advance({**known(reply, run), "steps": 4}),
        channel.command({**known(reply, run), "name": "seek", "value": LENGTH}),
        reply,
    ):
        json.dumps(request, allow_nan=False)


def test_offered_puzzles_are_the_bundled_ones(channel: Channel) -> None:
    names = [name for _, name, _ in opened(channel)["puzzles"]]
    assert names == [puzzle.name for puzzle in load_puzzles("sudoku-4x4")]
