"""The command line: `python -m laser_studio COMMAND`. Thin wrappers; what they do lives in `lab`, `puzzles` and `studio`.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laser_studio.errors import LaserStudioError

if TYPE_CHECKING:
    from laser_studio.lab.report import Report

app = typer.Typer(help="LASER Studio: train, evaluate and inspect recursive reasoning models.", no_args_is_help=True, add_completion=False)
bench = typer.Typer(help="Measurements, all arms side by side in one run.", no_args_is_help=True)
puzzles_app = typer.Typer(help="Puzzle sets.", no_args_is_help=True)
app.add_typer(bench, name="bench")
app.add_typer(puzzles_app, name="puzzles")

Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")]


def main() -> None:
    """Run the command line; errors a user can cause end in one line and exit status 2."""
    try:
        app(prog_name="laser-studio")
    except LaserStudioError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


@contextmanager
def _stop_on_interrupt() -> Iterator[list[bool]]:
    """A flag that Ctrl-C raises instead of an exception, so that work can be saved first; a second Ctrl-C stops at once."""
    flag = [False]

    def stop(*_: object) -> None:
        if flag[0]:
            raise KeyboardInterrupt
        flag[0] = True

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def _set_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="sudoku-4x4, sudoku-6x6, sudoku-9x9, or maze-NxN with N odd, 7 to 41.")],
    variant: Annotated[str | None, typer.Option(help="attention or mixer; default: attention, or what the recipe file says.")] = None,
    preset: Annotated[str, typer.Option(help="auto (gpu with CUDA, else laptop), laptop, gpu or official.")] = "auto",
    config: Annotated[Path | None, typer.Option(help="Recipe file (YAML or JSON) with sections model, train, data.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One field of the recipe, such as train.lr=0.001.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run, resumed if interrupted. Default: runs/TASK-VARIANT.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Short for --set train.steps=N.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Short for --set train.seed=N: data, weights, order, exploration.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out puzzles of the last evaluation.")] = 1000,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe, each field of it, and train nothing.")] = False,
) -> None:
    """Train a model and write it with its card to OUT/model. Ctrl-C saves and stops; the same command goes on."""
    from tqdm import tqdm

    from laser_studio.device import resolve_device
    from laser_studio.lab.recipes import get_recipe
    from laser_studio.lab.runs import Observer, run
    from laser_studio.lab.train import Progress

    _set_threads(threads)
    where = resolve_device(device)
    changes = [*(change or ()), *(f"train.{name}={value}" for name, value in (("steps", steps), ("seed", seed)) if value is not None)]
    chosen = preset if preset != "auto" else "gpu" if where.type == "cuda" else "laptop"
    recipe = get_recipe(task, variant=variant, preset=chosen, file=config, changes=changes)
    if show:
        typer.echo(recipe.text())
        return
    said = {"--variant": variant, "--preset": chosen, "--config": config and config.name}
    options = [f"{flag} {value}" for flag, value in said.items() if value is not None] + [f"--set {one}" for one in changes]
    command = " ".join(["python -m laser_studio train", recipe.task.name, *options])
    folder = out or Path("runs") / f"{recipe.task.name}-{recipe.variant}"
    with _stop_on_interrupt() as stop, tqdm(total=recipe.train.steps, unit="step", mininterval=1.0, dynamic_ncols=True) as bar:

        def on_step(progress: Progress) -> None:
            if bar.n == 0:  # a resumed run: what was done before does not count for the speed
                bar.initial = bar.n = progress.step - 1
            held = f"{progress.accuracy.exact[-1]:.1%}" if progress.accuracy else "–"
            bar.set_postfix_str(f"loss {progress.loss:.3f}, exact {progress.exact:.1%}, validation {held}", refresh=False)
            bar.update(progress.step - bar.n)

        def on_evaluated(done: int) -> None:
            if bar.unit == "step":
                bar.unit = "puzzle"
                bar.set_description("final evaluation", refresh=False)
                bar.set_postfix_str("", refresh=False)
                bar.reset(held_out)
            bar.update(done)

        observer = Observer(on_text=bar.write, on_step=on_step, on_evaluated=on_evaluated, should_stop=lambda: stop[0])
        trained = run(recipe, folder, where, command=command, held_out=held_out, observer=observer)
        reached = bar.n
    if trained is None:
        typer.echo(f"stopped at step {reached} of {recipe.train.steps}; run the same command to go on")
        return
    accuracy = trained.accuracy
    typer.echo(f"exact {accuracy.exact[-1]:.1%}, cells {accuracy.cell[-1]:.1%} of {accuracy.puzzles} held-out puzzles → {trained.folder}")


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file or folder.")],
    task: Annotated[str | None, typer.Option(help="Task whose puzzles to use; default: the one the checkpoint names.")] = None,
    puzzles: Annotated[int, typer.Option(min=1, help="Number of held-out puzzles.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out puzzles.")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Puzzles per batch.")] = 100,
) -> None:
    """Exact and cell accuracy on held-out puzzles, per supervision step."""
    from tqdm import tqdm

    from laser_studio.lab.evaluate import evaluate as measure
    from laser_studio.lab.tasks import get_task
    from laser_studio.trm import load_checkpoint

    _set_threads(threads)
    model = load_checkpoint(checkpoint, device=device)
    chosen = get_task(task or str(model.details.get("task", "")))
    data = chosen.puzzles(puzzles, seed, "held-out")
    with tqdm(total=len(data), unit="puzzle") as bar:
        accuracy = measure(model, data, batch_size=batch_size, on_batch=lambda done: bar.update(done))
    typer.echo(f"{chosen.name}: {accuracy.puzzles} held-out puzzles, seed {seed}")
    typer.echo("supervision step   exact    cell")
    for step, (exact, cell) in enumerate(zip(accuracy.exact, accuracy.cell, strict=True), 1):
        typer.echo(f"{step:16d}  {exact:6.1%}  {cell:6.1%}")


@app.command()
def report(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file or folder.")],
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
    from laser_studio.lab.examine import RANKS, examine
    from laser_studio.lab.report import REPORT_FILE, save_report
    from laser_studio.lab.tasks import get_task
    from laser_studio.trm import load_checkpoint

    _set_threads(threads)
    model = load_checkpoint(checkpoint, device=device)
    chosen = get_task(task or str(model.details.get("task", "")))
    place = Path(checkpoint)
    target = out or (place if place.is_dir() else place.parent) / REPORT_FILE
    if not target.parent.is_dir():
        raise ReportError(f"--out {target.name}: its folder does not exist")
    ranks = tuple(rank) if rank else RANKS
    command = " ".join(
        ["python -m laser_studio report CHECKPOINT", f"--each {each}", f"--seed {seed}", *(f"--rank {one}" for one in ranks)]
    )
    with _stop_on_interrupt() as stop, tqdm(total=None, unit="run") as bar:

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


@puzzles_app.command("make")
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


@puzzles_app.command("show")
def show_puzzles(
    name: Annotated[str, typer.Argument(metavar="SET", help="A bundled set or a file of puzzles.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
) -> None:
    """Print puzzles of a set as text."""
    from laser_studio.puzzles import get_domain, load_puzzles

    for puzzle in load_puzzles(name)[:count]:
        typer.echo(f"{puzzle.name}\n{get_domain(puzzle.domain).format(puzzle)}\n")


@bench.command("forward")
def bench_forward(
    pairs: Annotated[int, typer.Option(min=1, help="Interleaved pairs of runs per row.")] = 7,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes; default 1 and 8.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32, bfloat16; default both.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Our forward against a plain statement of the official arithmetic: same weights, same shapes, side by side."""
    from laser_studio.lab.bench_forward import bench_forward as measure

    _set_threads(threads)
    for timing in measure(batches=tuple(batch or (1, 8)), dtypes=tuple(dtype or ("float32", "bfloat16")), pairs=pairs, device=device):
        typer.echo(str(timing))


@bench.command("trainer")
def bench_trainer(
    variant: Annotated[list[str] | None, typer.Option(help="attention, mixer; default both.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32, bfloat16; default both.")] = None,
    task: Annotated[str, typer.Option(help="Task whose board is trained on.")] = "sudoku-9x9",
    batch: Annotated[int, typer.Option(min=1, help="Puzzles per optimiser step.")] = 8,
    hidden_size: Annotated[int, typer.Option(min=64, help="Width D.")] = 512,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 7,
    compiled: Annotated[bool, typer.Option("--compiled", help="Both sides also with their net compiled.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Whole optimiser steps against plain ones around the official arithmetic: same weights, same puzzles, side by side."""
    from laser_studio.lab.bench_trainer import bench_trainer as measure

    _set_threads(threads)
    variants, dtypes = tuple(variant or ("attention", "mixer")), tuple(dtype or ("float32", "bfloat16"))
    options: dict[str, Any] = {"task": task, "batch": batch, "hidden_size": hidden_size, "repeats": repeats, "compiled": compiled}
    for timing in measure(variants=variants, dtypes=dtypes, device=device, **options):
        typer.echo(str(timing))


@bench.command("record-streams")
def bench_record_streams(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file or folder.")],
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    puzzle_set: Annotated[str, typer.Option("--set", help="Bundled set or file of puzzles.")] = "sudoku-6x6",
    puzzles: Annotated[int, typer.Option(min=1, help="Puzzles, taken evenly from the set.")] = 8,
    device: Device = "auto",
) -> None:
    """Record what every linear layer is given over whole runs, for `bench tracker --streams`."""
    from tqdm import tqdm

    from laser_studio.lab.streams import record_streams, save_streams
    from laser_studio.puzzles import load_puzzles
    from laser_studio.trm import load_checkpoint

    model = load_checkpoint(checkpoint, device=device)
    everything = load_puzzles(puzzle_set)
    chosen = everything[:: max(1, len(everything) // puzzles)][:puzzles]
    runs = tqdm(record_streams(model, chosen), total=len(chosen), unit="run", leave=False)
    count = save_streams(runs, out, cycle=model.config.L_cycles + 1)
    typer.echo(f"wrote {count} runs to {out} ({out.stat().st_size / 2**20:.0f} MiB)")


@bench.command("tracker")
def bench_tracker(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint whose real streams to follow and whose step to time as well.")
    ] = None,
    streams: Annotated[Path | None, typer.Option(help="Recorded streams in place of new ones of the checkpoint.")] = None,
    puzzles: Annotated[int, typer.Option(min=1, help="Puzzles to record, taken evenly from the bundled 6×6 set.")] = 4,
    repeats: Annotated[int, typer.Option(min=0, help="Interleaved repeats of each timing; 0 leaves the timings out.")] = 15,
    rows: Annotated[int, typer.Option(min=1, help="Rows N of the timed update.")] = 1536,
    dim: Annotated[int, typer.Option(min=2, help="Width D of the timed update, and of the timed model.")] = 512,
    rank: Annotated[int, typer.Option(min=1, help="Rank k of the timings.")] = 64,
    l_cycles: Annotated[int, typer.Option(min=1, help="L cycles of the timed model.")] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Batch of the timed model.")] = 8,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """The tracker and its rivals: energy kept, over the best possible, stream by stream; then what it all costs."""
    import torch

    from laser_studio.lab import bench_tracker as measure
    from laser_studio.lab.streams import load_streams, record_streams, recorded_streams, seeded_streams
    from laser_studio.puzzles import load_puzzles
    from laser_studio.trm import load_checkpoint

    _set_threads(threads)
    model = load_checkpoint(checkpoint, device=device) if checkpoint else None
    followed = seeded_streams()
    if streams is not None:
        followed += load_streams(streams)
    elif model is not None:
        everything = load_puzzles("sudoku-6x6")
        chosen = everything[:: max(1, len(everything) // puzzles)][:puzzles]
        followed += recorded_streams(record_streams(model, chosen), cycle=model.config.L_cycles + 1)
    typer.echo("energy kept over that of the window's best basis of the same rank, with the basis from before the window's refresh")
    typer.echo("stream            rank   method               mean    from window 3  worst   1, 2, 3 refreshes after a swap   rank")
    for found in measure.measure_quality(followed):
        swaps = "  ".join(f"{value:.4f}" for value in found.swaps)
        typer.echo(
            f"{found.group:16}  {found.rank:>5}  {found.arm:19}  {found.mean:.4f}  {found.settled:13.4f}  {found.worst:.4f}  {swaps:30}  "
            f"{found.mean_rank:5.1f}"
        )
    if not repeats:
        return
    where = f"{device}, {torch.get_num_threads()} threads, medians of {repeats} interleaved repeats [quartiles of the ratio]"
    typer.echo(f"\none update, N {rows}, D {dim}, k {rank}: {where}")
    for timing in measure.update_cost(rows=rows, dim=dim, rank=rank, repeats=repeats, device=device):
        typer.echo(str(timing))
    typer.echo("\nwhat figures cost that are computed when read")
    for timing in measure.figure_cost(rows=rows, dim=dim, rank=rank, repeats=repeats, device=device):
        typer.echo(str(timing))
    shape: dict[str, Any] = {"batch": batch, "rank": rank, "L_cycles": l_cycles}
    typer.echo(
        f"\nall sites of two layers, D {dim}, T 97, {', '.join(f'{name} {value}' for name, value in shape.items())}, refresh per cycle"
    )
    for timing in measure.all_sites_cost(hidden_size=dim, seq_len=97, repeats=max(repeats // 2, 1), device=device, **shape):
        typer.echo(str(timing))
    if model is not None:
        width, cycles = model.config.hidden_size, model.config.L_cycles
        length = (model.config.seq_len or 81) + model.config.prefix_len
        shape = {"batch": 1, "rank": max(width // 4, 1), "L_cycles": cycles}
        typer.echo(
            f"\nthe checkpoint, D {width}, T {length}, {', '.join(f'{name} {value}' for name, value in shape.items())}, refresh per cycle"
        )
        for timing in measure.all_sites_cost(hidden_size=width, seq_len=length, repeats=10 * repeats, device=device, model=model, **shape):
            typer.echo(str(timing))


@bench.command("demo")
def bench_demo(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file or folder.")],
    puzzle_set: Annotated[str, typer.Option("--set", help="Bundled set or file of puzzles.")] = "sudoku-6x6",
    puzzles: Annotated[int, typer.Option(min=1, help="Puzzles, taken evenly from the set.")] = 20,
    rank: Annotated[list[str] | None, typer.Option(help='Ranks to compare, as "25%" or a number; default 25%.')] = None,
    min_fidelity: Annotated[float, typer.Option(min=0, max=1, help="Fidelity ε below which a window is a miss.")] = 0.97,
    turn: Annotated[float, typer.Option(min=0, max=1, help="Fall of fidelity at which a basis turns at once; 1: never.")] = 0.01,
    best: Annotated[bool, typer.Option(help="Also compare each window with its best basis: an SVD each, not typical of its cost.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Whole debugger runs: net saving, fidelity, resets, tracker cost; means over puzzles."""
    from statistics import fmean, median

    from tqdm import tqdm

    from laser_studio.lab.bench_demo import run_demo
    from laser_studio.laser import LaserPolicy
    from laser_studio.puzzles import load_puzzles
    from laser_studio.trm import load_checkpoint

    _set_threads(threads)
    model = load_checkpoint(checkpoint, device=device)
    everything = load_puzzles(puzzle_set)
    chosen = everything[:: max(1, len(everything) // puzzles)][:puzzles]
    typer.echo(f"{len(chosen)} puzzles of {puzzle_set}, min fidelity {min_fidelity}, turn {turn}, batch 1, {model.H_init.device}")
    typer.echo("rank  solved  net saving (least)  training saving  fidelity  retained  growths  resets  break-even  tracker cost  of best")
    for one in rank or ["25%"]:
        policy = LaserPolicy(rank=one, min_fidelity=min_fidelity, turn=turn)
        runs = list(tqdm(run_demo(model, chosen, policy, best=best), total=len(chosen), unit="run", leave=False))
        ratios = [run.of_best for run in runs if run.of_best is not None]
        of_best = f"{fmean(ratios):.4f}" if ratios else "–"
        typer.echo(
            f"{one:>4}  {fmean(r.solved_at is not None for r in runs):6.0%}  {fmean(r.saving for r in runs):10.1%} "
            f"({min(r.saving for r in runs):5.1%})  {fmean(r.training_saving for r in runs):15.1%}  "
            f"{fmean(r.fidelity for r in runs):8.4f}  "
            f"{fmean(r.retained for r in runs):8.4f}  {fmean(r.growths for r in runs):7.1f}  {fmean(r.resets for r in runs):6.1f}  "
            f"{median(r.break_even or 0 for r in runs):10.0f}  {median(r.tracker_share for r in runs):12.0%}  {of_best:>7}"
        )
