"""The live channel between a page and its run: functions that take and return JSON. No Gradio here.

The page pulls. It asks for steps, draws what comes back, and only then asks again, so nothing can pile up; a pause is simply
not asking. Every reply holds the newest frame whole and the frames in between as rows. Every request says which step the page
shows (`at`), so a reply that the page threw away does no harm: the next request starts from what its user saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from laser_studio.errors import LaserStudioError, RecordingError
from laser_studio.studio.answer import answer
from laser_studio.studio.batches import Batches
from laser_studio.studio.bringing import Bringing
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.controls import TrackerView
from laser_studio.studio.evaluations import Evaluations
from laser_studio.studio.family import begun, family_of, joined, short_name
from laser_studio.studio.findings import Findings
from laser_studio.studio.inquiries import INQUIRIES, Context
from laser_studio.studio.links import MAX_QUERY, View, read_query
from laser_studio.studio.marks import put_marks
from laser_studio.studio.presets import presets_json
from laser_studio.studio.registry import Entry, Registry, StudioError
from laser_studio.studio.requests import (
    AdvanceRequest,
    CommandRequest,
    EvaluateRequest,
    JobRequest,
    OpenRequest,
    PageRequest,
    PythonRequest,
    ReportRequest,
    RunRequest,
    TuneRequest,
    chosen,
    read_request,
)
from laser_studio.studio.results import Results
from laser_studio.studio.run import Run
from laser_studio.studio.script import write_script
from laser_studio.studio.shelf import Shelf
from laser_studio.studio.subject import PuzzleSubject, about_site
from laser_studio.studio.travel import go

STEP_BUDGET_SECONDS = 0.012  # computing per reply while playing: short, so that a step that takes longer still leaves 15 pictures a second
SEEK_BUDGET_SECONDS = 0.15  # per reply while travelling to a step that is not computed yet
MAX_ROWS = 2_000  # per reply; a page that has missed more asks again
LEFT_SECONDS = 20.0  # a run whose page has gone waits this long for it to come back, as after a reload


class Channel:
    """The functions a page may call. Each takes one JSON value and returns one; none raises."""

    def __init__(self, catalogue: Catalogue, registry: Registry[Run] | None = None, *, bringing: Bringing | None = None) -> None:
        self.catalogue = catalogue
        self.registry: Registry[Run] = registry if registry is not None else Registry()
        self.evaluations = Evaluations(catalogue)
        self.results = Results()
        self.shelf = Shelf(catalogue, self.results)
        self.batches = Batches(catalogue, self.shelf, self.results)
        self.bringing = bringing or Bringing(catalogue)

    def open(self, data: Any) -> dict[str, Any]:
        """A run for the view of a link, at its first frame (the page travels on to the link's step), or the one a page had before."""
        return answer(lambda: self._open(read_request(OpenRequest, data)))

    def advance(self, data: Any) -> dict[str, Any]:
        """Up to `steps` further steps within the time for one picture; 0 only looks."""
        return answer(lambda: self._within(read_request(AdvanceRequest, data), self._advance))

    def command(self, data: Any) -> dict[str, Any]:
        """Back, restart, seek and all other travels; one into what is not computed yet may stop on the way, and the page asks again."""
        return answer(lambda: self._within(read_request(CommandRequest, data), self._command))

    def tune(self, data: Any) -> dict[str, Any]:
        """Other settings of the tracker, from the step shown on, or other options of the run."""
        return answer(lambda: self._within(read_request(TuneRequest, data), self._tune))

    def inquire(self, data: Any) -> dict[str, Any]:
        """What `name` asks of the run at the step shown; see `inquiries`."""
        return answer(lambda: self._inquire(data))

    def python(self, data: Any) -> dict[str, Any]:
        """The view as a Python script."""
        return answer(lambda: self._python(read_request(PythonRequest, data)))

    def bring(self, data: Any) -> dict[str, Any]:
        """A model that the page brings; see `bringing`."""
        return answer(lambda: self.bringing.do(data))

    def leave(self, data: Any) -> dict[str, Any]:
        """The page goes away; its run is freed soon, unless it comes back."""
        return answer(lambda: self._leave(read_request(RunRequest, data)))

    def close(self, data: Any) -> dict[str, Any]:
        """The page is done with its run, which is freed now."""
        return answer(lambda: self._close(read_request(RunRequest, data)))

    def report(self, data: Any) -> dict[str, Any]:
        """The newest evaluation report of a model."""
        return answer(lambda: self.evaluations.report(read_request(ReportRequest, data)))

    def evaluate(self, data: Any) -> dict[str, Any]:
        """Start an evaluation of a model."""
        return answer(lambda: self.evaluations.evaluate(read_request(EvaluateRequest, data)))

    def follow(self, data: Any) -> dict[str, Any]:
        """How an evaluation stands; or stop it."""
        return answer(lambda: self.evaluations.follow(read_request(JobRequest, data)))

    def puzzles(self, data: Any) -> dict[str, Any]:
        """What is typed, uploaded or browsed; see `shelf`."""
        return answer(lambda: self.shelf.answer(data))

    def batch(self, data: Any) -> dict[str, Any]:
        """Many puzzles through one model; see `batches`."""
        return answer(lambda: self.batches.answer(data))

    def preload(self) -> None:
        """Import the engine and load the first model. Raises `LaserStudioError` where it cannot be loaded on this device."""
        import laser_studio.debugger  # noqa: F401 - torch comes with it: seconds of importing

        if not self.catalogue.recordings:
            self.catalogue.load(self.catalogue.first)

    # Opening

    def _open(self, request: OpenRequest) -> dict[str, Any]:
        if request.resume and (reply := self._resume(request.resume)) is not None:
            if not self.registry.together(request.replaces, request.resume):
                self.registry.close(request.replaces)
            return reply
        if len(request.query) > MAX_QUERY:
            raise StudioError("the link is too long to be one of ours")
        view = read_query(request.query)
        run, notices = self._begin(view)
        target = min(view.step, run.last_step)
        if target < view.step:
            notices.append(f"step {view.step} is past the end of the run: opened at step {target}")
        run.pending = {step: tracker for step, tracker in run.pending.items() if step <= target}
        self.registry.close(request.replaces)
        return self._opened(self._added(run, view), run, target, notices)

    def _added(self, run: Run, view: View) -> str:
        """The id of a new run. One that something is done to gets beside it the run that it is a branch of."""
        if not run.course:
            return self.registry.add(run)
        main, _ = self._begin(replace(view, branches=()))
        main_id = self.registry.add(main)
        return joined(self, main_id, family_of(main_id, main), run, short_name(run.course[-1]), main_id).id

    def _resume(self, run_id: str) -> dict[str, Any] | None:
        """The state of a run that is still there, for a page that was reloaded; None where it is gone."""
        try:
            entry = self.registry.get(run_id)
        except StudioError:
            return None
        with entry.lock:
            if entry.closed:
                return None
            run = entry.item
            return self._opened(entry.id, run, run.session.frame.index, [], resumed=True)

    def _begin(self, view: View) -> tuple[Run, list[str]]:
        """A new run for what a link says, and what of it could not be done."""
        notices = list(view.notices)
        name = view.model if view.model in self.catalogue.recordings or self.catalogue.offers(view.model) else None
        if name is None:
            name = self.catalogue.opening
            if view.model is not None:
                notices.append(f"the link's model is not offered here: opened with {name}")
        if name in self.catalogue.recordings:
            read = self._read(name)
            return read, notices + put_marks(view.marks, read.session)
        model = self.bringing.load(name)
        puzzle_id = view.puzzle
        try:
            puzzle = self.catalogue.puzzle(name, puzzle_id) if puzzle_id is not None else None
            if puzzle is not None:
                from laser_studio.debugger.fitting import require_fit

                require_fit(model, puzzle)
        except LaserStudioError as problem:
            puzzle = None
            notices.append(f"{problem}: opened with another one")
        if puzzle is None or puzzle_id is None:
            puzzle_id = self.catalogue.first_puzzle(name)
            puzzle = self.catalogue.puzzle(name, puzzle_id)
        companions = self.catalogue.companions(name, puzzle_id, view.options.batch - 1)

        session, problems = begun(
            view.branches,
            model,
            puzzle,
            policy=TrackerView().policy(),
            history_bytes=view.options.history_bytes,
            beyond=view.options.beyond,
            companions=[companion for _, companion in companions],
            measures=view.options.measures(),
        )
        notices += problems
        # Which sites there are is known only now.
        unknown = {site for tracker in (view.tracker, *(later for _, later in view.changes)) for site in tracker.sites} - set(session.sites)
        if unknown:
            shown = ", ".join(site[:40] for site in sorted(unknown)[:3]) + (" and more" if len(unknown) > 3 else "")
            notices.append(f"this model has no site {shown}: its settings are left out")
        tracker = view.tracker.at_sites(session.sites)
        session.set_policy(tracker.policy())
        subject = PuzzleSubject(self.catalogue, name, model, puzzle_id, session.puzzle, tuple(one for one, _ in companions))
        notices += put_marks(view.marks, session)
        later = {step: change.at_sites(session.sites) for step, change in view.changes if step > 0}
        notices += [f"{warning}" for warning in model.details.get("warnings", ())][:3]
        return Run(session, subject, {0: tracker}, view.options, pending=later, parts=[Findings()]), notices

    def _read(self, name: str) -> Run:
        """A recording, from its start."""
        from laser_studio.debugger import WatchedRun
        from laser_studio.studio.recorded import READ_SECONDS, RecordedRun, RecordedSubject, short_of_folders

        recording = self.catalogue.recordings[name]
        if not recording.path.exists():
            raise StudioError(f"{recording.path.name}: nothing is recorded there yet: start the run that writes it, then reload this page")
        try:
            session = WatchedRun(recording.path, seconds=10 * READ_SECONDS)
        except RecordingError as problem:
            raise StudioError(short_of_folders(str(problem), recording.path)) from None
        return RecordedRun(session, RecordedSubject(name, recording.label, session))

    def _opened(self, run_id: str, run: Run, target: int, notices: list[str], *, resumed: bool = False) -> dict[str, Any]:
        session = run.session
        return {
            "run": run_id,
            "resumed": resumed,
            **run.subject.about(),
            "sites": [about_site(site, dim) for site, dim in session.sites.items()],
            "length": session.length,
            **({"schedule": segments} if (segments := run.segments) else {}),
            "farthest": run.farthest,
            "target": target,
            "notices": notices,
            "presets": presets_json(),
            "defaults": TrackerView().to_json(),
            **self._reply(run, PageRequest(run=run_id, at=session.frame.index, epoch=session.epoch)),
        }

    # Using a run

    def _within(self, request: Any, work: Callable[[Run, Any], None]) -> dict[str, Any]:
        """Do what a page asks of its run, at the step it shows, and tell how the run stands."""
        with self._shown(request) as (_, run):
            run.travel.begin()
            work(run, request)
            return self._reply(run, request)

    def _inquire(self, data: Any) -> dict[str, Any]:
        inquiry, given = chosen(data, "name", INQUIRIES)
        request = read_request(inquiry.request, given)
        with self._shown(request) as (run_id, run):
            return inquiry.work(Context(self, run_id), run, request)

    @contextmanager
    def _shown(self, request: Any) -> Iterator[tuple[str, Run]]:
        """The id and the run a page asks about, for it alone meanwhile, its cursor where the page has it."""
        entry = self.registry.get(request.run)
        with entry.lock:
            run = _open_run(entry)
            run.show(request.at)
            yield entry.id, run

    def _advance(self, run: Run, request: AdvanceRequest) -> None:
        until = time.perf_counter() + STEP_BUDGET_SECONDS
        for _ in range(request.steps):
            if run.finished:
                break
            before = run.session.frame
            run.step()
            # A breakpoint stops; a recording may have no more steps yet.
            if run.travel.stopped or run.session.frame is before or time.perf_counter() >= until:
                break

    def _command(self, run: Run, request: CommandRequest) -> None:
        session = run.session
        if request.name == "restart":
            tracker = run.tracker
            session.restart()
            run.tune(tracker)
        elif request.name != "seek":
            go(run, request, SEEK_BUDGET_SECONDS)
        else:
            session.seek(min(request.value, session.head))
            until = time.perf_counter() + SEEK_BUDGET_SECONDS
            while session.frame.index < request.value and not run.finished:
                before = session.frame
                run.pass_on()
                if session.frame is before or time.perf_counter() >= until:
                    break

    def _tune(self, run: Run, request: TuneRequest) -> None:
        run.change(request.changes)

    def _python(self, request: PythonRequest) -> dict[str, Any]:
        with self._shown(request) as (_, run):
            return {"python": write_script(run, run.session.frame.index)}

    def _leave(self, request: RunRequest) -> dict[str, Any]:
        self.registry.leave(request.run, LEFT_SECONDS)
        return {"left": True}

    def _close(self, request: RunRequest) -> dict[str, Any]:
        self.registry.close(request.run)
        return {"closed": True}

    def _reply(self, run: Run, request: PageRequest) -> dict[str, Any]:
        session, trail = run.session, run.trail
        frame, frames = session.frame, session.frames
        trail.follow(frames)
        valid = run.valid_before(request.epoch)
        start = min(request.since, session.head + 1, valid)
        shown = frame.to_json()
        shown["confidence"] = [round(value, 4) for value in frame.confidence]
        for site in shown["sites"].values():
            # The newest ones of each site are in `turns`, also between refreshes.
            site.pop("angles", None)
            site.pop("best_angles", None)
        update = trail.last_update(frame.index)
        return {
            "state": run.state,
            "epoch": session.epoch,
            "head": session.head,
            "frame": shown,
            "rows": [run.row(recorded) for recorded in frames[start : start + MAX_ROWS]],
            "start": start,
            "spectra": _spectra(run, request, valid),
            "turns": trail.turns("angles", frames, frame.index),
            "best_turns": trail.turns("best_angles", frames, frame.index),
            "gaps": trail.gaps(frames, frame.index),
            "causes": trail.causes(frames, frame.index),
            "measured": trail.measured(frames, frame.index),
            "event_count": trail.events,
            "update": None if update is None else {"step": update, "cells": frames[update].changed},
            "cost": trail.cost(frame.index),
            "settings": run.settings_json(),
            "options": run.options.to_json(),
            "link": run.link(),
            "problem": run.problem,
            **run.more(request),
        }


def _open_run(entry: Entry[Run]) -> Run:
    if entry.closed:
        raise StudioError("this session has expired: reload the page", expired=True)
    return entry.item


def _spectra(run: Run, request: PageRequest, valid: int) -> dict[str, Any] | None:
    """The energy shares of the site that the page has selected, for the steps it has none of yet."""
    session = run.session
    if request.site not in session.sites:
        return None
    start = min(request.spectra_since, session.head + 1, valid)
    rows = session.spectra(request.site, start, min(session.head + 1, start + MAX_ROWS))
    return {
        "site": request.site,
        "start": start,
        "rows": [None if shares is None else list(shares) for shares in rows],
    }
