"""Rows in few bits: eight with one scale per row, or four with one scale per 32 values of a row.

A row is what one token leaves, so that its scale belongs to it alone and factors out of any product over features; products of
eight-bit rows are in `int8`. Rows that left a norm are all of one length and of about one shape: eight bits leave an error of 1e-4 of
their energy there, four about 1 %, both of mean near zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["exact", "int8", "int4"]
GROUP = 32  # values that share a scale in four bits
LEVELS = {"int8": 127, "int4": 7}
TINY = torch.finfo(torch.float32).tiny
AT_ONCE = 1 << 16  # values: what a core's own cache holds of the few copies a pass makes


def quantise(x: Tensor, storage: Literal["int8", "int4"]) -> tuple[Tensor, Tensor]:
    """x (N, D) as codes and their scales.

    "int8": int8 (N, D) and bf16 (N, 1). "int4": uint8 (N, ⌈D/64⌉·32), two values in each, and bf16 (N, ⌈D/32⌉). What is not finite
    shows in the scale, and so in all the values that share it.
    """
    if storage == "int8":
        codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        scale = torch.empty(x.shape[0], 1, dtype=torch.bfloat16, device=x.device)
        for part in in_parts(x.shape, x.device):
            scale[part] = _codes_of(x[part].float(), "int8", codes[part])
        return codes, scale
    groups, half = -(-x.shape[1] // GROUP), _half(x.shape[1])
    codes = torch.empty(x.shape[0], half, dtype=torch.uint8, device=x.device)
    scale = torch.empty(x.shape[0], groups, dtype=torch.bfloat16, device=x.device)
    for part in in_parts(x.shape, x.device):
        wide = x.new_zeros(x[part].shape[0], 2 * half, dtype=torch.float32)
        wide[:, : x.shape[1]] = x[part]
        whole = torch.empty(wide.shape, dtype=torch.int8, device=x.device)
        grouped = (wide.shape[0], -1, GROUP)
        scale[part] = _codes_of(wide.view(grouped), "int4", whole.view(grouped))[:, :groups, 0]
        low, high = (whole + 8).view(torch.uint8).split(half, dim=1)
        codes[part] = low | (high << 4)
    return codes, scale


def restored(codes: Tensor, scale: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """The values (N, width) in `dtype`; codes of either kind, told apart by their dtype."""
    if codes.dtype == torch.int8:
        return codes.to(dtype).mul_(scale.to(dtype))
    values = torch.cat((codes & 15, codes >> 4), dim=1)[:, : scale.shape[1] * GROUP].to(dtype).sub_(8)
    by_group = values.view(codes.shape[0], scale.shape[1], GROUP).mul_(scale.to(dtype)[:, :, None])
    return by_group.view(values.shape)[:, :width]


def stored_bytes(x: Tensor, storage: Storage) -> int:
    """Bytes of x (N, D) so stored, scales included."""
    rows, width = x.shape
    return {"exact": x.nbytes, "int8": rows * (width + 2), "int4": rows * (_half(width) + 2 * -(-width // GROUP))}[storage]


def in_parts(shape: torch.Size, device: torch.device) -> Iterator[slice]:
    """Runs of rows of a (N, D) tensor that fit a core's cache; all at once where there is none to fit."""
    rows = max(1, AT_ONCE // max(1, shape[1])) if device.type == "cpu" else max(1, shape[0])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def _codes_of(x: Tensor, storage: Literal["int8", "int4"], codes: Tensor) -> Tensor:
    """Write the codes of fp32 x, one scale along the last axis; the scales as bf16."""
    levels = LEVELS[storage]
    scale = (x.abs().amax(-1, keepdim=True) / levels).clamp_(min=TINY).bfloat16()
    codes.copy_((x * scale.float().reciprocal_()).round_().clamp_(-levels, levels))  # bf16 may have rounded the scale down
    return scale


def _half(width: int) -> int:
    """Bytes of a row in four bits: half of its values, each half in whole groups."""
    return -(-width // (2 * GROUP)) * GROUP
