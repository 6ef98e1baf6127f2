"""`inspect` and `convert`: what a checkpoint is, and any supported one as ours or the official format."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from laser_studio.cli.common import CHECKPOINT_HELP

if TYPE_CHECKING:
    from laser_studio.lab.inspection import Inspection
    from laser_studio.trm import Need
    from laser_studio.trm.checkpoints.needs import Assume

T = TypeVar("T")

AssumeOption = Annotated[
    list[str] | None,
    typer.Option("--assume", metavar="NAME=VALUE", help="What neither tensors nor a configuration tell, such as H_cycles=3; repeatable."),
]
OfficialOption = Annotated[bool, typer.Option("--official", help="Take the official value for everything that is not told.")]
SeqLen = Annotated[int | None, typer.Option(min=1, help="Tokens of a puzzle, for models whose tensors do not tell it.")]


def inspect(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT_HELP)],
    assume: AssumeOption = None,
    seq_len: SeqLen = None,
    as_json: Annotated[bool, typer.Option("--json", help="Plain data in place of tables.")] = False,
) -> None:
    """Format, architecture, sites, parameters, what is unknown, warnings, estimated cost and memory of a checkpoint."""
    from laser_studio.hub import fetch_bar
    from laser_studio.lab.inspection import inspect_checkpoint

    found = inspect_checkpoint(checkpoint, assume=_assumed(assume, False), seq_len=seq_len, on_fetch=fetch_bar)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, default=str))
    else:
        _show(found)


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help=CHECKPOINT_HELP)],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write to.")],
    to: Annotated[str, typer.Option(help="studio (model.safetensors, config.json) or official (step_N, all_config.yaml).")] = "studio",
    assume: AssumeOption = None,
    official: OfficialOption = False,
    task: Annotated[str | None, typer.Option(help="Keep one row of the puzzle embedding: the trained task of that name or number.")] = None,
    puzzle_identifier: Annotated[list[int] | None, typer.Option(min=0, help="Keep these rows of it; repeatable.")] = None,
    seq_len: SeqLen = None,
    half: Annotated[bool, typer.Option("--half", help="Write fp32 weights as fp16 (studio format).")] = False,
    step: Annotated[int, typer.Option(min=0, help="N of step_N (official format).")] = 0,
) -> None:
    """Write a checkpoint of any supported family (docs/checkpoints.md) in our format or the official one.

    What neither tensors nor a configuration tell is asked for on a terminal, with the official value proposed.
    """
    from laser_studio.hub import fetch_bar
    from laser_studio.trm.checkpoints import convert as write

    options: dict[str, Any] = {"to": to, "half": half, "step": step, "seq_len": seq_len}

    def attempt(answers: Assume, chosen: str | None) -> Any:
        return write(source, folder, assume=answers, task=chosen, puzzle_identifiers=puzzle_identifier, on_fetch=fetch_bar, **options)

    model = answered(attempt, _assumed(assume, official), task)
    for warning in model.details["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{model.details['source']}, {model.config.variant}: {sum(p.numel() for p in model.parameters()):,} parameters → {folder}")


def answered(attempt: Callable[[Assume, str | None], T], assume: Assume, task: str | None) -> T:
    """`attempt`, and again with what it asks for, as long as there is somebody at a terminal to answer."""
    from laser_studio.trm import CheckpointNeeds
    from laser_studio.trm.checkpoints.needs import HOW

    while True:
        try:
            return attempt(assume, task)
        except CheckpointNeeds as question:
            if not _at_terminal():
                raise type(question)(f"{str(question).replace(HOW, 'say them')}{_how(question.needs)}", question.needs) from None
            assume = {**(assume if isinstance(assume, dict) else {}), **_prompted(question.needs)}


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _prompted(needs: Sequence[Need]) -> dict[str, Any]:
    from laser_studio.trm.checkpoints.needs import read_answers

    answers: dict[str, Any] = {}
    for need in needs:
        choices = f" ({', '.join(map(str, need.choices[:8]))}{', …' if len(need.choices) > 8 else ''})" if need.choices else ""
        answers[need.name] = str(typer.prompt(f"{need.name}: {need.why}{choices}", default=need.proposed, err=True))
    return read_answers(answers)


def _how(needs: Sequence[Need]) -> str:
    told = [f"--assume {need.name}={need.proposed}" for need in needs if need.name != "task"]
    return f" ({' '.join(told)}, or --official for all official values)" if told else " (--task NAME)"


def _assumed(pairs: list[str] | None, official: bool) -> Assume:
    from laser_studio.trm.checkpoints.needs import read_answers

    found: dict[str, Any] = {"official": True} if official else {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign:
            raise typer.BadParameter(f"{pair[:40]!r} is not NAME=VALUE", param_hint="--assume")
        found |= read_answers({name: value})
    return found or None


def _show(found: Inspection) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(show_header=False, box=None, pad_edge=False)
    shown = "H_cycles L_cycles L_layers hidden_size num_heads pos_encodings halt_max_steps vocab_size seq_len forward_dtype"
    architecture = ", ".join(f"{name} {found.architecture[name]}" for name in shown.split())
    unknown = "; ".join(f"{need} – {need.why}" for need in found.needs) or "nothing"
    cost = found.cost
    memory = [f"weights {_bytes(cost.weight_bytes)}"]
    if cost.state_bytes is not None:
        memory.append(f"states {_bytes(cost.state_bytes)} a puzzle")
    if cost.saved_bytes is not None:
        memory.append(f"{_bytes(cost.saved_bytes)} saved for backward a puzzle")
    per = f"per puzzle of {cost.tokens} tokens" if cost.tokens else "per token, attention left out: the length is unknown, give --seq-len"
    rows: list[tuple[str, str]] = [
        ("file", f"{found.file}, {_bytes(found.file_bytes)}"),
        ("format", f"{found.source}, variant {found.variant}"),
        ("architecture", architecture + (", mixer" if found.architecture["mlp_t"] else "")),
        ("parameters", ", ".join(f"{name} {count:,}" for name, count in found.parameters.items() if count)),
        ("puzzle rows", f"{found.puzzle_rows:,}" + (f": {', '.join(found.tasks[:5])} …" if found.tasks else "")),
        ("unknown", unknown),
        ("FLOPs", f"{_count(cost.flops_application)} a net application, {_count(cost.flops_supervision)} a supervision step, "
                  f"{_count(cost.flops_run)} a run ({per})"),
        ("memory", ", ".join(memory)),
        *((str(name), str(value)) for name, value in found.details.items() if isinstance(value, str | int | float)),
        *(("warning", warning) for warning in found.warnings),
    ]  # fmt: skip
    for name, value in rows:
        facts.add_row(f"[bold]{escape(name)}[/]", escape(value))
    console.print(facts)
    sites = Table("site", "in", "out", "applications a supervision step", box=None, pad_edge=False)
    for site in found.sites:
        sites.add_row(escape(site.name), str(site.inputs), str(site.outputs), str(site.applications))
    console.print(sites)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _count(flops: int) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if flops >= scale:
            return f"{flops / scale:.2f} {unit}FLOP"
    return f"{flops:,} FLOP"
