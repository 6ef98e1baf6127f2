"""What compression does to what matters, measured when asked: the answer, its distribution, the gradient.

Energy says how much of an activation is kept; these say whether it was the part that counts. Both figures are taken at the end
of an H cycle from that cycle's own start states, on the puzzle shown, with the bases that stored the cycle. The run itself and
its trackers are not touched: a private copy of the net does the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laser_studio.debugger.replica import share_weights
from laser_studio.errors import PolicyError
from laser_studio.laser import find_sites
from laser_studio.laser.patches import Reads
from laser_studio.laser.reconstruct import projected
from laser_studio.settings import setting, settings
from laser_studio.trm import TRM
from laser_studio.trm.layers import CosSin, drop_casts, hold_casts
from laser_studio.trm.recursion import States
from laser_studio.trm.stablemax import log_stablemax


@settings(PolicyError)
class Measures:
    """Figures that cost extra time and are computed only when asked; they change nothing else of a run."""

    functional: bool = setting(
        default=False, help="At each H cycle's end: answer flips and KL of the output, had the cycle run on the compressed activations."
    )
    gradient: bool = setting(default=False, help="At each H cycle's end: cosine of the exact weight gradient and the one from Z.")
    best: bool = setting(default=False, help="At each refresh: energy of the window's best basis of the same rank, and the angles to it.")


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one site, or of all together: kl in nats per open cell, and the open cells whose answer flips."""

    kl: float
    flips: int

    @property
    def fidelity(self) -> float:
        """exp(−KL) ∈ (0, 1]: 1 where the output distribution is unchanged."""
        return math.exp(-self.kl)


@dataclass(frozen=True, slots=True)
class Effects:
    """Every site compressed alone, and all of them at once."""

    together: Effect
    sites: Mapping[str, Effect]


@dataclass(frozen=True, slots=True)
class Cosines:
    """cos(G, GQQᵀ) of the weight gradients G, each site alone and over all of them."""

    together: float
    sites: Mapping[str, float]


@dataclass(frozen=True)
class Cycle:
    """One H cycle to be run again: its start states, what it started from, and where it led; each of one sample, (1, …).

    z_H, z_L, x: (1, P + T, D) states at the start and embedded puzzle; end: z_H after the cycle; open_cells: (T,) bool, cells
    that are not given; labels: (T,) token ids of the solution, or of the answer where none is known; updates: of z_L; levels: the low
    states of hier6.
    """

    z_H: Tensor
    z_L: Tensor
    x: Tensor
    end: Tensor
    open_cells: Tensor
    labels: Tensor
    updates: int
    levels: tuple[Tensor, ...] = ()

    @property
    def start(self) -> States:
        """All states it began with."""
        return States(self.z_H, self.z_L, self.levels)


class Probe:
    """Runs a cycle again with compressed activations, or with gradient. One per run; the model's weights are shared."""

    def __init__(self, model: TRM) -> None:
        self.model = share_weights(model).eval()
        self.layers = find_sites(self.model.net)
        self._cycle = _Cycle(self.model)

    @torch.no_grad()
    def effects(self, cycle: Cycle, bases: Mapping[str, Tensor]) -> Effects:
        """What the cycle's output would be, had each site read XQQᵀ in place of X throughout it.

        One batch does it all: row 0 compresses every site, row 1 + i the i-th of `bases` (D, k) alone.
        """
        rows = 1 + len(bases)
        start, x = cycle.start.map(lambda state: state.expand(rows, *state.shape[1:])), cycle.x.expand(rows, *cycle.x.shape[1:])
        hold_casts(self.model, self.model.forward_dtype)
        try:
            with self._compressed(bases):
                z_H = self.run(start, x, cycle.updates)
            exact, compressed = (self.model.read_out(state).logits[:, cycle.open_cells] for state in (cycle.end, z_H))
        finally:
            drop_casts(self.model)
        log_p, log_q = log_stablemax(exact), log_stablemax(compressed)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1).clamp(min=0)  # (rows,)
        flips = (exact.argmax(-1) != compressed.argmax(-1)).sum(-1)
        if not cycle.open_cells.any():
            kl = torch.zeros(rows)
        each = [Effect(one, int(count)) for one, count in zip(kl.nan_to_num(nan=700.0).tolist(), flips.tolist(), strict=True)]
        return Effects(each[0], dict(zip(bases, each[1:], strict=True)))

    def cosines(self, cycle: Cycle, bases: Mapping[str, Tensor]) -> Cosines:
        """The weight gradients of the answer's loss through this one cycle, and what is left of them when Z stands for X.

        With one Q for all applications Σ dYᵀ(XQQᵀ) = GQQᵀ, so cos(G, GQQᵀ) = ‖GQ‖ / ‖G‖: one backward pass is enough.
        """
        weights = {name: self.layers[name].weight.detach().requires_grad_() for name in bases}
        with torch.inference_mode(False), torch.enable_grad():
            parameters = {f"model.net.{name}.weight": weight for name, weight in weights.items()}
            z_H = self.run(cycle.start, cycle.x, cycle.updates, parameters)
            log_p = log_stablemax(self.model.read_out(z_H).logits[0])  # (T, vocab)
            loss = -log_p.gather(-1, cycle.labels[:, None]).mean()
            gradients = torch.autograd.grad(loss, list(weights.values()))
        kept, full = {}, {}
        for (name, basis), gradient in zip(bases.items(), gradients, strict=True):
            full[name] = float(gradient.double().square().sum())
            kept[name] = float((gradient.float() @ basis).double().square().sum())
        return Cosines(_cosine(sum(kept.values()), sum(full.values())), {name: _cosine(kept[name], full[name]) for name in bases})

    def run(self, start: States, x: Tensor, updates: int, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """z_H after one H cycle of so many L updates, optionally with other weights than the net's own."""
        arguments = start, x, self.model.rope(x.shape[1], x.device), updates
        if parameters is None:
            return self._cycle(*arguments).z_H
        return torch.func.functional_call(self._cycle, dict(parameters), arguments).z_H

    @contextmanager
    def _compressed(self, bases: Mapping[str, Tensor]) -> Iterator[None]:
        patches = []
        for row, (name, basis) in enumerate(bases.items(), 1):

            def compressed(x: Tensor, row: int = row, basis: Tensor = basis) -> Tensor:
                x = x.clone()
                for one in (0, row):
                    x[one] = projected(x[one], basis)
                return x

            patches.append(Reads(self.layers[name], compressed))
        try:
            yield
        finally:
            for patch in patches:
                patch.remove()


class _Cycle(nn.Module):
    """An H cycle as a module, so that it can be called with other weights."""

    def __init__(self, model: TRM) -> None:
        super().__init__()
        self.model = model

    def forward(self, start: States, x: Tensor, rope: CosSin | None, updates: int) -> States:
        return self.model.cycle(start, x, rope, updates)


def _cosine(kept: float, full: float) -> float:
    """‖GQ‖ / ‖G‖ from the squares; of no gradient nothing is lost."""
    return min(1.0, math.sqrt(kept / full)) if full > 0 else 1.0
