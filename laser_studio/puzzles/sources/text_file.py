"""Puzzles as plain text: one drawing, drawings with empty lines between them, or one puzzle a line."""

from __future__ import annotations

import re
from typing import ClassVar

from laser_studio.errors import PuzzleError
from laser_studio.puzzles.puzzle import Puzzle
from laser_studio.puzzles.registry import get_domain
from laser_studio.puzzles.sources.collection import Entry, Texts, bounded


class TextFile(Texts):
    """What `parse_puzzle` reads, many times in one file."""

    kind: ClassVar[str] = "text"

    def __init__(self, text: str, title: str, domain: str | None = None) -> None:
        """Raises `PuzzleError` where not even the first puzzle can be read."""
        super().__init__(title, domain)
        self._texts = self._split(text.replace("\r\n", "\n").replace("\r", "\n"))
        bounded(len(self._texts), title)

    def __len__(self) -> int:
        return len(self._texts)

    def entry(self, index: int) -> Entry:
        """See `Collection.entry`."""
        return Entry(f"puzzle-{index + 1:04d}")

    def _read(self, index: int) -> Puzzle:
        puzzle = self._parsed(self._texts[index])
        return get_domain(puzzle.domain).with_solution(puzzle)

    def _split(self, text: str) -> list[str]:
        lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("//")]
        if not lines:
            raise PuzzleError("the file is empty: it has no puzzle")
        if len(lines) > 1 and self._reads(lines[0]):
            return lines
        blocks = [block.strip("\n") for block in re.split(r"\n[ \t]*\n", text) if block.strip()]
        if len(blocks) > 1 and self._reads(blocks[0]):
            return blocks
        self._parsed(text)
        return [text]
