"""What replies need from the past: equal to a scan of all frames, also after frames were dropped, and at a bounded cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import pytest

from laser_studio.debugger import Frame, Measures, Session
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.controls import TrackerView
from laser_studio.studio.trail import Trail


def scanned(frames: Sequence[Frame], cursor: int, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index in range(cursor, -1, -1):
        for name, site in frames[index].sites.items():
            if name not in found and getattr(site, kind) is not None:
                found[name] = {"step": index, "angles": [round(angle, 3) for angle in getattr(site, kind)]}
    return found


def newest(frames: Sequence[Frame], cursor: int, name: str) -> Frame | None:
    """The newest frame up to a step that has a figure of that name."""
    return next((frame for frame in reversed(frames[: cursor + 1]) if getattr(frame, name) is not None), None)


def scanned_sites(frames: Sequence[Frame], cursor: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per site the newest event, and the newest window that was compared with its best basis."""
    causes: dict[str, Any] = {}
    gaps: dict[str, Any] = {}
    for frame in frames[: cursor + 1]:
        causes |= {event.site: {"step": frame.index, "text": event.text} for event in frame.events if event.site is not None}
        for name, site in frame.sites.items():
            if site.best is not None and site.window_fidelity is not None:
                gaps[name] = {"step": frame.index, "best": site.best, "window": site.window_fidelity}
    return causes, gaps


def check(trail: Trail, frames: Sequence[Frame]) -> None:
    trail.follow(frames)
    assert len(trail) == len(frames) and trail.events == sum(len(frame.events) for frame in frames)
    for cursor in range(len(frames)):
        assert (trail.causes(frames, cursor), trail.gaps(frames, cursor)) == scanned_sites(frames, cursor)
        measured, functional, gradient = (
            trail.measured(frames, cursor),
            newest(frames, cursor, "functional"),
            newest(frames, cursor, "gradient"),
        )
        assert measured["gradient"] == (None if gradient is None else {"step": gradient.index, "gradient": gradient.gradient})
        assert measured["functional"] == (
            None
            if functional is None
            else {
                "step": functional.index,
                "functional": functional.functional,
                "flips": functional.flips,
                "kl": functional.kl,
                "sites": {name: site.functional for name, site in functional.sites.items()},
            }
        )
        for kind in ("angles", "best_angles"):
            assert trail.turns(kind, frames, cursor) == scanned(frames, cursor, kind)
        assert trail.last_update(cursor) == max((index for index in range(cursor + 1) if frames[index].l == "H"), default=None)
        tracker, total = (sum(getattr(frame, part) for frame in frames[: cursor + 1]) for part in ("tracker_seconds", "seconds"))
        assert trail.cost(cursor) == (pytest.approx(tracker / (total - tracker)) if total > tracker else None)


@pytest.fixture
def session(catalogue: Catalogue) -> Session:
    puzzle = catalogue.puzzle("small", catalogue.first_puzzle("small"))
    return Session(
        catalogue.load("small"), puzzle, policy=TrackerView().policy(), measures=Measures(functional=True, gradient=True, best=True)
    )


def test_it_says_what_a_scan_says_also_after_a_cut(session: Session) -> None:
    trail = Trail()
    session.seek(12)
    check(trail, session.frames)
    assert trail.turns("angles", session.frames, 12) and trail.turns("best_angles", session.frames, 12)
    assert trail.causes(session.frames, 12) and trail.gaps(session.frames, 12) and None not in trail.measured(session.frames, 12).values()
    session.seek(5)
    session.set_policy(TrackerView(rank=60, refresh="step").policy())
    trail.cut(6)
    check(trail, session.frames)
    session.seek(12)
    check(trail, session.frames)


class Counting(Sequence[Frame]):
    """Frames that count how often one is looked at."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames, self.looks = frames, 0

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        assert isinstance(index, int)
        self.looks += 1
        return self.frames[index]


def test_at_step_ten_thousand_a_reply_looks_at_a_handful_of_frames(session: Session) -> None:
    session.seek(12)
    resting = replace(session.frames[1], sites={name: replace(site, angles=None) for name, site in session.frames[1].sites.items()})
    early = session.frames[12]
    frames = Counting([session.frames[0], early, *(replace(resting, index=index) for index in range(2, 10_000))])
    trail = Trail()
    trail.follow(frames)
    frames.frames.append(replace(resting, index=10_000))
    frames.looks = 0
    trail.follow(frames)
    turns = trail.turns("angles", frames, 10_000)  # every site turned last at step 1: a scan would go all the way
    assert {turn["step"] for turn in turns.values()} == {1} and len(turns) == 8
    assert trail.last_update(10_000) == 1
    assert frames.looks <= 1 + len(turns)
    frames.looks = 0
    assert trail.turns("angles", frames, 10_000) == turns and frames.looks == 0  # read once: step 1 lies packed
