"""Rows in few bits: eight with one scale per row, or per 64 values of it, or four with a scale and a lowest value per 32.

A row is what one token leaves, so that its scale belongs to it alone and factors out of any product over features; products of
eight-bit rows are in `int8`. Where no such product is made, scales of 64 values follow the few features that trained rows have large:
half the error for 3 % more bytes. Rows that left a norm are all of one length: eight bits leave an error of 4e-5 to 8e-5 of their
energy there, four about 0.7 %, both of mean near zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from laser_studio import kernels

Storage = Literal["exact", "int8", "int4", "recomputed"]
GROUP = {"int8": 64, "int4": 32}  # values that share a scale, where it is not the row's
LEVELS, STEPS = 127, 15  # largest code of eight bits, on either side of zero; of four, above the lowest value
TINY = torch.finfo(torch.float32).tiny
ALL_AT_ONCE, AT_ONCE = 1 << 20, 1 << 18  # values: up to the one go in a single pass, of more the other at a time, for a core's cache


def quantise(x: Tensor, storage: Storage, *, by_row: bool = True) -> tuple[Tensor, Tensor]:
    """x (N, D) as codes and their scales, in "int8" or in "int4".

    "int8": int8 (N, D) and bf16 (N, 1), or (N, D/64) without `by_row` where D is a multiple of 64. "int4": uint8 (N, ⌈D/64⌉·32), two
    values in each, and bf16 (N, 2·⌈D/32⌉), scales and behind them lowest values. What is not finite shows in the scale, and so in all
    the values that share it.
    """
    if kernels.usable(x) and x.shape[1] <= kernels.WIDEST:
        return _quantised_by_kernel(x.contiguous(), storage, by_row)
    if storage == "int8":
        groups = _groups(x.shape[1], by_row)
        codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        scale = torch.empty(x.shape[0], groups, dtype=torch.bfloat16, device=x.device)
        for part in in_parts(x.shape, x.device):
            wide = x[part].float()
            grouped = wide.view(wide.shape[0], groups, -1) if wide.numel() else wide[:, :, None]
            one = (grouped.abs().amax(-1, keepdim=True) / LEVELS).clamp_(min=TINY).bfloat16()
            # bf16 may have rounded the scale down
            codes[part] = (grouped * one.float().reciprocal_()).round_().clamp_(-LEVELS, LEVELS).view(wide.shape)
            scale[part] = one[:, :, 0]
        return codes, scale
    groups, half, group = -(-x.shape[1] // GROUP["int4"]), _half(x.shape[1]), GROUP["int4"]
    codes = torch.empty(x.shape[0], half, dtype=torch.uint8, device=x.device)
    scale = torch.empty(x.shape[0], 2 * groups, dtype=torch.bfloat16, device=x.device)
    for part in in_parts(x.shape, x.device):
        wide = x.new_zeros(x[part].shape[0], 2 * half, dtype=torch.float32)
        wide[:, : x.shape[1]] = x[part]
        grouped = wide.view(wide.shape[0], -1, group)
        low = grouped.amin(-1, keepdim=True).bfloat16()
        one = ((grouped.amax(-1, keepdim=True) - low.float()) / STEPS).clamp_(min=TINY).bfloat16()
        whole = (grouped.sub_(low.float()).mul_(one.float().reciprocal_())).round_().clamp_(0, STEPS).to(torch.uint8).view(wide.shape)
        codes[part] = whole[:, :half] | (whole[:, half:] << 4)
        scale[part, :groups], scale[part, groups:] = one[:, :groups, 0], low[:, :groups, 0]
    return codes, scale


def restored(codes: Tensor, scale: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """The values (N, width) in `dtype`; codes of either kind, told apart by their dtype."""
    if kernels.usable(codes) and width <= kernels.WIDEST:
        from laser_studio.kernels import rows

        if codes.dtype == torch.int8:
            return rows.restored(codes.contiguous(), scale.contiguous(), dtype)
        return rows.restored_from_four(codes.contiguous(), scale.contiguous(), width, dtype)
    if codes.dtype == torch.int8:
        values = codes.to(dtype)
        if scale.shape[1] == 1:
            return values.mul_(scale.to(dtype))
        values.view(codes.shape[0], scale.shape[1], GROUP["int8"]).mul_(scale.to(dtype)[:, :, None])
        return values
    groups, group = scale.shape[1] // 2, GROUP["int4"]
    values = torch.cat((codes & 15, codes >> 4), dim=1)[:, : groups * group].to(dtype)
    one, low = scale.to(dtype)[:, :, None].split(groups, dim=1)
    return values.view(codes.shape[0], groups, group).mul_(one).add_(low).view(values.shape)[:, :width]


def _quantised_by_kernel(x: Tensor, storage: Storage, by_row: bool) -> tuple[Tensor, Tensor]:
    from laser_studio.kernels import rows

    if storage == "int8":
        return rows.quantised(x, _groups(x.shape[1], by_row))
    return rows.quantised_in_four(x, _half(x.shape[1]))


def stored_bytes(rows: int, width: int, itemsize: int, storage: Storage, *, by_row: bool = True) -> int:
    """Bytes of rows of that width so stored, scales included; itemsize: of a value in full."""
    if storage == "exact":
        return rows * width * itemsize
    if storage == "int8":
        return rows * (width + 2 * _groups(width, by_row))
    return rows * (_half(width) + 4 * -(-width // GROUP["int4"])) if storage == "int4" else 0


def in_parts(shape: torch.Size, device: torch.device) -> Iterator[slice]:
    """Runs of rows of a (N, D) tensor: on a CPU what fits a core's cache of a large one; else all."""
    many = device.type == "cpu" and shape[0] * shape[1] > ALL_AT_ONCE
    rows = max(1, AT_ONCE // shape[1] if many else shape[0])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def _groups(width: int, by_row: bool) -> int:
    """Scales of a row in eight bits."""
    return 1 if by_row or width % GROUP["int8"] else max(1, width // GROUP["int8"])


def _half(width: int) -> int:
    """Bytes of a row in four bits: half of its values, each half in whole groups."""
    return -(-width // (2 * GROUP["int4"])) * GROUP["int4"]
