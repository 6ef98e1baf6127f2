"""Runs of the training page: at most one is trained at a time, in a process of its own; all others rest on disk and can be resumed.

Here are its process, what it told so far, who may steer it, and the functions a page may call. The training itself is
`lab.paired`, in `training_worker`; no torch and no Gradio here, so the process that serves pages stays light and answers at once.

A page proves that it is there by asking. Where it has not asked for `gone_seconds`, its run is saved and its process ends.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, get_args

from laser_studio.errors import LaserStudioError, TrainingError
from laser_studio.lab.history import History
from laser_studio.lab.saved_runs import newest_state, read_record
from laser_studio.studio import trained
from laser_studio.studio.answer import answer
from laser_studio.studio.registry import StudioError
from laser_studio.studio.requests import read_request
from laser_studio.studio.subject import about_site
from laser_studio.studio.training_requests import (
    LIVE_CONTROLS,
    StartRequest,
    Task,
    TrainCommandRequest,
    TrainFollowRequest,
    TrainingPageRequest,
    TrainModelRequest,
    TrainTuneRequest,
    Variant,
)
from laser_studio.studio.training_worker import Job, work

log = logging.getLogger(__name__)

GONE_SECONDS = 15.0  # without a sign of its page, a run is saved and let go
PAUSED_SECONDS = 300.0  # a paused run keeps its process, to go on at once; after this long it gives its memory back
END_SECONDS = 60.0  # to finish a step and save
MODEL_SECONDS = 60.0
RESTING_HELD = 4  # histories of runs on disk held in memory for pages that look at them
DEFAULT_FOLDER = Path("runs") / "studio"

State = Literal["starting", "running", "pausing", "paused", "stopping"]
_WORKING = ("starting", "running", "pausing")  # a run that is paused, or being saved, can make room for another


@dataclass
class _Live:
    """The run that has a process."""

    name: str
    page: str
    seen: float  # when its page last asked
    state: State = "starting"
    text: str = "starting a process for it …"
    problem: str = ""
    refused: str = ""
    history: History = field(default_factory=History)
    laser: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    models: list[list[Any]] = field(default_factory=list)
    left: float | None = None
    paused_at: float = 0.0
    done: bool = False
    connection: Connection | None = None
    process: multiprocessing.process.BaseProcess | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    asked: dict[int, Future[str]] = field(default_factory=dict)  # models on their way


@dataclass(frozen=True)
class _Resting:
    """What a page sees of a run that rests, as read from one state."""

    state: Path
    history: History
    laser: dict[str, Any]
    about: dict[str, Any]


class Trainings:
    """The functions a training page may call: each takes one JSON value and returns one; none raises.

    folder: where runs are kept. changes: fields of the recipe for runs of this studio, as `get_recipe` takes them.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        device: str = "auto",
        gone_seconds: float = GONE_SECONDS,
        paused_seconds: float = PAUSED_SECONDS,
        changes: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.device, self.changes = folder, device, changes
        self.gone_seconds, self.paused_seconds = gone_seconds, paused_seconds
        self._live: _Live | None = None
        self._guard = threading.RLock()
        self._resting: dict[str, _Resting] = {}
        self._problems: dict[str, str] = {}
        self._version = 0  # of the list of runs
        self._numbers = itertools.count(1)
        self._closing = False

    # What a page may call

    def open(self, data: Any) -> dict[str, Any]:
        """What can be trained, the runs that are kept, and the one that has a process."""
        return answer(lambda: self._open(read_request(TrainingPageRequest, data)))

    def start(self, data: Any) -> dict[str, Any]:
        """A new run; its name."""
        return answer(lambda: self._start(read_request(StartRequest, data)))

    def command(self, data: Any) -> dict[str, Any]:
        """Pause, resume, stop or delete a run."""
        return answer(lambda: self._command(read_request(TrainCommandRequest, data)))

    def tune(self, data: Any) -> dict[str, Any]:
        """Other settings of LASER, from the next step on."""
        return answer(lambda: self._tune(read_request(TrainTuneRequest, data)))

    def model(self, data: Any) -> dict[str, Any]:
        """The model of one side as it is now; the name under which the debugger opens it."""
        return answer(lambda: self._model(read_request(TrainModelRequest, data)))

    def follow(self, data: Any) -> dict[str, Any]:
        """How a run stands, and what the page lacks of its figures."""
        return answer(lambda: self._follow(read_request(TrainFollowRequest, data)))

    def close(self) -> None:
        """Save the run that is trained, if any, and end its process."""
        with self._guard:
            self._closing = True
            live = self._live
            if live is not None:
                self._end(live)
        if live is not None:
            live.ended.wait(END_SECONDS)

    # Opening and starting

    def _open(self, request: TrainingPageRequest) -> dict[str, Any]:
        with self._guard:
            live, version = self._live, self._version
            own = live is not None and live.page == request.page
        kept = []
        for folder in trained.runs(self.folder).values():
            try:
                kept.append(trained.about_run(folder))
            except TrainingError as problem:
                kept.append({"run": folder.name, "problem": str(problem)})
        return {
            "tasks": list(get_args(Task)),
            "variants": list(get_args(Variant)),
            "controls": {name: {"default": info.default, "low": info.low, "high": info.high} for name, info in LIVE_CONTROLS.items()},
            "runs": kept,
            "most": trained.MAX_RUNS,
            "version": version,
            "live": None if live is None else live.name,
            "own": own,
            "busy": live is not None and live.state in _WORKING,
        }

    def _start(self, request: StartRequest) -> dict[str, Any]:
        with self._guard:
            self._make_room(request.page)
            laser = request.laser.changes() | request.plan.changes()
            created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            name = trained.make_run(self.folder, request.task, request.variant, laser, created)
            self._launch(name, request.page, request.task, request.variant, laser)
            return {"run": name}

    def _resume(self, name: str, page: str) -> None:
        about = trained.about_run(trained.run_folder(self.folder, name))
        if trained.is_complete(about):
            raise StudioError("this run is complete: start another")
        self._launch(name, page, str(about["task"]), str(about["variant"]), dict(about["laser"]))

    def _make_room(self, page: str) -> None:
        """See to it that no run has a process. Raises `StudioError` where one is trained. The guard is held."""
        if self._closing:
            raise StudioError("the studio is closing")
        live = self._live
        if live is None:
            return
        if live.state in _WORKING and live.page != page:
            raise StudioError("another page is training here, and one run is trained at a time: wait until it ends or is paused")
        if live.state in _WORKING:
            raise StudioError(f"{live.name} is being trained, and one run is trained at a time: pause or stop it first")
        self._end(live)
        if not self._wait(live) or self._live is not None:  # another page may have been quicker
            raise StudioError("the run before is being saved: try again in a moment")

    def _wait(self, live: _Live) -> bool:
        """Wait for a process that was asked to end; whether it has. Gives the guard up meanwhile."""
        self._guard.release()
        try:
            return live.ended.wait(10)
        finally:
            self._guard.acquire()

    def _launch(self, name: str, page: str, task: str, variant: str, laser: dict[str, Any]) -> None:
        """Start the process of a run. The guard is held."""
        live = _Live(name, page, time.monotonic(), laser=dict(laser))
        live.models = trained.listed(self.folder / name)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        ours, theirs = context.Pipe()
        job = Job(self.folder / name, self.folder / trained.SETS_FOLDER, task, variant, laser, self.device, self.changes)
        live.connection = ours
        live.process = context.Process(target=work, args=(theirs, job), name="laser-studio-training", daemon=True)
        live.process.start()
        theirs.close()
        self._problems.pop(name, None)
        self._resting.pop(name, None)
        self._live, self._version = live, self._version + 1
        threading.Thread(target=self._read, args=(live,), name="studio-training-reader", daemon=True).start()
        threading.Thread(target=self._watch, args=(live,), name="studio-training-watch", daemon=True).start()

    # The process

    def _read(self, live: _Live) -> None:
        """Take in what the process tells, until it ends."""
        assert live.connection is not None and live.process is not None
        while True:
            try:
                what, value = live.connection.recv()
            except (EOFError, OSError):
                break
            with self._guard:
                try:
                    self._told(live, what, value)
                except LaserStudioError as problem:
                    live.problem = str(problem)
                    self._end(live)
        live.process.join(END_SECONDS)
        with self._guard:
            if live.state != "stopping" and not live.done and not live.problem:
                live.problem = "the training process ended unexpectedly: the run can be resumed from its last saved step"
            if live.problem:
                self._problems = {**dict(list(self._problems.items())[-trained.MAX_RUNS :]), live.name: live.problem}
            for waiting in live.asked.values():
                waiting.set_exception(StudioError("the run ended before its model was written"))
            if self._live is live:
                self._live = None
            self._version += 1
        live.connection.close()
        live.ended.set()

    def _told(self, live: _Live, what: str, value: Any) -> None:
        """The guard is held."""
        if what == "step":
            live.history.add(value["figures"], value["events"], value["note"])
            live.left = value["left"]
            for key in ("steps", "sites", "batch", "puzzles"):
                if key in value:
                    live.about[key] = value[key]
            live.text = ""
        elif what == "begun":
            live.history = History.from_json(value.pop("history"))
            live.laser = value.pop("laser")
            live.about = value
            live.text = ""
            if live.state == "starting":
                live.state = "running"
        elif what in ("paused", "resumed"):
            if live.state != "stopping":
                live.state = "paused" if what == "paused" else "running"
            live.paused_at = time.monotonic()
        elif what == "tuned":
            live.laser |= value
            live.refused = ""
        elif what == "refused":
            live.refused, live.laser = value
        elif what == "models":
            live.models = value
        elif what == "model":
            number, result = value
            if (waiting := live.asked.pop(number, None)) is not None:
                if isinstance(result, str):
                    waiting.set_result(result)
                else:
                    waiting.set_exception(result)
        elif what == "text":
            live.text = value
        elif what == "error":
            live.problem = value
        elif what == "done":
            live.done = True
            self._version += 1

    def _watch(self, live: _Live) -> None:
        """Let the run go when its page is gone, or when it has been paused for long."""
        while not live.ended.wait(min(0.5, self.gone_seconds / 4)):
            with self._guard:
                now = time.monotonic()
                tired = live.state == "paused" and now - live.paused_at > self.paused_seconds
                if live.state != "stopping" and (now - live.seen > self.gone_seconds or tired):
                    self._end(live)

    def _end(self, live: _Live) -> None:
        """Ask the process to save and end. The guard is held."""
        if live.state != "stopping":
            live.state = "stopping"
            self._send(live, "end")
            threading.Thread(target=self._see_to_the_end, args=(live,), name="studio-training-end", daemon=True).start()

    @staticmethod
    def _see_to_the_end(live: _Live) -> None:
        assert live.process is not None
        if not live.ended.wait(END_SECONDS):
            live.process.kill()

    @staticmethod
    def _send(live: _Live, name: str, value: Any = None) -> None:
        assert live.connection is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended: the reader finds out
            live.connection.send((name, value))

    # Steering

    def _own(self, run: str, page: str) -> _Live:
        """The run that has a process, for the page that may steer it. The guard is held."""
        live = self._live
        if live is None or live.name != run:
            raise StudioError("this run rests: resume it first")
        if live.page != page:
            raise StudioError("another page started this run: only that one can steer it while it is trained")
        live.seen = time.monotonic()
        return live

    def _command(self, request: TrainCommandRequest) -> dict[str, Any]:
        with self._guard:
            live = self._live
            is_live = live is not None and live.name == request.run
            if request.name == "delete":
                if is_live:
                    raise StudioError("this run has a process: stop it before it is deleted")
                trained.delete_run(trained.run_folder(self.folder, request.run))
                self._resting.pop(request.run, None)
                self._problems.pop(request.run, None)
                self._version += 1
            elif request.name == "resume" and not (
                is_live and live is not None and live.state in ("paused", "pausing", "running", "starting")
            ):
                trained.run_folder(self.folder, request.run)
                self._make_room(request.page)
                self._resume(request.run, request.page)
            elif request.name == "resume":
                assert live is not None
                if live.page != request.page and live.state == "paused":
                    live.page = request.page  # a paused run is whoever's resumes it, as one that rests
                live = self._own(request.run, request.page)
                self._send(live, "resume")
            elif request.name == "pause":
                live = self._own(request.run, request.page)
                if live.state == "running":
                    live.state = "pausing"
                    self._send(live, "pause")
                elif live.state == "starting":
                    raise StudioError("the run has not begun yet: pause it when its first step is done, or stop it")
            else:
                self._end(self._own(request.run, request.page))
            return {"run": request.run}

    def _tune(self, request: TrainTuneRequest) -> dict[str, Any]:
        with self._guard:
            live = self._own(request.run, request.page)
            live.laser = live.laser | request.laser.changes()  # shown at once; the process tells where it refuses them
            self._send(live, "tune", request.laser.changes())
            return {"run": request.run}

    def _model(self, request: TrainModelRequest) -> dict[str, Any]:
        with self._guard:
            live = self._live
            if live is None or live.name != request.run:
                return {"model": self._resting_model(request)}
            live = self._own(request.run, request.page)
            number, waiting = next(self._numbers), Future[str]()
            live.asked[number] = waiting
            self._send(live, "model", (number, request.side))
        try:
            return {"model": waiting.result(MODEL_SECONDS)}
        except WaitTimeoutError:
            raise StudioError("the model is not written yet, for a step takes long: try again") from None
        finally:
            live.asked.pop(number, None)

    def _resting_model(self, request: TrainModelRequest) -> str:
        """The newest model that a resting run keeps of a side."""
        kept = [model for model in trained.models(trained.run_folder(self.folder, request.run)) if model.side == request.side]
        if not kept:
            raise StudioError("no model of this run is kept yet: resume it, and open the model then")
        return kept[-1].name

    # Following

    def _follow(self, request: TrainFollowRequest) -> dict[str, Any]:
        with self._guard:
            live = self._live
            if live is not None and live.page == request.page:
                live.seen = time.monotonic()
            shared = {
                "version": self._version,
                "live": None if live is None else live.name,
                "own": live is not None and live.page == request.page,
                "busy": live is not None and live.state in _WORKING,
                "run": request.run,
            }
            if not request.run:
                return shared | {"state": "none"}
            if live is not None and live.name == request.run:
                told = {
                    "text": live.text,
                    "problem": live.problem,
                    "refused": live.refused,
                    "left": live.left if live.state == "running" else None,
                }
                return shared | {"state": live.state, **told} | self._shown(live.history, live.laser, live.about, live.models, request)
            problem = self._problems.get(request.run, "")
        folder = trained.run_folder(self.folder, request.run)
        rests = self._rests(folder)
        about = trained.about_run(folder)
        kept = trained.listed(folder)
        state = "error" if problem else "done" if trained.is_complete(about) else "resting"
        shown = self._shown(rests.history, rests.laser, rests.about | {"steps": about["steps"]}, kept, request)
        return shared | {"state": state, "text": "", "problem": problem, "refused": "", "left": None} | shown

    @staticmethod
    def _shown(
        history: History, laser: dict[str, Any], about: dict[str, Any], models: list[list[Any]], request: TrainFollowRequest
    ) -> dict[str, Any]:
        return {
            "figures": _short(history.since(request.block, request.size)),
            "notes": [[step, note] for step, note in history.notes[request.notes :]],
            "noted": len(history.notes),
            "laser": laser,
            "steps": about.get("steps"),
            "batch": about.get("batch"),
            "puzzles": about.get("puzzles"),
            "sites": _sites(history, about.get("sites") or {}),
            "models": models,
        }

    def _rests(self, folder: Path) -> _Resting:
        """What is known of a run on disk; read again only where there is a newer state."""
        state = newest_state(folder)
        if state is None:
            about = trained.about_run(folder)
            return _Resting(folder, History(), about["laser"], {})
        known = self._resting.get(folder.name)
        if known is None or known.state != state:
            record = read_record(state)
            laser = {**record["laser"], **(record["asked"] or {})}
            about = {name: record.get(name) for name in ("sites", "batch", "puzzles")}
            known = _Resting(state, History.from_json(record["history"]), laser, about)
            with self._guard:
                self._resting = {**dict(list(self._resting.items())[1 - RESTING_HELD :]), folder.name: known}
        return known


def _sites(history: History, widths: dict[str, int]) -> list[dict[str, Any]]:
    """The places whose bytes are counted, those with a basis first: name, width (0 where nothing is kept of the input), labels."""
    names = [name.partition(":")[2] for name in history.low if name.startswith("full:")]
    ordered = [name for name in widths if name in names] + [name for name in names if name not in widths]
    return [about_site(name.removeprefix("net."), widths.get(name, 0)) | {"name": name} for name in ordered]


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    """Numbers as a page needs them: seven digits, more than any picture shows."""
    return figures | {
        side: {name: [_digits(value) for value in column] for name, column in figures[side].items()} for side in ("low", "high")
    }


def _digits(value: float | None) -> float | None:
    return value if value is None or value == int(value) else float(f"{value:.7g}")
