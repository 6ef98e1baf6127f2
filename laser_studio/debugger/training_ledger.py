"""What one training step of the loaded model would keep for backward with the bases at hand.

Widths and ranks give the tracked linear inputs; what autograd keeps altogether is measured on the model itself, once per session.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from laser_studio.laser import find_sites
from laser_studio.laser.ledger import LedgerLine, SavedBytes, saved_for_backward
from laser_studio.trm import TRM

MAX_BATCH = 1 << 20
DEFAULT_BATCH = 64  # puzzles; for checkpoints that do not say what they were trained with


def measure_saved(model: TRM, length: int) -> SavedBytes:
    """Bytes autograd keeps of one application of the net (of an HRM, of each net) on one sample of `length` tokens, prefix included."""
    device = model.H_init.device
    shape = (1, length, model.config.hidden_size)
    z, injection = (torch.zeros(shape, dtype=model.forward_dtype, device=device, requires_grad=True) for _ in range(2))
    rope = model.rope(length, device)
    excluded = (*model.parameters(), *model.buffers(), *(rope or ()))

    def apply() -> list[object]:
        return [net(z, injection, rope) for net in model.nets]

    return saved_for_backward(apply, find_sites(model.net), excluded)


class TrainingLedger:
    """Ledger lines of one training step: the applications that carry gradient, at the batch size of the model's training."""

    def __init__(self, model: TRM, saved: SavedBytes) -> None:
        self.saved = saved
        told = model.details.get("batch_size")  # a stranger's file may say anything there
        self.batch = told if isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= MAX_BATCH else DEFAULT_BATCH
        self._times = self.batch * model.config.graded_applications
        self._itemsize = model.forward_dtype.itemsize

    def site(self, rows: int, dim: int, rank: int) -> LedgerLine:
        """One site's inputs of `rows` × `dim` per sample and application; in full before there is a basis (rank 0)."""
        numbers = rows * self._times * self._itemsize
        return LedgerLine(numbers * dim, numbers * (rank or dim), dim * rank * 4)

    def everything(self, ranks: Mapping[str, int], lines: Mapping[str, LedgerLine]) -> LedgerLine:
        """All bytes saved for backward, with Z in place of the linear inputs that this would really free."""
        full = self.saved.total * self._times
        tracked = [name for name, rank in ranks.items() if rank]
        freed = sum(self.saved.by_site[name] * self._times for name in tracked)
        added = sum(lines[name].stored_bytes for name in tracked)
        return LedgerLine(full, full - freed + added, sum(lines[name].basis_bytes for name in tracked))
