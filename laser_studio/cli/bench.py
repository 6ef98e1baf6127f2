"""`bench`: measurements, all arms side by side in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from laser_studio.cli.common import CHECKPOINT_HELP, Device, Threads, open_checkpoint, set_threads

app = typer.Typer(help="Measurements, all arms side by side in one run.", no_args_is_help=True)


@app.command("forward")
def bench_forward(
    pairs: Annotated[int, typer.Option(min=1, help="Interleaved pairs of runs per row.")] = 7,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes; default 1 and 8.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32, bfloat16; default both.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Our forward against a plain statement of the official arithmetic: same weights, same shapes, side by side."""
    from laser_studio.lab.bench_forward import bench_forward as measure

    set_threads(threads)
    for timing in measure(batches=tuple(batch or (1, 8)), dtypes=tuple(dtype or ("float32", "bfloat16")), pairs=pairs, device=device):
        typer.echo(str(timing))


@app.command("trainer")
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

    set_threads(threads)
    variants, dtypes = tuple(variant or ("attention", "mixer")), tuple(dtype or ("float32", "bfloat16"))
    options: dict[str, Any] = {"task": task, "batch": batch, "hidden_size": hidden_size, "repeats": repeats, "compiled": compiled}
    for timing in measure(variants=variants, dtypes=dtypes, device=device, **options):
        typer.echo(str(timing))


@app.command("training")
def bench_training(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint to train on; default: fresh weights, whose cosines mean little.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task whose puzzles to use: sudoku-9x9 has 97 tokens, arc-30 has 916; default: the checkpoint's, or sudoku-9x9."),
    ] = None,
    variant: Annotated[list[str] | None, typer.Option(help="attention (default), mixer; of fresh weights.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32 (default), bfloat16; of fresh weights.")] = None,
    hidden_size: Annotated[int | None, typer.Option(min=64, help="Width D of fresh weights; default 512.")] = None,
    l_cycles: Annotated[list[int] | None, typer.Option(min=1, help="L cycles of fresh weights; default 6.")] = None,
    unroll: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Net applications with gradient in a step: L cycles are made one fewer, of a checkpoint too."),
    ] = None,
    rank: Annotated[list[str] | None, typer.Option(help="Ranks of the compressed arms; default 12.5%, 25%, 50%.")] = None,
    arms: Annotated[
        list[str] | None, typer.Option(help="Arms to run beside plain autograd, by name or pattern such as 'block*'; default all.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Puzzles per optimiser step.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 5,
    settle: Annotated[
        int, typer.Option(min=1, help="Optimiser steps that make the bases before anything is measured; budgets choose on them.")
    ] = 8,
    json: Annotated[Path | None, typer.Option(help="File to write the figures to as well, after each case.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Training on compressed activations beside its rivals: bytes saved for backward, time of an optimiser step, cosine of the gradient.

    Options that can be given several times make a case of each combination.
    """
    from itertools import product

    from tqdm import tqdm

    from laser_studio.errors import TrainingError
    from laser_studio.lab import bench_training as lab
    from laser_studio.lab.tasks import get_task

    set_threads(threads)
    if checkpoint is not None and (variant or dtype or hidden_size or l_cycles):
        raise TrainingError("--variant, --dtype, --hidden-size and --l-cycles are of fresh weights: leave them out with a checkpoint")
    if unroll and l_cycles:
        raise TrainingError("--unroll N is --l-cycles N-1: give one of them")
    done = []
    cycles = l_cycles or [6]
    for name, kind, precision, depth in product(task or [""], variant or ["attention"], dtype or ["float32"], unroll or cycles):
        if checkpoint is not None:
            model = open_checkpoint(checkpoint, device)
            chosen = get_task(name or str(model.details.get("task", "")))
        else:
            chosen = get_task(name or "sudoku-9x9")
            width = hidden_size or 512
            model = lab.fresh_model(chosen, variant=kind, dtype=precision, hidden_size=width, l_cycles=depth, device=device)
        if unroll:
            lab.unroll(model, depth)
        with tqdm(total=0, unit="step", leave=False, dynamic_ncols=True) as bar:

            def watch(steps: int, total: int, arm: str, bar: tqdm = bar) -> None:
                bar.total = total
                bar.set_postfix_str(arm, refresh=False)
                bar.update(steps - bar.n)

            ranks = tuple(rank or ("12.5%", "25%", "50%"))
            sizes: dict[str, Any] = {"batch": batch, "repeats": repeats, "settle": settle}
            found = lab.bench_training(model, chosen, ranks=ranks, patterns=arms or (), watch=watch, **sizes)
        del model
        done.append(found)
        typer.echo(f"{found}\n")
        if json is not None:
            lab.save_benches(done, json)


@app.command("peak")
def bench_peak(
    variant: Annotated[list[str] | None, typer.Option(help="attention, mixer; default both.")] = None,
    storage: Annotated[str, typer.Option(help="Of the compressed step: exact, int8 or int4.")] = "int8",
    rank: Annotated[
        list[str] | None,
        typer.Option(help='"" for places kept whole, blocks for only those between blocks, or such as "25%"; default: all three.'),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Puzzles of 97 tokens at hidden 128: 96 keep about 1.6 GB.")] = 96,
) -> None:
    """Resident memory of one optimiser step, plain and compressed, each in a process of its own, beside what the ledger says. Linux."""
    from laser_studio.lab.peak import BLOCKS, WHOLE, check_peak

    for each in variant or ("attention", "mixer"):
        for one in rank or (WHOLE, BLOCKS, "25%"):
            found = check_peak(variant=each, batch=batch, storage=storage, rank=one)
            what = {WHOLE: "whole", BLOCKS: "whole, between blocks only"}.get(one, f"rank {one}")
            typer.echo(f"{each}, {what}, {storage}, batch {batch}, CPU\n{found}")


@app.command("record-streams")
def bench_record_streams(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    puzzle_set: Annotated[str, typer.Option("--set", help="Bundled set or file of puzzles.")] = "sudoku-6x6",
    puzzles: Annotated[int, typer.Option(min=1, help="Puzzles, taken evenly from the set.")] = 8,
    device: Device = "auto",
) -> None:
    """Record what every linear layer is given over whole runs, for `bench tracker --streams`."""
    from tqdm import tqdm

    from laser_studio.lab.streams import record_streams, save_streams
    from laser_studio.puzzles import load_puzzles

    model = open_checkpoint(checkpoint, device)
    everything = load_puzzles(puzzle_set)
    chosen = everything[:: max(1, len(everything) // puzzles)][:puzzles]
    runs = tqdm(record_streams(model, chosen), total=len(chosen), unit="run", leave=False)
    count = save_streams(runs, out, cycle=model.config.L_cycles + 1)
    typer.echo(f"wrote {count} runs to {out} ({out.stat().st_size / 2**20:.0f} MiB)")


@app.command("tracker")
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

    set_threads(threads)
    model = open_checkpoint(checkpoint, device) if checkpoint else None
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


@app.command("demo")
def bench_demo(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
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

    set_threads(threads)
    model = open_checkpoint(checkpoint, device)
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
