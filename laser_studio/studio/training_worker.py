"""The process in which a run of the training page is trained: advances, saves, keeps models, and tells its parent each step.

It is started by `trainings`, at a lower priority than everything that answers a page, and ends with the run, so that all it held is free.
What comes in are short commands, what goes out are plain values. When its pipe closes or it is asked to end, it saves first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_studio.errors import LaserStudioError
from laser_studio.files import atomic_path
from laser_studio.lab.saved_runs import SIDES, live_values
from laser_studio.studio.trained import EVALUATED, OPENED, TrainedModel, listed, model_folder, thin_out

if TYPE_CHECKING:
    from laser_studio.lab.paired import PairedStep, PairedTraining
    from laser_studio.lab.recipes import Recipe

log = logging.getLogger(__name__)

NICENESS = 10  # a run that is watched in the debugger gets ten times the share of a busy core
SAVE_SECONDS = 30.0  # what is lost at most where the process is killed
EVALUATIONS = 24  # of a whole run, about
RECIPE_FILE = "recipe.yaml"
# Of the presets' recipes only this differs, so that something is seen in seconds: drawing 4,000 puzzles takes longer than everything else
# before the first step, and whenever one is drawn it becomes one of its 3,072 images.
CHANGES = {"sudoku-4x4": ("data.phases=[{puzzles: 1500}]",)}


@dataclass(frozen=True)
class Job:
    """What a worker is started with. laser: fields of `LaserSettings` at the start; changes: of the recipe, as `get_recipe` takes them."""

    folder: Path
    sets: Path
    task: str
    variant: str
    laser: dict[str, Any]
    device: str = "auto"
    changes: tuple[str, ...] = ()


def work(connection: Connection, job: Job) -> None:
    """The child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    worker = _Worker(connection, job)
    signal.signal(signal.SIGTERM, lambda *_: worker.end())
    try:
        worker.train()
    except LaserStudioError as problem:
        worker.tell("error", str(problem)[:300])
    except MemoryError:
        worker.tell("error", "the machine ran out of memory: the run goes on from its last saved step")
    except Exception:
        log.exception("a training run failed")
        worker.tell("error", "the training failed: the studio's log has the cause; it can be resumed from its last saved step")
    finally:
        worker.tell("ended", None)
        connection.close()
        logging.shutdown()
        os._exit(0)  # all is saved, and torch takes a second or two to be taken down in order


class _Worker:
    def __init__(self, connection: Connection, job: Job) -> None:
        self.connection, self.job = connection, job
        self.running, self.ending = True, False
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.told = False  # whether the places were told of since they were first met

    def tell(self, what: str, value: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # the parent is gone: the next look at the pipe ends this process
            self.connection.send((what, value))

    def end(self) -> None:
        self.ending = True

    def train(self) -> None:
        self.tell("text", "loading the engine …")
        from laser_studio.device import resolve_device
        from laser_studio.lab.paired import PairedTraining
        from laser_studio.lab.train import LaserSettings
        from laser_studio.studio.engine import leave_cores_free

        leave_cores_free()
        recipe = self._recipe()
        wanted = sum(phase.puzzles for phase in recipe.data.phases)
        self.tell("text", f"making {wanted:,} training puzzles …")
        laser = LaserSettings(enabled=True, **self.job.laser)
        paired = PairedTraining(recipe, laser, resolve_device(self.job.device), sets=self.job.sets)
        paired.resume(self.job.folder)
        self.saved_step = paired.step
        self.tell("begun", {"history": paired.history.to_json(), "laser": self._settings(paired), **self._about(paired)})
        while not paired.complete and self._goes_on(paired):
            self._step(paired)
        self._save(paired)  # not after a failure: the sides may stand at different steps then, and the state from before is whole
        if paired.complete:
            self.tell("done", None)

    def _recipe(self) -> Recipe:
        """The recipe as the run began with it, whatever presets have become since."""
        from laser_studio.lab.recipes import get_recipe

        file = self.job.folder / RECIPE_FILE
        if file.is_file():
            return get_recipe(self.job.task, file=file)
        recipe = get_recipe(self.job.task, variant=self.job.variant, preset="laptop")
        every = max(10, recipe.train.steps // EVALUATIONS // 5 * 5)
        changes = [f"train.eval_every={every}", *CHANGES.get(self.job.task, ()), *self.job.changes]
        recipe = get_recipe(self.job.task, variant=self.job.variant, preset="laptop", changes=changes)
        with atomic_path(file) as temporary:
            temporary.write_text(recipe.text(), encoding="utf-8")
        return recipe

    def _step(self, paired: PairedTraining) -> None:
        if paired.budget_is_due:
            self._save(paired)  # who asks it to end meanwhile does not wait for long
            self.tell("text", "measuring the budget …")
        step = paired.advance()
        first, self.told = not self.told, True
        if step.accuracy is not None:
            for side in SIDES:
                paired.export(side, model_folder(self.job.folder, EVALUATED, step.step, side))
            thin_out(self.job.folder, EVALUATED)
            self._tell_models()
        self.tell("step", _told(step) | (self._about(paired) if first else {}))
        if time.monotonic() - self.saved_at > SAVE_SECONDS:
            self._save(paired)

    def _goes_on(self, paired: PairedTraining) -> bool:
        """Do what was asked for meanwhile; wait while the run is paused. False where it is to end."""
        while not self.ending:
            try:
                # In short waits: a signal only shows between them.
                if not self.connection.poll(0 if self.running else 0.2):
                    if self.running:
                        return True
                    continue
                self._obey(paired, *self.connection.recv())
            except (EOFError, OSError):
                self.ending = True
        return False

    def _obey(self, paired: PairedTraining, name: str, value: Any) -> None:
        if name == "end":
            self.ending = True
        elif name == "pause":
            self._save(paired)
            self.running = False
            self.tell("paused", None)
        elif name == "resume":
            self.running = True
            self.tell("resumed", None)
        elif name == "tune":
            try:
                settings = paired.set_policy(**value)
                self.saved_step = min(self.saved_step, paired.step - 1)  # what was asked for is part of the state
                self.tell("tuned", live_values(settings))
            except LaserStudioError as problem:
                self.tell("refused", (str(problem)[:300], self._settings(paired)))
        elif name == "model":
            number, side = value
            try:
                folder = model_folder(self.job.folder, OPENED, paired.step, side)
                paired.export(side, folder)
                thin_out(self.job.folder, OPENED)
                self._tell_models()
                self.tell("model", (number, TrainedModel(self.job.folder.name, paired.step, side, folder).name))
            except LaserStudioError as problem:
                self.tell("model", (number, problem))

    def _save(self, paired: PairedTraining) -> None:
        if paired.step > self.saved_step:
            paired.save(self.job.folder)
            self.saved_step = paired.step
        self.saved_at = time.monotonic()

    def _tell_models(self) -> None:
        self.tell("models", listed(self.job.folder))

    def _settings(self, paired: PairedTraining) -> dict[str, Any]:
        settings = asdict(paired.asked or paired.settings)
        return {name: value for name, value in settings.items() if name != "enabled"}

    def _about(self, paired: PairedTraining) -> dict[str, Any]:
        return {"steps": paired.steps, "sites": paired.sites, "batch": paired.recipe.train.batch_size, "puzzles": len(paired.validation)}


def _told(step: PairedStep) -> dict[str, Any]:
    return {"figures": step.figures(), "events": step.events(), "note": step.note(), "left": step.seconds_left}
