"""Batches through the channel: rows as they come, stopping, filters, what is remembered of failures, what a stranger may send."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laser_studio.puzzles import get_domain, load_puzzles
from laser_studio.studio import batches
from laser_studio.studio.catalogue import Catalogue, ModelEntry, SourceEntry
from laser_studio.studio.channel import Channel

FOUR = load_puzzles("sudoku-4x4")


@pytest.fixture
def channel(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    monkeypatch.setattr("laser_studio.studio.channel.SEEK_BUDGET_SECONDS", 60.0)
    table = tmp_path / "mine.csv"
    lines = [get_domain("sudoku").format(puzzle).replace("\n", "") for puzzle in FOUR[:6]]
    table.write_text("\n".join(["q,rating", *(f"{line},{n}" for n, line in enumerate(lines)), "12345,9"]))
    entries = [ModelEntry(name, small_checkpoint, name, ("sudoku", 4)) for name in ("small", "again")]
    channel = Channel(Catalogue(entries, device="cpu", sources=[SourceEntry("mine.csv", table)]))
    yield channel
    channel.registry.close_all()


def finished(channel: Channel, job: str) -> dict[str, Any]:
    for _ in range(1_200):
        state = channel.batch({"ask": "follow", "job": job})
        if state["state"] != "running":
            json.dumps(state)
            return state
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def test_a_batch_from_its_start_to_rows_that_open_as_they_say(channel: Channel) -> None:
    opening = channel.batch({"ask": "opening"})
    assert opening["model"] == "small" and opening["source"] == "held-out" and opening["count"] == 60 and opening["job"] is None
    chosen = channel.batch({"ask": "opening", "source": "mine.csv"})
    assert chosen["bands"] == ("rating 0", "rating under 10") and chosen["count"] == 7
    job = channel.batch({"ask": "start", "model": "small", "source": "mine.csv", "count": 10})
    assert job["total"] == 7
    state = finished(channel, job["job"])
    assert (state["state"], state["done"], len(state["rows"])) == ("done", 7, 7)
    assert "5 cells" in state["rows"][6]["problem"] and state["rows"][6]["puzzle"] is None
    for shown in state["rows"][:2]:
        opened = channel.open({"query": f"model=small&cells={shown['puzzle'].removeprefix('cells:')}"})
        assert opened["notices"] == []
        reached = channel.command({"run": opened["run"], "at": 0, "name": "seek", "value": opened["length"]})
        assert reached["frame"]["right"] == shown["right"] and reached["frame"]["resets"] == shown["resets"]
    late = channel.batch({"ask": "follow", "job": job["job"], "since": 5})
    assert [one["id"] for one in late["rows"]] == ["puzzle-0006", "puzzle-0007"]


def test_what_a_batch_found_is_what_the_model_is_known_to_fail(channel: Channel) -> None:
    job = channel.batch({"ask": "start", "model": "small", "source": "mine.csv", "tracker": False})
    state = finished(channel, job["job"])
    failed = [one["id"] for one in state["rows"] if one["outcome"] == "wrong"]
    assert failed and state["rows"][0]["fidelity"] is None
    page = channel.puzzles({"ask": "browse", "source": "mine.csv", "model": "small", "fails": True})
    assert [item["id"] for item in page["items"]] == failed
    again = channel.batch({"ask": "start", "model": "small", "source": "mine.csv", "fails": True, "tracker": False})
    assert again["total"] == len(failed) and finished(channel, again["job"])["state"] == "done"
    other = channel.batch({"ask": "start", "model": "again", "source": "mine.csv", "fails": True})
    assert "no puzzle is left by these filters" in other["error"], "what one model fails says nothing of another"


def test_stopping_keeps_the_rows(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    job = channel.batch({"ask": "start", "model": "small", "source": "held-out", "count": 60})["job"]
    while not channel.batch({"ask": "follow", "job": job})["rows"]:
        time.sleep(0.02)
    assert channel.batch({"ask": "opening"})["job"] == job
    channel.batch({"ask": "follow", "job": job, "stop": True})
    state = finished(channel, job)
    assert state["state"] == "stopped" and 0 < len(state["rows"]) < 60 and state["left"] is None
    monkeypatch.setattr(batches, "MAX_JOBS", 0)
    assert "batches are at work already" in channel.batch({"ask": "start", "model": "small", "source": "held-out"})["error"]


def test_rows_of_old_batches_make_room(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "KEPT_ROWS", 5)
    asked = {"ask": "start", "model": "small", "source": "held-out", "count": 3, "tracker": False}
    jobs = []
    for _ in range(3):
        jobs.append(channel.batch(asked)["job"])
        finished(channel, jobs[-1])
    assert "not known any more" in channel.batch({"ask": "follow", "job": jobs[0]})["error"]
    assert channel.batch({"ask": "follow", "job": jobs[2]})["done"] == 3


def test_filters_and_settings_reach_the_run(channel: Channel) -> None:
    asked = {"ask": "start", "model": "small", "source": "held-out", "band": "hard", "count": 2}
    low = finished(channel, channel.batch({**asked, "settings": {"rank": 5}})["job"])["rows"]
    high = finished(channel, channel.batch({**asked, "settings": {"rank": 90}})["job"])["rows"]
    assert [one["id"] for one in low] == [one["id"] for one in high] == ["hard-0001", "hard-0002"] and low[0]["puzzle"] == "hard-0001"
    assert all(below["fidelity"] < above["fidelity"] for below, above in zip(low, high, strict=True))
    for wrong, message in (
        ({"rank": 500}, "rank"),
        ({"measure": "functional"}, "energy or centred"),
        ({"nonsense": 1}, "nonsense"),
    ):
        assert message in channel.batch({**asked, "settings": wrong})["error"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"ask": "nonsense"},
        {"ask": "start"},
        {"ask": "start", "model": "nobody", "source": "held-out"},
        {"ask": "start", "model": "small", "source": "nowhere"},
        {"ask": "start", "model": "small", "source": "held-out", "count": 0},
        {"ask": "start", "model": "small", "source": "held-out", "count": 10_001},
        {"ask": "start", "model": "small", "source": "held-out", "settings": []},
        {"ask": "follow", "job": "99"},
        {"ask": "follow", "job": ["1"]},
        {"ask": "opening", "model": "nobody"},
        {"ask": "opening", "source": "nowhere"},
    ],
)
def test_a_stranger_gets_one_sentence(channel: Channel, data: Any) -> None:
    assert set(channel.batch(data)) == {"error", "expired"}
