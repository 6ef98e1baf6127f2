"""`train`, `study` and `reproduce`: what makes models."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laser_studio.cli.common import Device, Threads, set_threads
from laser_studio.cli.progress import training_bar

if TYPE_CHECKING:
    from laser_studio.lab.runs import Observer


def train(
    task: Annotated[str, typer.Argument(help="sudoku-4x4, sudoku-6x6, sudoku-9x9, maze-NxN with N odd, 7 to 41, or arc-N, 3 to 30.")],
    variant: Annotated[str | None, typer.Option(help="attention or mixer; default: attention, or what the recipe file says.")] = None,
    preset: Annotated[str, typer.Option(help="auto (gpu with CUDA, else laptop), laptop, gpu or official.")] = "auto",
    config: Annotated[Path | None, typer.Option(help="Recipe file (YAML or JSON) with sections model, train, data, laser.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One field of the recipe, such as train.lr=0.001.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run, resumed if interrupted. Default: runs/TASK-VARIANT.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Short for --set train.steps=N.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Short for --set train.seed=N: data, weights, order, exploration.")] = None,
    laser: Annotated[
        bool, typer.Option("--laser", help="Store activations compressed; short for --set laser.enabled=true. Fields of it: --show.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help='--laser with rank and storage found by "cosine=0.99" or "bytes=3%"; see OUT/choices.txt.'),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out puzzles of the last evaluation; ARC: at most.")] = 1000,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe, each field of it, and train nothing.")] = False,
) -> None:
    """Train a model and write it with its card to OUT/model. Ctrl-C saves and stops; the same command goes on.

    Several processes share every batch and reach what one would: torchrun --nproc-per-node N -m laser_studio train TASK.
    """
    from laser_studio.device import resolve_device
    from laser_studio.lab.distributed import joined, own_device
    from laser_studio.lab.recipes import get_recipe
    from laser_studio.lab.runs import run
    from laser_studio.laser.ledger import COUNTS

    set_threads(threads)
    where = resolve_device(device)
    changes = [*(change or ()), *(f"train.{name}={value}" for name, value in (("steps", steps), ("seed", seed)) if value is not None)]
    changes += ["laser.enabled=true"] if laser or budget else []
    changes += [f"laser.budget={budget}"] if budget else []
    chosen = preset if preset != "auto" else "gpu" if where.type == "cuda" else "laptop"
    recipe = get_recipe(task, variant=variant, preset=chosen, file=config, changes=changes)
    if show:
        typer.echo(recipe.text())
        return
    said = {"--variant": variant, "--preset": chosen, "--config": config and config.name}
    options = [f"{flag} {value}" for flag, value in said.items() if value is not None] + [f"--set {one}" for one in changes]
    command = " ".join(["python -m laser_studio train", recipe.task.name, *options])
    folder = out or Path("runs") / f"{recipe.task.name}-{recipe.variant}"
    where = own_device(where)
    with joined(where) as team, training_bar(recipe.train.steps, quiet=not team.leads) as (bar, observer):
        trained = run(recipe, folder, where, command=command, held_out=held_out, observer=observer, team=team)
        reached = bar.n
    if not team.leads:
        return
    if trained is None:
        typer.echo(f"stopped at step {reached} of {recipe.train.steps}; run the same command to go on")
        return
    accuracy = trained.accuracy
    typer.echo(f"exact {accuracy.exact[-1]:.1%}, cells {accuracy.cell[-1]:.1%} of {accuracy.puzzles} held-out puzzles → {trained.folder}")
    if (total := trained.compressed) is not None:
        rates = ", ".join(f"{what} {total.per_thousand_steps(what):.1f}" for what in COUNTS)
        typer.echo(f"LASER: {total.all_saved_saving:.1%} of all saved bytes gone; in 1,000 steps, all sites together: {rates}")


def study(
    task: Annotated[str, typer.Argument(help="As for `train`.")],
    seeds: Annotated[int, typer.Option(min=1, help="Pairs of runs, of the seeds 0, 1, …")] = 3,
    budget: Annotated[str, typer.Option(help='Of the LASER runs: "cosine=0.999" or "bytes=3%"; empty: rank as set.')] = "cosine=0.999",
    variant: Annotated[str | None, typer.Option(help="attention or mixer.")] = None,
    preset: Annotated[str, typer.Option(help="laptop, gpu or official.")] = "laptop",
    config: Annotated[Path | None, typer.Option(help="Recipe file, as for `train`.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One field of the recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; what is there goes on. Default: runs/study-TASK-VARIANT.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out puzzles each run is judged on.")] = 1000,
) -> None:
    """Train a recipe with LASER and without, in pairs of equal seeds, and table and draw what they reach.

    Both arms run uncompiled. Ctrl-C saves and stops; the same command goes on. Writes study.csv and study.svg.
    """
    from laser_studio.device import resolve_device
    from laser_studio.lab.recipes import get_recipe
    from laser_studio.lab.study import study as compare

    set_threads(threads)
    where = resolve_device(device)
    changes = ["train.compile=false", *(change or ()), "laser.enabled=true", *([f"laser.budget={budget}"] if budget else [])]
    recipe = get_recipe(task, variant=variant, preset=preset, file=config, changes=changes)
    folder = out or Path("runs") / f"study-{recipe.task.name}-{recipe.variant}"
    command = f"python -m laser_studio study {recipe.task.name} --variant {recipe.variant} --seeds {seeds} --budget {budget!r}"
    with ExitStack() as bars:

        def observer_of(arm: str, seed: int) -> Observer:
            bars.close()  # the bar of the run before
            typer.echo(f"{arm}, seed {seed}")
            return bars.enter_context(training_bar(recipe.train.steps))[1]

        found = compare(recipe, range(seeds), folder, where, command=command, held_out=held_out, observer_of=observer_of)
    if found is None:
        typer.echo("stopped; run the same command to go on")
        return
    typer.echo(f"{found}\n→ {folder}")


def reproduce(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Shipped models; default: all trained on a CPU.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs; what is there goes on.")] = Path("runs/reproduce"),
    device: Device = "cpu",
    threads: Threads = 0,
) -> None:
    """Train shipped models again from their recipes and check their accuracy: hours. Ctrl-C saves; the same command goes on.

    Ends with status 1 where a model falls short of its card by more than chance.
    """
    from laser_studio.device import resolve_device
    from laser_studio.lab.reproduce import read_card, retrain, trained_on_cpu

    set_threads(threads)
    where = resolve_device(device)
    cards = [read_card(name) for name in names or trained_on_cpu()]
    outcomes = []
    for number, card in enumerate(cards, 1):
        typer.echo(f"{number} of {len(cards)}: {card.name}, {card.recipe.train.steps:,} steps; the card says {card.exact:.1%}")
        with training_bar(card.recipe.train.steps) as (_, observer):
            outcome = retrain(card, out / card.name, where, observer=observer)
        if outcome is None:
            typer.echo("stopped; run the same command to go on")
            raise typer.Exit(1)
        outcomes.append(outcome)
        typer.echo(str(outcome))
    if not all(outcome.reached for outcome in outcomes):
        raise typer.Exit(1)
