"""Stablemax, the output distribution a TRM is trained with (arXiv 2501.04697, "Grokking at the Edge of Numerical Stability")."""

from __future__ import annotations

import torch
from torch import Tensor


def log_stablemax(logits: Tensor) -> Tensor:
    """Log of s(x) / Σ s(x) over the last axis, with s(x) = x + 1 for x ≥ 0 and 1 / (1 − x) below; fp64, shape kept."""
    x = logits.double()
    s = torch.where(x < 0, 1 / (1 - x + 1e-30), x + 1)
    return torch.log(s / s.sum(-1, keepdim=True))
