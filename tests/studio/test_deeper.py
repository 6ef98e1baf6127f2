"""What a page is told when it looks deeper: equal to what the engine says, bounded, and refused in one sentence where it cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from laser_studio.debugger import Detectors, Session
from laser_studio.debugger.looking import directions, latents, removals, token_probabilities
from laser_studio.debugger.mixing import mixing
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.channel import Channel
from laser_studio.studio.controls import TrackerView
from laser_studio.studio.inquiries import deeper
from tests.studio.test_channel import known, opened, session_for

SITE = "layers.0.mlp.down_proj"


@pytest.fixture
def page(channel: Channel) -> tuple[Channel, str]:
    """A run that a page has taken to step 10."""
    reply = opened(channel)
    channel.advance({**known(reply, reply["run"]), "steps": 10})
    return channel, reply["run"]


def session_at(catalogue: Catalogue, step: int) -> Session:
    session = session_for(catalogue, TrackerView())
    session.seek(step)
    return session


def near(told: Any, values: Any) -> None:
    """Nested lists that are tensors to four digits."""
    flat = [told]
    while flat and isinstance(flat[0], list):
        flat = [one for some in flat for one in some]
    assert flat == pytest.approx(values.flatten().tolist(), rel=1e-3, abs=1e-6)


def ask(channel: Channel, run: str, name: str, at: int = 10, **values: Any) -> dict[str, Any]:
    reply = channel.inquire({"run": run, "at": at, "name": name, **values})
    json.dumps(reply, allow_nan=False)
    return reply


def test_a_cell_is_told_as_the_engine_knows_it(page: tuple[Channel, str], catalogue: Catalogue) -> None:
    told, session = ask(*page, "deeper.cell", cell=5), session_at(catalogue, 10)
    found = token_probabilities(session, 5)
    assert told["labels"] == ("–", "blank", "1", "2", "3", "4") and told["steps"] == found.steps == (3, 6, 9)
    near(told["values"], found.values)
    for state in ("z_H", "z_L"):
        trail = latents(session, 5, state)
        assert told["states"][state]["steps"] == trail.steps
        near(told["states"][state]["values"], trail.values)
    assert (told["first"], told["last"]) == (0, 10)


def test_of_a_long_run_a_bounded_part_about_the_shown_step_is_sent(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeper, "MOST_UPDATES", 4)
    reply = opened(channel, "beyond=1")
    run = reply["run"]
    channel.advance({**known(reply, run), "steps": 60})
    newest = ask(channel, run, "deeper.cell", at=60, cell=0)
    assert newest["steps"] == (51, 54, 57, 60) and newest["first"] == 49 and newest["last"] == 60
    early = ask(channel, run, "deeper.cell", at=20, cell=0)
    assert early["steps"] == (15, 18, 21, 24) and early["first"] == 13 and early["last"] == 24
    assert early["states"]["z_H"]["steps"] == (15, 18, 21, 24) and early["states"]["z_L"]["steps"][0] == 13


@pytest.mark.parametrize("at", [1, 3, 8, 10])
def test_mixing_and_directions_are_told_as_the_engine_finds_them(page: tuple[Channel, str], catalogue: Catalogue, at: int) -> None:
    session = session_at(catalogue, 10)
    told, found = ask(*page, "deeper.mixing", at=at, cell=3, layer=1), mixing(session, 3, at, 1)
    assert (told["kind"], told["step"], told["cell"], told["layer"], told["prefix"]) == ("attention", at, 3, 1, 0)
    near(told["exact"], found.exact.weights)
    assert (told["compressed"] is None) == (at <= 3)
    if found.compressed is not None:
        near(told["compressed"], found.compressed.weights)
        near(told["moved"], found.moved)

    without, with_flips = (ask(*page, "deeper.directions", at=at, site=SITE, flips=flips) for flips in (False, True))
    found_directions = directions(session, SITE, at, 6)
    removed = removals(session, found_directions)
    for plain, flipped, one, removal in zip(
        without["directions"], with_flips["directions"], found_directions.directions, removed, strict=True
    ):
        near(plain["cells"], one.cells)
        assert plain["share"] == pytest.approx(one.share) and plain["flips"] is None and plain["kl"] is None
        assert dict(flipped["flips"]) == removal.flips and flipped["kl"] == removal.kl
    assert without["kept"] == pytest.approx(found_directions.kept) and without["rank"] == found_directions.rank


def test_findings_are_announced_with_each_reply_and_told_when_asked(channel: Channel, catalogue: Catalogue) -> None:
    reply = opened(channel, "beyond=1")
    run = reply["run"]
    assert reply["findings"]["count"] == 0
    versions = set()
    for _ in range(20):
        reply = channel.advance({**known(reply, run), "steps": 10})
        versions.add(reply["findings"]["version"])
    told = ask(channel, run, "deeper.findings", at=200)
    session = session_at(catalogue, 12)
    session.beyond = True
    session.seek(200)
    expected = Detectors.of(session).follow(session)
    assert expected and reply["findings"] == {"version": told["version"], "count": len(expected)} and len(versions) > 1
    assert [one["text"] for one in told["findings"]] == [one.text for one in reversed(expected)]
    assert [one["span"] for one in told["findings"]] == [one.span for one in reversed(expected)]


def test_looking_changes_nothing_of_the_run(channel: Channel) -> None:
    def frames(looks: bool) -> list[Any]:
        reply = opened(channel)
        run, shown = reply["run"], []
        for _ in range(12):
            reply = channel.advance({**known(reply, run), "steps": 1})
            at = reply["frame"]["index"]
            if looks:
                ask(channel, run, "deeper.directions", at=at, site=SITE, flips=True)
                ask(channel, run, "deeper.mixing", at=max(1, at - 2), cell=0)
            shown.append([reply["frame"]["answer"], reply["frame"]["residual"], reply["frame"]["sites"][SITE]["fidelity"]])
        return shown

    assert frames(True) == frames(False)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("deeper.cell", {}, "cell"),
        ("deeper.cell", {"cell": -1}, "cell"),
        ("deeper.cell", {"cell": 16}, "no cell 16"),
        ("deeper.cell", {"cell": 10**9}, "cell"),
        ("deeper.mixing", {"cell": 0, "layer": 9}, "no layer 9"),
        ("deeper.mixing", {"cell": 0, "at": 0}, "nothing has been applied"),
        ("deeper.mixing", {"cell": 0, "at": 999}, "not recorded"),
        ("deeper.directions", {"site": "<img onerror=alert(1)>"}, "no site"),
        ("deeper.directions", {"site": SITE, "flips": "maybe"}, "flips"),
        ("deeper.directions", {"site": SITE, "more": 1}, "more"),
        ("deeper.nothing", {}, "not one the studio knows"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(page: tuple[Channel, str], name: str, values: dict[str, Any], says: str) -> None:
    channel, run = page
    reply = ask(channel, run, name, **values)
    assert says in reply["error"] and not reply["expired"]
    assert ask(channel, run, "deeper.cell", cell=0)["steps"] == (3, 6, 9)
