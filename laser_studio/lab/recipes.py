"""Recipes: architecture, hyperparameters and training sets for a task, from presets, a file, and single values.

Every field has one name, `SECTION.FIELD`: `model.` (of `TRMConfig`), `train.` (of `TrainSettings`), `data.` (of `DataSettings`)
and `laser.` (of `LaserSettings`). A file is YAML (or JSON) with these sections; `--set` changes single fields of what the preset and
the file say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from laser_studio.errors import CheckpointError, TrainingError
from laser_studio.files import read_yaml
from laser_studio.lab.arc import subset
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.set_store import kept
from laser_studio.lab.tasks import Task, get_task
from laser_studio.lab.train import LaserSettings, Stage, TrainSettings
from laser_studio.settings import setting, settings
from laser_studio.trm import TRMConfig

Variant = Literal["attention", "mixer"]
UNCOMPRESSED = LaserSettings()
PRESETS = ("laptop", "gpu", "official")


@settings(TrainingError)
class Phase:
    """One training set and the optimiser step from which on it is drawn from."""

    start: int = setting(default=0, low=0, high=10_000_000, unit="optimiser steps", help="Step the phase begins at.")
    puzzles: int = setting(default=10_000, low=0, high=10_000_000, help="Distinct puzzles to draw from; ARC: pairs at most, 0 for all.")
    least: int = setting(default=0, low=0, high=10_000, help="Least of the task's measure; 0: as the model is judged.")
    most: int = setting(default=0, low=0, high=10_000, help="Most givens, steps of a maze's path, or cells on an ARC task's longest side.")
    size: int = setting(default=0, low=0, high=64, unit="cells", help="Side of smaller mazes, set on the task's board; 0: the task's.")


@settings(TrainingError)
class DataSettings:
    """What is trained on."""

    phases: tuple[Phase, ...] = setting(default=(Phase(),), help="Training sets in order; the first starts at step 0.")
    augmentations: int = setting(
        default=0, low=0, high=10_000, unit="images", help="Fixed images of each ARC task, each with an identifier of its own."
    )


@dataclass(frozen=True)
class Recipe:
    """All a run needs but its device."""

    task: Task
    model: TRMConfig
    train: TrainSettings
    data: DataSettings
    laser: LaserSettings = UNCOMPRESSED

    @property
    def variant(self) -> Variant:
        """How tokens are mixed."""
        return "mixer" if self.model.mlp_t else "attention"

    def within(self, phase: Phase) -> tuple[int, int]:
        """Inclusive range of the task's measure that a phase is drawn from."""
        low, high = self.task.judged
        return phase.least or low, phase.most or high

    def stages(self, folder: Path | None = None) -> tuple[Stage, ...]:
        """The training sets, drawn from the run's seed; kept in `folder` and read from there, where one is given."""
        return tuple(Stage(phase.start, self._set(phase, folder)) for phase in self.data.phases)

    def _set(self, phase: Phase, folder: Path | None) -> PuzzleSet:
        low, high = self.within(phase)
        task, seed, size = self.task, self.train.seed, phase.size or self.task.size

        def draw() -> PuzzleSet:
            return task.puzzles(phase.puzzles, seed, "train", within=(low, high), size=size, augmentations=self.data.augmentations)

        if folder is None or task.rules:  # a subset of ARC is there in seconds, and its file would hold every board a thousand times
            return draw()
        assert task.symmetry is not None
        name = f"{task.name}-of-{size}-{low}-to-{high}-{phase.puzzles}-seed-{seed}.safetensors"
        return kept(folder / name, draw, task.symmetry, (phase.puzzles, task.seq_len))

    def validation(self, count: int) -> PuzzleSet:
        """Puzzles the weights are chosen by; none is among those the model is judged by."""
        return self.task.puzzles(count, self.train.seed, "validation")

    def held_out(self, count: int) -> PuzzleSet:
        """Puzzles the model is judged by."""
        return self.task.puzzles(count, self.train.seed, "held-out")

    def text(self) -> str:
        """A recipe file that gives this recipe again, whatever presets become."""
        sections = {"model": asdict(self.model), "train": asdict(self.train), "data": asdict(self.data)}
        if self.laser.enabled:
            sections["laser"] = asdict(self.laser)
        sections["data"]["phases"] = list(sections["data"]["phases"])  # YAML knows no tuples
        return yaml.safe_dump(sections, sort_keys=False)


def get_recipe(
    task: str,
    *,
    variant: str | None = None,
    preset: str = "laptop",
    file: Path | None = None,
    changes: Sequence[str] = (),
) -> Recipe:
    """The preset's recipe for a task, changed by a file and then by `SECTION.FIELD=VALUE` texts. Raises `TrainingError`.

    variant: "attention" or "mixer"; None leaves it to the file, else attention. preset: one of `PRESETS`.
    """
    chosen = get_task(task)
    written = _read(file) if file else {}
    if variant is None:
        variant = "mixer" if written.get("model", {}).get("mlp_t") is True else "attention"
    elif variant not in get_args(Variant):
        raise TrainingError(f"unknown variant {variant[:40]!r}: choose {' or '.join(get_args(Variant))}")
    if preset not in PRESETS:
        raise TrainingError(f"unknown preset {preset[:40]!r}: choose one of {', '.join(PRESETS)}")
    sections = _preset(chosen, variant == "mixer", preset)
    for change in (written, {"model": {"mlp_t": variant == "mixer"}}, *map(_change, changes)):
        for section, values in change.items():
            if section not in sections:
                raise TrainingError(f"unknown section {section[:40]!r} of a recipe: {', '.join(sections)}")
            sections[section] |= values
    try:
        data = DataSettings(**sections["data"])
        identifiers = chosen.identifiers(data.augmentations)
        model = TRMConfig(**{"num_puzzle_identifiers": identifiers, **sections["model"]})
        recipe = Recipe(chosen, model, TrainSettings(**sections["train"]), data, LaserSettings(**sections["laser"]))
    except CheckpointError as problem:
        raise TrainingError(str(problem)) from None
    if recipe.model.seq_len != chosen.seq_len or recipe.model.vocab_size != chosen.vocab_size:
        raise TrainingError(f"{chosen.name} has seq_len {chosen.seq_len} and vocab_size {chosen.vocab_size}: leave both out")
    if recipe.model.num_puzzle_identifiers != identifiers:
        raise TrainingError(
            f"{chosen.name} with {data.augmentations} augmentations has {identifiers:,} identifiers: leave num_puzzle_identifiers out"
        )
    if not recipe.data.phases or recipe.data.phases[0].start != 0:
        raise TrainingError("data.phases: the first phase starts at step 0")
    if chosen.domain != "maze" and any(phase.size not in (0, chosen.size) for phase in recipe.data.phases):
        raise TrainingError("data.phases: only mazes can be smaller than their board")
    if not chosen.rules and not all(phase.puzzles for phase in recipe.data.phases):
        raise TrainingError("data.phases: say how many puzzles; only ARC tasks come in a number of their own")
    if not chosen.rules and data.augmentations:
        raise TrainingError("data.augmentations: only ARC tasks have fixed images; other puzzles are turned whenever they are drawn")
    return recipe


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        data = read_yaml(path, anchors=False)
    except ValueError as problem:
        raise TrainingError(f"{path.name[:80]} {problem}: a recipe file is a short text of YAML or JSON") from None
    except OSError as failure:
        raise TrainingError(f"{path.name[:80]} cannot be read: {failure.strerror}") from None
    if not isinstance(data, Mapping) or not all(isinstance(values, Mapping) for values in data.values()):
        raise TrainingError(f"{path.name}: a recipe file has sections model, train, data and laser, each with fields")
    return {str(section): {str(name): value for name, value in values.items()} for section, values in data.items()}


def _change(text: str) -> dict[str, dict[str, Any]]:
    name, equals, value = text.partition("=")
    section, dot, field = name.strip().partition(".")
    if not (equals and dot and field):
        raise TrainingError(f"{text[:60]!r}: write SECTION.FIELD=VALUE, such as train.lr=0.001")
    try:
        return {section: {field: yaml.safe_load(value)}}
    except yaml.YAMLError:
        raise TrainingError(f"{text[:60]!r}: the value cannot be read") from None


def _preset(task: Task, mixer: bool, preset: str) -> dict[str, dict[str, Any]]:
    model: dict[str, Any] = {"vocab_size": task.vocab_size, "seq_len": task.seq_len, "mlp_t": mixer}
    train, data = {"official": _official, "gpu": _gpu, "laptop": _laptop}[preset](task, mixer, model)
    return {"model": model, "train": train, "data": data, "laser": {}}


def _official(task: Task, _: bool, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The published recipe (arXiv 2510.04871)."""
    if task.rules:
        return _official_arc(task, model)
    model |= {"puzzle_emb_ndim": 512, "puzzle_emb_len": 16, "L_cycles": 6 if task.domain == "sudoku" else 4}
    train = {"lr": 1e-4, "warmup": 2_000, "weight_decay": 1.0, "batch_size": 768, "steps": 65_000, "eval_every": 2_000, "save_every": 500}
    return train, {"phases": ({"puzzles": 1_000},)}


def _gpu(task: Task, mixer: bool, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Minutes of one large GPU: the official size for 9×9 Sudoku; smaller tasks as on a laptop, in larger batches."""
    if task.domain == "sudoku" and task.size == 9:
        train, _ = _official(task, mixer, model)
        train |= {"batch_size": 256, "weight_decay": 0.1, "compile": True}
        if mixer:
            train |= {"lr": 4e-4, "warmup": 200, "steps": 2_200, "cooldown": 750, "eval_every": 250}
        else:
            # RoPE by a cell's row and column: attention sees at once what shares them, which by places alone it is long in learning.
            model |= {"rope_columns": task.size, "rope_theta": 20.0}
            train |= {"lr": 3e-4, "warmup": 300, "steps": 5_000, "cooldown": 1_700, "eval_every": 500}
        # As for 6×6: sparse boards first, then the range the model is judged by.
        return train, {"phases": ({"puzzles": 12_000, "least": 24, "most": 34}, {"start": 1_100, "puzzles": 15_000})}
    if task.rules:
        train, data = _official_arc(task, model)  # shorter; not run yet
        train |= {"steps": 12_000, "warmup": 1_000, "batch_size": 384, "lr": 2e-4, "cooldown": 4_000, "eval_every": 1_000}
        return train, data | {"augmentations": 200}
    train, data = _laptop(task, mixer, model)
    if task.domain == "maze":
        train |= {"batch_size": 128, "warmup": 200, "steps": 4_600, "cooldown": 900, "eval_every": 250}
    return train | {"compile": True}, data


def _official_arc(task: Task, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The published recipe for ARC-AGI-1, on the tasks at hand: 100,000 passes over their demonstrations, 1,000 images of each task."""
    model |= {"puzzle_emb_ndim": 512, "puzzle_emb_len": 16, "L_cycles": 4}
    train: dict[str, Any] = {"lr": 1e-4, "warmup": 2_000, "weight_decay": 0.1, "batch_size": 768, "save_every": 500}
    train["steps"] = 100_000 * sum(len(one.demonstrations) for one in subset(task.size)) // train["batch_size"]
    train["eval_every"] = train["steps"] // 10
    return train, {"phases": ({"puzzles": 0},), "augmentations": 1_000}


def _laptop(task: Task, mixer: bool, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Small enough for one or two CPU cores; found by trial, see docs/training.md."""
    # The prefix is more than a name of the puzzle: RoPE knows distances only, and four tokens at the front are what a cell can
    # measure its own row and column against. Without them training stalled.
    model |= {"forward_dtype": "float32", "puzzle_emb_len": 4, "H_cycles": 3, "L_cycles": 4, "halt_max_steps": 8}
    model |= {"hidden_size": 128, "num_heads": 4, "puzzle_emb_ndim": 128}
    if mixer:
        model["expansion"] = 2.0  # the SwiGLU over features costs half as much then; the one over the sequence is rounded up to 256 anyway
    train: dict[str, Any] = {"batch_size": 64, "lr": 7e-4, "warmup": 100, "eval_every": 200}
    if task.domain == "maze":
        model["puzzle_emb_len"] = -task.seq_len % 8 or 8  # an aligned sequence makes the mixer's products faster by a fifth
        return train | {"steps": 2_400, "cooldown": 1_000}, {"phases": ({"puzzles": 20_000},)}
    if task.domain == "arc":
        return train | {"steps": 3_000, "cooldown": 1_200}, {"phases": ({"puzzles": 0},), "augmentations": 30}
    if task.size == 4:
        model |= {"hidden_size": 64, "num_heads": 2, "puzzle_emb_ndim": 64, "H_cycles": 2, "L_cycles": 2, "halt_max_steps": 4}
        return train | {"steps": 600, "cooldown": 300, "lr": 2e-3, "warmup": 30}, {"phases": ({"puzzles": 4_000},)}
    if task.size == 6:
        # Sparse boards first: they ask for elimination over every row, column and box. Then the range the model is judged by.
        sparse_first = ({"puzzles": 10_000, "least": 9, "most": 22}, {"start": 1_300 if mixer else 1_700, "puzzles": 20_000})
        length = {"steps": 2_400, "cooldown": 1_100} if mixer else {"steps": 3_400, "cooldown": 1_500}
        return train | length, {"phases": sparse_first}
    return train | {"steps": 3_000, "cooldown": 1_200}, {"phases": ({"puzzles": 10_000},)}
