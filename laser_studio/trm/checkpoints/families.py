"""Which program wrote a file, told by the names of its tensors, and its reader; what is not supported is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from laser_studio.errors import CheckpointError
from laser_studio.trm.checkpoints import lucidrains, nano, official
from laser_studio.trm.checkpoints.asked import Asked
from laser_studio.trm.checkpoints.loaded import Loaded
from laser_studio.trm.checkpoints.payload import Payload
from laser_studio.trm.checkpoints.weights import marked
from laser_studio.trm.checkpoints.words import EXPORT, first, kind_in_words, shown

Reader = Callable[[Path, Payload, Asked], Loaded]

_READERS: tuple[tuple[str, Reader], ...] = (
    (official.MARK, official.read_official),
    (nano.MARK, nano.read_nano),
    (lucidrains.MARK, lucidrains.read_lucidrains),
)
# (part of a name, family, why it cannot be used); the first that fits is told
_REFUSED = (
    ("dwconv", "URM (or another convolutional relative)", "its blocks mix neighbours by a convolution"),
    ("board_conv", "a convolutional nano-trm", "its blocks mix neighbours by a convolution"),
    ("model.embed_tokens.weight", "a text model", "it is not a recursive puzzle solver"),
    ("transformer.wte.weight", "a text model", "it is not a recursive puzzle solver"),
    ("tok_embeddings.weight", "a text model", "it is not a recursive puzzle solver"),
    ("word_embeddings.weight", "a text model", "it is not a recursive puzzle solver"),
)


def read_foreign(file: Path, payload: Payload, asked: Asked) -> Loaded:
    """Read what another program wrote. Raises `CheckpointError` naming the family, or what is missing for any."""
    name = shown(file.name)
    names = [*payload.tensors, *payload.others]
    for part, family, why in _REFUSED:
        if any(part in key for key in names):
            raise CheckpointError(f"{name} is a checkpoint of {family}, which is not supported: {why}; give one of a TRM, HRM or nano-trm")
    for mark, reader in _READERS:
        if marked(payload, mark):
            return reader(file, payload, asked)
    if "pytorch-lightning_version" in payload.facts or "hyper_parameters" in payload.facts:
        raise CheckpointError(f"{name} is a Lightning checkpoint, but not one of nano-trm: {EXPORT}")
    if not payload.tensors:
        others = [f"{key} is {kind}" for key, kind in payload.others.items()]
        wrong = first(others or [f"{key} is {kind_in_words(value)}" for key, value in payload.facts.items()])
        raise CheckpointError(f"{name} is not a state_dict of dense floating-point tensors: {wrong}")
    raise CheckpointError(
        f"{name} lacks the token embedding (inner.{official.MARK}), so it is not a TRM; its first tensors are {first(payload.tensors, 3)}"
    )
