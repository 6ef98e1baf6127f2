"""Weight gradients added up in place over the applications of a step: of the backward that runs, and of no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from laser_studio.laser import Compression, LaserPolicy, compress, functions
from tests.laser.helpers import normal

X = normal(40, 12, seed=3)


class Looped(nn.Module):
    """One layer, applied three times to (…, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(normal(12, 12, seed=1) / 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


def started(model: nn.Module) -> Compression:
    """A compression with complete bases: its gradients are those of autograd."""
    laser = compress(model, LaserPolicy(rank="100%", min_fidelity=0), mode="linear")
    with laser:
        model(X).sum().backward()
    laser.step()
    model.zero_grad()
    return laser


def wanted(loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    model = Looped()
    loss_of(model(X)).backward()
    assert model.layer.weight.grad is not None
    return model.layer.weight.grad


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).norm()) < 1e-5 * float(expected.norm())


def test_applications_are_added_in_the_memory_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Looped()
    laser = started(model)
    outer, places = functions.outer, list[int]()

    def noted(left: Tensor, right: Tensor, codes: None, how: str, onto: Tensor | None = None) -> Tensor:
        found = outer(left, right, codes, how, onto)  # type: ignore[arg-type]
        places.append(found.data_ptr())
        return found

    monkeypatch.setattr(functions, "outer", noted)
    with laser:
        model(X).square().sum().backward()
    assert len(places) == 3 and len(set(places)) == 1
    assert model.layer.weight.grad is not None and close(model.layer.weight.grad, wanted(lambda out: out.square().sum()))


def test_a_backward_that_does_not_come_to_the_weight_makes_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Looped()
    laser = started(model)
    x = X.clone().requires_grad_()
    with laser:
        loss = model(x).square().sum()
        with monkeypatch.context() as patched:
            patched.setattr(functions, "outer", lambda *told: pytest.fail("a gradient nobody asked for"))
            torch.autograd.grad(loss, x, retain_graph=True)
        (found,) = torch.autograd.grad(loss, model.layer.weight, retain_graph=True)
        assert close(found, wanted(lambda out: out.square().sum()))
        torch.autograd.grad(loss, x, retain_graph=True)
        loss.backward()
    assert model.layer.weight.grad is not None and close(model.layer.weight.grad, wanted(lambda out: out.square().sum()))


def test_a_backward_that_fails_half_way_leaves_the_next_one_whole() -> None:
    model = Looped()
    laser = started(model)
    x = X.clone().requires_grad_()
    broken = True

    def fails(gradient: Tensor) -> Tensor:
        if broken:
            raise RuntimeError("half way")
        return gradient

    with laser:
        middle = torch.tanh(model.layer(x))
        middle.register_hook(fails)
        loss = model.layer(middle).square().sum()
        with pytest.raises(RuntimeError, match="half way"):
            loss.backward(retain_graph=True)
        broken = False
        model.zero_grad()
        loss.backward()
    plain = Looped()
    plain.layer(torch.tanh(plain.layer(X))).square().sum().backward()
    found, expected = model.layer.weight.grad, plain.layer.weight.grad
    assert found is not None and expected is not None and close(found, expected)


def test_two_losses_of_a_step_reach_the_weight_one_after_the_other() -> None:
    model = Looped()
    laser = started(model)
    with laser:
        out = model(X)
        losses = out.square().sum(), out.sum()
        losses[0].backward(retain_graph=True)
        losses[1].backward()
    assert model.layer.weight.grad is not None
    assert close(model.layer.weight.grad, wanted(lambda out: out.square().sum() + out.sum()))


def test_a_backward_inside_another_keeps_its_sum_to_itself() -> None:
    model = Looped()
    laser = started(model)

    class Within(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, other: Tensor) -> Tensor:
            ctx.other = other  # type: ignore[attr-defined]
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
            ctx.other.backward()  # type: ignore[attr-defined]
            return gradient, None

    with laser, torch.enable_grad():
        inner = model(X).sum()
        middle = Within.apply(model(X), inner.detach())
        middle.grad_fn.other = inner
        model(middle).square().sum().backward()
    plain = Looped()
    plain(plain(X)).square().sum().backward()
    plain(X).sum().backward()
    found, expected = model.layer.weight.grad, plain.layer.weight.grad
    assert found is not None and expected is not None and close(found, expected)
