"""Matrix products in eight-bit integers, for what backward rebuilds and for weight gradients.

What is stored in eight bits need not be turned into floats to be multiplied: processors multiply int8 two to five times as fast as
floats, sums are exact in int32, and scales of rows and columns factor out. Only what is summed over may not differ in scale.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from laser_studio.laser.quantise import LEVELS, TINY, in_parts

MOST_SUMMED = (2**31 - 1) // LEVELS**2  # terms of a product that int32 holds whatever they are
LEAST_COLUMNS, WITH_AMX, LEAST_OF_HALVES = 128, 256, 256  # of what is multiplied: with fewer, rounding and scaling cost what integers save
LEAST_ROWS = 256  # of a weight gradient in place of bfloat16: with fewer, rounding them and adding up cost what the product saves
LEAST_OUTPUTS = 768  # of a layer in bfloat16 whose input would have to be rounded for it alone
ALIGNED, MOST_SMALL = 8, 16  # a GPU's integer products ask for multiples of the one in every side but the first, which is above the other


def pays(device: torch.device, dtype: torch.dtype, columns: int) -> bool:
    """Whether eight-bit products pay in place of those of `dtype`: of fp32 on a CPU with VNNI, of rows that are long enough.

    Not of half precision, which hardware with fast integers multiplies fast too, but for what `pays_rebuilding` and `pays_summing` say.
    On a GPU half products serve fp32 too, and nothing has to be quantised for them.
    """
    if dtype != torch.float32 or device.type != "cpu" or columns < LEAST_COLUMNS:
        return False
    has_vnni, has_amx = _integers()
    return has_vnni and (columns >= WITH_AMX or not has_amx)


def pays_rebuilding(device: torch.device, dtype: torch.dtype, columns: int) -> bool:
    """Whether they pay, beyond `pays`, where codes need not be made for the product alone: of bfloat16, in half its time, without AMX."""
    if dtype != torch.bfloat16 or device.type != "cpu" or columns < LEAST_OF_HALVES:
        return False
    has_vnni, has_amx = _integers()
    return has_vnni and not has_amx


def pays_summing(rows: int) -> bool:
    """Whether, where `pays_rebuilding`, weight gradients over that many rows are better summed of integers too."""
    return rows >= LEAST_ROWS


@lru_cache(maxsize=1)
def _integers() -> tuple[bool, bool]:
    """Whether this processor has VNNI, and AMX, with which products in floats catch up."""
    has_vnni, has_amx = (bool(getattr(torch.cpu, name, bool)()) for name in ("_is_vnni_supported", "_is_amx_tile_supported"))
    return has_vnni, has_amx


def rebuilt(codes: Tensor, scale: Tensor, weight: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """(N, out) in `dtype`: rows of `quantise(…, "int8")` times Wᵀ, W (out, D) in eight bits with a scale per row."""
    product, scale, along = _product(codes, weight[0].T), scale.float(), weight[1].T.float()
    parts = list(in_parts(product.shape, product.device))
    if len(parts) == 1:
        return product.float().mul_(scale).mul_(along).to(dtype)
    out = torch.empty(product.shape, dtype=dtype, device=product.device)
    for part in parts:
        out[part] = product[part].float().mul_(scale[part]).mul_(along)
    return out


def outer(left: Tensor, right: Tensor, right_scale: Tensor | None = None, *, onto: Tensor | None = None) -> Tensor:
    """leftᵀ·right (a, b) in fp32: left (N, a) floats, right (N, b) floats, or codes of `quantise(…, "int8")` with their scales.

    Each column of a float gets a scale; the scales of right's rows, over which is summed, go into left. onto: what it is added to in place.
    """
    fresh = onto is None
    if onto is None:
        made = torch.empty if left.shape[0] else torch.zeros
        onto = made(left.shape[1], right.shape[1], dtype=torch.float32, device=left.device)
    for start in range(0, left.shape[0], MOST_SUMMED):
        rows = slice(start, start + MOST_SUMMED)
        a, a_scale = _by_columns(left[rows], None if right_scale is None else right_scale[rows])
        b, b_scale = _by_columns(right[rows], None) if right_scale is None else (right[rows], None)
        for part in in_parts(onto.shape, onto.device):
            found = _product(a.T[part], b).float()
            if b_scale is not None:
                found.mul_(b_scale)
            if fresh and start == 0:
                torch.mul(found, a_scale[part, None], out=onto[part])
            else:
                onto[part].addcmul_(found, a_scale[part, None])
    return onto


def _by_columns(x: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """diag(factor)·x as int8 codes (N, a) with a scale per column (a,), fp32."""
    parts = list(in_parts(x.shape, x.device))
    factor = None if factor is None else factor.float()
    if len(parts) == 1:
        wide = x if factor is None else _times(x, factor)
        scale = _scale(wide.abs().amax(0))
        codes = wide * scale.reciprocal() if factor is None else wide.mul_(scale.reciprocal())
        return codes.round_().to(torch.int8), scale
    largest = [(x[part].abs() if factor is None else _times(x[part], factor[part]).abs_()).amax(0) for part in parts]
    scale = _scale(torch.stack(largest).amax(0)) if largest else x.new_full(x.shape[1:], TINY, dtype=torch.float32)
    inverse, codes = scale.reciprocal(), torch.empty(x.shape, dtype=torch.int8, device=x.device)
    for part in parts:
        wide = _times(x[part], inverse)
        codes[part] = (wide if factor is None else wide.mul_(factor[part])).round_()
    return codes, scale


def _times(x: Tensor, factor: Tensor) -> Tensor:
    """x · factor in fp32, in memory of its own: of halves in two steps, which a CPU makes in half the time of one with mixed dtypes."""
    return x * factor if x.dtype == torch.float32 else x.float().mul_(factor)


def _scale(largest: Tensor) -> Tensor:
    return largest.float().div_(LEVELS).clamp_(min=TINY)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a (n, m) · b (m, o) of int8, summed in int32."""
    if min(*a.shape, b.shape[1]) < 2:  # of one row or column torch.int_mm makes something else, not knowing its strides
        return (a.double() @ b.double()).to(torch.int32)
    if a.is_cuda:
        n, o = a.shape[0], b.shape[1]
        inner = _aligned(a.shape[1])
        a, across = _padded(a, max(n, MOST_SMALL + 1), inner), _padded(b.T, _aligned(o), inner)
        return torch._int_mm(a.contiguous(), across.contiguous().T)[:n, :o]
    return torch._int_mm(a, b)


def _aligned(side: int) -> int:
    return -(-side // ALIGNED) * ALIGNED


def _padded(x: Tensor, rows: int, columns: int) -> Tensor:
    """x (n, m) with zeros behind it up to (rows, columns)."""
    return torch.nn.functional.pad(x, (0, columns - x.shape[1], 0, rows - x.shape[0]))
