"""How many rows and values a program of a kernel takes, and the device it is started on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

AT_ONCE = 4096  # values that a program holds of each tensor: 32 for each of its 128 threads


@lru_cache(maxsize=64)
def tile(width: int) -> tuple[int, int]:
    """Rows and columns, powers of two, of a program that sees whole rows of that width."""
    columns = 1 << max(0, width - 1).bit_length()
    return max(1, AT_ONCE // columns), columns


def programs(many: int, at_once: int) -> tuple[int]:
    """The grid that covers `many` rows or values."""
    return (-(-many // at_once),)


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Kernels start on the current device, which need not be that of x."""
    return torch.cuda.device(x.device) if x.is_cuda and x.get_device() != torch.cuda.current_device() else _HERE


_HERE = nullcontext()
