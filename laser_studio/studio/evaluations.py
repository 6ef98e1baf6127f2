"""Evaluations asked for by the evaluation page: the shipped report of each model, and new ones in threads of their own.

The measuring is `lab.examine`; here are jobs, their progress and their results as JSON.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from laser_studio.errors import LaserStudioError
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.registry import StudioError
from laser_studio.studio.requests import EvaluateRequest, JobRequest, ReportRequest

if TYPE_CHECKING:
    from laser_studio.lab.report import Report

log = logging.getLogger(__name__)

MAX_JOBS = 2  # at once: each computes as fast as it can, and runs that are watched need the machine too
MAX_RANKS = 5
KEPT = 50  # finished jobs whose state can still be asked for


@dataclass
class _Job:
    """One evaluation under way or over."""

    model: str
    started: float
    state: str = "running"  # then "done", "stopped" or "error"
    done: int = 0
    total: int = 0
    problem: str = ""
    stop: threading.Event = field(default_factory=threading.Event)


class Evaluations:
    """Reports by model, and the jobs that make new ones. Methods raise `LaserStudioError`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._jobs: dict[str, _Job] = {}
        self._made: dict[str, Report] = {}
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()

    def report(self, request: ReportRequest) -> dict[str, Any]:
        """The newest report of a model, None where there is none, and the job that is at work on another."""
        name = self._named(request.model)
        running = next((number for number, job in self._jobs.items() if job.model == name and job.state == "running"), None)
        return {
            "model": name,
            "label": self.catalogue.entries[name].label,
            "models": [[entry.name, entry.label] for entry in self.catalogue.entries.values()],
            "generates": self.catalogue.can_generate(name),
            "found": _as_json(self._report(name)),
            "job": running,
        }

    def evaluate(self, request: EvaluateRequest) -> dict[str, Any]:
        """Start an evaluation; the job's number. One that is already at work on the model is joined, not doubled."""
        name = self._named(request.model)
        ranks = tuple(part.strip() for part in request.ranks.split(",") if part.strip())
        if len(ranks) > MAX_RANKS:
            raise StudioError(f"at most {MAX_RANKS} ranks at once")
        if not self.catalogue.can_generate(name):
            raise StudioError(f"{name}: no held-out puzzles can be generated for this model")

        from laser_studio.laser import LaserPolicy

        for rank in ranks:
            LaserPolicy(rank=rank)  # refused now rather than in the thread
        with self._guard:
            running = {number: job for number, job in self._jobs.items() if job.state == "running"}
            for number, job in running.items():
                if job.model == name:
                    return {"job": number}
            if len(running) >= MAX_JOBS:
                raise StudioError(f"{MAX_JOBS} evaluations are at work already: wait for one, or stop it")
            number = str(next(self._numbers))
            job = self._jobs[number] = _Job(name, time.monotonic())
            for old in [key for key, one in self._jobs.items() if one.state != "running"][:-KEPT]:
                del self._jobs[old]
        threading.Thread(target=self._work, args=(job, request.each, ranks), name=f"studio-evaluation-{number}", daemon=True).start()
        return {"job": number}

    def follow(self, request: JobRequest) -> dict[str, Any]:
        """How a job stands, with the report once it is done; `stop` ends it first."""
        job = self._jobs.get(request.job)
        if job is None:
            raise StudioError("this evaluation is not known any more: start it again")
        if request.stop:
            job.stop.set()
        seconds = time.monotonic() - job.started
        return {
            "state": job.state,
            "model": job.model,
            "done": job.done,
            "total": job.total,
            "left": seconds / job.done * (job.total - job.done) if job.done else None,
            "problem": job.problem,
            "found": _as_json(self._made.get(job.model)) if job.state == "done" else None,
        }

    def _named(self, name: str) -> str:
        if name and not self.catalogue.offers(name):
            raise StudioError(f"no model {name[:60]!r} here")
        if not self.catalogue.entries:
            raise StudioError("no model is offered here, only recordings: start the studio with --checkpoint PATH")
        return name or self.catalogue.first

    def _report(self, name: str) -> Report | None:
        if name not in self._made and (shipped := self.catalogue.report(name)) is not None:
            return shipped
        return self._made.get(name)

    def _work(self, job: _Job, each: int, ranks: tuple[str, ...]) -> None:
        from laser_studio.lab.examine import examine

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            domain, size = self.catalogue.task(job.model)
            model = self.catalogue.load(job.model)
            options = " ".join([f"--each {each}", *(f"--rank {rank}" for rank in ranks)])
            report = examine(
                model, domain, size, each=each, ranks=ranks, command=f"python -m laser_studio report CHECKPOINT {options}",
                on_progress=progress, should_stop=job.stop.is_set,
            )  # fmt: skip
            if report is not None:
                self._made[job.model] = report
            job.state = "done" if report is not None else "stopped"
        except LaserStudioError as problem:
            job.problem, job.state = str(problem)[:300], "error"
        except Exception:
            log.exception("an evaluation failed")
            job.problem, job.state = "the evaluation failed: the studio's log has the cause", "error"


def _as_json(report: Report | None) -> dict[str, Any] | None:
    """A report with what the page needs beside it: the overall shares, and 95 % intervals of every exact share."""
    if report is None:
        return None
    from laser_studio.lab.report import wilson

    return {
        **asdict(report),
        "overall": [report.exact(arm) for arm in report.arms],
        "bands": [
            [
                [wilson(share * group.puzzles, group.puzzles) for share in curve]
                for curve, group in zip(arm.exact, report.groups, strict=True)
            ]
            for arm in report.arms
        ],
    }
