"""In which arithmetic backward multiplies what is kept in few bits: floats of the model, eight-bit integers, or bfloat16.

Codes of eight bits are off by half a per cent of a row. A product in bfloat16 with its sums in fp32, which a GPU makes ten times as fast as
one in fp32, adds a tenth of that error's energy: the codes themselves are exact in it. On a CPU integers take that place, see `int8`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from laser_studio.laser import int8

Arithmetic = Literal["float", "int8", "bf16"]
Products = Literal["auto", "float", "int8", "bf16"]


def arithmetic(asked: Products, device: torch.device, dtype: torch.dtype, columns: int) -> Arithmetic:
    """What is asked for; of "auto" the fastest, for weight gradients from products of `dtype`, rows having that many columns."""
    if asked != "auto":
        return asked
    if int8.pays(device, dtype, columns):
        return "int8"
    return "bf16" if dtype == torch.float32 and device.type == "cuda" and _has_bfloat16(device) else "float"


def rebuilding_arithmetic(asked: Products, device: torch.device, dtype: torch.dtype, columns: int) -> Arithmetic:
    """The same where backward rebuilds: both factors are there in eight bits, or are put into them once for all applications."""
    how = arithmetic(asked, device, dtype, columns)
    return "int8" if asked == "auto" and how == "float" and int8.pays_rebuilding(device, dtype, columns) else how


@lru_cache(maxsize=8)
def _has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 8


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (n, m) · b (m, o) in bfloat16, summed in fp32: (n, o) fp32."""
    a, b = a.bfloat16(), b.bfloat16()
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def outer(left: Tensor, right: Tensor | None, codes: tuple[Tensor, Tensor] | None, how: Arithmetic, onto: Tensor | None = None) -> Tensor:
    """leftᵀ·right (a, b), or, with "int8", of the codes in place of right: in fp32, or with "float" as left is.

    left (N, a); right (N, b); codes as `quantise(…, "int8")` gives them by row; onto: what it is added to, whose memory is used up.
    """
    if how == "int8":
        return int8.outer(left, *codes, onto=onto) if codes is not None else int8.outer(left, _given(right), onto=onto)
    right = _given(right)
    if how == "bf16":
        found = product(left.T, right)
    else:
        right = right.to(left.dtype)
        if onto is not None and onto.dtype == left.dtype:
            return torch.addmm(onto, left.T, right, out=onto)  # not addmm_, which counters of products pass over
        found = left.T @ right
    return found if onto is None else onto.add_(found)


def _given(right: Tensor | None) -> Tensor:
    assert right is not None
    return right
