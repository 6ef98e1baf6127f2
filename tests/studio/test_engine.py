"""The engine in a process of its own: same answers as a channel at hand, and its death is told and survived."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laser_studio.studio.catalogue import ModelEntry
from laser_studio.studio.channel import Channel
from laser_studio.studio.engine import EngineProcess


def entries(folder: Path) -> list[ModelEntry]:
    return [ModelEntry("small", folder, "small", ("sudoku", 4))]


@pytest.fixture(scope="module")
def engine(small_checkpoint: Path) -> Iterator[EngineProcess]:
    engine = EngineProcess(entries(small_checkpoint), device="cpu")
    engine.start()
    yield engine
    engine.stop()


def timeless(value: Any) -> Any:
    """A reply without wall times and run ids."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in ("seconds", "tracker_seconds", "cost", "run", "label")}
    return [timeless(part) for part in value] if isinstance(value, list | tuple) else value


def test_it_answers_as_a_channel_at_hand(engine: EngineProcess, channel: Channel) -> None:
    there, here = engine.open({"query": "rank=40%25"}), channel.open({"query": "rank=40%25"})
    assert timeless(there) == timeless(here)
    for name, request in (
        ("command", {"name": "seek", "value": 2}),
        ("tune", {"changes": {"rank": 60}, "at": 2}),
        ("advance", {"steps": 1, "at": 2}),
    ):
        there_next, here_next = (
            getattr(side, name)({"at": 0, "run": run["run"], **request}) for side, run in ((engine, there), (channel, here))
        )
        assert timeless(there_next) == timeless(here_next) and "error" not in there_next
    texts = [side.python({"run": run["run"], "at": 3})["python"] for side, run in ((engine, there), (channel, here))]
    assert texts[0] == texts[1]
    asked: dict[str, Any]
    for function, asked in (("puzzles", {"ask": "sources", "model": "small"}), ("batch", {"ask": "opening"}), ("puzzles", {"ask": "none"})):
        assert {**getattr(engine, function)(asked), "models": 0} == {**getattr(channel, function)(asked), "models": 0}
    assert engine.leave({"run": there["run"]}) == {"left": True}
    assert engine.open({"resume": there["run"]})["resumed"]
    assert engine.close({"run": there["run"]}) == {"closed": True}


@pytest.mark.parametrize("data", [None, "x", {"run": 1}, {"nonsense": [[]]}])
def test_nonsense_is_answered_across_the_boundary(engine: EngineProcess, data: Any) -> None:
    assert set(engine.advance(data)) == {"error", "expired"}


def test_what_nests_too_deeply_is_refused(engine: EngineProcess) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    reply = engine.advance(deep)
    assert set(reply) == {"error", "expired"}
    while deep:  # taken apart by hand: its own destructor would recurse
        deep = deep[0]
    assert "error" not in engine.open({"query": ""})


def test_a_dead_engine_is_told_and_replaced(engine: EngineProcess) -> None:
    run = engine.open({"query": ""})["run"]
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until = time.monotonic() + 20
    while engine._connection is not None and time.monotonic() < until:
        time.sleep(0.01)
    reply = engine.advance({"run": run, "at": 0, "steps": 1})
    assert reply["expired"] and "reload" in reply["error"]
    assert "error" not in engine.open({"query": ""})
    assert engine.pid != first


def test_stopping_ends_the_process_and_further_requests_are_answered(small_checkpoint: Path) -> None:
    engine = EngineProcess(entries(small_checkpoint), device="cpu")
    engine.start()
    process = engine._process
    assert process is not None
    engine.stop()
    assert not process.is_alive()
    assert "closing" in engine.open({"query": ""})["error"]


def test_a_device_that_is_not_there_is_told(small_checkpoint: Path) -> None:
    engine = EngineProcess(entries(small_checkpoint), device="abacus")
    engine.start()
    until = time.monotonic() + 60
    while engine.problem is None and time.monotonic() < until:
        time.sleep(0.05)
    assert engine.problem is not None and "abacus" in engine.problem
    assert "abacus" in engine.open({"query": ""})["error"]
    engine.stop()
