"""Anything with frames can be shown: a run that was only recorded goes through the same channel as a live session."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from laser_studio.debugger import Bookmarks, Breakpoints, Frame, Hit, Measures, Scope, Session, Watches
from laser_studio.debugger.stepping import Size
from laser_studio.laser import LaserPolicy
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.channel import Channel
from laser_studio.studio.controls import RunOptions, TrackerView
from laser_studio.studio.live import LiveSession, Subject
from laser_studio.studio.registry import StudioError
from laser_studio.studio.run import Run

SITE = "layers.0.mlp.down_proj"


class Recorded:
    """Frames without a model behind them."""

    def __init__(self, session: Session) -> None:
        self.frames: Sequence[Frame] = tuple(session.frames)
        self.sites: Mapping[str, int] = session.sites
        self.beyond, self.epoch, self.cursor = False, 0, 0
        self.history_bytes = 0
        scope = Scope(tuple(session.sites))
        self.breakpoints, self.watches, self.bookmarks = Breakpoints(scope), Watches(scope), Bookmarks()
        self.stopped_by: tuple[Hit, ...] = ()
        self.shares = {site: session.spectra(site, 0, session.head + 1) for site in session.sites}

    @property
    def frame(self) -> Frame:
        return self.frames[self.cursor]

    @property
    def head(self) -> int:
        return len(self.frames) - 1

    @property
    def length(self) -> int:
        return self.head

    @property
    def finished(self) -> bool:
        return self.cursor == self.head

    def seek(self, index: int) -> Frame:
        self.cursor = max(0, min(index, self.head))
        return self.frame

    def step(self) -> Frame:
        return self.seek(self.cursor + 1)

    def back(self) -> Frame:
        return self.seek(self.cursor - 1)

    def restart(self) -> Frame:
        return self.seek(0)

    def end_after(self, size: Size) -> int:
        return self.cursor + 1

    def end_before(self, size: Size) -> int:
        return self.cursor - 1

    def way_out(self) -> int:
        return self.head

    def run_back(self, *, breakpoints: bool = False, max_steps: int | None = None) -> Frame:
        return self.seek(0)

    def set_policy(self, policy: LaserPolicy) -> None:
        raise StudioError("a recorded run cannot be changed")

    def set_measures(self, measures: Measures) -> None:
        raise StudioError("a recorded run cannot be changed")

    def spectra(self, site: str, start: int, stop: int) -> Sequence[Sequence[float] | None]:
        return self.shares[site][start:stop]

    def close(self) -> None:
        self.cursor = 0


class Recording:
    """Something that is neither a model of the catalogue nor a puzzle."""

    model = puzzle_id = None

    def about(self) -> dict[str, Any]:
        return {"model": {"name": "mine"}, "puzzle": None, "puzzles": [], "generates": False}

    def script(self) -> tuple[list[str], list[str]]:
        raise StudioError("a recorded run has no script")


@pytest.fixture
def session(catalogue: Catalogue) -> Iterator[Session]:
    session = Session(catalogue.load("small"), catalogue.puzzle("small", catalogue.first_puzzle("small")))
    session.seek(session.length)
    yield session
    session.close()


def test_a_recorded_run_is_shown_by_the_same_channel(channel: Channel, session: Session) -> None:
    live: LiveSession = Recorded(session)
    subject: Subject = Recording()
    run = channel.registry.add(Run(live, subject, {0: TrackerView()}))
    reply = channel.open({"resume": run})
    assert reply["resumed"] and reply["puzzle"] is None and reply["model"] == {"name": "mine"}
    assert [row["index"] for row in reply["rows"]] == list(range(session.length + 1))
    at = {"run": run, "since": session.length + 1}
    reply = channel.command({**at, "at": 0, "name": "seek", "value": 7, "site": SITE})
    assert reply["frame"]["residual"] == session.frames[7].residual and len(reply["spectra"]["rows"]) == session.length + 1
    assert channel.advance({**at, "at": 7, "steps": 100})["state"] == "done"
    json.dumps(reply, allow_nan=False)
    for changes in ({"rank": 60}, {"best": True}):
        refused = channel.tune({**at, "at": 7, "changes": changes})
        assert refused == {"error": "a recorded run cannot be changed", "expired": False}
    after = channel.advance({**at, "at": 7})
    assert after["settings"] == TrackerView().to_json() and after["options"] == RunOptions().to_json()
    assert channel.python({"run": run, "at": 7})["error"] == "a recorded run has no script"
