"""Small JSON files beside weights: read with a bound, as an object or a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from laser_studio.errors import CheckpointError

_MAX_BYTES = 256 * 1024
_MAX_NAME = 300  # characters
_MAX_LIST_BYTES = 64 << 20  # identifiers of ARC with 1,000 augmentations: 876,406 names


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` for anything else."""
    record = _parsed(file, _MAX_BYTES, "so it is no description of a model")
    if not isinstance(record, dict):
        raise CheckpointError(f"{file.name} is not a JSON object: use the file as it was written")
    return record


def read_names(file: Path) -> list[str]:
    """A JSON list of texts. Raises `CheckpointError` for anything else."""
    record = _parsed(file, _MAX_LIST_BYTES, "so it is no list of tasks")
    if not isinstance(record, list) or not all(isinstance(each, str) for each in record):
        raise CheckpointError(f"{file.name} is not a JSON list of names: use the file as it was written")
    if not all(len(each) <= _MAX_NAME and each.isprintable() for each in record):
        raise CheckpointError(f"{file.name} holds names that cannot be shown: use the file as it was written")
    return record


def plain(value: Any) -> Any:
    """A JSON value whose texts are fit to show: no escape codes, no halves of characters."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _parsed(file: Path, most: int, otherwise: str) -> Any:
    if file.stat().st_size > most:
        raise CheckpointError(f"{file.name} is larger than {most // 1024} KiB, {otherwise}")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file.name} is not JSON: use the file as it was written") from None
