"""Where the system's Chromium is, and what happens where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium(environ: Mapping[str, str]) -> str | None:
    """Path of the program CHROMIUM names or, without that variable, of the first of `NAMES` on the PATH."""
    wanted = environ.get("CHROMIUM")
    candidates = (wanted,) if wanted else NAMES
    return next((found for name in candidates if (found := shutil.which(name, path=environ.get("PATH")))), None)


def require_chromium(environ: Mapping[str, str]) -> str:
    """Its path; without one the test at hand fails under CI, where a browser is part of the set-up, and is skipped elsewhere."""
    if found := find_chromium(environ):
        return found
    wanted = environ.get("CHROMIUM")
    problem = f"CHROMIUM={wanted} is no program" if wanted else f"none of {', '.join(NAMES)} is installed"
    message = f"no browser: {problem}. Install one (Debian: apt-get install chromium) or set CHROMIUM to the path of one."
    if environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
