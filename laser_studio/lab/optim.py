"""Optimisers and weight averaging for TRM training that torch does not bring."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SignSGD(torch.optim.Optimizer):
    """p ← p·(1 − lr·weight_decay) − lr·sign(gradient), row by row, for puzzle embeddings, whose gradients come rarely and small.

    Rows without any gradient belong to no puzzle of the batch and stay as they are, undecayed, as in the official sparse version.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                rows, gradient = parameter.view(-1, parameter.shape[-1]), parameter.grad.reshape(-1, parameter.shape[-1])
                used = gradient.any(-1).nonzero().squeeze(-1)
                decayed = rows[used].mul_(1 - group["lr"] * group["weight_decay"])
                rows[used] = decayed.add_(gradient[used].sign(), alpha=-group["lr"])


class WeightAverage:
    """Exponential moving average of a module's parameters; buffers are taken as they are.

    The decay of update n (from 0) is min(decay, (1 + n) / (10 + n)): a short run would otherwise end with a good part of its random start
    in the average (0.999^1,800 = 17 %).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, updates_before: int) -> None:
        decay = min(self.decay, (1 + updates_before) / (10 + updates_before))
        current = dict(module.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(self.average[name])

    def load(self, average: dict[str, Tensor]) -> None:
        for name, value in self.average.items():
            value.copy_(average[name])
