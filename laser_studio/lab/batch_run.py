"""Many puzzles through a model, one row each: solved or not, after how many steps, with which fidelity, how many resets.

Each puzzle is a run of its own with trackers of its own, so that a row tells what the debugger shows when the puzzle is opened there.
Without the tracker puzzles of one kind and size share a batch, which is many times faster and leaves the tracker's figures out.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch

from laser_studio.debugger.fitting import fitted, row_of, tokens_of
from laser_studio.debugger.reading import Reader
from laser_studio.debugger.stepper import Stepper
from laser_studio.errors import LaserStudioError
from laser_studio.files import atomic_path
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Comparison, Puzzle, get_domain
from laser_studio.puzzles.sources import Collection, Entry
from laser_studio.trm import TRM, CheckpointNeeds, load_checkpoint
from laser_studio.trm.checkpoints import known_tasks

BATCH = 32  # puzzles that share a batch where no tracker is asked for
Outcome = Literal["solved", "wrong", "unknown", "not run"]


@dataclass(frozen=True)
class BatchRow:
    """How one puzzle went.

    outcome: "unknown" where nobody can say (an ARC task without its answer), "not run" where `problem` says why.
    steps: recursion steps until the answer was right for good, None where it ends wrong or nobody can say; supervision: the same in
    supervision steps. right of total: cells that were not given. halts: the first supervision step at whose end q_halt is above 0.
    fidelity: mean over steps and sites of the energy kept; resets: of all sites. Both None without the tracker.
    """

    id: str
    split: str = ""
    difficulty: str = ""
    rating: float | None = None
    outcome: Outcome = "not run"
    steps: int | None = None
    supervision: int | None = None
    right: int | None = None
    total: int | None = None
    halts: int | None = None
    fidelity: float | None = None
    resets: int | None = None
    seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Item:
    """What is run: a puzzle's entry, and how to get it (reading may fail, which makes a row of its own)."""

    entry: Entry
    read: Callable[[], Puzzle]


def items_of(collection: Collection, chosen: Iterable[int] | None = None) -> Iterator[Item]:
    """The puzzles of a collection, all or those at some places, in order."""
    for index in range(len(collection)) if chosen is None else chosen:
        yield Item(collection.entry(index), lambda index=index: collection.puzzle(index))  # type: ignore[misc]


def load_for(checkpoint: str | Path, items: Sequence[Item], *, device: str = "auto") -> TRM:
    """The model; where its puzzle embedding is too large to be kept whole, with the rows of these puzzles' tasks alone.

    Raises `CheckpointError`, `CheckpointNeeds` for what neither checkpoint nor puzzles tell.
    """
    try:
        return load_checkpoint(checkpoint, device=device)
    except CheckpointNeeds as needs:
        if [need.name for need in needs.needs] != ["task"] or not (rows := _rows_of(checkpoint, items)):
            raise
    return load_checkpoint(checkpoint, device=device, puzzle_identifiers=rows)


def _rows_of(checkpoint: str | Path, items: Sequence[Item]) -> list[int]:
    places = {name: row for row, name in enumerate(known_tasks(checkpoint))}
    rows: dict[int, None] = {}
    for item in items:
        try:
            puzzle = item.read()
        except LaserStudioError:  # a row of its own says so when it is run
            continue
        row = places.get(puzzle.task, puzzle.identifier)
        if row is not None:
            rows[row] = None
    return list(rows)


def run_batch(
    model: TRM,
    items: Iterable[Item],
    *,
    policy: LaserPolicy | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[BatchRow]:
    """A row for each item in order, as it is done. policy: of the trackers; None: no trackers, many puzzles at once.

    A puzzle that cannot be read or does not fit gives a row that says so. `should_stop` is asked before each step; what was under way
    then is dropped.
    """
    stops = should_stop or (lambda: False)
    if policy is not None:
        for item in items:
            if stops() or (row := _alone(model, item, policy, stops)) is None:
                return
            yield row
        return
    for group in _alike(model, items):
        if stops():
            return
        rows = _together(model, group, stops)
        if rows is None:
            return
        yield from rows


def write_csv(path: Path, rows: Sequence[BatchRow]) -> None:
    """The rows as a table, RFC 4180; replaces `path` whole or not at all. Raises `OSError`."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(BatchRow)])
        writer.writerows([["" if value is None else value for value in astuple(row)] for row in rows])


class _Course:
    """The answers of one puzzle, H cycle by H cycle: when it became right for good, and when the model would halt."""

    def __init__(self) -> None:
        self.verdict: Comparison | None = None
        self.since: tuple[int, int] | None = None  # (recursion step, supervision step) since which the answer is right
        self.halts: int | None = None

    def see(self, step: int, supervision: int, verdict: Comparison, q_halt: float, *, ends: bool) -> None:
        """The answer after recursion step `step`; ends: whether a supervision step ends there."""
        if not verdict.solved:
            self.since = None
        elif self.since is None:
            self.since = (step, supervision)
        self.verdict = verdict
        if ends and self.halts is None and q_halt > 0:
            self.halts = supervision

    def row(self, entry: Entry, seconds: float, fidelity: float | None = None, resets: int | None = None) -> BatchRow:
        verdict = self.verdict
        assert verdict is not None
        outcome: Outcome = "unknown" if verdict.solved is None else "solved" if verdict.solved else "wrong"
        steps, supervision = self.since or (None, None)
        return BatchRow(
            *_told(entry), outcome, steps, supervision, verdict.right, verdict.total, self.halts,
            None if fidelity is None else round(fidelity, 6), resets, round(seconds, 3),
        )  # fmt: skip


def _told(entry: Entry) -> tuple[str, str, str, float | None]:
    return entry.id, entry.split, entry.difficulty or entry.band, entry.rating


def _alone(model: TRM, item: Item, policy: LaserPolicy, stops: Callable[[], bool]) -> BatchRow | None:
    started = time.perf_counter()
    try:
        stepper = Stepper(model, [item.read()], policy)
    except LaserStudioError as problem:
        return BatchRow(*_told(item.entry), problem=str(problem)[:300])
    per_supervision = model.config.steps_per_supervision
    course, kept, resets = _Course(), [], 0
    try:
        for index in range(1, model.config.halt_max_steps * per_supervision + 1):
            if stops():
                return None
            stepped = stepper.advance()
            kept.append(fmean(event.fidelity for event in stepped.observed.values()) if stepped.observed else 1.0)
            # As the debugger counts them: a window in which nothing was observed closes without a basis.
            resets += sum(
                event.action == "reset" and event.new_basis is not None and bool(event.sums.values[2]) for event in stepped.closed.values()
            )
            if not stepper.z_H.isfinite().all():
                return BatchRow(*_told(item.entry), problem=f"activations are not finite at step {index}: the run ends there")
            if stepped.step.ends_cycle:
                reading = stepper.reader.read(stepper.z_H)
                course.see(index, (index - 1) // per_supervision + 1, reading.verdict, reading.q_halt, ends=index % per_supervision == 0)
    finally:
        stepper.close()
    return course.row(item.entry, time.perf_counter() - started, fmean(kept), resets)


@dataclass(frozen=True)
class _Ready:
    """An item that fits, or why it does not."""

    entry: Entry
    puzzle: Puzzle | None
    problem: str = ""


def _alike(model: TRM, items: Iterable[Item]) -> Iterator[list[_Ready]]:
    """Items in order, as many in a row as share a kind and a shape, at most `BATCH`; one that cannot be run goes along with any."""
    group: list[_Ready] = []
    shape: tuple[object, ...] | None = None
    for item in items:
        try:
            puzzle = fitted(model, item.read())
            tokens_of(model, puzzle)
            row_of(model, puzzle)
            ready = _Ready(item.entry, puzzle)
        except LaserStudioError as problem:
            group.append(_Ready(item.entry, None, str(problem)[:300]))
            continue
        own = (puzzle.domain, *puzzle.shape)
        if group and ((shape is not None and own != shape) or len(group) >= BATCH):
            yield group
            group = []
        shape = own
        group.append(ready)
    if group:
        yield group


@torch.no_grad()
def _together(model: TRM, group: Sequence[_Ready], stops: Callable[[], bool]) -> list[BatchRow] | None:
    started = time.perf_counter()
    puzzles = [ready.puzzle for ready in group if ready.puzzle is not None]
    courses = [_Course() for _ in puzzles]
    was_training = model.training
    model.eval()
    try:
        if puzzles and not _answer(model, puzzles, courses, stops):
            return None
    finally:
        model.train(was_training)
    seconds, done = (time.perf_counter() - started) / max(1, len(puzzles)), iter(courses)
    return [
        next(done).row(ready.entry, seconds) if ready.puzzle is not None else BatchRow(*_told(ready.entry), problem=ready.problem)
        for ready in group
    ]


def _answer(model: TRM, puzzles: Sequence[Puzzle], courses: Sequence[_Course], stops: Callable[[], bool]) -> bool:
    """All supervision steps of one batch, every answer told to its course; False where it was stopped."""
    reader = Reader(model, puzzles)
    domain, per_supervision = get_domain(puzzles[0].domain), model.config.steps_per_supervision
    carry, index = model.initial_carry(reader.batch), 0
    for supervision in range(1, model.config.halt_max_steps + 1):
        for step in model.recurse(carry, reader.batch):
            index += 1
            if stops():
                return False
            if not step.ends_cycle:
                continue
            outputs = model.read_out(step.z_H)
            answers, halts = outputs.logits.argmax(-1).cpu().numpy(), outputs.q_halt_logits.tolist()
            for course, puzzle, ids, q_halt in zip(courses, reader.puzzles, answers, halts, strict=True):
                verdict = domain.compare(puzzle, domain.decode(ids, shape=puzzle.shape))
                course.see(index, supervision, verdict, q_halt, ends=index % per_supervision == 0)
        assert step.carry is not None
        carry = step.carry
    return True
