"""How near the gradient of compressed training is to that of plain autograd, per parameter and supervision step.

The bases come from optimiser steps on other puzzles, of all supervision depths at once as in training; then they stay as they are
while a held-out batch runs from its first to its last supervision step. `python -m laser_studio gradcheck` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from statistics import fmean

import torch
from torch import Tensor

from laser_studio.errors import TrainingError
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.losses import forward_backward
from laser_studio.lab.train import per_block
from laser_studio.laser import Compression, LaserPolicy, compress
from laser_studio.laser.budget import Choice
from laser_studio.laser.compress import Mode
from laser_studio.laser.ledger import CompressionLedger
from laser_studio.laser.products import Products
from laser_studio.laser.quantise import Storage
from laser_studio.trm import TRM, Carry

CHOICE_STEPS = 8  # optimiser steps a budget is chosen on
Gradients = Mapping[str, Tensor]


@dataclass(frozen=True)
class Closeness:
    """cosine: of the angle between two gradients, 1 where both are zero; error: ‖compressed − plain‖ / ‖plain‖."""

    cosine: float
    error: float


@dataclass(frozen=True)
class StepCheck:
    """One supervision step: all parameters as one vector, and each by its name."""

    supervision: int
    whole: Closeness
    parameters: Mapping[str, Closeness]


@dataclass(frozen=True)
class GradientCheck:
    """One policy. fidelity: energy kept, mean over sites of the last step that made the bases; ledger: of one step at this batch size;
    choice: what a budget led to, for which policy and storage do not count."""

    mode: Mode
    storage: Storage
    policy: LaserPolicy
    steps: tuple[StepCheck, ...]
    fidelity: float
    ledger: CompressionLedger
    choice: Choice | None = None

    @property
    def mean_cosine(self) -> float:
        """Over supervision steps."""
        return fmean(step.whole.cosine for step in self.steps)

    @property
    def worst_cosine(self) -> float:
        """Over supervision steps."""
        return min(step.whole.cosine for step in self.steps)

    def by_parameter(self) -> dict[str, tuple[float, float, float]]:
        """Mean cosine, worst cosine and mean relative error of each parameter over supervision steps."""
        found = {}
        for name in self.steps[0].parameters:
            each = [step.parameters[name] for step in self.steps]
            found[name] = fmean(one.cosine for one in each), min(one.cosine for one in each), fmean(one.error for one in each)
        return found


def gradcheck(
    model: TRM,
    policy: LaserPolicy,
    data: PuzzleSet,
    *,
    mode: Mode = "block",
    storage: Storage = "exact",
    blocks: bool = False,
    products: Products = "auto",
    budget: str | None = None,
    batch_size: int = 32,
    settle: int | None = None,
    seed: int = 0,
) -> GradientCheck:
    """Check one policy on `model`, whose weights stay as they are.

    data: puzzles never trained on; its first `batch_size` are checked, the bases come from the others. blocks: keep nothing within
    blocks. settle: optimiser steps that make the bases, by default two rounds of supervision steps. Raises `TrainingError` where there
    are too few puzzles.
    """
    if batch_size < 1 or len(data) < 2 * batch_size:
        raise TrainingError(f"checking {batch_size} puzzles takes at least as many others for the bases, {2 * batch_size} in all")
    was_training = model.training
    model.eval()  # nothing halts by itself, nothing is drawn
    before = {name: p.grad for name, p in model.named_parameters()}
    laser = compress(model, policy, mode, budget=budget, storage=per_block(storage) if blocks else storage, products=products)
    try:
        choice = None if budget is None else _chosen(model, laser, data, batch_size, seed)
        fidelity, ledger = _settled(model, laser, data, batch_size, settle or 2 * model.config.halt_max_steps, seed)
        steps = tuple(_checked(model, laser, data.first(batch_size)))
    finally:
        laser.detach()
        model.train(was_training)
        for name, p in model.named_parameters():
            p.grad = before[name]
    return GradientCheck(mode, storage, policy, steps, fidelity, ledger, choice)


def closeness(found: Tensor, wanted: Tensor) -> Closeness:
    """Of two gradients of one shape, in fp64."""
    a, b = found.double().flatten(), wanted.double().flatten()
    sizes = float(a.norm()), float(b.norm())
    if not sizes[1]:
        return Closeness(1.0 if not sizes[0] else 0.0, 0.0 if not sizes[0] else float("inf"))
    return Closeness(float(a @ b) / (sizes[0] * sizes[1]) if sizes[0] else 0.0, float((a - b).norm()) / sizes[1])


def compare_gradients(found: Gradients, wanted: Gradients) -> tuple[Closeness, dict[str, Closeness]]:
    """All parameters as one vector, and each by its name."""
    whole = closeness(*(torch.cat([each[name].flatten() for name in wanted]) for each in (found, wanted)))
    return whole, {name: closeness(found[name], wanted[name]) for name in wanted}


def mixed_steps(model: TRM, data: PuzzleSet, batch_size: int, seed: int) -> Iterator[tuple[Carry, dict[str, Tensor]]]:
    """What enters one optimiser step after another when puzzles are replaced in turn, so that all supervision depths are in every batch.

    The model's weights and mode are the caller's, who must not train it between two steps in a mode that halts.
    """
    draw, depth = torch.Generator().manual_seed(seed), model.config.halt_max_steps
    turn = torch.arange(batch_size, device=model.H_init.device) % depth
    carry: Carry | None = None
    step = 0
    while True:
        batch = _on_device(model, data.sample(batch_size, draw, augment=False))
        carry = replace(carry, halted=turn == step % depth) if carry is not None else model.initial_carry(batch)
        if step >= depth:  # the batch is mixed
            yield carry, batch
        with torch.no_grad():
            carry, _ = model(carry, batch)
        step += 1


def _others(data: PuzzleSet, checked: int) -> PuzzleSet:
    """The puzzles that are not checked."""
    rows = None if data.identifiers is None else data.identifiers[checked:]
    return replace(data, inputs=data.inputs[checked:], labels=data.labels[checked:], identifiers=rows)


def _chosen(model: TRM, laser: Compression, data: PuzzleSet, batch_size: int, seed: int) -> Choice:
    """Rank and storage by the budget, measured on puzzles that are not checked."""
    steps = islice(mixed_steps(model, _others(data, batch_size), batch_size, seed), CHOICE_STEPS)
    return laser.choose([partial(forward_backward, model, *step) for step in steps])


def _settled(model: TRM, laser: Compression, data: PuzzleSet, batch_size: int, steps: int, seed: int) -> tuple[float, CompressionLedger]:
    """Give `laser` its bases, from puzzles that are not checked."""
    kept = [1.0]
    for carry, batch in islice(mixed_steps(model, _others(data, batch_size), batch_size, seed), steps):
        gradients_of(model, carry, batch, laser)
        events = laser.step()
        kept = [event.fidelity for event in events.values() if event.previous_rank] or kept
    model.zero_grad(set_to_none=True)
    return fmean(kept), laser.ledger()


def _checked(model: TRM, laser: Compression, puzzles: PuzzleSet) -> Sequence[StepCheck]:
    batch = _on_device(model, puzzles.batch(slice(None)))
    carry, steps = model.initial_carry(batch), []
    for supervision in range(1, model.config.halt_max_steps + 1):
        _, found = gradients_of(model, carry, batch, laser)
        after, wanted = gradients_of(model, carry, batch)
        steps.append(StepCheck(supervision, *compare_gradients(found, wanted)))
        carry = after.going_on()
    return steps


def gradients_of(
    model: TRM, carry: Carry, batch: Mapping[str, Tensor], saving: AbstractContextManager[object] | None = None
) -> tuple[Carry, dict[str, Tensor]]:
    """The carry after one supervision step and the gradients of its loss, which stay in the parameters too; run within `saving`."""
    model.zero_grad(set_to_none=True)
    with saving or nullcontext():
        after, _ = forward_backward(model, carry, batch)
    return after, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _on_device(model: TRM, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(model.H_init.device) for key, value in batch.items()}
