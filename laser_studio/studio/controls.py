"""What the page's controls hold: the tracker's settings, those that differ at single sites, and the options of a run.

Ranges and help are written here once; sliders, switches, requests and address keys read them. The ranges lie within those of
`LaserPolicy`, and a test holds them to its defaults (importing the policy here would bring torch into the process that serves
pages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from laser_studio.settings import describe, setting, settings
from laser_studio.studio.registry import StudioError

if TYPE_CHECKING:
    from laser_studio.debugger import Measures
    from laser_studio.laser import LaserPolicy

MAX_SITES = 256  # with settings of their own
MAX_SITE_NAME = 200
MAX_BATCH = 64


@settings(StudioError)
class SiteView:
    """What differs at one site; None: as everywhere."""

    rank: float | None = setting(default=None, low=1, high=100, unit="% of D", help="Directions kept at this site.")
    min_fidelity: float | None = setting(default=None, low=0.5, high=1.0, help="Fidelity below which a window of this site is a miss.")
    enabled: bool = setting(default=True, help="Whether this site is tracked.")

    def to_json(self) -> dict[str, Any]:
        """Only what differs; empty where nothing does."""
        differing: dict[str, Any] = {name: value for name in ("rank", "min_fidelity") if (value := getattr(self, name)) is not None}
        return differing if self.enabled else differing | {"enabled": False}

    def override(self) -> dict[str, Any]:
        """The same in the words of `LaserPolicy.sites`."""
        return self.to_json() | ({} if self.rank is None else {"rank": percent(self.rank)})


_AT_SITES = tuple(item.name for item in fields(SiteView))


@settings(StudioError)
class TrackerView:
    """The tracker's settings as the page's controls hold them. `rank` is a percentage of each site's width D."""

    rank: float = setting(default=25.0, low=1, high=100, unit="% of D", help="Directions kept, as a share of each site's width D.")
    min_fidelity: float = setting(default=0.97, low=0.5, high=1.0, help="A window that keeps less of its energy is a miss.")
    patience: int = setting(default=3, low=1, high=20, unit="windows", help="Misses in a row before a reset.")
    refresh: Literal["step", "cycle", "supervision"] = setting(default="cycle", help="What ends a window.")
    measure: Literal["energy", "centred", "functional"] = setting(
        default="energy",
        help="The fidelity the rule reads: of all energy, with the mean removed, or of the model's answer (measured, so it costs time).",
    )
    growth: int = setting(default=8, low=1, high=64, unit="directions", help="Directions added at a miss.")
    sites: dict[str, SiteView] = setting(default={}, help="Sites with settings of their own.")

    @field_validator("sites", mode="before")
    @classmethod
    def _readable_sites(cls, sites: Any) -> Any:
        # Before anything else, so that no message repeats a name that is endless or cannot be printed.
        if isinstance(sites, Mapping):
            if len(sites) > MAX_SITES:
                raise ValueError(f"more than {MAX_SITES} sites with settings of their own")
            for name, site in sites.items():
                if not isinstance(name, str) or not 0 < len(name) <= MAX_SITE_NAME or not name.isprintable():
                    raise ValueError(f"a site has a printable name of 1 to {MAX_SITE_NAME} characters")
                if isinstance(site, Mapping) and not set(site) <= set(_AT_SITES):
                    raise ValueError(f"a single site has {', '.join(_AT_SITES)} of its own, and nothing else")
        return sites

    @field_validator("sites", mode="after")
    @classmethod
    def _only_what_differs(cls, sites: dict[str, SiteView]) -> dict[str, SiteView]:
        return {name: sites[name] for name in sorted(sites) if sites[name] != SiteView()}

    def policy(self) -> LaserPolicy:
        """The policy these settings stand for; everything else keeps its default."""
        from laser_studio.laser import LaserPolicy

        return LaserPolicy(**self.policy_settings())

    def policy_settings(self) -> dict[str, Any]:
        """The arguments of that policy."""
        plain = {name: getattr(self, name) for name in CONTROLS}
        return plain | {"rank": percent(self.rank), "sites": {name: site.override() for name, site in self.sites.items()}}

    def at_sites(self, names: Mapping[str, Any]) -> TrackerView:
        """The same without what it says of sites that are not among `names`."""
        known = {name: site for name, site in self.sites.items() if name in names}
        return self if len(known) == len(self.sites) else replace(self, sites=known)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CONTROLS} | {"sites": {name: site.to_json() for name, site in self.sites.items()}}


@settings(StudioError)
class RunOptions:
    """How a run is made, beside its tracker. `batch` is fixed when the run is opened."""

    batch: int = setting(
        default=1, low=1, high=MAX_BATCH, unit="puzzles", help="Puzzles run together: the picture follows one, the tracker sees all."
    )
    beyond: bool = setting(default=False, help="Go on past the depth the model was trained for.")
    functional: bool = setting(
        default=False, help="Measure at each H cycle's end what compression does to the answer: its distribution and the cells that flip."
    )
    gradient: bool = setting(
        default=False, help="Measure at each H cycle's end how well the weight gradient survives: its cosine with the exact one."
    )
    history: int = setting(
        default=256,
        low=1,
        high=1_024,
        unit="MiB",
        help="What going back in time may keep of activations and keyframes; over it, exact steps are compressed, then the oldest goes.",
    )
    best: bool = setting(default=False, help="Hold each window to compare its basis with the best one of the same rank.")

    def measures(self) -> Measures:
        """The figures to be computed beside the run."""
        from laser_studio.debugger import Measures

        return Measures(functional=self.functional, gradient=self.gradient, best=self.best)

    @property
    def history_bytes(self) -> int:
        """The history's budget."""
        return self.history << 20

    def to_json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


CONTROLS = {name: info for name, info in describe(TrackerView).items() if name != "sites"}
OPTIONS = describe(RunOptions)


def number(value: float) -> str:
    """As short as it can be read back exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def percent(value: float) -> str:
    """A rank as links and policies write it, e.g. "25%"."""
    return f"{number(value)}%"


def changed(tracker: TrackerView, changes: Mapping[str, Any]) -> TrackerView:
    """The settings with some of them changed. Raises `StudioError` for unknown names and values out of range.

    `sites` names only the sites that change, each with all that differs there; nothing (None or {}) takes a site's own settings
    away, and None in place of the whole takes all away.
    """
    _known(changes, {*CONTROLS, "sites"})
    merged = tracker.to_json() | {name: value for name, value in changes.items() if name != "sites"}
    if "sites" in changes:
        sites = {} if changes["sites"] is None else changes["sites"]
        if not isinstance(sites, Mapping) or len(sites) > MAX_SITES:
            raise StudioError(f"sites: settings by the name of the site, of at most {MAX_SITES} sites")
        kept = {} if changes["sites"] is None else merged["sites"]
        merged["sites"] = {name: value for name, value in (kept | dict(sites)).items() if value is not None}
    return TrackerView(**merged)


def changed_options(options: RunOptions, changes: Mapping[str, Any]) -> RunOptions:
    """The options with some of them changed. Raises `StudioError` for unknown names, wrong values and what is fixed at the start."""
    _known(changes, OPTIONS)
    if changes.get("batch", options.batch) != options.batch:
        raise StudioError("the number of puzzles run together is fixed when a run is opened: open it anew")
    return RunOptions(**(options.to_json() | dict(changes)))


def _known(changes: Mapping[str, Any], names: Any) -> None:
    unknown = sorted(str(name)[:40] for name in changes if name not in names)
    if unknown:
        raise StudioError(f"no such setting: {', '.join(unknown[:5])}")
