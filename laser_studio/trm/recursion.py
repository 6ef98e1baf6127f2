"""How states and nets go together, for TRM and its relatives: what one net application reads and what it replaces.

| variant  | l-th update within an H cycle            | update at its end            |
| -------- | ---------------------------------------- | ---------------------------- |
| trm      | z_L = net(z_L, z_H + x)                  | z_H = net(z_H, z_L)          |
| singlez  | z = net(z, x)                            | z = net(z), read as z_H      |
| hier6    | z_l = net(Σ z_i, z_H + x), six states    | z_H = net(z_H, Σ z_i)        |
| hrm      | z_L = L_level(z_L, z_H + x)              | z_H = H_level(z_H, z_L)      |

The order of cycles, gradient and halting is in `model`. Sources: the public code of TRM (trm, trm_singlez, trm_hier6) and of HRM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import cast

from torch import Tensor

from laser_studio.trm.config import TRMConfig
from laser_studio.trm.layers import CosSin, ReasoningNet, TwoNets


@dataclass(frozen=True)
class States:
    """z_H, z_L: (B, P + T, D). levels: of hier6 its six low states, whose sum z_L is; else empty. Of singlez z_L is the only state."""

    z_H: Tensor
    z_L: Tensor
    levels: tuple[Tensor, ...] = ()


def summed(levels: tuple[Tensor, ...]) -> Tensor:
    """The low states of hier6 as its net reads them, added in order."""
    return reduce(add, levels)


def low_injection(config: TRMConfig, states: States, x: Tensor) -> Tensor:
    """What the low updates of an H cycle add to their state: z_H rests meanwhile, so one sum serves them all."""
    return x if config.variant == "singlez" else states.z_H + x


def low_net(net: ReasoningNet | TwoNets) -> ReasoningNet:
    """The net of the low updates."""
    return net.L_level if isinstance(net, TwoNets) else net


def high_net(net: ReasoningNet | TwoNets) -> ReasoningNet:
    """The net of the update that ends an H cycle."""
    return net.H_level if isinstance(net, TwoNets) else net


def update_low(config: TRMConfig, net: ReasoningNet | TwoNets, states: States, injection: Tensor, rope: CosSin | None, l: int) -> States:  # noqa: E741
    """The l-th low update of an H cycle, counted from 1."""
    new = cast(Tensor, low_net(net)(states.z_L, injection, rope))
    if config.variant != "hier6":
        return replace(states, z_L=new)
    levels = (*states.levels[: l - 1], new, *states.levels[l:])
    return replace(states, z_L=summed(levels), levels=levels)


def update_high(config: TRMConfig, net: ReasoningNet | TwoNets, states: States, rope: CosSin | None) -> States:
    """The update that ends an H cycle."""
    if config.variant == "singlez":
        new = cast(Tensor, net(states.z_L, None, rope))
        return States(new, new)
    return replace(states, z_H=cast(Tensor, high_net(net)(states.z_H, states.z_L, rope)))
