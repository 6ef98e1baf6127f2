"""Every command explains itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from laser_studio.cli import app


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*words, name))


EVERY = sorted(commands(typer.main.get_command(app)))


def test_commands_are_found() -> None:
    assert ("train",) in EVERY and ("bench", "tracker") in EVERY and len(EVERY) > 15


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_of_every_command(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}, prog_name="laser-studio")
    assert result.exit_code == 0, result.output
    assert "Usage: laser-studio" in result.output


def test_help_says_how_a_model_of_the_hub_is_called() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"})
    assert "hf://owner/name[/file][@revision]" in result.output
