"""A missing browser must be loud in CI and harmless on a user's machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chromium import NAMES, find_chromium, require_chromium


def make_program(folder: Path, name: str) -> str:
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("name", NAMES)
def test_any_usual_name_on_the_path_is_found(tmp_path: Path, name: str) -> None:
    program = make_program(tmp_path, name)
    assert find_chromium({"PATH": str(tmp_path)}) == program


def test_the_variable_goes_before_the_path(tmp_path: Path) -> None:
    make_program(tmp_path, "chromium")
    chosen = make_program(tmp_path, "my-chromium")
    assert require_chromium({"PATH": str(tmp_path), "CHROMIUM": chosen}) == chosen


@pytest.mark.parametrize("extra", [{}, {"CHROMIUM": "/no/such/chromium"}])
def test_missing_browser_fails_in_ci_and_skips_elsewhere(tmp_path: Path, extra: dict[str, str]) -> None:
    environ = {"PATH": str(tmp_path), **extra}
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        require_chromium({**environ, "CI": "true"})
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        require_chromium(environ)
