"""Fused kernels for GPUs: what torch does in a dozen small ones, one after another, is started at once.

Functions on tensors without a gradient of their own; each has a plain form in torch where it is used, which says what it computes and
serves on every other device. Written in Triton, which comes with torch's builds for GPUs; the modules beside this one import it, so
that they are imported only where `usable` has said yes.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

import torch
from torch import Tensor

WIDEST = 8192
"""Values of a row that one program holds at once; longer rows go the plain way."""
SWITCH = "LASER_STUDIO_KERNELS"
"""Environment variable: 0 leaves everything to torch's own kernels."""


def usable(x: Tensor) -> bool:
    """Whether x is where these kernels run, and of no more digits than the fp32 they compute in."""
    return x.is_cuda and x.dtype != torch.float64 and _work_on(x.device)


@lru_cache(maxsize=8)
def _work_on(device: torch.device) -> bool:
    """Tried once: Triton may be missing, or find no compiler for its launchers."""
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        from laser_studio.kernels import rows

        rows.quantised(torch.ones(2, 64, device=device), 1)
    except Exception as failure:
        warnings.warn(
            f"no fused kernels on {device}, which works but takes longer ({type(failure).__name__}: {failure!s:.120})", stacklevel=3
        )
        return False
    return True
