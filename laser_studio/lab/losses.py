"""The loss of deep supervision: stablemax cross-entropy on the answer plus a binary loss on the halting value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from laser_studio.trm import TRM, Carry, Outputs
from laser_studio.trm.stablemax import log_stablemax

IGNORED = -100  # label of a cell without a target


@dataclass(frozen=True)
class StepLoss:
    """total: scalar to differentiate, mean over samples; exact: (B,) bool, all labelled cells right; cell: (B,) share of them."""

    total: Tensor
    exact: Tensor
    cell: Tensor


def supervision_loss(outputs: Outputs, labels: Tensor) -> StepLoss:
    """Loss of one supervision step. labels: (B, T) token ids, `IGNORED` where there is no target."""
    labelled = labels != IGNORED
    count = labelled.sum(-1).clamp_min(1)
    picked = log_stablemax(outputs.logits).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    answer = -(torch.where(labelled, picked, 0).sum(-1) / count)  # (B,)
    with torch.no_grad():
        right = (outputs.logits.argmax(-1) == labels) & labelled
        exact = right.sum(-1) == labelled.sum(-1)
    halting = F.binary_cross_entropy_with_logits(outputs.q_halt_logits, exact.float(), reduction="none")
    if outputs.target_q_continue is not None:
        halting = halting + F.binary_cross_entropy_with_logits(outputs.q_continue_logits, outputs.target_q_continue, reduction="none")
    return StepLoss((answer + 0.5 * halting).mean(), exact, right.sum(-1) / count)


def forward_backward(model: TRM, carry: Carry, batch: Mapping[str, Tensor]) -> tuple[Carry, StepLoss]:
    """One supervision step with the backward of its loss: the carry after it, and the loss."""
    after, outputs = model(carry, batch)
    loss = supervision_loss(outputs, after.current_data["labels"])
    loss.total.backward()
    return after, loss
