"""The measurement of saved bytes against sums one can do by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laser_studio.laser import LaserPolicy, compress
from laser_studio.laser.ledger import COUNTS, EMPTY, LedgerLine, TotalLine, saved_for_backward


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


def test_counts_in_a_thousand_steps_are_those_counted_by_hand() -> None:
    """Every step's input lies, with equal energy, in the directions named; what the rule must do at each follows from them alone."""
    torch.manual_seed(0)

    def within(directions: list[int]) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(24, len(directions)))[0] @ torch.eye(8)[directions]

    layer, other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    model = nn.ModuleDict({"watched": layer, "quiet": other})
    rule = LaserPolicy(rank=2, max_rank=4, min_fidelity=0.99, growth=1, patience=2)
    laser = compress(model, rule, mode="linear")
    run = [
        ([0, 1], "keep"),  # the first step is kept exact and starts the basis
        ([0, 1], "keep"),
        ([0, 1, 2], "grow"),  # a third is outside: a miss
        ([0, 1, 2], "keep"),
        ([3, 4], "grow"),  # all is outside: a miss
        ([5, 6], "reset"),  # and a second in a row
        ([5, 6], "keep"),
        ([5, 6], "keep"),
    ]
    assert [TotalLine(0, 0, 0).per_thousand_steps(count) for count in COUNTS] == [0, 0, 0], "before the first step"
    counted = dict.fromkeys(COUNTS, 0)
    for number, (directions, action) in enumerate(run, 1):
        with laser:
            (layer(within(directions)).square().sum() + other(within([0, 1])).square().sum()).backward()
        events = laser.step()
        assert (events["watched"].action, events["quiet"].action) == (action, "keep"), number
        counted["misses"] += action != "keep"
        counted["growths"] += action == "grow"
        counted["resets"] += action == "reset"
        total = laser.ledger().total
        assert {count: total.per_thousand_steps(count) for count in COUNTS} == pytest.approx(
            {count: 1_000 * times / number for count, times in counted.items()}
        )
    assert [total.per_thousand_steps(count) for count in COUNTS] == [375, 250, 125], "3 misses, 2 growths, 1 reset in 8 steps"
