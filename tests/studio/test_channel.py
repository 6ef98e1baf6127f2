"""The live channel: what it answers equals what a session of one's own computes, whatever a page does; nothing it is sent hurts."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from laser_studio.debugger import Measures, Session
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import load_puzzles
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.channel import Channel
from laser_studio.studio.controls import RunOptions, TrackerView
from laser_studio.studio.presets import presets_json
from laser_studio.studio.registry import Registry
from tests.laser.helpers import traces

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
        site.pop("best_angles", None)
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
    assert reply["settings"] == reply["defaults"] == TrackerView().to_json()
    assert reply["options"] == RunOptions().to_json() and reply["presets"] == presets_json()
    assert not reply["resumed"] and reply["spectra"] is None and reply["best_turns"] == {}
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


def test_replies_tell_what_the_page_need_not_remember(channel: Channel, catalogue: Catalogue) -> None:
    reply = opened(channel, "functional=1&best=1")
    run = reply["run"]
    session = session_for(catalogue)
    session.set_measures(Measures(functional=True, best=True))
    assert reply["farthest"] == LENGTH + 100_000 and opened(channel, "beyond=1")["farthest"] == reply["farthest"]
    assert (reply["event_count"], reply["causes"], reply["gaps"], reply["measured"]) == (0, {}, {}, {"functional": None, "gradient": None})
    session.seek(LENGTH)
    reply = channel.command({**known(reply, run), "name": "seek", "value": LENGTH})
    total = sum(len(frame.events) for frame in session.frames)
    assert reply["event_count"] == total > 0
    for step in (10, 7):  # also at an old step, from which a page may have let go what lies around it
        reply = channel.command({**known(reply, run), "name": "seek", "value": step})
        newest = max(frame.index for frame in session.frames[: step + 1] if frame.functional is not None)
        assert reply["measured"]["functional"]["step"] == newest and reply["measured"]["gradient"] is None
        assert reply["measured"]["functional"]["kl"] == session.frames[newest].kl
        assert {gap["step"] for gap in reply["gaps"].values()} <= set(range(step + 1))
        said = [event for frame in session.frames[: step + 1] for event in frame.events if event.site == DOWN]
        assert reply["causes"][DOWN] == {"step": said[-1].step, "text": said[-1].text}
        assert reply["event_count"] == total


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
    assert reply["settings"] == TrackerView(rank=60, min_fidelity=1.0, patience=1).to_json()
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
    monkeypatch.setattr("laser_studio.studio.run.EPOCHS_REMEMBERED", 2)
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
    assert traces(model) == 0


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
@pytest.mark.parametrize("name", ["advance", "command", "tune", "python", "leave", "close", "open"])
def test_nonsense_is_answered_with_one_plain_message(channel: Channel, name: str, data: Any) -> None:
    reply = getattr(channel, name)(data)
    if name in ("open", "close", "leave") and "error" not in reply:
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
        ("tune", {"changes": {"rank": 60, "best": "perhaps"}}),
        ("tune", {"changes": {"best": True, "rank": 0}}),
        ("tune", {"changes": {"batch": 4}}),
        ("tune", {"changes": {"refresh": "\x1b[31mred"}}),
        ("tune", {"changes": {"sites": {"layers.9.mlp.down_proj": {"enabled": False}}}}),
        ("tune", {"changes": {"sites": {"layers.0.mlp.down_proj": {"rank": 0}}}}),
        ("tune", {"changes": {"sites": {"layers.*": {"rank": 50}}}}),
        ("advance", {"site": 5}),
        ("advance", {"spectra_since": -1}),
    ],
)
def test_values_out_of_range_change_nothing(channel: Channel, name: str, change: dict[str, Any]) -> None:
    first = opened(channel)
    reply = getattr(channel, name)({"run": first["run"], "at": 0, **change})
    assert set(reply) == {"error", "expired"} and not reply["expired"]
    after = channel.advance({"run": first["run"], "at": 0, "steps": 0})
    assert plain(after["frame"]) == plain(first["frame"])
    assert (after["settings"], after["options"]) == (first["settings"], first["options"]) and reply["error"].isprintable()


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


DOWN, QKV = "layers.0.mlp.down_proj", "layers.0.self_attn.qkv_proj"


def sought(channel: Channel, reply: dict[str, Any], step: int, **more: Any) -> dict[str, Any]:
    return channel.command({**known(reply, reply["run"]), "name": "seek", "value": step, **more}) | {"run": reply["run"]}


def tuned(channel: Channel, reply: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = channel.tune({**known(reply, reply["run"]), "changes": changes})
    assert "error" not in answer, answer
    return answer | {"run": reply["run"]}


def test_single_sites_have_settings_of_their_own(channel: Channel, catalogue: Catalogue) -> None:
    reply = tuned(channel, opened(channel), sites={DOWN: {"rank": 50}, QKV: {"enabled": False}})
    assert reply["settings"]["sites"] == {DOWN: {"rank": 50}, QKV: {"enabled": False}}
    reply = sought(channel, reply, 6)
    session = session_for(catalogue)
    session.set_policy(LaserPolicy(rank="25%", sites={DOWN: {"rank": "50%"}, QKV: {"enabled": False}}))
    assert plain(reply["frame"]) == plain(session.seek(6).to_json())
    assert QKV not in reply["frame"]["sites"] and reply["frame"]["sites"][DOWN]["rank"] >= 128
    reply = tuned(channel, reply, sites={QKV: None})
    assert reply["settings"]["sites"] == {DOWN: {"rank": 50}}
    again = opened(channel, reply["link"])
    assert again["settings"]["sites"] == {DOWN: {"rank": 50}, QKV: {"enabled": False}} and again["notices"] == []
    assert plain(sought(channel, again, 9)["frame"]) == plain(sought(channel, reply, 9)["frame"])


def test_a_link_may_switch_every_site_off(channel: Channel) -> None:
    names = [site["name"] for site in opened(channel)["sites"]]
    reply = opened(channel, "&".join(f"site={name}~off" for name in names))
    assert [site["name"] for site in reply["sites"]] == names  # still there to be switched on
    assert sought(channel, reply, LENGTH)["frame"]["sites"] == {}


def test_sites_the_model_does_not_have_are_left_out_with_a_notice(channel: Channel) -> None:
    reply = opened(channel, f"site=layers.7.mlp.down_proj~off&site={DOWN}~eps=0.9&change=3~site=nowhere:off&step=5")
    assert reply["settings"]["sites"] == {DOWN: {"min_fidelity": 0.9}}
    assert len(reply["notices"]) == 1 and "layers.7.mlp.down_proj, nowhere" in reply["notices"][0]
    assert "error" not in sought(channel, reply, 5)


def test_options_of_a_link_are_the_runs_and_go_on_in_its_link(channel: Channel, catalogue: Catalogue) -> None:
    query = "batch=3&beyond=1&functional=1&gradient=1&best=1"
    reply = opened(channel, query)
    assert reply["options"] == {"batch": 3, "beyond": True, "functional": True, "gradient": True, "history": 256, "best": True}
    assert all(part in reply["link"] for part in query.split("&"))
    reply = sought(channel, reply, 6)
    puzzle = catalogue.first_puzzle("small")
    session = Session(
        catalogue.load("small"),
        catalogue.puzzle("small", puzzle),
        policy=TrackerView().policy(),
        companions=[companion for _, companion in catalogue.companions("small", puzzle, 2)],
        measures=Measures(functional=True, gradient=True, best=True),
    )
    assert plain(reply["frame"]) == plain(session.seek(6).to_json())
    frame = reply["frame"]
    assert frame["batch"] == 3 and None not in (frame["functional"], frame["gradient"], frame["sites"][DOWN]["best"])
    assert len(reply["rows"][-1]["sites"][DOWN]) == 7 and reply["rows"][-1]["kl"] is not None


def test_figures_can_be_asked_for_on_the_way(channel: Channel) -> None:
    reply = sought(channel, opened(channel), 3)
    assert reply["frame"]["functional"] is None
    reply = tuned(channel, reply, functional=True)
    assert reply["options"]["functional"] and "functional=1" in reply["link"] and reply["epoch"] == 0
    assert sought(channel, reply, 6)["frame"]["functional"] is not None
    assert "functional=1" not in tuned(channel, reply, functional=False)["link"]


def test_settings_and_options_change_together(channel: Channel) -> None:
    reply = tuned(channel, opened(channel), rank=60, growth=2, measure="centred", best=True)
    assert (reply["settings"]["rank"], reply["settings"]["growth"], reply["settings"]["measure"]) == (60, 2, "centred")
    assert reply["options"]["best"]


def test_a_run_goes_on_past_the_trained_depth_by_a_switch(channel: Channel) -> None:
    reply = sought(channel, opened(channel), 100)
    assert reply["frame"]["index"] == LENGTH and reply["state"] == "done"
    reply = tuned(channel, reply, beyond=True)
    assert reply["state"] == "paused"
    reply = sought(channel, reply, LENGTH + 5)
    assert reply["frame"]["index"] == LENGTH + 5 and reply["frame"]["finite"]
    again = opened(channel, reply["link"])
    assert again["target"] == LENGTH + 5 and again["length"] == LENGTH and again["notices"] == []
    assert plain(sought(channel, again, LENGTH + 5)["frame"]) == plain(reply["frame"])
    reply = tuned(channel, reply, beyond=False)
    assert reply["state"] == "done" and not reply["options"]["beyond"]
    assert "beyond=1" in reply["link"]  # or it would not lead there


def test_a_run_past_the_trained_depth_is_bounded(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.run.MOST_BEYOND", 7)
    reply = opened(channel, "beyond=1&step=5000")
    assert reply["target"] == LENGTH + 7 and "past the end" in reply["notices"][0]
    reply = sought(channel, reply, 5000)
    assert reply["frame"]["index"] == LENGTH + 7 and reply["state"] == "done" and "restart" in reply["problem"]
    assert channel.advance({**known(reply, reply["run"]), "steps": 3})["frame"]["index"] == LENGTH + 7
    assert sought(channel, reply, 2)["problem"] is None


def test_spectra_of_the_selected_site_come_along(channel: Channel, catalogue: Catalogue) -> None:
    reply = sought(channel, opened(channel), 8, site=DOWN)
    session = session_for(catalogue)
    session.seek(8)
    expected = [None if row is None else [float(f"{share:.3g}") for share in row] for row in session.spectra(DOWN, 0, 9)]
    assert reply["spectra"] == {"site": DOWN, "start": 0, "rows": expected}
    assert any(row and 0 < len(row) <= 64 and sum(row) <= 1.01 for row in expected)
    reply = sought(channel, reply, 10, site=DOWN, spectra_since=9)
    assert reply["spectra"]["start"] == 9 and len(reply["spectra"]["rows"]) == 2
    assert sought(channel, reply, 10, site="nowhere")["spectra"] is None


def test_spectra_that_a_change_made_untrue_come_again(channel: Channel) -> None:
    far = sought(channel, opened(channel), 9, site=DOWN)
    near = sought(channel, far, 4, site=DOWN, spectra_since=10)
    channel.tune({**known(near, near["run"]), "changes": {"rank": 60}})  # this reply is lost
    reply = channel.command({**known(near, near["run"]), "name": "seek", "value": 7, "site": DOWN, "spectra_since": 10})
    assert reply["start"] == reply["spectra"]["start"] == 5 and len(reply["spectra"]["rows"]) == 3


def test_angles_to_the_best_basis_come_when_asked(channel: Channel) -> None:
    reply = sought(channel, opened(channel, "best=1"), 9)
    turn = reply["best_turns"][DOWN]
    assert turn["step"] <= 9 and turn["angles"] == sorted(turn["angles"], reverse=True) and turn["angles"]
    assert "best_angles" not in reply["frame"]["sites"][DOWN]


def test_companions_are_the_next_of_the_same_difficulty_and_begin_again(catalogue: Catalogue) -> None:
    alike = [puzzle.name for puzzle in load_puzzles("sudoku-4x4") if puzzle.difficulty == "easy"]
    names = [name for name, _ in catalogue.companions("small", alike[-2], 3)]
    assert names == [alike[-1], alike[0], alike[1]]
    many = [name for name, _ in catalogue.companions("small", alike[0], 63)]
    assert len(many) == 63 and many[: len(alike)] == [*alike[1:], alike[0]]
    assert [name for name, _ in catalogue.companions("small", "generated:easy:5", 2)] == alike[:2]
    assert catalogue.companions("small", alike[0], 0) == []


def test_without_a_bundled_set_the_next_seeds_are_companions(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Catalogue, "puzzles", lambda *_: ())
    companions = catalogue.companions("small", "generated:easy:999999", 2)
    assert [name for name, _ in companions] == ["generated:easy:0", "generated:easy:1"]
    assert companions[1][1] == catalogue.puzzle("small", "generated:easy:1")


def test_a_reload_keeps_the_run(channel: Channel) -> None:
    first = opened(channel, "rank=40%25")
    run = first["run"]
    reply = tuned(channel, sought(channel, first, 4), rank=60)
    reply = sought(channel, sought(channel, reply, 8), 6)
    assert channel.leave({"run": run}) == {"left": True}
    again = channel.open({"query": "rank=40%25", "resume": run})
    assert again["resumed"] and again["run"] == run and again["target"] == again["frame"]["index"] == 6
    assert again["epoch"] == reply["epoch"] and [row["index"] for row in again["rows"]] == list(range(9))
    assert again["settings"] == reply["settings"] and again["link"] == reply["link"] and again["frame"] == reply["frame"]
    for part in ("model", "puzzle", "puzzles", "sites", "length", "presets", "defaults"):
        assert again[part] == first[part]
    assert len(channel.registry) == 1


def test_a_run_that_is_gone_cannot_be_resumed_and_the_link_opens(channel: Channel) -> None:
    run = opened(channel)["run"]
    channel.close({"run": run})
    for gone in (run, "guess", "x" * 5_000):
        reply = channel.open({"query": "rank=40%25", "resume": gone})
        assert not reply["resumed"] and reply["run"] != run and reply["settings"]["rank"] == 40


def test_a_run_whose_page_left_ends_after_a_while(catalogue: Catalogue) -> None:
    now = [0.0]
    channel = Channel(catalogue, Registry(clock=lambda: now[0]))
    run = opened(channel)["run"]
    channel.leave({"run": run})
    now[0] = 19.0
    channel.registry.sweep()
    assert channel.open({"resume": run})["resumed"]
    now[0] = 60.0
    channel.registry.sweep()
    assert channel.advance({"run": run, "at": 0})["state"] == "paused"
    channel.leave({"run": run})
    now[0] = 81.0
    channel.registry.sweep()
    assert channel.advance({"run": run, "at": 0})["expired"]
    channel.registry.close_all()


def test_more_changes_than_a_link_can_hold_are_refused(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.run.LONGEST_LINK", 200)
    reply = sought(channel, opened(channel), 2)
    reply = tuned(channel, reply, rank=60)
    reply = sought(channel, reply, 3)
    refused = channel.tune({**known(reply, reply["run"]), "changes": {"sites": {DOWN: {"rank": 77, "min_fidelity": 0.99}}}})
    assert "restart" in refused["error"]
    assert sought(channel, reply, 3)["settings"] == reply["settings"]


def test_what_is_told_of_the_past_follows_a_change(channel: Channel) -> None:
    reply = sought(channel, opened(channel), 9)
    reply = sought(channel, reply, 4)
    reply = sought(channel, tuned(channel, reply, refresh="step"), 8)  # other steps refresh now than did before
    frames = channel.registry.get(reply["run"]).item.session.frames
    for at in range(8, 0, -1):
        reply = sought(channel, reply, at)
        turned = [index for index in range(at + 1) if frames[index].sites and frames[index].sites[DOWN].angles is not None]
        assert reply["turns"].get(DOWN, {"step": None})["step"] == max(turned, default=None)
        tracker, total = (sum(getattr(frame, part) for frame in frames[: at + 1]) for part in ("tracker_seconds", "seconds"))
        assert reply["cost"] == pytest.approx(tracker / (total - tracker))
