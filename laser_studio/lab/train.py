"""Train a TRM: deep supervision with carried state, halting with exploration, EMA, resumable to the same curve.

`Trainer` holds everything that must survive a stop; `fit` is the loop. Tasks and presets are in `tasks`, losses in
`losses`, sets in `data`. The command line and tests call `fit`.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from laser_studio.device import device_in_words
from laser_studio.errors import CompressionError, PolicyError, TrainingError
from laser_studio.files import atomic_path
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.distributed import ALONE, Team
from laser_studio.lab.evaluate import Accuracy, evaluate
from laser_studio.lab.losses import forward_backward
from laser_studio.lab.optim import SignSGD, WeightAverage
from laser_studio.laser import Compression, LaserPolicy, TrackerEvent, compress
from laser_studio.laser.budget import Budget, Choice
from laser_studio.laser.linalg import private_generator
from laser_studio.laser.policy import ALL_OFF
from laser_studio.laser.products import Products
from laser_studio.laser.quantise import Storage
from laser_studio.settings import describe, setting, settings
from laser_studio.trm import TRM, TRMConfig, save_checkpoint
from laser_studio.trm.layers import WITHIN_BLOCKS
from laser_studio.trm.model import Carry

STATE_FILE = "training_state.pt"
BEST_FOLDER = "best"
LOG_FILE = "log.csv"
CHOICE_FILE = "choices.txt"
FIRST_CHOICE = 3  # step before which a budget is chosen by for the first time
CHOICE_RUNS = 8  # steps it is chosen on: half of them make bases, the others measure
LATER = ("budget", "recheck", "products", "whole", "blocks")  # settings of compression that older runs do not know
FREE = ("steps", "eval_every", "save_every", "target", "patience", "compile")  # may change between a stop and a resume


@settings(TrainingError)
class TrainSettings:
    """Hyperparameters of a training run."""

    steps: int = setting(default=2_400, low=1, high=10_000_000, unit="optimiser steps", help="Length of the run.")
    batch_size: int = setting(default=64, low=1, high=65_536, unit="puzzles", help="Puzzles per optimiser step.")
    lr: float = setting(default=7e-4, low=0, high=1, help="AdamW learning rate.")
    warmup: int = setting(default=100, low=0, high=1_000_000, unit="optimiser steps", help="Steps over which the rate rises linearly.")
    cooldown: int = setting(default=0, low=0, high=1_000_000, unit="optimiser steps", help="Last steps, over which it falls to zero.")
    weight_decay: float = setting(default=0.1, low=0, high=10, help="AdamW weight decay.")
    beta1: float = setting(default=0.9, low=0, high=0.999999, help="AdamW decay of the mean gradient.")
    beta2: float = setting(default=0.95, low=0, high=0.999999, help="AdamW decay of the mean squared gradient.")
    puzzle_emb_lr: float = setting(default=1e-2, low=0, high=1, help="SignSGD rate of the puzzle embedding.")
    ema: float = setting(default=0.999, low=0, high=0.999999, help="Decay of the weight average that is evaluated and saved.")
    augment: bool = setting(default=True, help="Turn each puzzle into a random symmetric image of it.")
    compile: bool = setting(default=False, help="Compile the net with torch.compile: faster steps after minutes of compiling.")
    target: float = setting(default=0, low=0, high=1, help="Exact validation accuracy at which the run ends early; 0: never.")
    patience: int = setting(
        default=0, low=0, high=10_000, unit="evaluations", help="Evaluations without a better one that end it; 0: never."
    )
    seed: int = setting(default=0, low=0, high=2**31 - 1, help="Seed of weights, order, augmentation and exploration.")
    eval_every: int = setting(default=100, low=1, high=1_000_000, unit="optimiser steps", help="Distance between evaluations.")
    save_every: int = setting(default=100, low=1, high=1_000_000, unit="optimiser steps", help="Distance between saved states.")


@settings(TrainingError)
class LaserSettings:
    """Whether and how a run stores its activations compressed; see `laser_studio.laser.compress`."""

    enabled: bool = setting(default=False, help="Train on compressed activations.")
    mode: Literal["block", "linear"] = setting(
        default="block", help="block rebuilds all but Z between stages; linear stores linear inputs as Z."
    )
    budget: str = setting(
        default="",
        help='"cosine=0.99" or "bytes=3%": finds rank and storage of each site, for which those here do not count.',
    )
    recheck: int = setting(
        default=500, low=1, high=10_000_000, unit="optimiser steps", help="Distance at which a budget is measured again."
    )
    storage: Literal["exact", "int8", "int4"] = setting(
        default="exact",
        help="Of coefficients and places kept whole: the forward's dtype, eight bits, or four (for whole ones).",
    )
    products: Products = setting(
        default="auto", help="Arithmetic on what is kept in few bits; auto: int8 where a CPU is faster so, bf16 on a GPU."
    )
    whole: bool = setting(
        default=False, help="No bases: keep the places between stages whole, in `storage`; for mode block, without a budget."
    )
    blocks: bool = setting(
        default=False, help="Keep nothing within a block, make it again from what entered the block; for mode block, without a budget."
    )
    on_miss: Literal["stay", "keep_exact"] = setting(
        default="stay", help="What a site keeps after a step below min_fidelity: Z, or X whole."
    )
    rank: int | str = setting(default="25%", unit="directions", help="Directions of a basis at the start, or a part of the site's width.")
    max_rank: int | str | None = setting(default=None, unit="directions", help="Most directions; empty: the site's width.")
    min_fidelity: float = setting(default=0.99, low=0, high=1, help="Fidelity below which a step is a miss; 0 holds the rank.")
    patience: int = setting(default=3, low=1, high=1_000, unit="optimiser steps", help="Misses in a row before a reset.")
    growth: int = setting(default=8, low=1, high=4_096, unit="directions", help="Directions added at a miss.")

    def __post_init__(self) -> None:
        self.policy()  # so that a rank that cannot be read is refused before anything is trained
        for name in ("whole", "blocks"):
            if self.budget and getattr(self, name):
                raise TrainingError(
                    f"laser.{name} says how places are kept, and laser.budget ({self.budget:.40}) finds that by itself: "
                    'leave one of them out (`study` has a budget unless told --budget "")'
                )
        if self.whole and self.mode == "linear":
            raise TrainingError('laser.whole keeps the places between the stages of mode "block", and mode "linear" has none: change one')
        if self.blocks and self.mode == "linear":
            raise TrainingError('laser.blocks makes places of mode "block" again, and mode "linear" has none: change one')
        if self.budget:
            try:
                Budget.read(self.budget)
            except CompressionError as problem:
                raise TrainingError(f"laser: {problem}") from None

    @property
    def rule_counts(self) -> bool:
        """Whether rank, min_fidelity, patience and growth have a say: not where a budget finds ranks, nor where there are no bases."""
        return not (self.budget or self.whole)

    def policy(self) -> LaserPolicy:
        """The policy of all sites."""
        values = {name: getattr(self, name) for name in ("rank", "max_rank", "min_fidelity", "patience", "growth")}
        try:
            return LaserPolicy(**values, sites=ALL_OFF if self.whole else {})
        except PolicyError as problem:
            raise TrainingError(f"laser: {problem}") from None


def per_block(storage: Storage) -> dict[str, Storage]:
    """That storage between blocks, and nothing within: the place before each block's SwiGLU is made again from the one before."""
    return {"*": storage, WITHIN_BLOCKS: "recomputed"}


@dataclass(frozen=True)
class Progress:
    """What one optimiser step reports: loss of the step, exact share over the last samples that halted, seconds left.

    accuracy: of the last evaluation on validation puzzles, None before the first.
    """

    step: int
    steps: int
    loss: float
    exact: float
    seconds_left: float
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Held:
    """A budget measured before an optimiser step.

    cosine: that what was chosen before reaches now, 1 where there was nothing yet; choice: what was chosen anew, None where it stays;
    seconds: the measuring took.
    """

    cosine: float
    choice: Choice | None
    seconds: float


@dataclass(frozen=True)
class Stage:
    """Puzzles to draw from, from optimiser step `start` on; the first stage starts at 0."""

    start: int
    data: PuzzleSet


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """A step was given up before anything of it was done."""


class Trainer:
    """Model, optimisers, averages, generators and the carried state of one run.

    should_stop: asked while a budget is measured, which may take long; where it says so `advance` raises `Stopped`.
    """

    def __init__(
        self,
        config: TRMConfig,
        settings: TrainSettings,
        stages: Sequence[Stage],
        device: torch.device,
        laser: LaserSettings | None = None,
        team: Team = ALONE,
    ) -> None:
        if settings.batch_size % team.size:
            raise TrainingError(f"train.batch_size {settings.batch_size} cannot be shared equally by {team.size} processes")
        self.team = team
        self.config, self.settings, self.stages, self.device = config, settings, tuple(stages), device
        self.laser_settings = laser or LaserSettings()
        self.model = TRM(config, seed=settings.seed).to(device).train()
        self.laser: Compression | None = None
        self.on_events: Callable[[Mapping[str, TrackerEvent]], object] | None = None  # told what LASER's rule did, after every step
        self.should_stop: Callable[[], bool] = lambda: False
        if self.laser_settings.enabled:
            if settings.compile:
                raise TrainingError("train.compile and laser.enabled exclude each other: torch.compile would pass compression by")
            how = self.laser_settings
            self.laser = compress(
                self.model,
                how.policy(),
                how.mode,
                budget=how.budget or None,
                on_miss=how.on_miss,
                storage=per_block(how.storage) if how.blocks else how.storage,
                products=how.products,
                group=team.group,
            )
        self.choices: list[tuple[int, str]] = []  # of a budget: the step after which it was measured, and what it was found to be
        self.held: Held | None = None  # a budget, where the newest step began by measuring it
        if settings.compile:
            self.model.net.compile()  # in place: the names of the weights stay as they are
        self.model.exploration = torch.Generator(device).manual_seed(settings.seed + 1)
        self.model.exploration_share = team.rank, team.size
        self.sampling = torch.Generator().manual_seed(settings.seed + 2)
        embedding = [p for name, p in self.model.named_parameters() if name == "embedding.puzzles"]
        others = [p for name, p in self.model.named_parameters() if name != "embedding.puzzles"]
        self.adam = torch.optim.AdamW(
            others, lr=settings.lr, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay, fused=True
        )
        self.sign = SignSGD(embedding, settings.puzzle_emb_lr, settings.weight_decay) if embedding else None
        self.ema = WeightAverage(self.model, settings.ema)
        self.step = 0
        self.seconds = 0.0  # spent in optimiser steps so far, over all sittings
        self.devices = [device_in_words(device)]  # on which they were made, in order
        self.carry: Carry | None = None
        self.recent: deque[float] = deque(maxlen=10 * settings.batch_size)
        self.losses: list[float] = []  # since the last evaluation
        self.evaluations: list[tuple[int, float]] = []  # (step, exact accuracy) of all so far

    def advance(self) -> float:
        """One optimiser step; returns its loss. Raises `Stopped` where it was stopped while a budget was measured, all else as before."""
        started = time.monotonic()
        self.held = self._hold_budget(self.laser) if self.laser is not None and self.budget_is_due else None
        batch = self._draw()
        if self.carry is None:
            self.carry = self.model.initial_carry(batch)
        with self.laser or nullcontext():
            carry, loss = forward_backward(self.model, self.carry, batch)
        self.team.mean_gradients(self.model.parameters())
        share = self._rate_share()
        for optimiser, rate in ((self.adam, self.settings.lr), (self.sign, self.settings.puzzle_emb_lr)):
            if optimiser is not None:
                for group in optimiser.param_groups:
                    group["lr"] = rate * share
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        if self.laser is not None:
            events = self.laser.step()
            if self.on_events is not None:
                self.on_events(events)
        self.ema.update(self.model, self.step)
        self.carry = carry
        self.step += 1
        self.recent.extend(self.team.whole(loss.exact)[self.team.whole(carry.halted)].float().tolist())
        value = float(self.team.whole(loss.total.detach()[None]).mean())  # waits for the device, so the time is real
        self.losses.append(value)
        self.seconds += time.monotonic() - started
        return value

    @property
    def budget_is_due(self) -> bool:
        """Whether the next step begins by measuring a budget: at the first steps' end, when samples are at several supervision steps, and
        then at every so many."""
        if self.laser is None or self.laser.budget is None:
            return False
        return self.step == FIRST_CHOICE or (self.step > FIRST_CHOICE and self.step % self.laser_settings.recheck == 0)

    def _hold_budget(self, laser: Compression) -> Held:
        """Measure on steps that go on from here with puzzles of a generator of their own: what follows is as if it had not been."""
        started, exploration = time.monotonic(), self.model.exploration
        assert exploration is not None and self.carry is not None
        before, carry = exploration.get_state(), self.carry
        draw = private_generator("budget", self.settings.seed, self.step)
        runs = []
        for _ in range(CHOICE_RUNS):
            batch = self._draw(draw)
            runs.append(partial(self._measured_run, carry, batch))
            with torch.no_grad():
                carry, _ = self.model(carry, batch)
        try:
            cosine, choice = laser.hold(runs)
        finally:
            exploration.set_state(before)
        self.choices.append((self.step, f"budget {laser.budget}: cosine {cosine:.5f}, kept" if choice is None else str(choice)))
        return Held(cosine, choice, time.monotonic() - started)

    def _measured_run(self, carry: Carry, batch: dict[str, torch.Tensor]) -> None:
        if self.team.anyone(self.should_stop()):
            raise Stopped
        forward_backward(self.model, carry, batch)
        self.team.mean_gradients(self.model.parameters())

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and exact accuracy of the best evaluation, the latest of equals; None before the first."""
        return max(self.evaluations, key=lambda one: (one[1], one[0]), default=None)

    def enough(self) -> bool:
        """Whether the run may end before its last step: the target is reached, or patience is over."""
        best, settings = self.best, self.settings
        if best is None:
            return False
        since = sum(step > best[0] for step, _ in self.evaluations)
        return bool(settings.target and best[1] >= settings.target) or bool(settings.patience and since >= settings.patience)

    def _rate_share(self) -> float:
        """Part of the learning rate in force: rises over `warmup`, falls over `cooldown`, 1 in between."""
        rising = (self.step + 1) / max(1, self.settings.warmup)
        falling = (self.settings.steps - self.step) / self.settings.cooldown if self.settings.cooldown else 1.0
        return min(1.0, rising, falling)

    @property
    def training_exact(self) -> float:
        """Exact share of the last training samples that halted, about ten batches of them."""
        return sum(self.recent) / max(1, len(self.recent))

    @property
    def data(self) -> PuzzleSet:
        """The set in use at this step."""
        return [stage.data for stage in self.stages if stage.start <= self.step][-1]

    def averaged(self) -> TRM:
        """A copy of the model with the averaged weights, in evaluation mode."""
        model = copy.deepcopy(self.model).eval()
        self.ema.copy_to(model)
        return model

    def _draw(self, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        batch = self.data.sample(self.settings.batch_size, generator or self.sampling, augment=self.settings.augment)
        return {key: self.team.part(value).to(self.device) for key, value in batch.items()}

    def _identity(self) -> str:
        # Settings that only say how long to go on may change between a stop and a resume; all others may not. What is at its
        # default is left out, so that a setting that is new in a later version does not make older runs strangers.
        default = describe(TrainSettings)
        fixed = {k: v for k, v in asdict(self.settings).items() if k not in FREE and v != default[k].default}
        parts: list[object] = [asdict(self.config), fixed, [stage.start for stage in self.stages]]
        if self.laser_settings.enabled:
            known = describe(LaserSettings)
            parts.append({k: v for k, v in asdict(self.laser_settings).items() if k not in LATER or v != known[k].default})
        text = json.dumps(parts, sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for stage in self.stages:
            digest.update(stage.data.inputs.numpy().data)
            if stage.data.identifiers is not None:
                digest.update(stage.data.identifiers.numpy().data)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write all state atomically, that of all processes by the leading one: it can be taken up by any number of them."""
        assert self.carry is not None and self.model.exploration is not None
        state = {
            "identity": self._identity(),
            "step": self.step,
            "seconds": self.seconds,
            "devices": self.devices,
            "model": self.model.state_dict(),
            "ema": self.ema.average,
            "adam": self.adam.state_dict(),
            "carry": self._whole_carry(self.carry),
            "sampling": self.sampling.get_state(),
            "exploration": self.model.exploration.get_state(),
            "recent": list(self.recent),
            "laser": None if self.laser is None else self.laser.state_dict(),
            "choices": self.choices,
            "losses": self.losses,
            "evaluations": self.evaluations,
        }
        if self.team.leads:
            with atomic_path(path) as temporary:
                torch.save(state, temporary)

    def _whole_carry(self, carry: Carry) -> dict[str, Any]:
        whole: dict[str, Any] = {name: self.team.whole(getattr(carry, name)) for name in ("z_H", "z_L", "steps", "halted")}
        whole["levels"] = [self.team.whole(level) for level in carry.levels]
        return whole | {"current_data": {key: self.team.whole(value) for key, value in carry.current_data.items()}}

    def _own_carry(self, whole: dict[str, Any]) -> Carry:
        data = {key: self.team.part(value) for key, value in whole["current_data"].items()}
        z_H, z_L, steps, halted = (self.team.part(whole[name]) for name in ("z_H", "z_L", "steps", "halted"))
        levels = tuple(self.team.part(level) for level in whole.get("levels", ()))  # states saved by older versions have none
        return Carry(z_H, z_L, steps, halted, data, levels)

    def load(self, path: Path) -> None:
        """Take up a saved state; raises `TrainingError` where it belongs to another run."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["identity"] != self._identity():
                raise TrainingError(
                    f"{path.name} was written with other settings or data: use the same ones to resume, or another output folder"
                )
            self.model.load_state_dict(state["model"])
            self.ema.load(state["ema"])
            self.adam.load_state_dict(state["adam"])
            self.carry = self._own_carry(state["carry"])
            self.sampling.set_state(state["sampling"].cpu())
            assert self.model.exploration is not None
            self.model.exploration.set_state(state["exploration"].cpu())
            self.recent.extend(state["recent"])
            if self.laser is not None:
                self.laser.load_state_dict(state["laser"])
            self.choices = [(step, text) for step, text in state.get("choices", [])]
            self.losses, self.evaluations = state["losses"], [(step, exact) for step, exact in state["evaluations"]]
            self.step, self.seconds = state["step"], state["seconds"]
            before = state.get("devices", [])  # absent in states of earlier versions
            self.devices = before if before[-1:] == self.devices else before + self.devices
        except TrainingError:
            raise
        except Exception as failure:
            raise TrainingError(f"{path.name} cannot be read ({type(failure).__name__}): delete it to start the run afresh") from failure


def fit(
    trainer: Trainer,
    validation: PuzzleSet,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> bool:
    """Train to `settings.steps`, or until `Trainer.enough`; resumes from `folder`. Returns whether the run is complete.

    On the way it evaluates on `validation`, logs to `log.csv`, keeps the averaged weights of the best evaluation in `best/`, as halves, and
    the whole state in `training_state.pt`. Stops after the current step, or while a budget is measured before it, when `should_stop` says
    so, saving first.
    """
    settings, state, team = trainer.settings, folder / STATE_FILE, trainer.team
    if state.exists():
        trainer.load(state)
    folder.mkdir(parents=True, exist_ok=True)
    if should_stop is not None:
        trainer.should_stop = should_stop
    accuracy, started, first = None, time.monotonic(), trainer.step
    while trainer.step < settings.steps and not trainer.enough():
        try:
            loss = trainer.advance()
        except Stopped:
            trainer.save(state)
            break
        step = trainer.step
        done = step == settings.steps
        stopping = team.anyone(trainer.should_stop())
        if step % settings.eval_every == 0 or done:
            averaged = trainer.averaged()
            accuracy = team.from_leader(evaluate(averaged, validation) if team.leads else None)
            trainer.evaluations.append((step, accuracy.exact[-1]))
            if team.leads:
                if trainer.best == trainer.evaluations[-1]:
                    save_checkpoint(averaged, folder / BEST_FOLDER, details={"step": step, "exact_accuracy": accuracy.exact[-1]}, half=True)
                _log(folder / LOG_FILE, trainer, accuracy)
            trainer.losses.clear()
        if team.leads and trainer.choices and trainer.choices[-1][0] == step - 1:
            with atomic_path(folder / CHOICE_FILE) as temporary:
                temporary.write_text("\n\n".join(f"step {number}: {text}" for number, text in trainer.choices) + "\n", encoding="utf-8")
        if on_step is not None:
            left = (time.monotonic() - started) / (step - first) * (settings.steps - step)
            on_step(Progress(step, settings.steps, loss, trainer.training_exact, left, accuracy))
        if step % settings.save_every == 0 or done or stopping or trainer.enough():
            trainer.save(state)
        if stopping:
            break
    return trainer.step >= settings.steps or trainer.enough()


def _compression(laser: Compression) -> dict[str, float]:
    """What the log says of it: net share of all saved bytes that is gone, mean fidelity and misses so far over all sites."""
    ledger = laser.ledger()
    tracked = [line.fidelity for line in ledger.sites.values() if line.rank]
    fidelity = sum(tracked) / max(1, len(tracked))
    return {"saving": ledger.total.all_saved_saving, "fidelity": fidelity, "misses": ledger.total.misses, "resets": ledger.total.resets}


def _log(path: Path, trainer: Trainer, accuracy: Accuracy) -> None:
    """One row more: loss is the mean since the row before, exact_S the validation accuracy after supervision step S."""
    rows: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            # a resumed run overwrites what it repeats
            rows = [dict(row) for row in csv.DictReader(file) if int(row["step"]) < trainer.step]
    figures: dict[str, float] = {
        "loss": sum(trainer.losses) / len(trainer.losses),
        "training_exact": trainer.training_exact,
        "exact": accuracy.exact[-1],
        "cell": accuracy.cell[-1],
        **({} if trainer.laser is None else _compression(trainer.laser)),
        **{f"exact_{number}": exact for number, exact in enumerate(accuracy.exact, 1)},
    }
    rows.append({"step": trainer.step, **{name: f"{value:.5f}" for name, value in figures.items()}})
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["step", *figures])
        writer.writeheader()
        writer.writerows(rows)
