"""The view of a page as the query string of a link, and back. Every value is checked; what is bad falls back and is named.

A link opens paused, at its step, with the settings its run had at every step::

    model=…&puzzle=…&rank=25%&min_fidelity=0.97&…     in force from step 0
    site=layers.0.mlp.down_proj~rank=50%~eps=0.9~off  what differs at one site (each part may be missing)
    change=12~rank=40%~site=layers.0.mlp.down_proj:off  what changes at step 12; `site=NAME` alone: nothing differs there any more
    batch=8&beyond=1&functional=1&gradient=1&best=1   options that differ from their defaults
    history=512                                       the history's byte budget in MiB
    break=fidelity < 0.9~hits=3&watch=rank&mark=12~name~note   see `marks`
    step=20

Signs that separate (% ~ :) stand in names as %25, %7E, %3A. A change of older links holds four bare values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from laser_studio.studio.controls import (
    CONTROLS,
    MAX_SITES,
    OPTIONS,
    RunOptions,
    SiteView,
    TrackerView,
    changed,
    number,
    percent,
)
from laser_studio.studio.marks import MOST, Marks, read_marks
from laser_studio.studio.registry import StudioError

__all__ = ["CONTROLS", "OPTIONS", "RunOptions", "SiteView", "TrackerView", "View", "changed", "read_query", "write_query"]

MAX_QUERY = 8_000
MAX_CHANGES = 100
MAX_STEP = 1_000_000
_NAMED = re.compile(r"^[A-Z]\w+: ")  # the class a problem was found in
_OLD_CHANGE = ("rank", "min_fidelity", "patience", "refresh")  # the values of a change in links of before, in their order


@dataclass(frozen=True)
class View:
    """What a link says. `tracker` is in force from step 0, `changes` are later ones as (step, settings); None: not said."""

    model: str | None = None
    puzzle: str | None = None
    tracker: TrackerView = field(default_factory=TrackerView)
    changes: tuple[tuple[int, TrackerView], ...] = ()
    step: int = 0
    options: RunOptions = field(default_factory=RunOptions)
    marks: Marks = field(default_factory=Marks)
    notices: tuple[str, ...] = ()

    def with_marks(self, marks: Marks) -> View:
        """The same with other marks."""
        return replace(self, marks=marks)


def read_query(query: str) -> View:
    """The view a query string describes. Never raises: what cannot be used is left out and named in `notices`."""
    if not isinstance(query, str) or len(query) > MAX_QUERY:
        return View(notices=("the link is too long to be one of ours: opened with the defaults",))
    try:
        pairs = parse_qsl(query.lstrip("?"), max_num_fields=MAX_CHANGES + MAX_SITES + sum(MOST.values()) + 32)
    except ValueError:
        return View(notices=("the link has too many parts to be one of ours: opened with the defaults",))
    given = dict(pairs)
    notices: list[str] = []
    tracker, options = TrackerView(), RunOptions()
    for name in CONTROLS:
        if name in given:
            try:
                tracker = changed(tracker, _read(name, given[name]))
            except StudioError as problem:
                notices.append(f"{_shown(name, given[name])} in the link cannot be used ({_reason(problem)}): {_default(name)} taken")
    for text in [value for name, value in pairs if name == "site"]:
        try:
            tracker = changed(tracker, {"sites": _read_site(text, "~")})
        except StudioError as problem:
            notices.append(f"{_shown('site', text)} in the link cannot be used ({_reason(problem)}): left out")
    for name in OPTIONS:
        if name in given:
            try:
                options = RunOptions(**(options.to_json() | _read_option(name, given[name])))
            except StudioError as problem:
                notices.append(f"{_shown(name, given[name])} in the link cannot be used ({_reason(problem)}): left out")
    refused: list[tuple[str, str, StudioError]] = []
    marks = read_marks(pairs, refused)
    notices += [f"{_shown(name, text)} in the link cannot be used ({_reason(problem)}): left out" for name, text, problem in refused]
    changes = _read_changes([value for name, value in pairs if name == "change"][:MAX_CHANGES], tracker, notices)
    step = 0
    if "step" in given:
        text = given["step"]
        if _is_step(text) and int(text) <= MAX_STEP:
            step = int(text)
        else:
            notices.append(f"{_shown('step', text)} in the link is no step: opened at step 0")
    return View(given.get("model"), given.get("puzzle"), tracker, changes, step, options, marks, tuple(notices))


def write_query(view: View) -> str:
    """The query string of a view, which `read_query` reads back."""
    pairs: list[tuple[str, str]] = []
    if view.model is not None:
        pairs.append(("model", view.model))
    if view.puzzle is not None:
        pairs.append(("puzzle", view.puzzle))
    pairs += list(_written(view.tracker).items())
    pairs += [("site", _site(name, site, "~")) for name, site in view.tracker.sites.items()]
    before = view.tracker
    for step, tracker in view.changes:
        pairs.append(("change", "~".join((str(step), *_differences(before, tracker)))))
        before = tracker
    usual = RunOptions()
    pairs += [(name, str(int(value))) for name, value in view.options.to_json().items() if value != getattr(usual, name)]
    pairs += view.marks.pairs()
    pairs.append(("step", str(view.step)))
    return urlencode(pairs)


def _written(tracker: TrackerView) -> dict[str, str]:
    return {name: _text(name, getattr(tracker, name)) for name in CONTROLS}


def _text(name: str, value: Any) -> str:
    if name == "rank":
        return percent(value)
    return number(value) if isinstance(value, float) else str(value)


def _differences(before: TrackerView, after: TrackerView) -> list[str]:
    """What a change writes: only what it changes, so that many of them fit into one link."""
    old = _written(before)
    parts = [f"{name}={text}" for name, text in _written(after).items() if text != old[name]]
    for name in sorted({*before.sites, *after.sites}):
        if before.sites.get(name) != (site := after.sites.get(name)):
            parts.append(f"site={_site(name, site or SiteView(), ':')}")
    return parts


def _site(name: str, site: SiteView, separator: str) -> str:
    parts = [name.replace("%", "%25").replace("~", "%7E").replace(":", "%3A")]
    if site.rank is not None:
        parts.append(f"rank={percent(site.rank)}")
    if site.min_fidelity is not None:
        parts.append(f"eps={number(site.min_fidelity)}")
    if not site.enabled:
        parts.append("off")
    return separator.join(parts)


def _read(name: str, text: str) -> dict[str, Any]:
    if name == "rank":
        if not text.endswith("%"):
            raise StudioError("rank: a percentage of each site's width, such as 25%")
        text = text[:-1]
    return {name: text[:40]}


def _read_site(text: str, separator: str) -> dict[str, Any]:
    """What a change of `sites` is given: the site's name with what differs there, or with None."""
    name, *parts = text.split(separator)
    override: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key == "rank" and equals:
            override |= _read("rank", value)
        elif key == "eps" and equals:
            override["min_fidelity"] = value[:40]
        elif part == "off":
            override["enabled"] = False
        else:
            raise StudioError("a site takes rank=50%, eps=0.9 and off")
    return {unquote(name): override or None}


def _read_option(name: str, text: str) -> dict[str, Any]:
    if name in ("batch", "history"):
        if not (text.isascii() and text.isdigit()):
            raise StudioError("a whole number")
        return {name: text[:4]}
    if text not in ("0", "1"):
        raise StudioError("0 or 1")
    return {name: text == "1"}


def _read_changes(texts: list[str], tracker: TrackerView, notices: list[str]) -> tuple[tuple[int, TrackerView], ...]:
    read: list[tuple[int, str, dict[str, Any]]] = []

    def left_out(text: str) -> None:
        notices.append(f"{_shown('change', text)} in the link cannot be read: left out")

    for text in texts:
        try:
            read.append((*_read_change(text),))
        except StudioError:
            left_out(text)
    changes: list[tuple[int, TrackerView]] = []
    for step, text, asked in sorted(read, key=lambda item: item[0]):
        try:
            tracker = changed(tracker, asked)
        except StudioError:
            left_out(text)
        else:
            changes.append((step, tracker))
    return tuple(changes)


def _read_change(text: str) -> tuple[int, str, dict[str, Any]]:
    step, *values = text.split("~")
    if not _is_step(step):
        raise StudioError("not a change of settings")
    asked: dict[str, Any] = {}
    if len(values) == len(_OLD_CHANGE) and not any("=" in value for value in values):
        for name, value in zip(_OLD_CHANGE, values, strict=True):
            asked |= _read(name, value)
        return int(step), text, asked
    sites: dict[str, Any] = {}
    for part in values:
        name, equals, value = part.partition("=")
        if name == "site" and equals:
            sites |= _read_site(value, ":")
        elif name in CONTROLS:
            asked |= _read(name, value)
        else:
            raise StudioError("not a change of settings")
    return int(step), text, asked | ({"sites": sites} if sites else {})


def _is_step(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 7


def _reason(problem: StudioError) -> str:
    return _clean(_NAMED.sub("", str(problem))[:120])


def _default(name: str) -> str:
    return _text(name, CONTROLS[name].default)


def _shown(name: str, value: str) -> str:
    return f"{name}={_clean(value[:40])}"


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
