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
MAX_YAML_VALUES = 10_000  # with every alias written out


class _PlainLoader(yaml.SafeLoader):
    """Data as it stands: merge keys (<<), which older parsers unfold without bound, are refused."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(problem="merge keys are not read", problem_mark=node.start_mark)


def read_yaml(file: Path, *, anchors: bool = True) -> Any:
    """The plain data of a small YAML or JSON file. Raises `ValueError` with the end of a sentence about it, `OSError` as it comes.

    anchors: whether a file may have any (&). Where it may, they must not make little text stand for much data: a value met by many
    aliases counts as often as it is met, and one that contains itself is refused.
    """
    if file.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"is larger than {MAX_YAML_BYTES // 1024} KiB")
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = yaml.load(text, _PlainLoader) if anchors or "&" not in text else None  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise ValueError("is not plain YAML") from None
    if not anchors and "&" in text:
        raise ValueError("has anchors (&)")
    if "&" in text:
        _bound_values(data)
    return data


def _bound_values(data: Any) -> None:
    left, met = [data], 0
    while left:
        value = left.pop()
        if (met := met + 1) > MAX_YAML_VALUES:
            raise ValueError(f"unfolds to more than {MAX_YAML_VALUES:,} values")
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            left += value
