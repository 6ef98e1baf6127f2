"""The programs of the pages, as the one function body that Gradio runs."""

from __future__ import annotations

from collections.abc import Iterable

from laser_studio.assets import asset_path


def joined_scripts(names: Iterable[str]) -> str:
    """Shipped scripts by file name, in order."""
    return "\n".join(asset_path("js", name).read_text(encoding="utf-8") for name in names)
