"""What a checkpoint is, before it is used: format, architecture, sites, sizes, what is unknown, what looks wrong, what a run will cost.

`inspect_checkpoint` needs no answers: what neither tensors nor a configuration tell is listed, and the official values stand in for
it meanwhile. The command line prints what it returns; a screen can show the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laser_studio.debugger.training_ledger import measure_saved
from laser_studio.hub import OnFetch
from laser_studio.laser import find_sites
from laser_studio.trm import TRM, CheckpointNeeds, Need
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.loaded import Loaded, build
from laser_studio.trm.checkpoints.loading import read_source
from laser_studio.trm.checkpoints.needs import Answers, Assume
from laser_studio.trm.checkpoints.puzzle_rows import EMBEDDING, known_tasks, plain_tasks
from laser_studio.trm.config import TRMConfig

MOST_MEASURED_TOKENS = 1024  # beyond, measuring one application takes longer than it is worth
_NORMAL_BOUND = 2 / 0.87962566103423978  # of a normal cut at two deviations and rescaled: no fresh weight is larger, in deviations


@dataclass(frozen=True)
class Site:
    """A linear layer that the recursion applies again and again; applications: of it in one supervision step."""

    name: str
    inputs: int
    outputs: int
    applications: int


@dataclass(frozen=True)
class Cost:
    """Of one puzzle. tokens: T + prefix, None where unknown (then attention is left out and nothing is measured).

    flops_application: multiplications and additions of one application of the net (of an HRM: of one application of both);
    flops_supervision: of a supervision step with its heads; flops_run: of a run to halt_max_steps; weight_bytes, state_bytes: of the
    model and its states; saved_bytes: what autograd keeps in a training step, measured on the model itself, None where it was not.
    """

    tokens: int | None
    flops_application: int
    flops_supervision: int
    flops_run: int
    weight_bytes: int
    state_bytes: int | None
    saved_bytes: int | None


@dataclass(frozen=True)
class Inspection:
    """What was found. needs: what has to be answered before it can be loaded; `architecture` shows the official values meanwhile."""

    file: str
    file_bytes: int
    source: str
    variant: str
    details: Mapping[str, Any]
    architecture: Mapping[str, Any]
    parameters: Mapping[str, int]
    sites: tuple[Site, ...]
    needs: tuple[Need, ...]
    puzzle_rows: int
    tasks: tuple[str, ...]
    warnings: tuple[str, ...]
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def inspect_checkpoint(
    path_or_hub_ref: str | Path, *, seq_len: int | None = None, assume: Assume = None, on_fetch: OnFetch | None = None
) -> Inspection:
    """Look into a checkpoint of any supported family. Raises `CheckpointError` where it is none, or not sound."""
    needs: tuple[Need, ...] = ()
    try:
        file, loaded = read_source(path_or_hub_ref, Asked(seq_len, Answers(assume), on_fetch=on_fetch))
    except CheckpointNeeds as question:
        needs = question.needs
        answers = {**(assume if isinstance(assume, Mapping) else {}), **question.proposal}
        file, loaded = read_source(path_or_hub_ref, Asked(seq_len, Answers(answers), on_fetch=on_fetch))
    table, names = loaded.tensors.get(EMBEDDING), plain_tasks(known_tasks(file))
    rows = table.shape[0] if table is not None else 0
    if table is not None and table.is_meta:
        needs = (*needs, Need("task", "the trained task whose row of the puzzle embedding is used", None, tuple(names)))
    model = build(_with_one_row(loaded), file.name)
    everything = {name: tensor for name, tensor in loaded.tensors.items() if not tensor.is_meta}
    config = loaded.config
    sites = _sites(model)
    warnings = [*model.details["warnings"], *_odd_weights(everything, config)]
    if table is not None and rows > 1 and config.vocab_size == 12:
        warnings.append("an ARC model needs a trained task: with the blank row 0 it scores 0 %")
    details = {key: value for key, value in model.details.items() if key not in ("warnings", "source", "file")}
    return Inspection(
        file=file.name,
        file_bytes=file.stat().st_size,
        source=str(model.details["source"]),
        variant=config.variant,
        details=details,
        architecture=asdict(config),
        parameters=_parameters(loaded.tensors),
        sites=sites,
        needs=needs,
        puzzle_rows=rows,
        tasks=tuple(names),
        warnings=tuple(warnings),
        cost=_cost(model, sites),
    )


def _with_one_row(loaded: Loaded) -> Loaded:
    """A large embedding is 99 % of its file and says nothing of the rest: a row of zeros stands for it."""
    table = loaded.tensors.get(EMBEDDING)
    if table is None or not table.is_meta:
        return loaded
    row = torch.zeros(1, table.shape[1])
    return replace(loaded, tensors=loaded.tensors | {EMBEDDING: row}, config=replace(loaded.config, num_puzzle_identifiers=1))


def _parameters(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Numbers of weights, by part."""
    found = {"net": 0, "token embedding and positions": 0, "puzzle embedding": 0, "heads": 0, "starts": 0}
    for name, tensor in tensors.items():
        if name == EMBEDDING:
            part = "puzzle embedding"
        elif name.startswith("embedding."):
            part = "token embedding and positions"
        elif name.startswith("net."):
            part = "net"
        else:
            part = "starts" if name.endswith("_init") else "heads"
        found[part] += tensor.numel()
    return found | {"total": sum(found.values())}


def _sites(model: TRM) -> tuple[Site, ...]:
    config = model.config

    def applications(name: str) -> int:
        if config.variant != "hrm":
            return config.steps_per_supervision
        return config.H_cycles * (1 if name.startswith("H_level.") else config.L_cycles)

    return tuple(Site(name, layer.in_features, layer.out_features, applications(name)) for name, layer in find_sites(model.net).items())


def _cost(model: TRM, sites: tuple[Site, ...]) -> Cost:
    config = model.config
    tokens = None if config.seq_len is None else config.seq_len + config.prefix_len
    length, width = tokens or 1, config.hidden_size

    def flops(site: Site) -> int:  # a layer over the sequence is applied to each feature, any other to each token
        return 2 * site.inputs * site.outputs * (width if ".mlp_t." in site.name or ".token_" in site.name else length)

    attention = 4 * length * length * width if tokens and not config.mlp_t else 0
    blocks = {site.name.rpartition(".self_attn.")[0]: site.applications for site in sites if ".self_attn." in site.name}
    once = sum(map(flops, sites)) + attention * len(blocks)
    step = sum(flops(site) * site.applications for site in sites) + attention * sum(blocks.values())
    step += 2 * width * (config.vocab_size * length + 2)
    saved = None
    if tokens and tokens <= MOST_MEASURED_TOKENS:
        saved = measure_saved(model, tokens).total * config.graded_applications
    states = {"singlez": 1, "hier6": 7}.get(config.variant, 2)
    return Cost(
        tokens=tokens,
        flops_application=once,
        flops_supervision=step,
        flops_run=step * config.halt_max_steps,
        weight_bytes=sum(value.numel() * value.element_size() for value in model.state_dict().values()),
        state_bytes=states * tokens * width * model.forward_dtype.itemsize if tokens else None,
        saved_bytes=saved,
    )


def _odd_weights(tensors: Mapping[str, Tensor], config: TRMConfig) -> list[str]:
    """Sentences about weights that are finite and still look wrong."""
    found, fresh = [], []
    head, bias = tensors.get("q_head.weight"), tensors.get("q_head.bias")
    if head is not None and bias is not None and not head.any():
        found.append(f"the halting head is untrained: all its weights are 0, and q_halt is {float(bias[0]):.1f} whatever the model thinks")
    table = tensors.get(EMBEDDING)
    if table is not None and table.numel() and not table.any():
        found.append("the puzzle embedding is untrained: all of it is 0")
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or name in ("q_head.weight", EMBEDDING) or not tensor.isfinite().all():
            continue
        inputs = tensor.shape[1] if name != "embedding.tokens" else config.hidden_size
        size, largest = float(tensor.float().square().mean().sqrt()) * math.sqrt(inputs), float(tensor.abs().max()) * math.sqrt(inputs)
        if size == 0:
            found.append(f"{name} is 0 throughout")
        elif not 0.05 <= size <= 20:
            found.append(f"{name} has an odd norm: its weights are {size:.3g} times as large as fresh ones")
        elif abs(size - 1) < 0.05 and largest <= _NORMAL_BOUND * 1.001 and tensor.numel() >= 1000:
            fresh.append(name)
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2 and name.startswith("net.") and tensor.numel() >= 1000]
    if fresh and set(matrices) <= set(fresh):
        found.append("the net is untrained: all its weights are as they are drawn at the start")
    elif "lm_head.weight" in fresh:
        found.append("the output head is untrained: its weights are as they are drawn at the start")
    return found
