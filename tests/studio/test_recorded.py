"""Recordings through the channel: offered beside the models, read along while they grow, never tuned, never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laser_studio.debugger import Watcher, watch
from laser_studio.laser import LaserPolicy
from laser_studio.studio.catalogue import RECORDING_START, Catalogue, ModelEntry, find_recordings
from laser_studio.studio.channel import Channel
from laser_studio.studio.registry import Registry, StudioError

Growing = tuple[Path, Callable[[int], None], Watcher]


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.inner(x)) + x
        return self.head(x)


def forwards(model: Loop, watcher: Watcher, number: int) -> None:
    for _ in range(number):
        watcher.note("loss", model(torch.randn(5, 12)).square().mean())


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    """A recording of two forwards, and what makes it grow by more."""
    model, path = Loop(), tmp_path / "my run.jsonl"
    watcher = watch(model, path, policy=LaserPolicy(rank=3, min_fidelity=0.3, refresh="supervision"), every=2)
    forwards(model, watcher, 2)
    yield path, lambda number: forwards(model, watcher, number), watcher
    watcher.close()


def serving(path: Path, *models: ModelEntry) -> Channel:
    return Channel(Catalogue(models, device="cpu", recordings=find_recordings([path], models)), Registry(capacity=4, grace_seconds=0))


def ask(channel: Channel, function: str, reply: dict[str, Any], **more: Any) -> dict[str, Any]:
    known = {"run": reply["run"], "at": 0, "since": 0, "epoch": 0}
    answer = getattr(channel, function)(known | more)
    assert "error" not in answer, answer
    return {"run": reply["run"], **answer}


def test_a_page_opens_on_the_recording_and_reads_along(growing: Growing, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.channel.STEP_BUDGET_SECONDS", 60.0)  # on a slow machine five steps would take two replies
    path, grow, watcher = growing
    channel = serving(path, ModelEntry("small", small_checkpoint, "small", ("sudoku", 4)))
    assert channel.catalogue.choices == [("my run · watched", "my run"), ("small", "small")]
    reply = channel.open({"query": ""})
    assert reply["model"]["watched"] == "Loop" and reply["puzzle"]["cells"] == [] and reply["link"] == "model=my+run&step=0"
    assert [(site["name"], site["dim"], site["label"]) for site in reply["sites"]] == [("inner", 12, "inner"), ("head", 12, "head")]
    assert (reply["head"], reply["length"], reply["state"], reply["ended"]) == (6, 6, "paused", "")
    assert reply["settings"] == {
        "rank": 3,
        "min_fidelity": 0.3,
        "patience": 3,
        "refresh": "supervision",
        "measure": "energy",
        "growth": 8,
        "sites": {},
    }
    assert reply["notes"] == {"start": 0, "rows": [(name, step, value) for name, curve in watcher.notes.items() for step, value in curve]}
    row = reply["rows"][5]
    assert row["residual"] == watcher.frames[5].residual and row["q_halt"] is row["changed"] is row["right"] is None and row["latent"] == []

    reply = ask(channel, "advance", reply, at=6, since=7, steps=5, notes_since=2)
    assert (reply["frame"]["index"], reply["state"], reply["rows"], reply["notes"]["rows"]) == (6, "paused", [], [])
    grow(3)
    reply = ask(channel, "advance", reply, at=6, since=7, steps=5, notes_since=2, site="inner", spectra_since=7)
    assert (reply["frame"]["index"], reply["head"]) == (11, 15)
    assert [row["index"] for row in reply["rows"]] == list(range(7, 16)) and len(reply["notes"]["rows"]) == 3
    assert reply["spectra"]["rows"] == [list(shares or ()) or None for shares in watcher.spectra("inner", 7, 16)]
    assert reply["frame"]["sites"]["inner"]["fidelity"] == watcher.frames[11].sites["inner"].fidelity
    reply = ask(channel, "command", reply, at=11, since=16, name="seek", value=1_000_000)
    assert (reply["frame"]["index"], reply["state"], reply["link"]) == (15, "paused", "model=my+run&step=15")
    assert reply["noted"] == {"loss": watcher.notes["loss"][-1][1]}
    assert ask(channel, "command", reply, at=15, name="back")["frame"]["index"] == 14
    assert ask(channel, "command", reply, at=14, name="seek", value=4)["noted"] == {"loss": dict(watcher.notes["loss"])[3]}
    assert ask(channel, "command", reply, at=4, name="seek", value=2)["noted"] == {"loss": None}
    assert ask(channel, "command", reply, at=14, name="restart")["frame"]["index"] == 0
    watcher.close()
    reply = ask(channel, "advance", reply, at=15, since=16, steps=1)
    assert (reply["state"], reply["ended"], reply["problem"]) == ("done", "closed", None)
    resumed = channel.open({"query": "", "resume": reply["run"]})
    assert resumed["resumed"] and resumed["head"] == 15


def test_settings_options_and_scripts_are_refused(growing: Growing) -> None:
    channel = serving(growing[0])
    channel.preload()
    run = channel.open({"query": "model=my+run&rank=50%25&step=4"})
    assert run["target"] == 4 and run["notices"] == [] and run["settings"]["rank"] == 3
    for changes in ({"rank": 50.0}, {"beyond": True}, {"sites": {"inner": {"rank": 10}}}):
        answer = channel.tune({"run": run["run"], "at": 4, "since": 0, "epoch": 0, "changes": changes})
        assert answer == {"error": "this run was recorded in another process: settings are those of the recording", "expired": False}
    assert "WatchedRun('my run.jsonl')" in channel.python({"run": run["run"], "at": 0})["error"]


def test_a_file_that_breaks_is_told_and_what_was_read_stays(growing: Growing) -> None:
    path, _, _ = growing
    channel = serving(path)
    reply = channel.open({"query": ""})
    with path.open("ab") as file:
        file.write(b'{"frame": 1}\n')
    reply = ask(channel, "advance", reply, at=6, since=7, steps=1)
    assert (reply["state"], reply["frame"]["index"]) == ("error", 6)
    assert reply["problem"].startswith("my run.jsonl, line 11: ") and str(path.parent) not in json.dumps(reply)
    reply = ask(channel, "command", reply, at=6, name="back")
    assert (reply["state"], reply["frame"]["index"]) == ("paused", 5)
    fresh = channel.open({"query": ""})
    assert fresh["error"].startswith("my run.jsonl, line 11: ")


def test_names_are_told_apart_and_other_files_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with watch(Loop(), tmp_path / folder / "run.jsonl") as watcher:
            forwards(watcher.module, watcher, 1)  # type: ignore[arg-type]
    model = ModelEntry("run", tmp_path, "run")
    found = find_recordings([tmp_path / "a" / "run.jsonl", tmp_path / "b" / "run.jsonl"], [model])
    assert [entry.name for entry in found] == ["run (2)", "run (3)"]
    assert (tmp_path / "a" / "run.jsonl").read_bytes().startswith(RECORDING_START)
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    for path in (other, tmp_path):
        with pytest.raises(StudioError, match=r"--watch .*: this is no recording"):
            find_recordings([path])
    (later,) = find_recordings([tmp_path / "later.jsonl"])
    channel = Channel(Catalogue([], recordings=[later]))
    assert "later.jsonl: nothing is recorded there yet: start the run" in channel.open({"query": ""})["error"]
