"""What a page may ask for: every request as a settings class, so that whatever comes in is checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal, TypeVar

from laser_studio.settings import setting, settings
from laser_studio.studio.links import MAX_STEP
from laser_studio.studio.registry import StudioError


@settings(StudioError)
class OpenRequest:
    """A page wants a run: after a reload the one it had (`resume`), else a new one for its address."""

    query: str = setting(default="", help="Query string of the page's address.")
    replaces: str = setting(default="", help="Id of the run this one takes the place of; it is closed.")
    resume: str = setting(default="", help="Id of the run the page had before it was reloaded.")


@settings(StudioError)
class PageRequest:
    """A page looks at a run. It shows step `at` and holds rows before `since` of `epoch`."""

    run: str = setting(help="Id of the run.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")
    since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Rows from here on are wanted.")
    epoch: int = setting(default=0, low=0, high=MAX_STEP, help="The run's epoch as the page knows it.")
    site: str = setting(default="", help="The site whose spectra are wanted; empty: none.")
    spectra_since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Spectra from here on are wanted.")
    notes_since: int = setting(default=0, low=0, high=10_000_000, unit="notes", help="Noted values from here on are wanted.")
    marks_known: int = setting(default=0, low=0, high=1_000_000_000, help="The version of the marks that the page has; 0: none.")
    hits_since: int = setting(default=0, low=0, high=1_000_000_000, unit="hits", help="Hits of breakpoints from here on are wanted.")
    curves_since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Values of watches from here on are wanted.")


@settings(StudioError)
class AdvanceRequest(PageRequest):
    """A page wants frames: up to `steps` more."""

    steps: int = setting(default=0, low=0, high=10_000, unit="steps", help="How far to go on at most.")


@settings(StudioError)
class CommandRequest(PageRequest):
    """A page wants to be elsewhere in time: to `seek` a step, `over` or `back` by a size, `out` of the cycle under way, or to `run` to
    the next stop or event, or `run_back` to the last one.
    """

    _: KW_ONLY
    name: Literal["back", "restart", "seek", "over", "out", "run", "run_back"] = setting(help="What to do.")
    value: int = setting(default=0, low=0, high=MAX_STEP, unit="steps", help="The step to seek, or that a travel under way goes to.")
    size: Literal["net", "cycle", "supervision"] = setting(default="net", help="How far over and back go.")


@settings(StudioError)
class TuneRequest(PageRequest):
    """A page changes settings of the tracker, from step `at` on, or options of the run."""

    _: KW_ONLY
    changes: dict[str, Any] = setting(help="Settings and options by name; `sites` holds those of single sites.")


@settings(StudioError)
class PythonRequest:
    """A page wants its view as a Python script."""

    run: str = setting(help="Id of the run.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")


@settings(StudioError)
class RunRequest:
    """A page closes its run, or goes away."""

    run: str = setting(help="Id of the run.")


@settings(StudioError)
class ReportRequest:
    """The evaluation page wants the newest report of a model."""

    model: str = setting(default="", help="Name of the model; empty: the first.")


@settings(StudioError)
class EvaluateRequest:
    """The evaluation page wants a new report."""

    model: str = setting(help="Name of the model.")
    each: int = setting(default=50, low=1, high=1_000, unit="puzzles", help="Held-out puzzles of each difficulty.")
    ranks: str = setting(default="", help="Ranks to compute on, separated by commas, such as 50%, 25%.")


@settings(StudioError)
class JobRequest:
    """The evaluation page follows a job."""

    job: str = setting(help="Number of the job.")
    stop: bool = setting(default=False, help="Whether to end it.")


Known = TypeVar("Known")

UNKNOWN = "this request is not one the studio knows: reload the page"


def chosen(data: Any, key: str, known: Mapping[str, Known]) -> tuple[Known, dict[str, Any]]:
    """What a request names under `key` among what is known, and the rest of it. Raises `StudioError`."""
    given = dict(data) if isinstance(data, dict) else {}
    found = known.get(str(given.pop(key, ""))[:60])
    if found is None:
        raise StudioError(UNKNOWN)
    return found, given


def read_request(kind: type[Any], data: Any) -> Any:
    """The request `data` is. Raises `StudioError`."""
    if not isinstance(data, dict) or len(data) > 32 or not all(isinstance(key, str) for key in data):
        raise StudioError(UNKNOWN)
    return kind(**data)
