"""The live channel between a page and its run: five functions that take and return JSON. No Gradio here.

The page pulls. It asks for steps, draws what comes back, and only then asks again, so nothing can pile up; a pause is simply
not asking. Every reply holds the newest frame whole and the frames in between as rows. Every request says which step the page
shows (`at`), so a reply that the page threw away does no harm: the next request starts from what its user saw.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from laser_studio.errors import LaserStudioError
from laser_studio.puzzles import Puzzle
from laser_studio.settings import setting, settings
from laser_studio.studio.catalogue import Catalogue, puzzle_label
from laser_studio.studio.links import MAX_CHANGES, MAX_QUERY, MAX_STEP, TrackerView, View, changed, read_query, write_query
from laser_studio.studio.registry import Entry, Registry, StudioError

if TYPE_CHECKING:
    from laser_studio.debugger import Session

log = logging.getLogger(__name__)

STEP_BUDGET_SECONDS = 0.012  # computing per reply while playing: short, so that a step that takes longer still leaves 15 pictures a second
SEEK_BUDGET_SECONDS = 0.15  # per reply while travelling to a step that is not computed yet
MAX_ROWS = 2_000  # per reply; a page that has missed more asks again
HISTORY_BYTES = 64 << 20
EPOCHS_REMEMBERED = 64  # a page that missed more changes gets all rows anew


@settings(StudioError)
class OpenRequest:
    """A page wants a run. `query`: of its address; `replaces`: the run it had before, which is closed."""

    query: str = setting(default="", help="Query string of the page's address.")
    replaces: str = setting(default="", help="Id of the run this one takes the place of.")


@settings(StudioError)
class AdvanceRequest:
    """A page wants frames. It shows step `at`, holds rows before `since` of `epoch`, and wants up to `steps` more steps."""

    run: str = setting(help="Id of the run.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")
    since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Rows from here on are wanted.")
    epoch: int = setting(default=0, low=0, high=MAX_STEP, help="The run's epoch as the page knows it.")
    steps: int = setting(default=0, low=0, high=10_000, unit="steps", help="How far to go on at most.")


@settings(StudioError)
class CommandRequest:
    """A page wants to be elsewhere in time; `value` is the step to seek."""

    run: str = setting(help="Id of the run.")
    name: Literal["back", "restart", "seek"] = setting(help="What to do.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")
    since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Rows from here on are wanted.")
    epoch: int = setting(default=0, low=0, high=MAX_STEP, help="The run's epoch as the page knows it.")
    value: int = setting(default=0, low=0, high=MAX_STEP, unit="steps", help="The step to seek.")


@settings(StudioError)
class TuneRequest:
    """A page changes the tracker's settings from step `at` on."""

    run: str = setting(help="Id of the run.")
    changes: dict[str, float | str] = setting(help="Settings by name.")
    at: int = setting(low=0, high=MAX_STEP, unit="steps", help="The step the page shows.")
    since: int = setting(default=0, low=0, high=MAX_STEP + 1, unit="steps", help="Rows from here on are wanted.")
    epoch: int = setting(default=0, low=0, high=MAX_STEP, help="The run's epoch as the page knows it.")


@settings(StudioError)
class CloseRequest:
    """A page goes away."""

    run: str = setting(help="Id of the run.")


@dataclass
class Run:
    """A session with what the page knows it by, and the settings in force over its steps."""

    session: Session
    model: str
    puzzle_id: str
    puzzle: Puzzle
    settings: dict[int, TrackerView]
    pending: dict[int, TrackerView] = field(default_factory=dict)  # changes a link asks for at steps not reached yet
    voided: dict[int, int] = field(default_factory=dict)  # epoch -> first step that was dropped when it began
    costs: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])  # seconds (tracker, all) up to each step

    @property
    def nbytes(self) -> int:
        """Bytes the session holds for time travel."""
        newest = self.session.frames[-1].history
        return newest.stored_bytes + newest.basis_bytes

    @property
    def tracker(self) -> TrackerView:
        """The settings in force for the next step."""
        cursor = self.session.frame.index
        return self.settings[max(step for step in self.settings if step <= cursor)]

    def close(self) -> None:
        self.session.close()

    def show(self, at: int) -> None:
        """Put the cursor where the page has it."""
        if self.session.frame.index != at:
            self.session.seek(min(at, self.session.head))

    def tune(self, tracker: TrackerView) -> None:
        """Use other settings from the step shown on; later changes of the recorded future are forgotten."""
        cursor = self.session.frame.index
        if tracker == self.tracker:
            return
        if cursor not in self.settings and len(self.settings) > MAX_CHANGES:
            raise StudioError(f"more than {MAX_CHANGES} changes of settings in one run: restart it")
        epoch = self.session.epoch
        self.session.set_policy(tracker.policy())
        if self.session.epoch != epoch:
            self.voided[self.session.epoch] = cursor + 1
            self.voided.pop(self.session.epoch - EPOCHS_REMEMBERED, None)
        self.settings = {step: old for step, old in self.settings.items() if step < cursor} | {cursor: tracker}
        self.pending = {}

    def step(self) -> None:
        """One step, after what a link asks to be changed before it."""
        session = self.session
        due = self.pending.pop(session.frame.index, None)
        if due is not None:
            later = self.pending
            self.tune(due)
            self.pending = later
        session.step()

    def view(self) -> View:
        """What a link to the step shown says."""
        cursor = self.session.frame.index
        changes = tuple((step, tracker) for step, tracker in sorted(self.settings.items()) if 0 < step <= cursor)
        return View(self.model, self.puzzle_id, self.settings[0], changes, cursor)

    def valid_before(self, epoch: int) -> int:
        """Rows of steps before this one that a page got in `epoch` are still true."""
        if epoch == self.session.epoch:
            return self.session.head + 1
        later = range(epoch + 1, self.session.epoch + 1)
        return min((self.voided.get(one, 0) for one in later), default=0) if len(later) <= EPOCHS_REMEMBERED else 0

    def cost(self) -> float | None:
        """The tracker's time over the bare model's, up to the step shown; None at step 0."""
        frames, cursor = self.session.frames, self.session.frame.index
        del self.costs[len(frames) :]
        for frame in frames[len(self.costs) :]:
            tracker, total = self.costs[-1]
            self.costs.append((tracker + frame.tracker_seconds, total + frame.seconds))
        tracker, total = self.costs[cursor]
        return tracker / (total - tracker) if total > tracker else None


class Channel:
    """The functions a page may call. Each takes one JSON value and returns one; none raises."""

    def __init__(self, catalogue: Catalogue, registry: Registry[Run] | None = None, *, history_bytes: int = HISTORY_BYTES) -> None:
        self.catalogue = catalogue
        self.registry: Registry[Run] = registry if registry is not None else Registry()
        self.history_bytes = history_bytes

    def open(self, data: Any) -> dict[str, Any]:
        """A new run for the view of a link: what it is made of, and its first frame (the page travels on to the link's step)."""
        return self._answer(lambda: self._open(_request(OpenRequest, data)))

    def advance(self, data: Any) -> dict[str, Any]:
        """Up to `steps` further steps within the time for one picture; 0 only looks."""
        return self._answer(lambda: self._advance(_request(AdvanceRequest, data)))

    def command(self, data: Any) -> dict[str, Any]:
        """Back, restart, or seek; a seek into what is not computed yet may stop on the way, and the page asks again."""
        return self._answer(lambda: self._command(_request(CommandRequest, data)))

    def tune(self, data: Any) -> dict[str, Any]:
        """Other settings of the tracker, from the step shown on."""
        return self._answer(lambda: self._tune(_request(TuneRequest, data)))

    def close(self, data: Any) -> dict[str, Any]:
        """The page goes away; its run is freed."""
        return self._answer(lambda: self._close(_request(CloseRequest, data)))

    def preload(self) -> None:
        """Import the engine and load the first model. Raises `LaserStudioError` where it cannot be loaded on this device."""
        import laser_studio.debugger  # noqa: F401 - torch comes with it: seconds of importing

        self.catalogue.load(self.catalogue.first)

    def _answer(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        except StudioError as problem:
            return {"error": str(problem), "expired": problem.expired}
        except LaserStudioError as problem:
            return {"error": str(problem), "expired": False}
        except MemoryError:
            return {"error": "the machine ran out of memory: restart the run, or choose a smaller model", "expired": False}
        except Exception:
            # The cause belongs into the server's log, never onto a stranger's screen.
            log.exception("a page's request failed")
            return {"error": "the studio failed at this request: restart the run; its log has the cause", "expired": False}

    def _open(self, request: OpenRequest) -> dict[str, Any]:
        if len(request.query) > MAX_QUERY:
            raise StudioError("the link is too long to be one of ours")
        view = read_query(request.query)
        notices = list(view.notices)
        name = view.model if view.model in self.catalogue.entries else None
        if name is None:
            name = self.catalogue.first
            if view.model is not None:
                notices.append(f"the link's model is not offered here: opened with {name}")
        model = self.catalogue.load(name)
        puzzle_id = view.puzzle
        try:
            puzzle = self.catalogue.puzzle(name, puzzle_id) if puzzle_id is not None else None
        except LaserStudioError as problem:
            puzzle = None
            notices.append(f"{problem}: opened with another one")
        if puzzle is None or puzzle_id is None:
            puzzle_id = self.catalogue.first_puzzle(name)
            puzzle = self.catalogue.puzzle(name, puzzle_id)

        from laser_studio.debugger import Session

        session = Session(model, puzzle, policy=view.tracker.policy(), history_bytes=self.history_bytes)
        target = min(view.step, session.length)
        if target < view.step:
            notices.append(f"step {view.step} is past the end of the run: opened at step {target}")
        run = Run(session, name, puzzle_id, puzzle, {0: view.tracker}, {step: later for step, later in view.changes if 0 < step <= target})
        self.registry.close(request.replaces)
        key = self.registry.add(run)
        details = [f"{warning}" for warning in model.details.get("warnings", ())][:3]
        return {
            "run": key,
            "model": self._about_model(name, model),
            "puzzle": self._about_puzzle(name, run),
            "puzzles": self._offered(name, run),
            "generates": self.catalogue.can_generate(name),
            "sites": [_about_site(site, dim) for site, dim in session.sites.items()],
            "length": session.length,
            "target": target,
            "notices": [*notices, *details],
            **self._reply(run, since=0, epoch=session.epoch),
        }

    def _advance(self, request: AdvanceRequest) -> dict[str, Any]:
        entry = self._entry(request.run)
        with entry.lock:
            run = _open_run(entry)
            run.show(request.at)
            until = time.perf_counter() + STEP_BUDGET_SECONDS
            for _ in range(request.steps):
                if run.session.finished:
                    break
                run.step()
                if time.perf_counter() >= until:
                    break
            return self._reply(run, request.since, request.epoch)

    def _command(self, request: CommandRequest) -> dict[str, Any]:
        entry = self._entry(request.run)
        with entry.lock:
            run = _open_run(entry)
            run.show(request.at)
            session = run.session
            if request.name == "back":
                session.back()
            elif request.name == "restart":
                tracker = run.tracker
                session.restart()
                run.tune(tracker)
            else:
                session.seek(min(request.value, session.head))
                until = time.perf_counter() + SEEK_BUDGET_SECONDS
                while session.frame.index < request.value and not session.finished:
                    run.step()
                    if time.perf_counter() >= until:
                        break
            return self._reply(run, request.since, request.epoch)

    def _tune(self, request: TuneRequest) -> dict[str, Any]:
        entry = self._entry(request.run)
        with entry.lock:
            run = _open_run(entry)
            run.show(request.at)
            run.tune(changed(run.tracker, request.changes))
            return self._reply(run, request.since, request.epoch)

    def _close(self, request: CloseRequest) -> dict[str, Any]:
        self.registry.close(request.run)
        return {"closed": True}

    def _entry(self, run: str) -> Entry[Run]:
        return self.registry.get(run)

    def _reply(self, run: Run, since: int, epoch: int) -> dict[str, Any]:
        session = run.session
        frame = session.frame
        start = min(since, session.head + 1, run.valid_before(epoch))
        rows = [recorded.to_row() for recorded in session.frames[start : start + MAX_ROWS]]
        shown = frame.to_json()
        shown["confidence"] = [round(value, 4) for value in frame.confidence]
        for site in shown["sites"].values():
            del site["angles"]  # the newest ones of each site are in `turns`, also between refreshes
        if not frame.finite:
            state = "error"
        elif session.finished:
            state = "done"
        else:
            state = "paused"
        return {
            "state": state,
            "epoch": session.epoch,
            "head": session.head,
            "frame": shown,
            "rows": rows,
            "start": start,
            "turns": _turns(session),
            "update": _last_update(session),
            "cost": run.cost(),
            "settings": run.tracker.to_json(),
            "link": write_query(run.view()),
            "problem": None if frame.finite else f"not finite at step {frame.index}: the run ends here",
        }

    def _about_model(self, name: str, model: Any) -> dict[str, Any]:
        config = model.config
        parameter = next(model.parameters())
        return {
            "name": name,
            "label": self.catalogue.entries[name].label,
            "device": str(parameter.device),
            "dtype": {"float32": "fp32", "bfloat16": "bf16"}[config.forward_dtype],
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "H_cycles": config.H_cycles,
            "L_cycles": config.L_cycles,
            "halt_max_steps": config.halt_max_steps,
            "layers": config.L_layers,
            "hidden_size": config.hidden_size,
        }

    def _about_puzzle(self, name: str, run: Run) -> dict[str, Any]:
        domain, puzzle = self.catalogue.domain(name), run.puzzle
        values = range(max(puzzle.cells) + 1 if domain.name != "sudoku" else puzzle.width + 1)
        if domain.name == "maze":
            values = range(5)
        return {
            "id": run.puzzle_id,
            "domain": domain.name,
            "height": puzzle.height,
            "width": puzzle.width,
            "cells": puzzle.cells,
            "given": domain.given(puzzle),
            "blocks": domain.blocks(puzzle),
            "symbols": [domain.symbol(value) for value in values],
            "difficulty": puzzle.difficulty,
            "issues": [[issue.row, issue.column, issue.message] for issue in domain.validate(puzzle)][:20],
        }

    def _offered(self, name: str, run: Run) -> list[list[str]]:
        """The choices of the puzzle control as [label, id, difficulty]; a generated puzzle stands first."""
        offered = [[puzzle_label(puzzle), puzzle.name, str(puzzle.difficulty)] for puzzle in self.catalogue.puzzles(name)]
        if run.puzzle_id.startswith("generated:"):
            _, difficulty, seed = run.puzzle_id.split(":")
            offered.insert(0, [f"{difficulty} · new #{seed}", run.puzzle_id, difficulty])
        return offered


def _request(kind: type[Any], data: Any) -> Any:
    if not isinstance(data, dict) or len(data) > 16 or not all(isinstance(key, str) for key in data):
        raise StudioError("this request is not one the studio knows: reload the page")
    return kind(**data)


def _open_run(entry: Entry[Run]) -> Run:
    if entry.closed:
        raise StudioError("this session has expired: reload the page", expired=True)
    return entry.item


def _turns(session: Session) -> dict[str, dict[str, Any]]:
    """Per site the principal angles of the newest refresh up to the step shown, in degrees, largest first."""
    turns: dict[str, dict[str, Any]] = {}
    frames, wanted = session.frames, len(session.sites)
    for index in range(session.frame.index, -1, -1):
        for name, site in frames[index].sites.items():
            if name not in turns and site.angles is not None:
                turns[name] = {"step": index, "angles": [round(angle, 3) for angle in site.angles]}
        if len(turns) == wanted:
            break
    return turns


def _last_update(session: Session) -> dict[str, Any] | None:
    """The cells that the last z_H update changed; None before the first one. Only such updates can change the answer."""
    frames, config = session.frames, session.model.config
    for index in range(session.frame.index, max(-1, session.frame.index - config.L_cycles - 1), -1):
        if frames[index].l == "H":
            return {"step": index, "cells": frames[index].changed}
    return None


_SITE = re.compile(r"layers\.(\d+)\.(self_attn|mlp_t|mlp)\.(\w+)_proj")
_SHORT = {
    ("self_attn", "qkv"): "qkv",
    ("self_attn", "o"): "o",
    ("mlp_t", "gate_up"): "mix g·up",
    ("mlp_t", "down"): "mix down",
    ("mlp", "gate_up"): "gate·up",
    ("mlp", "down"): "down",
}


def _about_site(name: str, dim: int) -> dict[str, Any]:
    match = _SITE.fullmatch(name)
    layer = int(match[1]) if match else 0
    short = _SHORT.get((match[2], match[3]), name) if match else name
    return {"name": name, "dim": dim, "layer": layer, "short": short, "label": f"L{layer} {short}"}
