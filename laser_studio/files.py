"""Files of others and of our own: writes are whole or absent, never half; YAML is read as plain data. Used by every layer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that replaces it when the block ends well, and vanishes when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes private files; what replaces the target should be readable like any other
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


MAX_YAML_BYTES = 32 * 1024  # real ones are below 2 KiB, and the parser takes seconds for malice of 100 KiB


def read_yaml(file: Path, *, anchors: bool = True) -> Any:
    """The plain data of a small YAML or JSON file. Raises `ValueError` with the end of a sentence about it, `OSError` as it comes.

    anchors: whether a file may have any (&), which can make little text stand for much data.
    """
    if file.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"is larger than {MAX_YAML_BYTES // 1024} KiB")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if anchors or "&" not in text:
            return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ValueError("is not plain YAML") from None
    raise ValueError("has anchors (&)")
