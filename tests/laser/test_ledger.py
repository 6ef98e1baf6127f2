"""The measurement of saved bytes against sums one can do by hand."""

from __future__ import annotations

import torch
from torch import nn

from laser_studio.laser.ledger import EMPTY, LedgerLine, saved_for_backward


def test_saving_is_net_of_bases_and_zero_of_nothing() -> None:
    assert LedgerLine(1000, 200, 100).saving == 0.7
    assert LedgerLine(100, 100, 50).saving == -0.5
    assert EMPTY.saving == 0.0
    assert LedgerLine(1, 2, 3) + LedgerLine(10, 20, 30) == LedgerLine(11, 22, 33)


def test_only_what_a_linear_alone_keeps_counts_as_its_own() -> None:
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x + 1)  # a keeps x + 1 (4 × 8 floats) alone
            y = torch.tanh(h)  # tanh keeps its output, which is b's input as well
            return self.b(y)

    toy = Toy()
    x = torch.zeros(4, 8, requires_grad=True)
    saved = saved_for_backward(lambda: toy(x), {"a": toy.a, "b": toy.b}, toy.parameters())
    assert saved.by_site == {"a": 4 * 8 * 4, "b": 0}
    assert saved.total == 4 * 8 * 4 + 4 * 16 * 4
    assert not toy.a._forward_hooks and not toy.a._forward_pre_hooks


def test_a_storage_kept_by_two_linears_is_counted_once_and_freed_by_neither() -> None:
    a, b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    x = torch.zeros(4, 8, requires_grad=True)

    def both() -> torch.Tensor:
        h = x * 2
        return a(h) + b(h)

    saved = saved_for_backward(both, {"a": a, "b": b}, [*a.parameters(), *b.parameters()])
    assert saved.total == 4 * 8 * 4
    assert saved.by_site == {"a": 0, "b": 0}
