"""Where the shipped files are: checkpoints, puzzle sets, style sheets. Used by every layer that reads one.

In a clone they lie in `assets/` beside the package; a wheel carries them inside it, as `laser_studio/_assets`.
"""

from __future__ import annotations

import os
from pathlib import Path

from laser_studio.errors import LaserStudioError

_PACKAGE = Path(__file__).resolve().parent


def asset_root() -> Path:
    """The folder of the shipped files. Raises `LaserStudioError` where the installation lacks it."""
    # The wheel's folder is asked first: beside an installed package, `assets` could be anybody's.
    for folder in (_PACKAGE / "_assets", _PACKAGE.parent / "assets"):
        if folder.is_dir():
            return folder
    raise LaserStudioError("the files LASER Studio ships with (assets) are missing: reinstall it, or start it from a complete clone")


def asset_path(*parts: str) -> Path:
    """The path of a shipped file or folder, for example `asset_path("puzzles", "sudoku-6x6.json")`.

    Raises `LaserStudioError` where there is no such file, or where the parts lead out of the assets.
    """
    root = asset_root()
    shown = "/".join(parts)
    if "\0" not in shown:
        path = Path(os.path.normpath(root.joinpath(*parts)))
        if path.is_relative_to(root) and path.exists():
            return path
    raise LaserStudioError(f"no shipped file {shown[:80]!r}: reinstall LASER Studio, or check the name")
