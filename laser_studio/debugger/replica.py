"""A private module tree over shared weights: patches and caches of one session cannot reach another."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def share_weights(model: M) -> M:
    """A copy of the module structure whose parameters and buffers are the very tensors of `model`; a few kilobytes of Python objects."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)
