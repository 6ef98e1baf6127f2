"""`puzzles make` and `puzzles show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Puzzle sets.", no_args_is_help=True)


@app.command("make")
def make_puzzles(
    name: Annotated[str, typer.Argument(metavar="SET", help="Which set: sudoku-6x6, sudoku-4x4, sudoku-9x9 or maze-9x9.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: the one the studio reads.")] = None,
    each: Annotated[int | None, typer.Option(min=1, help="Puzzles per difficulty in place of the set's own number.")] = None,
) -> None:
    """Draw a bundled puzzle set anew from its seed; the same command gives the same file."""
    from tqdm import tqdm

    from laser_studio.puzzles import make_bundled_set

    with tqdm(unit="puzzle") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = make_bundled_set(name, folder=out, each=each, progress=show)
    typer.echo(f"wrote {path}")


@app.command("show")
def show_puzzles(
    name: Annotated[str, typer.Argument(metavar="SET", help="A bundled set or a file of puzzles.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
) -> None:
    """Print puzzles of a set as text."""
    from laser_studio.puzzles import get_domain, load_puzzles

    for puzzle in load_puzzles(name)[:count]:
        typer.echo(f"{puzzle.name}\n{get_domain(puzzle.domain).format(puzzle)}\n")
