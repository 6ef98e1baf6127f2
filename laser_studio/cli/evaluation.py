"""`evaluate` and `report`: what measures models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laser_studio.cli.common import CHECKPOINT_HELP, Device, Threads, open_checkpoint, set_threads, stop_on_interrupt

if TYPE_CHECKING:
    from laser_studio.lab.report import Report


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
    task: Annotated[str | None, typer.Option(help="Task whose puzzles to use; default: the one the checkpoint names.")] = None,
    puzzles: Annotated[int, typer.Option(min=1, help="Number of held-out puzzles.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out puzzles.")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Puzzles per batch.")] = 100,
) -> None:
    """Exact and cell accuracy on held-out puzzles, per supervision step."""
    from tqdm import tqdm

    from laser_studio.errors import ReportError
    from laser_studio.lab.evaluate import evaluate as measure
    from laser_studio.lab.tasks import get_task

    set_threads(threads)
    model = open_checkpoint(checkpoint, device)
    trained = str(model.details.get("task", ""))
    chosen = get_task(task or trained)
    if chosen.rules and trained != chosen.name:
        raise ReportError(
            f"{chosen.name}: each of its tasks has a row in the puzzle embedding of a model trained on {chosen.name} and in no other; "
            f"this one was trained on {trained[:40] or 'what it does not say'}"
        )
    data = chosen.puzzles(puzzles, seed, "held-out")
    with tqdm(total=len(data), unit="puzzle") as bar:
        accuracy = measure(model, data, batch_size=batch_size, on_batch=lambda done: bar.update(done))
    typer.echo(f"{chosen.name}: {accuracy.puzzles} held-out puzzles, seed {seed}")
    typer.echo("supervision step   exact    cell")
    for step, (exact, cell) in enumerate(zip(accuracy.exact, accuracy.cell, strict=True), 1):
        typer.echo(f"{step:16d}  {exact:6.1%}  {cell:6.1%}")


def report(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
    each: Annotated[int, typer.Option(min=1, help="Held-out puzzles of each difficulty.")] = 100,
    rank: Annotated[
        list[str] | None, typer.Option(help='Ranks at which sites read their reconstruction, as "25%" or a number; default 75%, 50%, 25%.')
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="First seed of the puzzles.")] = 1,
    task: Annotated[str | None, typer.Option(help="Task whose puzzles to use; default: the one the checkpoint names.")] = None,
    out: Annotated[Path | None, typer.Option(help="Report to write; default: evaluation.json in the checkpoint's folder.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Accuracy by difficulty and step, calibration of q_halt, steps to solution, cost of compression at inference, failures.

    Writes what the studio's evaluation page draws; the puzzles a model fails are offered there and in the debugger.
    """
    from tqdm import tqdm

    from laser_studio.errors import ReportError
    from laser_studio.hub import is_reference
    from laser_studio.lab.examine import RANKS, examine
    from laser_studio.lab.report import REPORT_FILE, save_report
    from laser_studio.lab.tasks import get_task

    set_threads(threads)
    if is_reference(checkpoint) and out is None:
        raise ReportError("a checkpoint of the Hub has no folder for its report: give --out")
    model = open_checkpoint(checkpoint, device)
    chosen = get_task(task or str(model.details.get("task", "")))
    place = Path(checkpoint)
    target = out or (place if place.is_dir() else place.parent) / REPORT_FILE
    if not target.parent.is_dir():
        raise ReportError(f"--out {target.name}: its folder does not exist")
    ranks = tuple(rank) if rank else RANKS
    command = " ".join(
        ["python -m laser_studio report CHECKPOINT", f"--each {each}", f"--seed {seed}", *(f"--rank {one}" for one in ranks)]
    )
    with stop_on_interrupt() as stop, tqdm(total=None, unit="run") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = examine(
            model, chosen.domain, chosen.size, each=each, ranks=ranks, first_seed=seed, command=command,
            on_progress=show, should_stop=lambda: stop[0],
        )  # fmt: skip
    if found is None:
        typer.echo("stopped: nothing was written")
        return
    save_report(found, target)
    _show_report(found)
    typer.echo(f"wrote {target}")


def _show_report(report: Report) -> None:
    names = [group.difficulty for group in report.groups]
    typer.echo(f"{report.task}, {report.puzzles} held-out puzzles, {report.supervision_steps} supervision steps, {report.device}")
    typer.echo(f"{'activations':>12}  {'exact':>7}  " + "  ".join(f"{name:>7}" for name in names) + "  answers changed  energy kept")
    for arm in report.arms:
        changed = sum(share * group.puzzles for share, group in zip(arm.changed, report.groups, strict=True)) / report.puzzles
        typer.echo(
            f"{'rank ' + arm.rank if arm.rank else 'exact':>12}  {report.exact(arm):7.1%}  "
            + "  ".join(f"{curve[-1]:7.1%}" for curve in arm.exact)
            + f"  {changed:15.1%}  {'–' if arm.energy is None else f'{arm.energy:.4f}':>11}"
        )
    halting = report.halting
    typer.echo(
        f"q_halt: calibration error {halting.error:.3f}; stopped at q_halt > 0: {halting.exact:.1%} exact in {halting.steps:.2f} steps"
    )
    typer.echo(f"{len(report.failures)} puzzles end wrong")
