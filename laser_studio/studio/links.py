"""The view of a page as the query string of a link, and back. Every value is checked; what is bad falls back and is named.

The same ranges bound the sliders; they lie within those of `LaserPolicy`, and a test holds them to its defaults (importing
the policy here would bring torch into the process that serves pages). A link opens paused, at its step, with the settings
its run had at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlencode

from laser_studio.settings import describe, setting, settings
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.laser import LaserPolicy

MAX_QUERY = 8_000
MAX_CHANGES = 100
MAX_STEP = 1_000_000


@settings(StudioError)
class TrackerView:
    """The tracker's settings as the page's controls hold them. `rank` is a percentage of each site's width D."""

    rank: float = setting(default=25.0, low=1, high=100, unit="% of D", help="Directions kept, as a share of each site's width D.")
    min_fidelity: float = setting(default=0.97, low=0.5, high=1.0, help="A window that keeps less of its energy is a miss.")
    patience: int = setting(default=3, low=1, high=20, unit="windows", help="Misses in a row before a reset.")
    refresh: Literal["step", "cycle", "supervision"] = setting(default="cycle", help="What ends a window.")

    def policy(self) -> LaserPolicy:
        """The policy these settings stand for; everything else keeps its default."""
        from laser_studio.laser import LaserPolicy

        return LaserPolicy(rank=f"{self.rank:g}%", min_fidelity=self.min_fidelity, patience=self.patience, refresh=self.refresh)

    def to_json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


CONTROLS = describe(TrackerView)


@dataclass(frozen=True)
class View:
    """What a link says. `tracker` is in force from step 0, `changes` are later ones as (step, settings); None: not said."""

    model: str | None = None
    puzzle: str | None = None
    tracker: TrackerView = field(default_factory=TrackerView)
    changes: tuple[tuple[int, TrackerView], ...] = ()
    step: int = 0
    notices: tuple[str, ...] = ()


def read_query(query: str) -> View:
    """The view a query string describes. Never raises: what cannot be used is left out and named in `notices`."""
    if not isinstance(query, str) or len(query) > MAX_QUERY:
        return View(notices=("the link is too long to be one of ours: opened with the defaults",))
    try:
        pairs = parse_qsl(query.lstrip("?"), max_num_fields=MAX_CHANGES + 32)
    except ValueError:
        return View(notices=("the link has too many parts to be one of ours: opened with the defaults",))
    given = dict(pairs)
    notices: list[str] = []
    tracker: dict[str, Any] = {}
    for name in CONTROLS:
        if name in given:
            try:
                TrackerView(**(value := _read(name, given[name])))
                tracker |= value
            except StudioError as problem:
                notices.append(f"{_shown(name, given[name])} in the link cannot be used ({_reason(problem)}): {_default(name)} taken")
    changes = []
    for text in [value for name, value in pairs if name == "change"][:MAX_CHANGES]:
        try:
            changes.append(_read_change(text))
        except StudioError:
            notices.append(f"{_shown('change', text)} in the link cannot be read: left out")
    step = 0
    if "step" in given:
        text = given["step"]
        if text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= MAX_STEP:
            step = int(text)
        else:
            notices.append(f"{_shown('step', text)} in the link is no step: opened at step 0")
    view = TrackerView(**tracker)
    return View(given.get("model"), given.get("puzzle"), view, tuple(sorted(changes, key=lambda item: item[0])), step, tuple(notices))


def write_query(view: View) -> str:
    """The query string of a view, which `read_query` reads back."""
    pairs: list[tuple[str, str]] = []
    if view.model is not None:
        pairs.append(("model", view.model))
    if view.puzzle is not None:
        pairs.append(("puzzle", view.puzzle))
    pairs += list(_written(view.tracker).items())
    pairs += [("change", "~".join((str(step), *_written(tracker).values()))) for step, tracker in view.changes]
    pairs.append(("step", str(view.step)))
    return urlencode(pairs)


def _written(tracker: TrackerView) -> dict[str, str]:
    return {
        "rank": f"{tracker.rank:g}%",
        "min_fidelity": f"{tracker.min_fidelity:g}",
        "patience": str(tracker.patience),
        "refresh": tracker.refresh,
    }


def _read(name: str, text: str) -> dict[str, Any]:
    if name == "rank":
        if not text.endswith("%"):
            raise StudioError("rank: a percentage of each site's width, such as 25%")
        text = text[:-1]
    return {name: text[:40]}


def _read_change(text: str) -> tuple[int, TrackerView]:
    step, *values = text.split("~")
    if len(values) != len(CONTROLS) or not (step.isascii() and step.isdigit()) or len(step) > 7:
        raise StudioError("not a change of settings")
    tracker: dict[str, Any] = {}
    for name, value in zip(CONTROLS, values, strict=True):
        tracker |= _read(name, value)
    return int(step), TrackerView(**tracker)


def _reason(problem: StudioError) -> str:
    return str(problem).removeprefix("TrackerView: ")


def _default(name: str) -> str:
    value = CONTROLS[name].default
    return f"{value:g}%" if name == "rank" else str(value)


def _shown(name: str, value: str) -> str:
    clean = "".join(character if character.isprintable() else "?" for character in value[:40])
    return f"{name}={clean}"


def changed(tracker: TrackerView, changes: Mapping[str, Any]) -> TrackerView:
    """The settings with some of them changed. Raises `StudioError` for unknown names and values out of range."""
    unknown = sorted(str(name)[:40] for name in changes if name not in CONTROLS)
    if unknown:
        raise StudioError(f"no such setting: {', '.join(unknown[:5])}")
    return TrackerView(**(tracker.to_json() | dict(changes)))
