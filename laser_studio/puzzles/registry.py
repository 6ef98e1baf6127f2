"""The kinds of puzzle there are, by name."""

from __future__ import annotations

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.arc import Arc
from laser_studio.puzzles.domain import Domain
from laser_studio.puzzles.maze import Maze
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.sudoku import Sudoku

_DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (Sudoku(), Maze(), Arc())}


def domain_names() -> tuple[str, ...]:
    """The names `get_domain` knows, the first one being the studio's first choice."""
    return tuple(_DOMAINS)


def get_domain(name: str) -> Domain:
    """The domain of that name, such as "sudoku" or "maze". Raises `PuzzleError` listing those there are."""
    try:
        return _DOMAINS[name]
    except KeyError:
        raise PuzzleError(f"unknown kind of puzzle {str(name)[:40]!r}: choose one of {', '.join(_DOMAINS)}") from None


def parse_puzzle(text: str) -> Puzzle:
    """The puzzle a text describes, its kind told by the characters. Raises `PuzzleError`."""
    kinds = (_DOMAINS["arc"], *_DOMAINS.values())  # a task's JSON has letters that a maze could have
    domain = next((domain for domain in kinds if domain.recognises(text)), _DOMAINS["sudoku"])
    return domain.parse(text)
