"""What a reader hands to the builder, and the strict step from there to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints.words import first, shape_in_words
from laser_studio.trm.config import TRMConfig
from laser_studio.trm.model import TRM


@dataclass
class Loaded:
    """What a reader found: architecture, tensors under our names, facts for the user.

    original: {our name: the file's}, for messages and for rows still to be read; called: how the format calls one of our names.
    """

    config: TRMConfig
    tensors: dict[str, Tensor]
    details: dict[str, Any]
    original: dict[str, str] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def make_config(values: Mapping[Any, Any], origin: str) -> TRMConfig:
    """The architecture, with `origin` to blame for what is wrong with it."""
    try:
        return TRMConfig(**{str(key): value for key, value in values.items()})
    except CheckpointError as failure:
        raise CheckpointError(f"{origin}: {str(failure).removeprefix('TRMConfig: ')}") from None


def build(loaded: Loaded, name: str) -> TRM:
    """The model, if names and shapes of all tensors are those of its configuration, in evaluation mode."""
    with torch.device("meta"):  # shapes without memory: nothing is drawn at random, so nothing random can be left over
        model = TRM(loaded.config)
    expected = model.state_dict()
    theirs = loaded.original.get
    missing = [loaded.called.get(key, key) for key in expected if key not in loaded.tensors]
    extra = [theirs(key, key) for key in loaded.tensors if key not in expected]
    if missing or extra:
        parts = [f"{len(keys)} {word}: {first(keys)}" for keys, word in ((missing, "missing"), (extra, "too many")) if keys]
        raise CheckpointError(f"{name} does not match its configuration, tensors are {'; '.join(parts)}")
    misshapen = [
        f"{theirs(key, key)} is {shape_in_words(loaded.tensors[key].shape)}, the configuration says {shape_in_words(tensor.shape)}"
        for key, tensor in expected.items()
        if loaded.tensors[key].shape != tensor.shape
    ]
    if misshapen:
        raise CheckpointError(f"{name} does not match its configuration: {first(misshapen)}")
    tensors = _with_own_memory(loaded.tensors)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.details = loaded.details | {"warnings": [*loaded.warnings, *_not_finite(tensors)]}
    return model.eval()


def agreed(told: int, asked: int | None, name: str) -> int:
    """The sequence length the tensors tell, if it is the one asked for."""
    if asked is not None and asked != told:
        raise CheckpointError(f"{name} was trained on sequences of {told} tokens, seq_len {asked} was asked for: leave seq_len out")
    return told


def _with_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which none shares a storage (two tied parameters would write into one another) or pins a larger one."""
    own, taken = {}, set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in taken and storage.nbytes() == tensor.numel() * tensor.element_size()
        taken.add(storage.data_ptr())
        tensor = tensor.detach()
        own[key] = tensor if alone and tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)
    return own


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    counts = {key: int(tensor.numel() - tensor.isfinite().sum()) for key, tensor in tensors.items()}
    return [f"{key} has {count} values that are not finite" for key, count in counts.items() if count]
