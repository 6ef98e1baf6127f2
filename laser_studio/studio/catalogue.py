"""What a page may open: the shipped models, those named on the command line, and the puzzles that fit each.

Names only come from here; nothing a page sends is ever used as a path. Models are loaded once and shared read-only. torch is
imported when the first model is wanted, so that the page can be served before.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_studio.assets import asset_root
from laser_studio.errors import LaserStudioError, PuzzleError, ReportError
from laser_studio.puzzles import DIFFICULTIES, Difficulty, Domain, Puzzle, bundled_sets, get_domain, load_puzzles
from laser_studio.puzzles.arc import Arc
from laser_studio.puzzles.arc_tasks import subset
from laser_studio.puzzles.compact import from_compact
from laser_studio.puzzles.generated import MAX_SEED, generated, generated_id, read_generated
from laser_studio.puzzles.sources.arckit_source import task_puzzle
from laser_studio.studio.links import OWN
from laser_studio.studio.registry import StudioError
from laser_studio.studio.trained import find_model

if TYPE_CHECKING:
    from laser_studio.lab.report import Failure, Report
    from laser_studio.trm import TRM

log = logging.getLogger(__name__)

FIRST_MODEL = "sudoku-6x6"
RECORDING_START = b'{"format":"laser-studio-recording"'  # as `debugger.recording` writes it, which would bring torch along
FIRST_DIFFICULTY: Difficulty = "medium"
FAILS = "fails"  # offered beside the difficulties: what the model is known to fail
MAX_FAILURES = 200  # offered of one model
MAX_BROUGHT = 8  # models brought by pages, kept in memory; a newcomer takes the place of the oldest
MAX_TRAINED = 16  # models of training runs offered at once, those asked for last


@dataclass(frozen=True)
class ModelEntry:
    """A model the page may choose, before it is loaded."""

    name: str
    path: Path
    label: str
    task: tuple[str, int] | None = None  # (domain, side of the board) where the checkpoint says it


@dataclass(frozen=True)
class RecordingEntry:
    """A watched run the page may open."""

    name: str
    path: Path
    label: str


@dataclass(frozen=True)
class SourceEntry:
    """A file or folder of puzzles named at the start."""

    name: str
    path: Path


@dataclass
class _Shelf:
    model: TRM | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Catalogue:
    """Models by name, in the order they are offered; the first is what a fresh page opens."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        device: str = "auto",
        recordings: Sequence[RecordingEntry] = (),
        runs: Path | None = None,
        sources: Sequence[SourceEntry] = (),
    ) -> None:
        if not entries and not recordings:
            raise StudioError("no model to open: no shipped checkpoint was found, so name one with --checkpoint PATH")
        self.entries = {entry.name: entry for entry in entries}
        self.recordings = {entry.name: entry for entry in recordings}
        self.sources = {entry.name: entry for entry in sources}
        self.device = device
        self.runs = runs  # folder of the training page's runs, whose models are offered when they are asked for
        self._trained: list[str] = []
        self._brought: list[str] = []
        self._guard = threading.Lock()
        self._shelves = {name: _Shelf() for name in self.entries}
        self._reports: dict[str, Report | None] = {}

    @property
    def first(self) -> str:
        """Name of the first model."""
        return next(iter(self.entries))

    @property
    def opening(self) -> str:
        """Name of what a fresh page opens: a recording where there is one."""
        return next(iter(self.recordings), None) or self.first

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of all that is offered."""
        recordings = [(entry.label, entry.name) for entry in self.recordings.values()]
        return [*recordings, *((entry.label, entry.name) for entry in self.entries.values())]

    def offers(self, name: str | None) -> bool:
        """Whether a model of that name is offered. One that a training run keeps is from then on."""
        if name is None or name in self.entries:
            return name is not None
        found = find_model(self.runs, name) if self.runs is not None else None
        if found is None:
            return False
        details = _details(found.folder)
        entry = ModelEntry(name, found.folder, _label(name, details, _size(found.folder)), _task(details))
        with self._guard:
            # Whole new tables: others may be reading the old ones.
            self._trained = [*(one for one in self._trained if one != name), name]
            gone, self._trained = self._trained[:-MAX_TRAINED], self._trained[-MAX_TRAINED:]
            self._shelves = {key: shelf for key, shelf in self._shelves.items() if key not in gone} | {name: _Shelf()}
            self.entries = {key: one for key, one in self.entries.items() if key not in gone} | {name: entry}
        return True

    def bring(self, name: str, model: TRM) -> str:
        """Offer a model that is in memory already; the name it gets. Raises `StudioError` where no puzzle here fits it."""
        details = model.details
        task = _task(details) or guess_task(model.config.seq_len, model.config.vocab_size)
        if task is None:
            raise StudioError(_no_puzzles(clean(name), model))
        with self._guard:
            base, number = clean(name)[:40], 2
            while name in self.entries or name in self.recordings:
                name, number = f"{base} ({number})", number + 1
            self._brought = [*self._brought, name]
            gone, self._brought = self._brought[:-MAX_BROUGHT], self._brought[-MAX_BROUGHT:]
            size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
            entry = ModelEntry(name, Path(), _label(name, details, size), task)
            self._shelves = {key: shelf for key, shelf in self._shelves.items() if key not in gone} | {name: _Shelf(model)}
            self.entries = {key: one for key, one in self.entries.items() if key not in gone} | {name: entry}
            self._reports |= {name: None}
        return name

    def load(self, name: str) -> TRM:
        """The model of that name, loaded at the first call. Raises `LaserStudioError`."""
        entry = self.entries.get(name)
        if entry is None:
            raise StudioError(f"no model {str(name)[:60]!r} here: choose one of {', '.join(self.entries)}")
        shelf = self._shelves[name]
        with shelf.lock:
            if shelf.model is None:
                from laser_studio.trm import load_checkpoint

                shelf.model = load_checkpoint(entry.path, device=self.device)
            return shelf.model

    def report(self, name: str) -> Report | None:
        """The evaluation report in a model's folder; None where there is none that can be read."""
        if name not in self._reports:
            from laser_studio.lab.report import REPORT_FILE, load_report

            path = self.entries[name].path
            file = (path if path.is_dir() else path.parent) / REPORT_FILE
            try:
                self._reports[name] = load_report(file) if file.is_file() else None
            except ReportError as problem:
                log.warning("%s: %s", name, problem)
                self._reports[name] = None
        return self._reports[name]

    def task(self, name: str) -> tuple[str, int]:
        """(domain, side of the board) of a model; loads it where its folder does not say. Raises `StudioError`."""
        known = self.entries[name].task if name in self.entries else None
        if known is not None:
            return known
        model = self.load(name)
        guessed = _task(model.details) or guess_task(model.config.seq_len, model.config.vocab_size)
        if guessed is None:
            raise StudioError(_no_puzzles(name, model))
        return guessed

    def puzzles(self, name: str) -> tuple[Puzzle, ...]:
        """The bundled puzzles that fit a model, easy ones first."""
        return bundled_for(*self.task(name))

    def failures(self, name: str) -> Sequence[Failure]:
        """Held-out puzzles that a model is known to fail, by its report; none where it has none."""
        report = self.report(name) if name in self.entries else None
        return report.failures[:MAX_FAILURES] if report is not None else ()

    def can_generate(self, name: str) -> bool:
        """Whether new puzzles can be made for a model."""
        domain, size = self.task(name)
        return size in get_domain(domain).generated_sizes

    def first_puzzle(self, name: str) -> str:
        """Id of the puzzle a fresh page opens."""
        puzzles = self.puzzles(name)
        if puzzles:
            return next((puzzle.name for puzzle in puzzles if puzzle.difficulty == FIRST_DIFFICULTY), puzzles[0].name)
        if not self.can_generate(name):
            domain, size = self.task(name)
            raise StudioError(f"{name}: no puzzle for it is at hand; open a {size}×{size} {get_domain(domain).title} of your own")
        return generated_id(FIRST_DIFFICULTY, 1)

    def puzzle(self, name: str, puzzle_id: str) -> Puzzle:
        """The puzzle of that id for a model: the name of a bundled one, or `generated:hard:123`. Raises `LaserStudioError`."""
        if puzzle_id.startswith(OWN):
            puzzle = from_compact(puzzle_id.removeprefix(OWN))
            if (problem := self.misfit(name, puzzle)) is not None:
                raise StudioError(problem)
            domain, size = self.task(name)
            return get_domain(domain).fitted(puzzle, size)
        for puzzle in self.puzzles(name):
            if puzzle.name == puzzle_id:
                return puzzle
        if (recipe := read_generated(puzzle_id)) is not None:
            domain, size = self.task(name)
            if not self.can_generate(name):
                raise StudioError(f"no {domain} of size {size} can be generated")
            return generated(domain, size, *recipe)
        raise StudioError(f"no puzzle {clean(puzzle_id)!r} for this model")

    def misfit(self, name: str, puzzle: Puzzle) -> str | None:
        """Why a puzzle does not fit a model, with the size it needs and a model that takes it; None where it fits."""
        domain, size = self.task(name)
        kind = get_domain(puzzle.domain)
        reason = f"{name} takes {size}×{size} {get_domain(domain).title}"
        if puzzle.domain == domain:
            try:
                if kind.fitted(puzzle, size).shape == (size, size):
                    return None
            except PuzzleError as problem:
                reason = f"{name}: {problem}"
        needed = kind.side_needed(puzzle) if isinstance(kind, Arc) else 0
        what = f"{needed}×{needed} board" if needed else f"{puzzle.height}×{puzzle.width} {kind.title}"
        others = self.takers(puzzle)
        way = f"open it with {others[0]}" if others else "no model here does: train one, or name one with --checkpoint"
        return (
            f"this puzzle needs a model for a {what} ({puzzle.height * puzzle.width if not needed else needed**2} cells); {reason}; {way}"
        )

    def takers(self, puzzle: Puzzle) -> list[str]:
        """The models whose kind and size a puzzle fits, of those whose folder says what they were trained on, in the order offered."""
        names = []
        for name, entry in self.entries.items():
            if entry.task is None or entry.task[0] != puzzle.domain:
                continue
            try:
                if get_domain(puzzle.domain).fitted(puzzle, entry.task[1]).shape == (entry.task[1],) * 2:
                    names.append(name)
            except PuzzleError:
                continue
        return names

    def companions(self, name: str, puzzle_id: str, count: int) -> list[tuple[str, Puzzle]]:
        """`count` puzzles to run beside one, as (id, puzzle); always the same ones.

        They are those of the same difficulty that follow it in the model's bundled set, and after the last the first again
        (also once all have been taken, so a small set repeats). A generated puzzle is followed by the first ones of its
        difficulty. Where there is no bundled set, the seeds after the puzzle's own are generated.
        """
        if count < 1:
            return []
        puzzle, recipe = self.puzzle(name, puzzle_id), read_generated(puzzle_id)
        difficulty = puzzle.difficulty if recipe is None else recipe[0]
        alike = [other for other in self.puzzles(name) if other.difficulty == difficulty or puzzle_id.startswith(OWN)]
        if not alike and recipe is None and self.can_generate(name):
            difficulty, recipe = FIRST_DIFFICULTY, (FIRST_DIFFICULTY, 0)
        if not alike and recipe is None:
            return [(puzzle_id, puzzle)] * count
        if alike or recipe is None:
            names = [other.name for other in alike]
            first = names.index(puzzle_id) + 1 if puzzle_id in names else 0
            chosen = [alike[(first + offset) % len(alike)] for offset in range(count)]
            return [(other.name, other) for other in chosen]
        assert recipe is not None
        difficulty, seed = recipe
        ids = [generated_id(difficulty, (seed + offset) % (MAX_SEED + 1)) for offset in range(1, count + 1)]
        return [(one, self.puzzle(name, one)) for one in ids]

    def domain(self, name: str) -> Domain:
        """The kind of puzzle a model was trained on."""
        return get_domain(self.task(name)[0])


def _no_puzzles(name: str, model: TRM) -> str:
    size = f"{model.config.vocab_size} tokens" + (f" and {model.config.seq_len} cells" if model.config.seq_len else "")
    return f"{name}: no kind of puzzle here has {size}, so there is nothing to run it on"


@lru_cache(maxsize=16)
def bundled_for(domain: str, size: int) -> tuple[Puzzle, ...]:
    """The bundled puzzles of a kind and size."""
    if domain == "arc":
        return tuple(get_domain("arc").fitted(task_puzzle(task, place), size) for task in subset(size) for place in range(len(task.tests)))
    name = set_name(domain, size)
    return tuple(load_puzzles(name)) if name in bundled_sets() else ()


def set_name(domain: str, size: int) -> str:
    """The name a bundled set of this kind and size has."""
    return f"{domain}-{size}x{size}"


def guess_task(seq_len: int | None, vocab_size: int) -> tuple[str, int] | None:
    """(domain, side) of a model that does not say what it was trained on, from its numbers of tokens."""
    if seq_len is not None:
        side = round(seq_len**0.5)
        if side * side == seq_len:
            for domain in ("sudoku", "maze", "arc"):
                try:
                    if get_domain(domain).vocab_size(side) == vocab_size and _is_board(domain, side):
                        return domain, side
                except PuzzleError:
                    continue
        return None
    return {11: ("sudoku", 9), 8: ("sudoku", 6), 6: ("maze", 9), 12: ("arc", 30)}.get(vocab_size)


def _is_board(domain: str, side: int) -> bool:
    try:
        get_domain(domain).decode([1] * side * side, shape=(side, side))
    except PuzzleError:
        return False
    return True


def find_models(paths: Sequence[Path] = ()) -> list[ModelEntry]:
    """The shipped models, then those named on the command line, each under a name of its own.

    What cannot be a checkpoint at all is refused here, before anything is served: raises `StudioError`.
    """
    shipped = []
    try:
        folder = asset_root() / "checkpoints"
        shipped = sorted(path.parent for path in folder.glob("*/config.json") if (path.parent / "model.safetensors").is_file())
    except LaserStudioError:
        if not paths:
            raise
    shipped.sort(key=lambda path: path.name != FIRST_MODEL)
    entries: dict[str, ModelEntry] = {}
    for path in (*shipped, *paths):
        if not path.exists():
            raise StudioError(f"--checkpoint {clean(str(path))}: there is no such file or folder")
        name = base = clean(os.path.basename(os.path.abspath(path)))[:40] or "model"
        number = 2
        while name in entries:
            name, number = f"{base} ({number})", number + 1
        details = _details(path)
        entries[name] = ModelEntry(name, path, _label(name, details, _size(path)), _task(details))
    return list(entries.values())


def find_recordings(paths: Sequence[Path], models: Sequence[ModelEntry] = ()) -> list[RecordingEntry]:
    """The watched runs named on the command line, each under a name that no model and no other run has.

    A file may come only later, when its run has started; what is no recording at all is refused here: raises `StudioError`.
    """
    entries: dict[str, RecordingEntry] = {}
    taken = {model.name for model in models}
    for path in paths:
        if path.exists() and not _starts_as_recording(path):
            raise StudioError(f"--watch {clean(str(path))}: this is no recording that laser_studio.watch wrote")
        name = base = clean(path.stem)[:40] or "run"
        number = 2
        while name in taken:
            name, number = f"{base} ({number})", number + 1
        taken.add(name)
        entries[name] = RecordingEntry(name, path.absolute(), f"{name} · watched")
    return list(entries.values())


def _starts_as_recording(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(RECORDING_START)) == RECORDING_START
    except OSError:
        return False


def _details(path: Path) -> Mapping[str, Any]:
    """What a folder in our own format says about itself; empty for anything else (the loader judges those)."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        record = json.loads(file.read_bytes()[: 256 * 1024])
    except (OSError, ValueError, RecursionError):
        return {}
    details = record.get("details") if isinstance(record, dict) else None
    return details if isinstance(details, dict) else {}


def _task(details: Mapping[str, Any]) -> tuple[str, int] | None:
    domain, size, task = details.get("domain"), details.get("size"), details.get("task")
    if isinstance(task, str) and (match := re.fullmatch(r"(sudoku|maze)-(\d{1,3})x\2", task)):
        return match[1], int(match[2])
    if isinstance(size, list) and size:
        size = size[0] if all(side == size[0] for side in size) else None
    if isinstance(task, str) and (match := re.fullmatch(r"arc-(\d{1,2})", task)):
        return "arc", int(match[1])
    if domain in ("sudoku", "maze", "arc") and isinstance(size, int) and 1 <= size <= 256:
        return domain, size
    return None


def _size(path: Path) -> int:
    """Bytes of a checkpoint's weights on disk; 0 where that cannot be told."""
    try:
        files = [file for file in path.iterdir() if file.suffix in (".safetensors", ".pt", ".pth", ".bin")] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def _label(name: str, details: Mapping[str, Any], size: int) -> str:
    accuracy = details.get("accuracy")
    exact = accuracy.get("exact") if isinstance(accuracy, Mapping) else details.get("exact_accuracy", accuracy)
    parts = [name]
    if isinstance(exact, int | float) and not isinstance(exact, bool) and 0 <= exact <= 1:
        parts.append(f"{100 * exact:.1f}".removesuffix(".0") + " % exact")  # 99.6 must not read as 100
    if size:
        parts.append(f"{size / 1e6:.1f} MB")
    return " · ".join(parts)


def clean(text: str) -> str:
    """Text fit for a message: printable, at most 60 characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:60])


def puzzle_label(puzzle: Puzzle) -> str:
    """How a puzzle is offered, e.g. "easy · 0001"."""
    return puzzle.name.replace("-", " · ", 1) if puzzle.name else "my puzzle"


DIFFICULTY_NAMES = tuple(DIFFICULTIES)
