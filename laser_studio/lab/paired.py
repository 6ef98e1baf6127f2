"""The same training twice in lockstep, with LASER and without: same weights at the start, same data in the same order.

`PairedTraining` advances both sides by one optimiser step each and tells what that step showed, evaluates both at intervals, takes other
settings of LASER on the way, saves and resumes to the identical curve, and exports the model of either side at any moment. The sides
are plain `Trainer`s; figures over steps are kept in a `History`. Nothing is drawn here and no process started.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from laser_studio.errors import PolicyError, TrainingError
from laser_studio.lab.evaluate import Accuracy, evaluate
from laser_studio.lab.history import History
from laser_studio.lab.recipes import Recipe
from laser_studio.lab.saved_runs import (
    HISTORY_FILE,
    LIVE,
    SIDES,
    SUMMARY_FILE,
    Side,
    live_values,
    newest_state,
    number_of,
    read_record,
    state_name,
    states,
)
from laser_studio.lab.train import Held, LaserSettings, Trainer
from laser_studio.laser import TrackerEvent, find_sites
from laser_studio.laser.ledger import COUNTS
from laser_studio.trm import save_checkpoint

VALIDATION_PUZZLES = 100  # evaluated often, on both sides, between steps that somebody watches
PACE = 50  # steps over which the time left is reckoned
MEAN = 20  # steps over which losses are averaged, beside each step's own

T = TypeVar("T")


@dataclass(frozen=True)
class Sides(Generic[T]):
    """One thing of each side: with LASER, and without."""

    laser: T
    plain: T

    def of(self, side: Side) -> T:
        """That of one side."""
        return self.laser if side == "laser" else self.plain


@dataclass(frozen=True)
class SiteStep:
    """One site in one optimiser step.

    rank: directions of the basis that was in force, 0 where the input was kept whole, None where there is no basis at all; fidelity:
    energy share that was kept with it, None without. action: what the rule did at the step's end, "" where no window closed, and state
    after it. Bytes: of this site's inputs in full, as stored, and what is kept beside them (basis, projected weights, bookkeeping).
    """

    rank: int | None
    fidelity: float | None
    action: str
    state: str
    full_bytes: int
    stored_bytes: int
    beside_bytes: int


@dataclass(frozen=True)
class PairedStep:
    """What one optimiser step of both sides showed; everything was measured in it.

    loss: of the step's batch; mean_loss: over the last `MEAN` steps; training_exact: share of the last training samples that halted right;
    seconds: of the optimiser step, without the measuring of a budget. all_full_bytes and all_saved_bytes: what autograd would save for
    backward uncompressed, and what is saved, bases and bookkeeping included. per_thousand: misses, growths and resets so far in 1,000
    optimiser steps, all sites together.
    accuracy: on validation puzzles, where this step was followed by an evaluation; settings: of LASER, where others came into force with
    this step; budget: where the step began by measuring one; seconds_left: to the end of the run, evaluations included.
    """

    step: int
    loss: Sides[float]
    mean_loss: Sides[float]
    training_exact: Sides[float]
    seconds: Sides[float]
    sites: Mapping[str, SiteStep]
    all_full_bytes: int
    all_saved_bytes: int
    per_thousand: Mapping[str, float]
    accuracy: Sides[Accuracy] | None
    settings: LaserSettings | None
    budget: Held | None
    seconds_left: float

    def figures(self) -> dict[str, float | None]:
        """Its numbers by name, as a `History` takes them: `loss.laser`, `exact.plain`, `rank:SITE` …"""
        numbers: dict[str, float | None] = {"bytes.full": self.all_full_bytes, "bytes.saved": self.all_saved_bytes}
        for side in SIDES:
            numbers[f"loss.{side}"] = self.loss.of(side)
            numbers[f"mean.{side}"] = self.mean_loss.of(side)
            numbers[f"train.{side}"] = self.training_exact.of(side)
            numbers[f"seconds.{side}"] = self.seconds.of(side)
            if self.accuracy is not None:
                numbers[f"exact.{side}"] = self.accuracy.of(side).exact[-1]
                numbers[f"cell.{side}"] = self.accuracy.of(side).cell[-1]
        numbers |= {f"per thousand.{what}": rate for what, rate in self.per_thousand.items()}
        for name, site in self.sites.items():
            numbers |= {
                f"rank:{name}": site.rank,
                f"fidelity:{name}": site.fidelity,
                f"full:{name}": site.full_bytes,
                f"stored:{name}": site.stored_bytes,
                f"beside:{name}": site.beside_bytes,
                f"kept:{name}": site.stored_bytes + site.beside_bytes,
            }
        return numbers

    def events(self) -> list[str]:
        """What happened in it, as a `History` counts it: `grow:SITE`, `reset:SITE`."""
        return [f"{site.action}:{name}" for name, site in self.sites.items() if site.action in ("grow", "reset")]

    def note(self) -> dict[str, Any] | None:
        """What else a `History` keeps of it, as plain values: settings that came into force, or {"budget": …}, what was measured of one."""
        if self.budget is None:
            return None if self.settings is None else live_values(self.settings)
        held, choice = self.budget, self.budget.choice
        told: dict[str, Any] = {"cosine": held.cosine, "seconds": held.seconds}
        if choice is not None:
            options = {
                place: {
                    "rank": one.rank,
                    "storage": one.storage,
                    "freed": choice.effects[place, one].freed,
                    "alone": choice.alone(place),
                    "with": choice.beside(place),
                }
                for place, one in choice.options.items()
            }
            reached = {"asked": str(choice.budget), "reached": choice.reached, "mean": choice.cosine, "worst": choice.worst}
            told["choice"] = {**reached, "saved": choice.saved, "full": choice.full, "runs": choice.runs, "options": options}
        return {"budget": told}


class PairedTraining:
    """Both sides of a run. ::

        paired = PairedTraining(get_recipe("sudoku-4x4", variant="mixer"), LaserSettings(enabled=True, rank="50%"), torch.device("cpu"))
        paired.resume(folder)
        while not paired.complete:
            step = paired.advance()
        paired.save(folder)

    sets: folder in which training sets are kept and read again. validation: puzzles that both sides are evaluated on every
    `train.eval_every` steps. Raises `TrainingError` for a recipe or settings that cannot be.
    """

    def __init__(
        self, recipe: Recipe, laser: LaserSettings, device: torch.device, *, sets: Path | None = None, validation: int = VALIDATION_PUZZLES
    ) -> None:
        if not laser.enabled:
            raise TrainingError("one side of a paired training runs with LASER: set laser.enabled")
        self.recipe, self.settings = recipe, laser
        stages = recipe.stages(sets)
        self.trainers = Sides(
            Trainer(recipe.model, recipe.train, stages, device, laser), Trainer(recipe.model, recipe.train, stages, device)
        )
        self.validation = recipe.validation(validation)
        self.history = History()
        self._asked: LaserSettings | None = None  # come into force with the next step
        self._events: dict[str, tuple[float | None, str, str]] = {}
        self.trainers.laser.on_events = self._note
        self._paces: list[float] = []
        self._losses: Sides[deque[float]] = Sides(deque(maxlen=MEAN), deque(maxlen=MEAN))

    @property
    def step(self) -> int:
        """Optimiser steps done, the same on both sides."""
        return self.trainers.laser.step

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.recipe.train.steps

    @property
    def complete(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    @property
    def asked(self) -> LaserSettings | None:
        """Settings of LASER that were asked for and come into force with the next step; None where nothing changes."""
        return self._asked

    @property
    def sites(self) -> dict[str, int]:
        """Width of every place of which something is kept, by name, in the order of the model; empty before the first step."""
        laser = self.trainers.laser.laser
        assert laser is not None
        return dict(laser.places)

    @property
    def budget_is_due(self) -> bool:
        """Whether the next step begins by measuring a budget, which takes as long as many steps."""
        return self.trainers.laser.budget_is_due

    def set_policy(self, **changes: Any) -> LaserSettings:
        """Other settings of LASER from the next step on: rank, min_fidelity, patience, growth. Returns all that are then in force.

        Raises `TrainingError` for others, for values out of range, for a rank that a site is too narrow for, and where a budget or places
        kept whole leave them no say; nothing changes then.
        """
        if not self.settings.rule_counts:
            why = "a budget finds the rank of each site" if self.settings.budget else "places are kept whole, without bases"
            raise TrainingError(f"{why}: rank, min_fidelity, patience and growth do not count in this run; start another to set them")
        foreign = sorted(set(changes) - set(LIVE))
        if foreign:
            raise TrainingError(f"{', '.join(foreign)[:80]} cannot change while a run is trained; {', '.join(LIVE)} can")
        wanted = replace(self.asked or self.settings, **changes)
        try:
            wanted.policy().check_sites({name: layer.in_features for name, layer in find_sites(self.trainers.laser.model).items()})
        except PolicyError as problem:
            raise TrainingError(f"laser: {problem}") from None
        self._asked = wanted if wanted != self.settings else None
        return wanted

    def advance(self) -> PairedStep:
        """One optimiser step of each side, and an evaluation of both where it is due."""
        if self.complete:
            raise TrainingError(f"the run is complete after {self.steps:,} steps: start another")
        started = time.monotonic()
        changed, self._asked = self._asked, None
        laser = self.trainers.laser.laser
        assert laser is not None
        if changed is not None:
            self.settings = changed
            laser.set_policy(changed.policy())
        before = Sides(self.trainers.laser.seconds, self.trainers.plain.seconds)
        loss = Sides(self.trainers.laser.advance(), self.trainers.plain.advance())
        ledger, held = laser.ledger(), self.trainers.laser.held
        accuracy = self._evaluated() if self.step % self.recipe.train.eval_every == 0 or self.complete else None
        measuring = 0.0 if held is None else held.seconds
        self._paces = [*self._paces[1 - PACE :], time.monotonic() - started - measuring]
        nothing: tuple[float | None, str, str] = (None, "", "")
        sites = {}
        for name, line in ledger.sites.items():
            fidelity, action, state = self._events.get(name, nothing)
            rank = None if name not in laser.stored_sites else 0 if line.exact else line.rank
            sites[name] = SiteStep(
                rank, fidelity if rank else None, action, state, line.full_bytes, line.stored_bytes, line.basis_bytes
            )  # fmt: skip
        step = PairedStep(
            step=self.step,
            loss=loss,
            mean_loss=Sides(**{side: self._mean_with(side, loss.of(side)) for side in SIDES}),
            training_exact=Sides(self.trainers.laser.training_exact, self.trainers.plain.training_exact),
            seconds=Sides(self.trainers.laser.seconds - before.laser - measuring, self.trainers.plain.seconds - before.plain),
            sites=sites,
            all_full_bytes=ledger.total.all_full_bytes,
            all_saved_bytes=ledger.total.all_saved_bytes,
            per_thousand={what: ledger.total.per_thousand_steps(what) for what in COUNTS},
            accuracy=accuracy,
            settings=changed,
            budget=held,
            seconds_left=sum(self._paces) / len(self._paces) * (self.steps - self.step),
        )
        self.history.add(step.figures(), step.events(), step.note())
        return step

    def _mean_with(self, side: Side, loss: float) -> float:
        losses = self._losses.of(side)
        losses.append(loss)
        return sum(losses) / len(losses)

    def _note(self, events: Mapping[str, TrackerEvent]) -> None:
        # Read at once: an event refers to tensors that need not live until the next step.
        self._events = {
            name: (event.fidelity if event.previous_rank else None, event.action, event.state) for name, event in events.items()
        }

    def _evaluated(self) -> Sides[Accuracy]:
        found = {}
        for side in SIDES:
            trainer = self.trainers.of(side)
            accuracy = found[side] = evaluate(trainer.averaged(), self.validation)
            trainer.evaluations.append((trainer.step, accuracy.exact[-1]))
            trainer.losses.clear()
        return Sides(**found)

    def export(self, side: Side, folder: Path) -> Path:
        """The averaged weights of one side as they are now, as halves, in a checkpoint folder that `load_checkpoint` opens."""
        trainer, task = self.trainers.of(side), self.recipe.task
        details: dict[str, Any] = {
            "task": task.name,
            "variant": self.recipe.variant,
            "domain": task.domain,
            "size": [task.size, task.size],
            "batch_size": self.recipe.train.batch_size,
            "optimiser_steps": trainer.step,
            "seed": self.recipe.train.seed,
            "training": "with LASER" if side == "laser" else "without LASER",
        }
        if trainer.evaluations and trainer.evaluations[-1][0] == trainer.step:
            details |= {"exact_accuracy": trainer.evaluations[-1][1], "validation_puzzles": len(self.validation)}
        save_checkpoint(trainer.averaged(), folder, details=details, half=True)
        return folder

    # State

    def save(self, folder: Path) -> Path | None:
        """Write all that is needed to go on into `folder`: a new state stands there whole, or the one from before does.

        Returns where it lies, None before the first step, when there is nothing to keep. Raises `TrainingError` where it cannot be written.
        """
        if self.step == 0:
            return None
        if self.trainers.plain.step != self.step:
            raise TrainingError("the sides stand at different steps, because one of them failed: resume the state from before")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            earlier = states(folder)
            number = number_of(earlier[-1]) + 1 if earlier else 0
            temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".state-"))
            try:
                for side in SIDES:
                    self.trainers.of(side).save(temporary / f"{side}.pt")
                asked = None if self._asked is None else live_values(self._asked)
                shown = {"sites": self.sites, "batch": self.recipe.train.batch_size, "puzzles": len(self.validation)}
                losses = {side: list(self._losses.of(side)) for side in SIDES}
                record = {"history": self.history.to_json(), "laser": asdict(self.settings), "asked": asked, "losses": losses, **shown}
                (temporary / HISTORY_FILE).write_text(json.dumps(record), encoding="utf-8")
                (temporary / SUMMARY_FILE).write_text(json.dumps(self.summary()), encoding="utf-8")
                temporary.chmod(0o755)
                target = temporary.rename(folder / state_name(self.step, number))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        except OSError as failure:
            raise TrainingError(f"the run cannot be saved: {failure.strerror or 'unknown fault of the disk'}") from None
        for old in earlier:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def summary(self) -> dict[str, Any]:
        """How the run stands, in few plain values."""
        exact = {side: self.history.newest(f"exact.{side}") for side in SIDES}
        return {"step": self.step, "steps": self.steps, "exact": exact, "seconds": [self.trainers.of(side).seconds for side in SIDES]}

    def resume(self, folder: Path) -> bool:
        """Take up the newest state in `folder`; False where there is none. Raises `TrainingError` where it belongs to another run."""
        state = newest_state(folder)
        if state is None:
            return False
        record = read_record(state)
        try:
            self.settings = LaserSettings(**record["laser"])
            asked = record["asked"]
            self._asked = None if asked is None else replace(self.settings, **asked)
            for side in SIDES:
                self._losses.of(side).extend(float(loss) for loss in record["losses"][side])
        except (TypeError, KeyError, ValueError) as failure:
            raise TrainingError(f"{state.name} cannot be read ({type(failure).__name__}): delete it to start the run afresh") from failure
        laser = self.trainers.laser.laser
        assert laser is not None
        laser.set_policy(self.settings.policy())  # a state holds bases and standings; the settings are those in force when it was saved
        for side in SIDES:
            self.trainers.of(side).load(state / f"{side}.pt")
        self.history = History.from_json(record["history"])
        if not self.history.steps == self.trainers.laser.step == self.trainers.plain.step:
            raise TrainingError(f"{state.name}: the sides stand at different steps: delete it to start the run afresh")
        return True
