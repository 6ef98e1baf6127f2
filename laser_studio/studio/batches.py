"""Batches asked for by the batch page: many puzzles through one model in a thread of their own, row by row.

The running is `lab.batch_run`; here are jobs, their progress and their rows as JSON, and what is remembered of who solved what.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from laser_studio.errors import LaserStudioError, PolicyError
from laser_studio.settings import setting, settings
from laser_studio.studio.catalogue import Catalogue, clean
from laser_studio.studio.controls import TrackerView, changed
from laser_studio.studio.registry import StudioError
from laser_studio.studio.requests import chosen, read_request
from laser_studio.studio.results import Results
from laser_studio.studio.shelf import Shelf, SourcesRequest

if TYPE_CHECKING:
    from laser_studio.lab.batch_run import BatchRow, Item
    from laser_studio.puzzles.sources import Collection

log = logging.getLogger(__name__)

MAX_JOBS = 2  # at once: each computes as fast as it can, and runs that are watched need the machine too
MAX_PUZZLES = 10_000  # of one batch: its rows are held until newer batches need their place
MOST_ROWS = 1_000  # per reply
KEPT, KEPT_ROWS = 8, 20_000  # finished jobs whose rows can still be asked for, and how many rows they may hold together


@settings(StudioError)
class StartRequest:
    """The batch page wants puzzles run."""

    model: str = setting(help="Name of the model.")
    source: str = setting(help="Name of the source of puzzles.")
    split: str = setting(default="", help="Only this split.")
    band: str = setting(default="", help="Only this difficulty.")
    find: str = setting(default="", help="Only ids that hold this text.")
    fails: bool = setting(default=False, help="Only puzzles the model is known to fail.")
    count: int = setting(default=20, low=1, high=MAX_PUZZLES, unit="puzzles", help="At most so many, the first ones.")
    tracker: bool = setting(default=True, help="Whether fidelity and resets are tracked: each puzzle is a run of its own then.")
    settings: dict[str, Any] = setting(default={}, help="The tracker's settings that differ from the defaults.")


@settings(StudioError)
class FollowRequest:
    """The batch page follows a job: rows from `since` on are wanted."""

    job: str = setting(help="Number of the job.")
    since: int = setting(default=0, low=0, high=MAX_PUZZLES, unit="rows", help="Rows the page has.")
    stop: bool = setting(default=False, help="Whether to end it.")


@settings(StudioError)
class OpeningRequest:
    """The batch page opens: what is there to choose from, and the job that is at work."""

    model: str = setting(default="", help="Name of the model; empty: the first.")
    source: str = setting(default="", help="Name of the source, for its splits and difficulties; empty: the first.")


@dataclass
class _Job:
    """One batch under way or over."""

    request: StartRequest
    total: int
    started: float
    ended: float | None = None
    state: str = "running"  # then "done", "stopped" or "error"
    problem: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


class Batches:
    """Jobs by number. Methods raise `LaserStudioError`."""

    def __init__(self, catalogue: Catalogue, shelf: Shelf, results: Results) -> None:
        self.catalogue, self.shelf, self.results = catalogue, shelf, results
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()

    def answer(self, data: Any) -> dict[str, Any]:
        """What a page asks: `ask` is opening, start or follow."""
        (request, work), given = chosen(data, "ask", _ASKED)
        return work(self, read_request(request, given))

    def opening(self, request: OpeningRequest) -> dict[str, Any]:
        """Models, sources, what the source can be filtered by."""
        if not self.catalogue.entries:
            raise StudioError("no model is offered here, only recordings: start the studio with --checkpoint PATH")
        if request.model and not self.catalogue.offers(request.model):
            raise StudioError(f"no model {clean(request.model)!r} here")
        model = request.model or self.catalogue.first
        offered = self.shelf.sources(SourcesRequest(model=model))["sources"]
        source = request.source or offered[0][0]
        collection = self.shelf.collection(source, model)
        if not any(name == source for name, _ in offered):
            offered = [*offered, [source, collection.title]]
        running = next((number for number, job in self._jobs.items() if job.request.model == model and job.state == "running"), None)
        return {
            "model": model,
            "models": [[entry.name, entry.label] for entry in self.catalogue.entries.values()],
            "sources": offered,
            "source": source,
            "title": collection.title,
            "count": len(collection),
            "splits": collection.splits,
            "bands": collection.bands,
            "most": MAX_PUZZLES,
            "job": running,
        }

    def start(self, request: StartRequest) -> dict[str, Any]:
        """Start a batch; the job's number."""
        if not self.catalogue.offers(request.model):
            raise StudioError(f"no model {clean(request.model)!r} here")
        collection = self.shelf.collection(request.source, request.model)
        places = self.shelf.places(request)[: request.count]
        if not places:
            raise StudioError("no puzzle is left by these filters: choose others")
        tracker = changed(TrackerView(), request.settings)
        policy = tracker.policy() if request.tracker else None
        if policy is not None and (policy.measure == "functional" or policy.sites):
            raise PolicyError("a batch reads energy or centred fidelity, with one setting for all sites")
        with self._guard:
            if sum(job.state == "running" for job in self._jobs.values()) >= MAX_JOBS:
                raise StudioError(f"{MAX_JOBS} batches are at work already: wait for one, or stop it")
            number = str(next(self._numbers))
            job = self._jobs[number] = _Job(request, len(places), time.monotonic())
            self._forget()
        work = threading.Thread(target=self._work, args=(job, collection, places, policy), name=f"studio-batch-{number}", daemon=True)
        work.start()
        return {"job": number, "total": len(places)}

    def _forget(self) -> None:
        """Drop the oldest finished jobs while there are too many, or they hold too many rows. The guard is held."""
        over = [key for key, one in self._jobs.items() if one.state != "running"]
        while len(over) > KEPT or sum(len(self._jobs[key].rows) for key in over) > KEPT_ROWS:
            del self._jobs[over.pop(0)]

    def follow(self, request: FollowRequest) -> dict[str, Any]:
        """How a job stands, with the rows the page has not seen; `stop` ends it."""
        job = self._jobs.get(request.job)
        if job is None:
            raise StudioError("this batch is not known any more: start it again")
        if request.stop:
            job.stop.set()
        state, done = job.state, len(job.rows)
        seconds = (job.ended or time.monotonic()) - job.started
        return {
            "state": state,
            "model": job.request.model,
            "source": job.request.source,
            "tracker": job.request.tracker,
            "done": done,
            "total": job.total,
            "seconds": seconds,
            "left": seconds / done * (job.total - done) if done and state == "running" else None,
            "problem": job.problem,
            "since": request.since,
            "rows": job.rows[request.since : request.since + MOST_ROWS],
        }

    def _work(self, job: _Job, collection: Collection, places: list[int], policy: Any) -> None:
        from laser_studio.lab.batch_run import Item, run_batch

        request, opening = job.request, dict[str, str]()

        def items() -> Iterator[Item]:
            for place in places:
                yield Item(collection.entry(place), self._reader(collection, place, request, opening))

        try:
            model = self.catalogue.load(request.model)
            for row in run_batch(model, items(), policy=policy, should_stop=job.stop.is_set):
                self._told(job, row, opening.pop(row.id, None))
            job.state = "stopped" if job.stop.is_set() and len(job.rows) < job.total else "done"
        except LaserStudioError as problem:
            job.problem, job.state = str(problem)[:300], "error"
        except Exception:
            log.exception("a batch failed")
            job.problem, job.state = "the batch failed: the studio's log has the cause", "error"
        finally:
            job.ended = time.monotonic()

    def _reader(self, collection: Collection, place: int, request: StartRequest, opening: dict[str, str]) -> Callable[[], Any]:
        def read() -> Any:
            puzzle = collection.puzzle(place)
            opening[puzzle.name] = self.shelf.opening_id(request.source, request.model, puzzle)
            return puzzle

        return read

    def _told(self, job: _Job, row: BatchRow, opening: str | None) -> None:
        if row.outcome in ("solved", "wrong"):
            self.results.tell(job.request.model, job.request.source, row.id, row.outcome == "solved")
        job.rows.append(asdict(row) | {"puzzle": opening})


_ASKED: dict[str, tuple[type[Any], Callable[[Batches, Any], dict[str, Any]]]] = {
    "opening": (OpeningRequest, Batches.opening),
    "start": (StartRequest, Batches.start),
    "follow": (FollowRequest, Batches.follow),
}
