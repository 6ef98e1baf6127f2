"""What tensors tell of an architecture of post-norm SwiGLU blocks, whatever program wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from laser_studio.trm.layers import inner_width


def told_layers(names: Iterable[str], stem: str) -> int:
    """Blocks under `stem` ("net.layers."): one more than the highest number; 0 where there are none."""
    numbers = [int(match[1]) for name in names if (match := re.match(re.escape(stem) + r"(\d{1,4})\.", name))]
    return max(numbers, default=-1) + 1


def told_length(tensors: Mapping[str, Tensor]) -> int | None:
    """Tokens including the prefix, where the tensors tell (our names)."""
    for name, tensor in tensors.items():
        if (name.endswith("layers.0.mlp_t.down_proj.weight") or name == "embedding.positions") and tensor.ndim == 2:
            return tensor.shape[0]
    return None


def told_expansion(tensors: Mapping[str, Tensor]) -> float:
    """An expansion that gives the widths found; many do, and all of them are the same model. 4 where none fits (the builder then tells)."""
    widths = {tuple(tensor.shape) for name, tensor in tensors.items() if name.endswith(".down_proj.weight") and tensor.ndim == 2}
    exact = [1.5 * inner / features for features, inner in sorted(widths) if features]
    for expansion in (4.0, 2.0, 1.0, 3.0, 8.0, *exact):
        if all(inner_width(features, expansion) == inner for features, inner in widths):
            return expansion
    return 4.0
