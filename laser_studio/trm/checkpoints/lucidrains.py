"""Checkpoints of lucidrains/tiny-recursive-model: a bare state_dict of its model around an MLPMixer1D.

Its recursion is TRM's; its net is not (pre-norm, layer norm, GELU, biases), its embedding is not scaled, and its halting value is read
from the mean over all tokens: the variant "lucidrains" here. Register tokens stand in front of the sequence as a puzzle embedding does,
the same for every puzzle. A model around another network (x-transformers) is refused by name.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.loaded import Loaded, agreed, make_config
from laser_studio.trm.checkpoints.needs import HOW, CheckpointNeeds, Need
from laser_studio.trm.checkpoints.payload import Payload
from laser_studio.trm.checkpoints.weights import choose_weights
from laser_studio.trm.checkpoints.words import first, shape_in_words, shown
from laser_studio.trm.config import TRMConfig

MARK = "input_embed.weight"

_RENAMED = {
    "input_embed.weight": "embedding.tokens",
    "output_init_embed": "H_init",
    "latent_init_embed": "L_init",
    "to_pred.weight": "lm_head.weight",
    "to_halt_pred.1.weight": "q_head.weight",
    "register_tokens": "registers",
}
_CALLED = {ours: theirs for theirs, ours in _RENAMED.items()}
_BLOCK = re.compile(r"network\.(\d{1,4})\.([01])\.(norm|fn\.0|fn\.3)\.(weight|bias)", re.ASCII)
_PARTS = {("0", "norm"): "token_norm", ("0", "fn.0"): "token_in", ("0", "fn.3"): "token_out"}
_PARTS |= {("1", "norm"): "feature_norm", ("1", "fn.0"): "feature_in", ("1", "fn.3"): "feature_out"}
_NEEDS = [
    Need("H_cycles", "num_refinement_blocks: cycles that end in an update of the output", 3),
    Need("L_cycles", "num_latent_refinements: updates of the latent in each of them", 6),
    Need("halt_max_steps", "max_deep_refinement_steps: supervision steps of a run", 12),
]


def read_lucidrains(file: Path, payload: Payload, asked: Asked) -> Loaded:
    """A checkpoint whose token embedding is called `MARK`."""
    name = shown(file.name)
    weights = choose_weights(payload, file, MARK)
    tensors: dict[str, Tensor] = {}
    original, unknown = {}, []
    depth = max((int(match[1]) for key in weights.where if (match := _BLOCK.fullmatch(key))), default=-1) + 1
    for key, whole in weights.where.items():
        ours = _our_name(key, depth)
        if ours is None or key not in weights.tensors:
            unknown.append(whole)
        else:
            tensors[ours], original[ours] = weights.tensors[key], whole
    if depth == 0 or any("attn" in key or "to_q" in key for key in unknown):
        raise CheckpointError(
            f"{name} is a checkpoint of lucidrains/tiny-recursive-model around a network other than its MLPMixer1D, which is not "
            f"supported: {first(unknown or weights.where, 3)}"
        )
    if unknown:
        raise CheckpointError(f"{name} has {len(unknown)} tensors that a lucidrains TRM with MLPMixer1D does not have: {first(unknown)}")
    for ours, tensor in list(tensors.items()):  # a convolution of width 1 over the tokens is a linear layer over them
        if ours.endswith(("token_in.weight", "token_out.weight")) and tensor.ndim == 3 and tensor.shape[2] == 1:
            tensors[ours] = tensor.squeeze(2)
    first_mixer = [tensors.get(f"net.layers.0.{part}.weight") for part in ("token_in", "feature_in")]
    tokens = tensors["embedding.tokens"]
    if tokens.ndim != 2 or any(matrix is None or matrix.ndim != 2 for matrix in first_mixer):
        raise CheckpointError(f"{name} lacks its first mixer (network.0.0.fn.0.weight, network.0.1.fn.0.weight)")
    assert first_mixer[0] is not None and first_mixer[1] is not None
    registers = tensors.pop("registers", torch.empty(0, tokens.shape[1]))
    original.pop("registers", None)
    if registers.ndim != 2 or registers.shape[1] != tokens.shape[1]:
        raise CheckpointError(f"{name}: register_tokens is {shape_in_words(registers.shape)}, the tokens are {tokens.shape[1]} wide")
    prefix = registers.shape[0]
    length = agreed(first_mixer[0].shape[1] - prefix, asked.seq_len, name)
    config: dict[str, Any] = {
        "variant": "lucidrains",
        "vocab_size": tokens.shape[0],
        "hidden_size": tokens.shape[1],
        "seq_len": length,
        "L_layers": depth,
        "mlp_t": True,
        "num_heads": 1,
        "pos_encodings": "none",
        "token_width": first_mixer[0].shape[0],
        "feature_width": first_mixer[1].shape[0],
        "puzzle_emb_ndim": prefix * tokens.shape[1],
        "puzzle_emb_len": prefix,
        "forward_dtype": "float32",
    }
    for key, value in config.items():
        asked.answers.know(key, value)
    config |= {need.name: asked.answers.ask(need) for need in _NEEDS}
    config |= asked.answers.rest([item.name for item in fields(TRMConfig)], _NEEDS)
    if asked.answers.open:
        raise CheckpointNeeds(f"{name} does not tell {', '.join(map(str, asked.answers.open))}: {HOW}", asked.answers.open)
    if prefix:
        tensors["embedding.puzzles"] = registers.reshape(1, -1)
    if "q_head.weight" in tensors:  # one value without bias: whether to stop; going on is 0
        halt = tensors["q_head.weight"]
        tensors["q_head.weight"], tensors["q_head.bias"] = torch.cat((halt, torch.zeros_like(halt))), torch.zeros(2)
    details: dict[str, Any] = {"source": "lucidrains", "file": file.name}
    if weights.averaged:
        details["weights"] = "averaged (EMA)"
    if asked.answers.taken:
        details["assumed"] = dict(asked.answers.taken)
    tensors = {ours: tensor.float() for ours, tensor in tensors.items()}
    return Loaded(make_config(config, name), tensors, details, original, _CALLED, weights.warnings)


def _our_name(key: str, depth: int) -> str | None:
    if key in _RENAMED:
        return _RENAMED[key]
    if key == f"network.{depth}.weight":
        return "net.norm.weight"
    block = _BLOCK.fullmatch(key)
    return f"net.layers.{block[1]}.{_PARTS[block[2], block[3]]}.{block[4]}" if block else None
