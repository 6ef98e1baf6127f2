"""What the parsers share about text that users type, paste or upload."""

from __future__ import annotations

from laser_studio.errors import PuzzleError

MAX_CHARACTERS = 100_000  # many times the largest drawing; keeps a pasted book from costing time


def clean(text: str) -> str:
    """The text without byte-order mark and with plain newlines. Raises `PuzzleError` where it is empty or huge."""
    if len(text) > MAX_CHARACTERS:
        raise PuzzleError(f"{len(text):,} characters are too many for one puzzle (at most {MAX_CHARACTERS:,})")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip("\n \t"):
        raise PuzzleError("the puzzle is empty: type or paste its cells")
    return text


def shown(character: str) -> str:
    """A character in quotes, escaped where a screen or terminal would not show it as it is."""
    return repr(character) if character.isprintable() else ascii(character)
