"""nano-trm's checkpoints (olivkoch/nano-trm): Lightning files whose hyper-parameters lie beside the weights.

Its model is a TRM whose halting head has one output. Its Sudoku tokens (0 pad, 1 end, 2 blank, 3… digits) are put into our order
(0 pad, 1 blank, 2… digits, then end) by moving rows of the token embedding and the output head, which changes no arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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
from laser_studio.trm.checkpoints.told import told_expansion, told_layers, told_length
from laser_studio.trm.checkpoints.weights import choose_weights
from laser_studio.trm.checkpoints.words import first, shown
from laser_studio.trm.config import TRMConfig

MARK = "input_embedding.embedding_weight"

_RENAMED = {
    "input_embedding.embedding_weight": "embedding.tokens",
    "puzzle_emb.weights": "embedding.puzzles",
    "puzzle_emb.embedding.weight": "embedding.puzzles",
    "z_H_init": "H_init",
    "z_L_init": "L_init",
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
}
_BLOCK = re.compile(r"lenet\.(layers\.\d{1,4}\.(?:self_attn|mlp_t|mlp)\.(?:qkv_proj|o_proj|gate_up_proj|down_proj)\.weight)", re.ASCII)
_CALLED = {ours: theirs for theirs, ours in reversed(_RENAMED.items())}
_SIDES = (4, 6, 9)  # of its Sudokus
# hyper-parameters that change the arithmetic and have no counterpart here, where they are switched on
_STRANGE = ("use_conv_swiglu", "use_board_swiglu", "attn_gate_type")


def read_nano(file: Path, payload: Payload, asked: Asked) -> Loaded:
    """A checkpoint whose token embedding is called `MARK`."""
    name = shown(file.name)
    weights = choose_weights(payload, file, MARK)
    if weights.odd:
        wrong = first(f"{key} is {kind}" for key, kind in weights.odd.items())
        raise CheckpointError(f"{name} is not a state_dict of dense floating-point tensors: {wrong}")
    tensors: dict[str, Tensor] = {}
    original, unknown = {}, []
    for key, tensor in weights.tensors.items():
        block = _BLOCK.fullmatch(key)
        ours = f"net.{block[1]}" if block else _RENAMED.get(key)
        if ours is None:
            unknown.append(weights.where[key])
        else:
            tensors[ours], original[ours] = tensor, weights.where[key]
    if unknown:
        raise CheckpointError(f"{name} has {len(unknown)} tensors that a nano-trm does not have: {first(unknown)}")
    needed = ("embedding.tokens", "lm_head.weight", "q_head.weight", "q_head.bias", "H_init")
    missing = [_CALLED[ours] for ours in needed if ours not in tensors]
    if missing or tensors["embedding.tokens"].ndim != 2:
        raise CheckpointError(f"{name} does not match its configuration, tensors are {len(missing)} missing: {first(missing)}")
    config, prefix = _architecture(payload.facts.get("hyper_parameters"), tensors, asked, name)
    told, length = told_length(tensors), config.pop("seq_len", None)
    if told is not None:
        length = told - prefix
    length = agreed(length, asked.seq_len, name) if length is not None else asked.seq_len
    _widen_halting(tensors)
    details: dict[str, Any] = {"source": "nano-trm", "file": file.name}
    warnings = [*weights.warnings]
    if (order := _sudoku_order(tensors["embedding.tokens"].shape[0], length)) is not None:
        for ours in ("embedding.tokens", "lm_head.weight"):
            if tensors[ours].shape[0] == len(order):
                tensors[ours] = tensors[ours][order]
        details |= {"domain": "sudoku", "size": [len(order) - 3] * 2}
        details["tokens"] = "0 pad, 1 blank, then digits, then end (in the file: 0 pad, 1 end, 2 blank, then digits)"
    elif length is not None and tensors["embedding.tokens"].shape[0] - 3 in _SIDES:
        warnings.append(f"tokens are nano-trm's, and boards are padded to {length} cells: a Sudoku of this program does not fit")
    settings = make_config(config | {"seq_len": length}, f"{name}, hyper_parameters")
    for ours, tensor in tensors.items():
        dtype = getattr(torch, settings.forward_dtype) if ours in ("H_init", "L_init") else torch.float32
        tensors[ours] = tensor if tensor.is_meta else tensor.to(dtype)
    if weights.averaged:
        details["weights"] = "averaged (EMA)"
    if asked.answers.taken:
        details["assumed"] = dict(asked.answers.taken)
    return Loaded(settings, tensors, details, original, _CALLED, tuple(warnings))


def _architecture(record: Any, tensors: Mapping[str, Tensor], asked: Asked, name: str) -> tuple[dict[str, Any], int]:
    """`TRMConfig` fields, and the length of the prefix."""
    given: Mapping[str, Any] = record if isinstance(record, dict) else {}
    if strange := [f"{key} = {given[key]}" for key in _STRANGE if given.get(key) not in (None, False, "None", "none")]:
        raise CheckpointError(f"{name} is a nano-trm with {first(strange)}, which is not supported: its blocks are not those of a TRM")
    answers, tokens, puzzles = asked.answers, tensors["embedding.tokens"], tensors.get("embedding.puzzles")
    mixer = any(".mlp_t." in key for key in tensors)
    ndim = puzzles.shape[1] if puzzles is not None and puzzles.ndim == 2 else 0
    config: dict[str, Any] = {
        "vocab_size": tokens.shape[0],
        "num_puzzle_identifiers": puzzles.shape[0] if puzzles is not None else 1,
        "hidden_size": tokens.shape[1],
        "L_layers": told_layers(tensors, "net.layers."),
        "expansion": told_expansion(tensors),
        "mlp_t": mixer,
        "puzzle_emb_ndim": ndim,
        # the starts are kept in the dtype the run computed in
        "forward_dtype": "bfloat16" if tensors["H_init"].dtype == torch.bfloat16 else "float32",
    }
    if isinstance(given.get("seq_len"), int) and given["seq_len"] > 0:
        config["seq_len"] = given["seq_len"]
    config |= {key: given[key] for key in ("H_cycles", "L_cycles", "num_heads", "halt_exploration_prob") if key in given}
    steps = given.get("N_supervision_val") or given.get("N_supervision")
    if steps:
        config["halt_max_steps"] = steps
    if ndim and "puzzle_emb_len" in given:
        config["puzzle_emb_len"] = given["puzzle_emb_len"]
    config |= _positions(given, mixer, config.get("seq_len"))
    for key, value in config.items():
        answers.know(key, value)
    needs = [need for need in _needs(mixer=mixer, prefix=bool(ndim)) if need.name not in config]
    config |= {need.name: answers.ask(need) for need in needs}
    config |= answers.rest([item.name for item in fields(TRMConfig)], needs)
    if answers.open:
        raise CheckpointNeeds(f"{name} does not tell {', '.join(map(str, answers.open))}: {HOW}", answers.open)
    if not ndim:
        return config, 0
    length = config["puzzle_emb_len"]
    return config, length if isinstance(length, int) and length > 0 else -(-ndim // tokens.shape[1])


def _positions(given: Mapping[str, Any], mixer: bool, length: Any) -> dict[str, Any]:
    """Position encoding; of late versions by name, of early ones always RoPE, by place or by row and column."""
    if mixer:
        return {"pos_encodings": "none"}
    kind = given.get("pos_emb_type", "1d") if "pos_emb_type" in given else ("2d" if given.get("use_2d_rope") else "1d")
    theta = given.get("rope_theta")
    if not given:
        return {}
    if kind in (None, "None", "none") or (isinstance(theta, int | float) and theta <= 0):
        return {"pos_encodings": "none"}
    found: dict[str, Any] = {"pos_encodings": "rope"} | ({"rope_theta": float(theta)} if isinstance(theta, int | float) else {})
    if kind == "2d":
        if not isinstance(length, int) or math.isqrt(length) ** 2 != length:
            raise CheckpointError("nano-trm's RoPE by row and column needs a square board: its hyper_parameters lack such a seq_len")
        found |= {"rope_columns": math.isqrt(length), "rope_grid": "leading"}
    return found


def _needs(*, mixer: bool, prefix: bool) -> list[Need]:
    needs = [
        Need("H_cycles", "cycles that end in an update of z_H, per supervision step", 3),
        Need("L_cycles", "updates of z_L in each of them", 6),
        Need("halt_max_steps", "supervision steps of a run", 16),
    ]
    if mixer:
        why = "what the norm behind the sequence mixer runs over: the sequence in early versions, the features in late ones"
        needs.append(Need("mixer_norm", why, "features", ("features", "sequence")))
    else:
        needs.append(Need("num_heads", "attention heads", 8))
        needs.append(Need("pos_encodings", "how attention knows places", "rope", ("rope", "none")))
    if prefix:
        needs.append(Need("puzzle_emb_len", "tokens the puzzle embedding takes; 0: as few as hold it", 16))
    return needs


def _widen_halting(tensors: dict[str, Tensor]) -> None:
    """Its head says whether to stop and nothing else; the value of going on is made 0, so that stopping is q_halt > 0 in either reading."""
    weight, bias = tensors["q_head.weight"], tensors["q_head.bias"]
    if weight.ndim == 2 and weight.shape[0] == 1 and bias.shape == (1,):
        tensors["q_head.weight"] = torch.cat((weight, torch.zeros_like(weight)))
        tensors["q_head.bias"] = torch.cat((bias, torch.zeros_like(bias)))


def _sudoku_order(vocabulary: int, length: int | None) -> list[int] | None:
    """{our token id: the file's}, where the model is one for whole Sudoku boards without padding."""
    side = vocabulary - 3
    if side not in _SIDES or length != side * side:
        return None
    return [0, *range(2, vocabulary), 1]
