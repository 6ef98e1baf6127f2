"""Puzzles as CSV: `source,q,a,rating` as in Sudoku-Extreme and Maze-Hard, `puzzle,solution`, or any columns of such names."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import ClassVar

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.registry import get_domain
from laser_studio.puzzles.sources.collection import Entry, Texts, bounded, named

QUESTION = ("q", "question", "quiz", "quizzes", "puzzle", "puzzles", "input", "text", "cells")
ANSWER = ("a", "answer", "solution", "solutions", "output", "label")
TOLD = ("id", "name", "source", "rating", "difficulty", "split")  # columns that say something of a puzzle
MAX_FIELD = 100_000  # characters
MAX_COLUMNS = 64


class CsvFile(Texts):
    """One puzzle a row. An answer that does not solve its puzzle is an error of that row, told when it is opened."""

    kind: ClassVar[str] = "csv"

    def __init__(self, text: str, title: str, domain: str | None = None) -> None:
        """Raises `PuzzleError` where there is no column of puzzles, or the first puzzle cannot be read."""
        super().__init__(title, domain)
        rows = _rows(text, title)
        if not rows:
            raise PuzzleError(f"{title} is empty: it has no row")
        head = [field.strip().lower() for field in rows[0]]
        column = next((head.index(name) for name in QUESTION if name in head), None)
        if column is None:
            if len(rows[0]) > 2 or not self._reads(rows[0][0]):
                raise PuzzleError(
                    f"{title} has no column of puzzles: name one q, question or puzzle in the first row (found {', '.join(head[:6])[:80]})"
                )
            column, head = 0, ["q", "a"][: len(rows[0])]
        else:
            rows = rows[1:]
        places: dict[str, int] = {name: head.index(name) for name in TOLD if name in head}
        if "name" in places:
            places.setdefault("id", places["name"])
        self._question, self._places = column, places
        self._answer = next((head.index(name) for name in ANSWER if name in head), None)
        self._rows = rows
        if not rows:
            raise PuzzleError(f"{title} has a first row of names and no puzzle after it")
        bounded(len(rows), title)
        self._parsed(self._field(rows[0], self._question))

    def __len__(self) -> int:
        return len(self._rows)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        row, places = self._rows[index], self._places
        told = {name: self._field(row, place).strip()[:40] for name, place in places.items()}
        rating = _number(told.get("rating", ""))
        difficulty = told.get("difficulty", "")
        # A source is a book or a site: a few of them, so that they serve as splits to browse by.
        return Entry(named(told.get("id", ""), index + 1), told.get("split", ""), difficulty, rating, told.get("source", ""))

    def _read(self, index: int) -> Puzzle:
        row = self._rows[index]
        puzzle = self._parsed(self._field(row, self._question))
        domain = get_domain(puzzle.domain)
        if puzzle.solution is not None or self._answer is None or not (answer := self._field(row, self._answer)).strip():
            return domain.with_solution(puzzle)
        solved = domain.parse(answer)
        solution = solved.solution or solved.cells  # a maze with a path carries it as its solution; a full Sudoku is its own
        if solved.shape != puzzle.shape or not domain.judge(puzzle, solution)[1]:
            raise PuzzleError("the answer in its row does not solve it")
        return replace(puzzle, solution=solution)

    def _field(self, row: list[str], place: int) -> str:
        return row[place] if place < len(row) else ""


def _rows(text: str, title: str) -> list[list[str]]:
    first = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=first.count)
    limit = csv.field_size_limit(MAX_FIELD)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as problem:
        raise PuzzleError(f"{title} is no CSV that can be read: {problem}") from None
    finally:
        csv.field_size_limit(limit)
    if rows and len(rows[0]) > MAX_COLUMNS:
        raise PuzzleError(f"{title} has {len(rows[0])} columns, at most {MAX_COLUMNS} are read")
    return rows


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
