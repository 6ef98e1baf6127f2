"""Rows in few bits, quantised and restored by one kernel each: the fused form of `laser.quantise`, which says what is stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from laser_studio.kernels.launch import on_device_of, programs, tile

GROUP = tl.constexpr(32)  # values of four bits that share a scale and a lowest value
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
TO_WHOLE = tl.constexpr(1.5 * 2**23)  # added and taken away again it leaves the nearest whole number, the even one of two


def quantised(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """x (N, D), contiguous: int8 codes (N, D) and bf16 scales (N, groups), each of D / groups values."""
    rows, width = x.shape
    codes, scale = torch.empty_like(x, dtype=torch.int8), x.new_empty(rows, groups, dtype=torch.bfloat16)
    at_once, columns = tile(width // groups)
    if x.numel():
        with on_device_of(x):
            _quantise[programs(rows * groups, at_once)](x, codes, scale, rows * groups, width // groups, at_once, columns)
    return codes, scale


def restored(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantised` stored, (N, D) in `dtype`."""
    (rows, width), groups = codes.shape, scale.shape[1]
    values = torch.empty_like(codes, dtype=dtype)
    at_once, columns = tile(width // groups)
    if codes.numel():
        with on_device_of(codes):
            _restore[programs(rows * groups, at_once)](codes, scale, values, rows * groups, width // groups, at_once, columns)
    return values


def quantised_in_four(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """x (N, D), contiguous: codes (N, half), value j and above it value half + j in a byte; scales, then lowest values, of 32 each."""
    rows, width = x.shape
    groups = triton.cdiv(width, GROUP.value)
    codes, scale = x.new_empty(rows, half, dtype=torch.uint8), x.new_empty(rows, 2 * groups, dtype=torch.bfloat16)
    at_once, _ = tile(GROUP.value)
    if x.numel():
        with on_device_of(x):
            _quantise_in_four[(triton.cdiv(rows, at_once), half // GROUP.value)](x, codes, scale, rows, width, half, groups, at_once)
    return codes, scale


def restored_from_four(codes: Tensor, scale: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """What `quantised_in_four` stored, (N, width) in `dtype`."""
    rows, half = codes.shape
    values = torch.empty(rows, width, dtype=dtype, device=codes.device)
    at_once, _ = tile(GROUP.value)
    if codes.numel():
        with on_device_of(codes):
            grid = (triton.cdiv(rows, at_once), triton.cdiv(width, GROUP.value))
            _restore_from_four[grid](codes, scale, values, rows, width, half, scale.shape[1] // 2, at_once)
    return values


@triton.jit
def _quantise(x, codes, scale, rows, width: tl.constexpr, at_once: tl.constexpr, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    column = tl.arange(0, columns)
    place = row[:, None] * width + column[None, :]
    inside = (row < rows)[:, None] & (column < width)[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    one = tl.maximum(tl.max(tl.abs(value), 1) * (1 / 127), TINY)
    one = tl.where(tl.max((value != value).to(tl.int32), 1) > 0, float("nan"), one).to(tl.bfloat16)
    code = value * (1.0 / one.to(tl.float32))[:, None]
    code = tl.minimum(tl.maximum((code + TO_WHOLE) - TO_WHOLE, -127.0), 127.0)
    tl.store(codes + place, code.to(tl.int8), mask=inside)
    tl.store(scale + row, one, mask=row < rows)


@triton.jit
def _restore(codes, scale, values, rows, width: tl.constexpr, at_once: tl.constexpr, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    column = tl.arange(0, columns)
    place = row[:, None] * width + column[None, :]
    inside = (row < rows)[:, None] & (column < width)[None, :]
    one = tl.load(scale + row, mask=row < rows, other=0.0).to(tl.float32)
    value = tl.load(codes + place, mask=inside, other=0).to(tl.float32) * one[:, None]
    tl.store(values + place, value.to(values.dtype.element_ty), mask=inside)


@triton.jit
def _quantise_in_four(x, codes, scale, rows, width, half, groups, at_once: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    column = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    group = tl.program_id(1)
    lower = _in_four(x, scale, row, column, rows, width, group, groups)
    upper = _in_four(x, scale, row, column + half, rows, width, group + half // GROUP, groups)
    tl.store(codes + row[:, None] * half + column[None, :], lower | (upper << 4), mask=(row < rows)[:, None])


@triton.jit
def _in_four(x, scale, row, column, rows, width, group, groups):
    """Codes of one group of 32 in each row, whose scale and lowest value are stored."""
    inside = (row < rows)[:, None] & (column < width)[None, :]
    value = tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
    low = tl.min(value, 1).to(tl.bfloat16)
    one = tl.maximum((tl.max(value, 1) - low.to(tl.float32)) * (1 / 15), TINY)
    one = tl.where(tl.max((value != value).to(tl.int32), 1) > 0, float("nan"), one).to(tl.bfloat16)
    code = (value - low.to(tl.float32)[:, None]) * (1.0 / one.to(tl.float32))[:, None]
    code = tl.minimum(tl.maximum((code + TO_WHOLE) - TO_WHOLE, 0.0), 15.0)
    there = (row < rows) & (group + tl.zeros_like(row) < groups)
    tl.store(scale + row * 2 * groups + group, one, mask=there)
    tl.store(scale + row * 2 * groups + groups + group, low, mask=there)
    return code.to(tl.uint8)


@triton.jit
def _restore_from_four(codes, scale, values, rows, width, half, groups, at_once: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    group = tl.program_id(1)
    column = group * GROUP + tl.arange(0, GROUP)
    above = group * GROUP >= half
    byte = tl.where(above, column - half, column)
    code = tl.load(codes + row[:, None] * half + byte[None, :], mask=(row < rows)[:, None], other=0)
    code = tl.where(above, code >> 4, code & 15).to(tl.float32)
    one = tl.load(scale + row * 2 * groups + group, mask=row < rows, other=0.0).to(tl.float32)
    low = tl.load(scale + row * 2 * groups + groups + group, mask=row < rows, other=0.0).to(tl.float32)
    inside = (row < rows)[:, None] & (column < width)[None, :]
    value = code * one[:, None] + low[:, None]
    tl.store(values + row[:, None] * width + column[None, :], value.to(values.dtype.element_ty), mask=inside)
