"""The command line: `python -m laser_studio COMMAND`. Thin wrappers; what they do lives in `lab`, `puzzles` and `studio`.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from laser_studio.cli import bench, checkpoints, evaluation, gradients, puzzles, solving, training
from laser_studio.errors import LaserStudioError

__all__ = ["app", "main"]

app = typer.Typer(help="LASER Studio: train, evaluate and inspect recursive reasoning models.", no_args_is_help=True, add_completion=False)
_COMMANDS = (
    training.train, training.study, training.reproduce, evaluation.evaluate, evaluation.report, solving.solve, gradients.gradcheck,
    checkpoints.inspect, checkpoints.convert,
)  # fmt: skip
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(bench.app, name="bench")
app.add_typer(puzzles.app, name="puzzles")


def main() -> None:
    """Run the command line; errors a user can cause end in one line and exit status 2."""
    try:
        app(prog_name="laser-studio")
    except LaserStudioError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
