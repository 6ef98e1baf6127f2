"""`gradcheck`: what compression does to the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from laser_studio.cli.common import CHECKPOINT_HELP, Device, Threads, open_checkpoint, set_threads

if TYPE_CHECKING:
    from laser_studio.lab.gradcheck import GradientCheck


def gradcheck(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
    rank: Annotated[list[str] | None, typer.Option(help='Ranks to check, as "25%" or a number; default 50%, 25%, 12.5%.')] = None,
    mode: Annotated[list[str] | None, typer.Option(help="linear, block; default both.")] = None,
    storage: Annotated[str, typer.Option(help="Of coefficients and places kept whole: exact, int8 or int4.")] = "exact",
    products: Annotated[str, typer.Option(help="Arithmetic on what is kept in few bits: auto, float, int8 or bf16.")] = "auto",
    whole: Annotated[bool, typer.Option("--whole", help="Check block mode without bases too: places kept whole, in --storage.")] = False,
    blocks: Annotated[bool, typer.Option("--blocks", help="Keep nothing within blocks, make it again from what entered them.")] = False,
    budget: Annotated[
        list[str] | None, typer.Option(help='Check what a budget leads to: "cosine=0.99" or "bytes=3%". Without --rank nothing else.')
    ] = None,
    min_fidelity: Annotated[float, typer.Option(min=0, max=1, help="ε of the policy; 0 holds the rank fixed.")] = 0.0,
    puzzles: Annotated[int, typer.Option(min=1, help="Held-out puzzles whose gradient is checked.")] = 32,
    settle: Annotated[int, typer.Option(min=0, help="Optimiser steps that make the bases; 0: two rounds of supervision steps.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out puzzles.")] = 0,
    task: Annotated[str | None, typer.Option(help="Task whose puzzles to use; default: the one the checkpoint names.")] = None,
    parameters: Annotated[bool, typer.Option("--parameters/--no-parameters", help="A line per parameter too.")] = True,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Cosine and relative error of the gradient of compressed training against plain autograd, per supervision step and parameter.

    The bases come from steps on other puzzles and stay as they are during the check; weights are never changed.
    """
    from laser_studio.errors import CompressionError
    from laser_studio.lab.gradcheck import gradcheck as check
    from laser_studio.lab.tasks import get_task
    from laser_studio.laser import LaserPolicy
    from laser_studio.laser.policy import ALL_OFF
    from laser_studio.laser.products import Products

    set_threads(threads)
    for one in mode or ():
        if one not in ("linear", "block"):
            raise CompressionError(f"--mode is linear or block, not {one[:40]!r}")
    for option, value, known in (("storage", storage, ("exact", "int8", "int4")), ("products", products, get_args(Products))):
        if value not in known:
            raise CompressionError(f"--{option} is {', '.join(known)}, not {value[:40]!r}")
    if blocks and (budget or mode == ["linear"]):
        raise CompressionError("--blocks is for mode block without a budget")
    if blocks:
        mode = ["block"]
    model = open_checkpoint(checkpoint, device)
    chosen = get_task(task or str(model.details.get("task", "")))
    data = chosen.puzzles(4 * puzzles, seed, "held-out")
    alone = (whole or budget) and not rank
    policies = [] if alone else [LaserPolicy(rank=one, min_fidelity=min_fidelity) for one in rank or ("50%", "25%", "12.5%")]
    typer.echo(f"{chosen.name}: {puzzles} held-out puzzles, seed {seed}; {model.config.halt_max_steps} supervision steps")
    how = {"storage": storage, "products": products, "batch_size": puzzles, "settle": settle or None, "seed": seed, "blocks": blocks}
    for each in mode or ("linear", "block"):
        for policy in policies:
            _show(check(model, policy, data, mode=each, **how), parameters)  # type: ignore[arg-type]
        if whole and each == "block":
            _show(check(model, LaserPolicy(sites=ALL_OFF), data, mode=each, **how), parameters)  # type: ignore[arg-type]
        for one in budget or ():
            _show(check(model, LaserPolicy(), data, mode=each, budget=one, **how), parameters)  # type: ignore[arg-type]


def _show(found: GradientCheck, parameters: bool) -> None:
    total = found.ledger.total
    if found.choice is not None:
        typer.echo(f"\n{found.choice}")
    kept = "whole" if found.policy.sites else f"rank {found.policy.rank}, ε {found.policy.min_fidelity:g}"
    typer.echo(
        f"\n{found.mode}, {'as chosen' if found.choice else f'{found.storage}, {kept}'}: "
        f"cosine {found.mean_cosine:.4f} in the mean, {found.worst_cosine:.4f} at worst; energy kept {found.fidelity:.4f}"
    )
    typer.echo(
        f"saved for backward {total.all_saved_bytes / 2**20:.1f} of {total.all_full_bytes / 2**20:.1f} MiB "
        f"({total.all_saved_saving:.1%} gone, net); of linear inputs {total.saving:.1%}"
    )
    typer.echo("supervision step   cosine   error")
    for step in found.steps:
        typer.echo(f"{step.supervision:16d}  {step.whole.cosine:7.4f}  {step.whole.error:6.2%}")
    if parameters:
        typer.echo(f"{'parameter':44}  cosine   worst   error")
        for name, (mean, worst, error) in found.by_parameter().items():
            typer.echo(f"{name:44}  {mean:6.4f}  {worst:6.4f}  {error:6.2%}")
