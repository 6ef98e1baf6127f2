"""Puzzles as JSON: sets as this project writes them, one ARC task, ARC tasks by id (with their solutions apart), lists of puzzles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc import Arc, read_json
from laser_studio.puzzles.bundled import read_set
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.registry import get_domain, parse_puzzle
from laser_studio.puzzles.sources.collection import Collection, Entry, Fixed, bounded, named
from laser_studio.puzzles.sources.csv_file import ANSWER, QUESTION

MAX_TASK_BYTES = 2_000_000  # of a file with one ARC task


def read_json_file(text: str, title: str, domain: str | None = None) -> Collection:
    """The collection a JSON text is. Raises `PuzzleError`."""
    data = read_json(text)
    if isinstance(data, dict) and ("test" in data or "train" in data):
        if len(text) > MAX_TASK_BYTES:
            raise PuzzleError(f"{title} has {len(text) / 1e6:.1f} MB: one ARC task has at most {MAX_TASK_BYTES / 1e6:.0f} MB")
        return Fixed(title, Arc().from_task(data, name=named(title.rpartition(".")[0] or title, 1)))
    if isinstance(data, dict) and "puzzles" in data:
        return Fixed(title, read_set(data))
    if isinstance(data, dict) and data and all(isinstance(task, dict) for task in data.values()):
        return ArcTasks(data, title)
    if isinstance(data, list):
        return _listed(data, text, title, domain)
    raise PuzzleError(f'{title}: neither puzzles (a list, or an object with "puzzles") nor an ARC task ("train" and "test")')


class ArcTasks(Collection):
    """`{"007bbfb7": {"train": …, "test": …}, …}`, as the challenges of the ARC prize come."""

    kind = "json"

    def __init__(self, tasks: dict[str, Any], title: str) -> None:
        super().__init__(title)
        self._tasks = tasks
        self._index: list[tuple[str, int]] = []
        for name, task in tasks.items():
            tests = task.get("test")
            if not isinstance(tests, list) or not tests:
                raise PuzzleError(f'{title}: {named(name, 1)}: the task has no test: "test" is a list of at least one {{"input": …}}')
            self._index += [(name, place) for place in range(len(tests))]
        bounded(len(self._index), title)
        self.puzzle(0)

    def __len__(self) -> int:
        return len(self._index)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        name, place = self._index[index]
        return Entry(f"{named(name, index + 1)}:{place + 1}")

    def _read(self, index: int) -> Puzzle:
        name, place = self._index[index]
        return Arc().from_task(self._tasks[name], name=named(name, index + 1))[place]


def _listed(data: list[Any], text: str, title: str, domain: str | None) -> Collection:
    """A list of puzzles, each a text or an object; or the rows of one puzzle."""
    if data and all(isinstance(item, dict) for item in data):
        bounded(len(data), title)
        return Fixed(title, [_object(item, number, domain) for number, item in enumerate(data, 1)])
    if data and all(isinstance(item, str) and len(item) >= 16 for item in data) and _reads(data[0], domain):
        bounded(len(data), title)
        return Fixed(title, [_solved(_parsed(item, domain), number) for number, item in enumerate(data, 1)])
    return Fixed(title, [_solved(_parsed(text, domain), 1)])


def _object(item: dict[str, Any], number: int, domain: str | None) -> Puzzle:
    question = next((item[name] for name in QUESTION if isinstance(item.get(name), str)), None)
    if question is None:
        raise PuzzleError(f'puzzle {number} has no text under "question" or "puzzle"')
    try:
        puzzle = _parsed(question, domain)
        kind = get_domain(puzzle.domain)
        answer = next((item[name] for name in ANSWER if isinstance(item.get(name), str)), None)
        if answer is not None:
            solved = kind.parse(answer)
            solution = solved.solution or solved.cells
            if solved.shape != puzzle.shape or not kind.judge(puzzle, solution)[1]:
                raise PuzzleError("its answer does not solve it")
            puzzle = replace(puzzle, solution=solution)
    except PuzzleError as problem:
        raise PuzzleError(f"puzzle {number}: {problem}") from None
    return replace(puzzle, name=named(str(item.get("id", item.get("name", ""))), number))


def _parsed(text: str, domain: str | None) -> Puzzle:
    return get_domain(domain).parse(text) if domain is not None else parse_puzzle(text)


def _reads(text: str, domain: str | None) -> bool:
    try:
        _parsed(text, domain)
    except PuzzleError:
        return False
    return True


def _solved(puzzle: Puzzle, number: int) -> Puzzle:
    return replace(get_domain(puzzle.domain).with_solution(puzzle), name=f"puzzle-{number:04d}")
