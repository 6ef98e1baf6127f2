"""A puzzle as one short line for links, and back: `sudoku~6x6~a2ca3…`.

Fields stand between `~`: kind, rows×columns, cells; then, each where it is needed, `a` answer, `d` demonstration (input, output), `t` task,
`i` identifier, `n` name. A cell is the letter of its value (a is 0), with how many times it comes in a row. Of ARC the grids are written,
not the boards. Whatever a line says is checked.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from urllib.parse import quote, unquote

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc import Arc, grid_on
from laser_studio.puzzles.arc_images import MAX_NAME
from laser_studio.puzzles.puzzle import Picture, Puzzle
from laser_studio.puzzles.registry import get_domain
from laser_studio.puzzles.sources.arckit_source import task_named, task_puzzle
from laser_studio.puzzles.sources.collection import MAX_ID

MAX_COMPACT = 5_500  # characters, so that a link has room for its settings beside it
MAX_CELLS = 64 * 64
MAX_IDENTIFIER = 100_000_000
_RUN = re.compile(r"([a-z])(\d{0,4})")
_SHAPE = re.compile(r"(\d{1,2})x(\d{1,2})")


def compact(puzzle: Puzzle) -> str:
    """The line of a puzzle. Raises `PuzzleError` where it is too long for a link."""
    if puzzle.domain != "arc":
        line = "~".join((puzzle.domain, *_grid(Picture(puzzle.height, puzzle.width, puzzle.cells)), *_label("n", puzzle.name)))
        return _short_enough(line, puzzle)
    given = grid_on(puzzle.cells, puzzle.shape)
    if given is None:
        raise PuzzleError("the board has no grid: all its cells are padding or end markers")
    wanted = grid_on(puzzle.solution, puzzle.shape) if puzzle.solution is not None else None
    parts = [puzzle.domain, *_grid(given)]
    if wanted is not None:
        parts.append(":".join(("a", *_grid(wanted))))
    parts += _label("t", puzzle.task)
    if puzzle.identifier is not None:
        parts.append(f"i:{puzzle.identifier}")
    parts += _label("n", puzzle.name)
    if not _is_known(puzzle.task):
        for pair in puzzle.demonstrations:
            more = ":".join(("d", *_grid(pair[0]), *_grid(pair[1])))
            if len("~".join(parts)) + len(more) > MAX_COMPACT:
                break
            parts.append(more)
    return _short_enough("~".join(parts), puzzle)


@lru_cache(maxsize=64)
def from_compact(line: str) -> Puzzle:
    """The puzzle of a line, with its solution where exactly one exists. Raises `PuzzleError`."""
    if len(line) > MAX_COMPACT:
        raise PuzzleError(f"cells of a link have at most {MAX_COMPACT:,} characters")
    kind, *fields = line.split("~")
    domain = get_domain(kind)
    if len(fields) < 2:
        raise PuzzleError("cells of a link read kind~rows×columns~cells, such as sudoku~4x4~a16")
    shown = _picture(fields[0], fields[1])
    texts, pictures = _fields(fields[2:])
    name, task = texts.get("n", "")[:MAX_ID], texts.get("t", "")[:MAX_NAME]
    if isinstance(domain, Arc):
        if any(not 0 <= value <= 9 for value in shown.cells):
            raise PuzzleError("a cell of an ARC grid is a to j (colours 0 to 9)")
        answer = pictures["a"][0] if pictures.get("a") else None
        found = task_named(task) if task else None
        pairs = tuple(zip(pictures.get("d", ())[::2], pictures.get("d", ())[1::2], strict=True))
        if found is not None:
            pairs = task_puzzle(found[0], 0, found[1]).demonstrations
        identifier = int(texts["i"]) if texts.get("i", "x").isdecimal() and len(texts["i"]) <= 9 else None
        return domain.board(shown, answer, name=name, task=task, identifier=identifier, demonstrations=pairs)
    puzzle = Puzzle(kind, shown.height, shown.width, shown.cells, name=name)
    domain.encode(puzzle)  # refuses values that have no token
    # Through the text, which knows what a puzzle of its kind must have: one start, one goal, a size there is.
    return domain.with_solution(replace(domain.parse(domain.format(puzzle)), name=name))


def _grid(picture: Picture) -> tuple[str, str]:
    runs, cells = [], picture.cells
    start = 0
    for cell in range(1, len(cells) + 1):
        if cell == len(cells) or cells[cell] != cells[start]:
            if not 0 <= cells[start] < 26:
                raise PuzzleError(f"cell {start + 1}: {cells[start]} is no cell value that a link can hold")
            runs.append(chr(ord("a") + cells[start]) + (str(cell - start) if cell - start > 1 else ""))
            start = cell
    return f"{picture.height}x{picture.width}", "".join(runs)


def _label(sign: str, text: str) -> list[str]:
    return [f"{sign}:{quote(text, safe='').replace('~', '%7E')}"] if text else []


def _short_enough(line: str, puzzle: Puzzle) -> str:
    if len(line) > MAX_COMPACT:
        raise PuzzleError(
            f"a link cannot hold these {puzzle.height}×{puzzle.width} cells: {len(line):,} characters, at most {MAX_COMPACT:,}"
        )
    return line


def _is_known(task: str) -> bool:
    try:
        return bool(task) and task_named(task) is not None
    except PuzzleError:
        return False


def _picture(shape: str, runs: str) -> Picture:
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise PuzzleError(f"{shape[:20]!r} is no size: rows×columns, such as 6x6")
    height, width = int(match[1]), int(match[2])
    if not 1 <= height * width <= MAX_CELLS:
        raise PuzzleError(f"{height}×{width} cells are too many or none (at most {MAX_CELLS:,})")
    cells: list[int] = []
    end = 0
    for run in _RUN.finditer(runs):
        if run.start() != end or len(cells) > height * width:
            break
        end = run.end()
        cells += [ord(run[1]) - ord("a")] * min(int(run[2] or 1), MAX_CELLS)
    if end != len(runs) or len(cells) != height * width:
        raise PuzzleError(f"the cells of the link do not fill {height}×{width}")
    return Picture(height, width, tuple(cells))


def picture_of_line(rest: str) -> Picture:
    """The cells of a line without its kind, whatever they mean. Raises `PuzzleError`."""
    shape, _, runs = rest.partition("~")
    return _picture(shape, runs.partition("~")[0])


def _fields(fields: list[str]) -> tuple[dict[str, str], dict[str, list[Picture]]]:
    texts: dict[str, str] = {}
    pictures: dict[str, list[Picture]] = {}
    for field in fields[:80]:
        sign, _, rest = field.partition(":")
        if sign in ("t", "n", "i"):
            text = unquote(rest)
            if not text.isprintable():
                raise PuzzleError("a name in the link has characters that cannot be printed")
            texts[sign] = text
        elif sign in ("a", "d"):
            parts = rest.split(":")
            if len(parts) != (2 if sign == "a" else 4):
                raise PuzzleError("the link has an answer or a demonstration that cannot be read")
            found = [_picture(*parts[at : at + 2]) for at in range(0, len(parts), 2)]
            if any(value > 9 for picture in found for value in picture.cells):
                raise PuzzleError("a cell of an ARC grid is a to j (colours 0 to 9)")
            pictures.setdefault(sign, []).extend(found)
        else:
            raise PuzzleError(f"the link has a part {sign[:10]!r} that no puzzle has")
    return texts, pictures
