"""Held-out puzzles by name: `generated:hard:123` is the same puzzle everywhere, on a page, in a link, in a report, in a script."""

from __future__ import annotations

import re
from functools import lru_cache

from laser_studio.puzzles.puzzle import DIFFICULTIES, Difficulty, Puzzle
from laser_studio.puzzles.registry import get_domain

MAX_SEED = 999_999
_NAME = re.compile(r"generated:(easy|medium|hard):(\d{1,6})")


def generated_id(difficulty: Difficulty, seed: int) -> str:
    """The name of a generated puzzle; `generated` and `read_generated` take it apart again."""
    return f"generated:{difficulty}:{seed}"


def read_generated(puzzle_id: str) -> tuple[Difficulty, int] | None:
    """(difficulty, seed) of the name of a generated puzzle; None for any other."""
    match = _NAME.fullmatch(puzzle_id)
    return (DIFFICULTIES[DIFFICULTIES.index(match[1])], int(match[2])) if match else None


@lru_cache(maxsize=64)
def generated(domain: str, size: int, difficulty: Difficulty, seed: int) -> Puzzle:
    """The held-out puzzle of that name for boards of size × size; raises `PuzzleError` where none can be made."""
    return get_domain(domain).generate(seed, size=size, difficulty=difficulty, split="held-out")
