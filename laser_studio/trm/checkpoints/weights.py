"""Which tensors of a file are the weights: wrappers taken off, averaged ones preferred, split projections joined.

Training programs write the same weights in many wrappings: bare, under `model` or `state_dict`, twice (as trained and averaged), with
what torch.compile and distribution put in front of each name. A group of weights is found by its token embedding, whose name tells the
family; all that lies beside it under the same roof belongs to it and has to be accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.payload import Payload, read_rows
from laser_studio.trm.checkpoints.words import first, shape_in_words, shown

_PREFIXES = ("_orig_mod.", "module.", "model.", "inner.")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged?|shadow|swa)(?:[._]|$)|ema_|EMA|Averag", re.ASCII)
_BUFFERS = ("_init", "puzzle_emb.weights")  # no average of parameters has them
_BEFORE_AVERAGING = ("current_model_state",)  # Lightning's WeightAveraging: state_dict is the average then


@dataclass(frozen=True)
class Weights:
    """The chosen tensors by their names within the model.

    where: {name: its name in the file}; averaged: they are an EMA, and what it lacks comes from the weights beside it.
    A puzzle embedding may be on the meta device; its rows are read by `read_rows`.
    """

    tensors: dict[str, Tensor]
    where: dict[str, str]
    averaged: bool = False
    warnings: tuple[str, ...] = ()
    odd: Mapping[str, str] = field(default_factory=dict)


def strip(key: str) -> str:
    """The name without what torch.compile, distribution wrappers and the loss head put in front of it."""
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return key


def choose_weights(payload: Payload, file: Path, mark: str) -> Weights:
    """The group of tensors around the token embedding `mark` ("embed_tokens.embedding_weight"), averaged ones first.

    Raises `CheckpointError` where there are several that are equally good, or names that are the same once stripped.
    """
    name = shown(file.name)
    groups = _groups(payload, mark)
    ranked = sorted(groups, key=lambda roof: (not _AVERAGED.search(roof), roof.startswith(_BEFORE_AVERAGING)))
    best, averages = ranked[0], [roof for roof in ranked if _AVERAGED.search(roof)]
    as_trained = [roof for roof in ranked if roof not in averages and not roof.startswith(_BEFORE_AVERAGING)]
    if len(averages) > 1 or len(as_trained) > 1:
        under = first(repr(roof.rstrip(".") or "the top") for roof in groups)
        raise CheckpointError(f"{name} holds several sets of weights, under {under}: write one of them alone with torch.save")
    where = _by_stripped_name(groups[best], best, name)
    borrowed: list[str] = []
    for roof in ranked[1:] if averages else ():
        for key, whole in _by_stripped_name(groups[roof], roof, name).items():
            if key not in where:
                where[key] = whole
                borrowed.append(key)
    averaged = bool(averages) or any(roof.startswith(_BEFORE_AVERAGING) for roof in ranked)
    inside = {key for keys in groups.values() for key in keys}
    outside = [key for key, tensor in payload.tensors.items() if key not in inside and tensor.ndim]
    warnings = []
    if unnamed := [key for key in outside if _AVERAGED.search(key)]:
        warnings.append(f"averaged weights without names ({first(unnamed, 1)}) were left aside: these are the weights as trained")
    elif outside:
        warnings.append(f"tensors beside the weights were left aside: {first(outside)}")
    if mixed := [key for key in borrowed if not key.endswith(_BUFFERS)]:
        warnings.append(f"the averaged weights lack {first(mixed)}: taken as trained")
    tensors = _joined({key: payload.tensors[whole] for key, whole in where.items() if whole in payload.tensors}, where, file)
    odd = {whole: payload.others[whole] for whole in where.values() if whole in payload.others}
    return Weights(tensors, where, averaged, tuple(warnings), odd)


def marked(payload: Payload, mark: str) -> list[str]:
    """The names of token embeddings of that name."""
    return [key for key in payload.tensors if key == mark or key.endswith(f".{mark}")]


def _groups(payload: Payload, mark: str) -> dict[str, list[str]]:
    """{what stands in front of all names of a group: their names in the file}"""
    roofs = list(dict.fromkeys(_roof(key.removesuffix(mark), payload, mark) for key in marked(payload, mark)))
    longest_first = sorted(roofs, key=len, reverse=True)
    groups: dict[str, list[str]] = {roof: [] for roof in roofs}
    for key in (*payload.tensors, *payload.others):
        for roof in longest_first:
            if key.startswith(roof):
                groups[roof].append(key)
                break
    return groups


def _roof(front: str, payload: Payload, mark: str) -> str:
    """What of `front` is the wrapper's name and not a prefix within the model."""
    while ending := next((prefix for prefix in _PREFIXES if front == prefix or front.endswith(f".{prefix}")), None):
        # "model" may be either; it is a wrapper where other weights lie beside it
        beside = [key for key in payload.tensors if not key.startswith("model.")]
        if front == "model." and any(key.endswith(mark) or _AVERAGED.search(key) for key in beside):
            break
        front = front.removesuffix(ending)
    return front


def _by_stripped_name(keys: list[str], roof: str, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    twice = []
    for key in keys:
        short = strip(key.removeprefix(roof))
        if short in found:
            twice.append(key)
        else:
            found[short] = key
    if twice:
        raise CheckpointError(f"{name} has {len(twice)} tensors twice under different prefixes: {first(twice)}")
    return found


_SPLIT = ((("q_proj", "k_proj", "v_proj"), "qkv_proj"), (("gate_proj", "up_proj"), "gate_up_proj"))


def _joined(tensors: dict[str, Tensor], where: dict[str, str], file: Path) -> dict[str, Tensor]:
    """Split q, k, v (or gate, up) as one matrix each, as the official code keeps them; large matrices read whole but the puzzles'."""
    for key, tensor in tensors.items():
        if tensor.is_meta and "puzzle_emb" not in key:
            tensors[key] = read_rows(file, where[key]) if tensor.ndim == 2 else tensor
    for parts, whole in _SPLIT:
        for key in [key for key in tensors if key.endswith(f".{parts[0]}.weight")]:
            stem = key.removesuffix(f"{parts[0]}.weight")
            names = [f"{stem}{part}.weight" for part in parts]
            if missing := [one for one in names if one not in tensors]:
                raise CheckpointError(f"{shown(file.name)} splits {stem}{whole} but lacks {first(missing)}")
            if len({tuple(tensors[one].shape[1:]) for one in names}) > 1 or tensors[key].ndim != 2:
                shapes = first(f"{one} is {shape_in_words(tensors[one].shape)}" for one in names)
                raise CheckpointError(f"{shown(file.name)} splits {stem}{whole} into parts that do not fit: {shapes}")
            joined = torch.cat([tensors.pop(one) for one in names])
            tensors[f"{stem}{whole}.weight"] = joined
            where[f"{stem}{whole}.weight"] = where[names[0]]
            for one in names:
                del where[one]
    return tensors
