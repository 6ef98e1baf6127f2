"""The one function for all questions beside moving: names, runs and values are checked, and the cursor follows the page."""

from __future__ import annotations

from typing import Any

import pytest

from laser_studio.errors import LaserStudioError
from laser_studio.studio import channel as channels
from laser_studio.studio.channel import Channel
from laser_studio.studio.inquiries import Context, Inquiry, InquiryRequest
from laser_studio.studio.run import Run


def asked(context: Context, run: Run, request: InquiryRequest) -> dict[str, Any]:
    if request.at == 2:
        raise LaserStudioError("not here")
    return {"step": run.session.frame.index, "same": context.channel.registry.get(context.run_id).item is run}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "INQUIRIES", {"test.ask": Inquiry(InquiryRequest, asked)})


def test_an_inquiry_sees_its_run_at_the_step_of_the_page(channel: Channel) -> None:
    run = channel.open({})["run"]
    channel.advance({"run": run, "at": 0, "steps": 3})
    assert channel.inquire({"run": run, "at": 1, "name": "test.ask"}) == {"step": 1, "same": True}
    assert channel.inquire({"run": run, "at": 2, "name": "test.ask"}) == {"error": "not here", "expired": False}


@pytest.mark.parametrize("data", [None, [], {}, {"name": "test.none"}, {"name": ["test.ask"]}])
def test_what_is_no_inquiry_is_refused(channel: Channel, data: Any) -> None:
    assert "not one the studio knows" in channel.inquire(data)["error"]


def test_values_are_checked_and_lost_runs_told(channel: Channel) -> None:
    assert channel.inquire({"name": "test.ask", "run": "none", "at": 0})["expired"]
    run = channel.open({})["run"]
    assert "at" in channel.inquire({"name": "test.ask", "run": run, "at": -1})["error"]
    assert "other" in channel.inquire({"name": "test.ask", "run": run, "at": 0, "other": 1})["error"]
