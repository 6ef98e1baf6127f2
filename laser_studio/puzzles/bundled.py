"""Sets of puzzles: the bundled ones, how they were made, and files of the same form.

A set is a JSON file, `{"domain", "size", "split", "seed", "made_by", "puzzles": [...]}`, whose puzzles have `name`,
`difficulty`, the figures it rests on, the `seed` that generates it again, `text` and `solution`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from laser_studio.assets import asset_path, asset_root
from laser_studio.errors import PuzzleError
from laser_studio.files import atomic_path
from laser_studio.puzzles.domain import Domain
from laser_studio.puzzles.puzzle import DIFFICULTIES, Difficulty, Puzzle
from laser_studio.puzzles.registry import get_domain, parse_puzzle
from laser_studio.puzzles.sudoku_rules import Split, relabelled

MAX_BYTES = 5_000_000  # of a puzzle file
MAX_PUZZLES = 10_000  # in one file
SPLIT: Split = "held-out"  # of every bundled puzzle: no demo was trained on any of them


@dataclass(frozen=True)
class SetPlan:
    """What a bundled set is made of: `each` puzzles per difficulty, from consecutive seeds beginning at `seed`."""

    domain: str
    size: int
    each: int
    seed: int


PLANS = {
    "sudoku-6x6": SetPlan("sudoku", 6, 70, 1),
    "sudoku-4x4": SetPlan("sudoku", 4, 20, 1),
    "sudoku-9x9": SetPlan("sudoku", 9, 30, 1),
    "maze-9x9": SetPlan("maze", 9, 40, 1),
}


def bundled_sets() -> tuple[str, ...]:
    """The names of the shipped sets that are installed, the demo's set first."""
    folder = asset_root() / "puzzles"
    return tuple(name for name in PLANS if (folder / f"{name}.json").is_file())


def load_puzzles(path_or_set_name: str | Path) -> list[Puzzle]:
    """The puzzles of a bundled set (by name, such as "sudoku-6x6") or of a file.

    A file holds a set as JSON, one puzzle as text, or one Sudoku per line. Every puzzle is checked by the rules of its
    domain: its solution, where given, must solve it. Raises `PuzzleError`.
    """
    if isinstance(path_or_set_name, str) and path_or_set_name in PLANS:
        return list(_load_bundled(path_or_set_name))
    path = Path(path_or_set_name)
    return list(_read(path, f"file {path.name[:80]!r}"))


@lru_cache(maxsize=len(PLANS))
def _load_bundled(name: str) -> tuple[Puzzle, ...]:
    return tuple(_read(asset_path("puzzles", f"{name}.json"), f"set {name}"))


def _read(path: Path, what: str) -> list[Puzzle]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError):
        raise PuzzleError(f"{what} cannot be read: give a puzzle file, or one of the sets {', '.join(PLANS)}") from None
    if len(data) > MAX_BYTES:
        raise PuzzleError(f"{what} is larger than {MAX_BYTES:,} bytes: split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PuzzleError(f"{what} is no UTF-8 text: save it as plain text or JSON") from None
    try:
        if text.lstrip().startswith("{"):
            return _from_json(text)
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and _is_puzzle(lines[0]):
            return [_named(parse_puzzle(line), number) for number, line in enumerate(_bounded(lines), 1)]
        return [_named(parse_puzzle(text), 1)]
    except PuzzleError as problem:
        raise PuzzleError(f"{what}: {problem}") from None


def _is_puzzle(line: str) -> bool:
    try:
        parse_puzzle(line)
    except PuzzleError:
        return False
    return True


def _named(puzzle: Puzzle, number: int) -> Puzzle:
    return replace(puzzle, name=f"puzzle-{number:04d}")


def _bounded(items: list[Any]) -> list[Any]:
    if len(items) > MAX_PUZZLES:
        raise PuzzleError(f"{len(items):,} puzzles are too many for one file (at most {MAX_PUZZLES:,})")
    return items


def _from_json(text: str) -> list[Puzzle]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise PuzzleError("not valid JSON: check brackets, quotes and commas") from None
    return read_set(data)


def read_set(data: dict[str, Any]) -> list[Puzzle]:
    """The puzzles of a set that was read as JSON, all checked. Raises `PuzzleError`."""
    entries = data.get("puzzles")
    domain = get_domain(str(data.get("domain")))
    if not isinstance(entries, list) or not entries:
        raise PuzzleError('a set of puzzles has a list "puzzles"')
    names: set[str] = set()
    puzzles = []
    for number, entry in enumerate(_bounded(entries), 1):
        try:
            puzzle = _entry(domain, entry, number)
            if puzzle.name in names:
                raise PuzzleError(f"a second puzzle of the name {puzzle.name!r}")
        except PuzzleError as problem:
            raise PuzzleError(f"puzzle {number}: {problem}") from None
        names.add(puzzle.name)
        puzzles.append(puzzle)
    return puzzles


def _entry(domain: Domain, entry: Any, number: int) -> Puzzle:
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise PuzzleError('it needs a "text" with its cells')
    name, difficulty = entry.get("name", f"puzzle-{number:04d}"), entry.get("difficulty", "")
    if not isinstance(name, str) or not 1 <= len(name) <= 80 or not name.isprintable():
        raise PuzzleError('"name" is a text of 1 to 80 printable characters')
    if difficulty not in ("", *DIFFICULTIES):
        raise PuzzleError(f'"difficulty" is one of {", ".join(DIFFICULTIES)}, or empty')
    puzzle = replace(domain.parse(entry["text"]), name=name, difficulty=difficulty)
    written = entry.get("solution")
    if written is None:
        return puzzle
    if not isinstance(written, str):
        raise PuzzleError('"solution" is a text like "text"')
    solved = domain.parse(written)
    solution = solved.solution or solved.cells  # a maze with a path carries it as its solution; a full Sudoku is its own
    if solved.shape != puzzle.shape or not domain.judge(puzzle, solution)[1]:
        raise PuzzleError("the solution does not solve it")
    return replace(puzzle, solution=solution)


def make_bundled_set(
    name: str,
    *,
    folder: Path | None = None,
    each: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generate a bundled set and write it; the same bytes each time. Returns the file.

    folder: where to write, by default the shipped puzzles. each: puzzles per difficulty, by default the plan's.
    progress: called with (puzzles made, puzzles wanted). Puzzles that are equal but for the names of their digits count as
    one. Raises `PuzzleError` for a set there is no plan for.
    """
    plan = PLANS.get(name)
    if plan is None:
        raise PuzzleError(f"no plan for a set {name[:40]!r}: choose one of {', '.join(PLANS)}")
    count = plan.each if each is None else each
    if not 1 <= count <= MAX_PUZZLES // len(DIFFICULTIES):
        raise PuzzleError(f"puzzles per difficulty: 1 to {MAX_PUZZLES // len(DIFFICULTIES):,} (got {count})")
    target = (asset_root() / "puzzles" if folder is None else folder) / f"{name}.json"
    domain = get_domain(plan.domain)
    entries: list[dict[str, Any]] = []
    seen: set[tuple[int, ...]] = set()
    for difficulty in DIFFICULTIES:
        for entry in itertools.islice(_entries(domain, plan, difficulty, seen), count):
            entries.append(entry)
            if progress is not None:
                progress(len(entries), count * len(DIFFICULTIES))
    command = f"python -m laser_studio puzzles make {name}" + ("" if each is None else f" --each {each}")
    head = {"domain": plan.domain, "size": plan.size, "split": SPLIT, "seed": plan.seed, "made_by": command}
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(head | {"puzzles": entries}, indent=1) + "\n", encoding="utf-8")
    _load_bundled.cache_clear()
    return target


def _entries(domain: Domain, plan: SetPlan, difficulty: Difficulty, seen: set[tuple[int, ...]]) -> Iterator[dict[str, Any]]:
    """Distinct puzzles of one difficulty as they stand in the file, from consecutive seeds, without end."""
    number = 0
    for seed in itertools.count(plan.seed):
        puzzle = domain.generate(seed, size=plan.size, difficulty=difficulty, split=SPLIT)
        solution = puzzle.solution
        # Only Sudoku digits are interchangeable; the cells of a maze mean what they are.
        key = relabelled(puzzle.cells) if plan.domain == "sudoku" else puzzle.cells
        if solution is None or key in seen:
            continue
        seen.add(key)
        number += 1
        yield {
            "name": f"{difficulty}-{number:04d}",
            "difficulty": difficulty,
            **domain.measures(puzzle),
            "seed": seed,
            "text": domain.format(puzzle),
            "solution": domain.format_cells(solution, puzzle.shape),
        }
