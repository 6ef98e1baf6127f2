"""Evaluations through the channel: shipped reports, jobs with progress, stopping, limits, and what a stranger may send."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from laser_studio.lab.examine import examine
from laser_studio.lab.report import REPORT_FILE, save_report
from laser_studio.studio import evaluations
from laser_studio.studio.catalogue import Catalogue, ModelEntry
from laser_studio.studio.channel import Channel
from laser_studio.trm import load_checkpoint


@pytest.fixture
def channel(small_checkpoint: Path, tmp_path: Path) -> Channel:
    """Offers the small model with a report in its folder, and once without."""
    with_report = tmp_path / "reported"
    shutil.copytree(small_checkpoint, with_report)
    report = examine(load_checkpoint(with_report, device="cpu"), "sudoku", 4, each=3, ranks=("50%",))
    assert report is not None
    save_report(report, with_report / REPORT_FILE)
    entries = [
        ModelEntry("small", small_checkpoint, "small", ("sudoku", 4)),
        ModelEntry("reported", with_report, "reported", ("sudoku", 4)),
    ]
    return Channel(Catalogue(entries, device="cpu"))


def finished(channel: Channel, job: str) -> dict[str, Any]:
    for _ in range(600):
        state = channel.follow({"job": job})
        if state["state"] != "running":
            return state
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def test_a_report_in_the_models_folder_is_shown_and_its_failures_are_offered(channel: Channel) -> None:
    reply = channel.report({"model": "reported"})
    found = reply["found"]
    assert reply["job"] is None and reply["generates"] and [name for name, _ in reply["models"]] == ["small", "reported"]
    assert len(found["bands"]) == 2 and all(
        low <= share <= high for (low, high), share in zip(found["bands"][0][0], found["arms"][0]["exact"][0], strict=True)
    )
    json.dumps(reply)
    assert found["failures"], "an untrained model fails"
    offered = channel.open({"query": "?model=reported"})["puzzles"]
    fails = [entry for entry in offered if entry[2] == "fails"]
    assert [puzzle for _, puzzle, _ in fails] == [one["puzzle"] for one in found["failures"]]
    opened = channel.open({"query": f"?model=reported&puzzle={fails[0][1]}"})
    assert opened["puzzle"]["id"] == fails[0][1] and opened["puzzle"]["difficulty"] == "easy"
    assert channel.report({"model": "small"})["found"] is None
    assert not any(entry[2] == "fails" for entry in channel.open({"query": "?model=small"})["puzzles"])


def test_a_new_evaluation_is_followed_to_its_report(channel: Channel) -> None:
    job = channel.evaluate({"model": "small", "each": 4, "ranks": "50%, 2"})["job"]
    assert channel.evaluate({"model": "small", "each": 9, "ranks": ""})["job"] == job or channel.follow({"job": job})["state"] == "done"
    state = finished(channel, job)
    assert state["state"] == "done" and state["done"] == state["total"] == 4 * 3 * 3
    assert [arm["rank"] for arm in state["found"]["arms"]] == ["", "50%", "2"]
    assert "--each 4 --rank 50% --rank 2" in state["found"]["command"]
    assert channel.report({"model": "small"})["found"] == state["found"]


def test_a_stopped_evaluation_leaves_the_report_from_before(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = channel.report({"model": "reported"})["found"]
    job = channel.evaluate({"model": "reported", "each": 1000, "ranks": "50%"})["job"]
    assert channel.report({"model": "reported"})["job"] == job
    channel.follow({"job": job, "stop": True})
    assert finished(channel, job)["state"] == "stopped"
    assert channel.report({"model": "reported"})["found"] == before
    monkeypatch.setattr(evaluations, "MAX_JOBS", 0)
    assert "at work already" in channel.evaluate({"model": "small", "each": 1, "ranks": ""})["error"]


@pytest.mark.parametrize(
    ("call", "data", "message"),
    [
        ("report", {"model": "other"}, "no model"),
        ("report", {"model": 3}, "model"),
        ("evaluate", {"model": "small", "each": 0}, "each"),
        ("evaluate", {"model": "small", "each": 10**9}, "each"),
        ("evaluate", {"model": "small", "ranks": "a lot"}, "rank"),
        ("evaluate", {"model": "small", "ranks": "1,2,3,4,5,6"}, "at most 5"),
        ("evaluate", {"model": "../../etc", "ranks": ""}, "no model"),
        ("follow", {"job": "17"}, "not known"),
        ("follow", [], "not one the studio knows"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(channel: Channel, call: str, data: Any, message: str) -> None:
    reply = getattr(channel, call)(data)
    assert message in reply["error"] and "Traceback" not in reply["error"]


def test_a_broken_report_is_as_good_as_none(channel: Channel) -> None:
    (channel.catalogue.entries["reported"].path / REPORT_FILE).write_text("{}")
    assert channel.report({"model": "reported"})["found"] is None
