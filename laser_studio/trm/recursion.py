"""How states and nets go together, for TRM and its relatives: what one net application reads and what it replaces.

| variant         | l-th update within an H cycle            | update at its end            |
| --------------- | ---------------------------------------- | ---------------------------- |
| trm, lucidrains | z_L = net(z_L, z_H + x)           | z_H = net(z_H, z_L)          |
| singlez         | z = net(z, x)                            | z = net(z), read as z_H      |
| hier6           | z_l = net(Σ z_i, z_H + x), six states    | z_H = net(z_H, Σ z_i)        |
| hrm             | z_L = L_level(z_L, z_H + x)              | z_H = H_level(z_H, z_L)      |

The order of cycles, gradient and halting is in `model`. Sources: the public code of TRM (trm, trm_singlez, trm_hier6) and of HRM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

from torch import Tensor

from laser_studio.trm.config import TRMConfig
from laser_studio.trm.layers import Net, PreNormNet, ReasoningNet, TwoNets


@dataclass(frozen=True)
class States:
    """z_H, z_L: (B, P + T, D). levels: of hier6 its six low states, whose sum z_L is; else empty. Of singlez z_L is the only state."""

    z_H: Tensor
    z_L: Tensor
    levels: tuple[Tensor, ...] = ()

    def map(self, change: Callable[[Tensor], Tensor]) -> States:
        """The same change made to each state."""
        return States(change(self.z_H), change(self.z_L), tuple(change(level) for level in self.levels))


def summed(levels: tuple[Tensor, ...]) -> Tensor:
    """The low states of hier6 as its net reads them, added in order."""
    return reduce(add, levels)


def net_of(net: Net, l: int | Literal["H"]) -> ReasoningNet | PreNormNet:  # noqa: E741
    """The net that is applied at l."""
    if isinstance(net, TwoNets):
        return net.H_level if l == "H" else net.L_level
    return net


def low_injection(config: TRMConfig, states: States, x: Tensor) -> Tensor:
    """What the low updates of an H cycle add to their state, x the embedded puzzle: z_H rests meanwhile, so one sum serves them all."""
    return x if config.variant == "singlez" else states.z_H + x


def reads(config: TRMConfig, states: States, injection: Tensor | None, l: int | Literal["H"]) -> tuple[Tensor, Tensor | None]:  # noqa: E741
    """The state and the injection that the application at l is given; `injection`: that of the low updates, which "H" does not need."""
    if l != "H":
        return states.z_L, injection
    return (states.z_L, None) if config.variant == "singlez" else (states.z_H, states.z_L)


def replaced(config: TRMConfig, states: States, new: Tensor, l: int | Literal["H"]) -> States:  # noqa: E741
    """The states once the application at l has given `new`."""
    if config.variant == "singlez":
        return States(new, new) if l == "H" else replace(states, z_L=new)
    if l == "H":
        return replace(states, z_H=new)
    if config.variant != "hier6":
        return replace(states, z_L=new)
    place = (l - 1) % len(states.levels)  # an edited run may have more cycles than states
    levels = (*states.levels[:place], new, *states.levels[place + 1 :])
    return replace(states, z_L=summed(levels), levels=levels)


def changed(config: TRMConfig, states: States, which: Literal["H", "L"], value: Tensor) -> States:
    """The states with z_H or z_L set from outside; singlez has one state, of hier6 the first low state takes up the change of the sum."""
    if value is (states.z_H if which == "H" else states.z_L):
        return states
    if config.variant == "singlez":
        return States(value, value)
    if which == "H":
        return replace(states, z_H=value)
    if not states.levels:
        return replace(states, z_L=value)
    levels = (states.levels[0] + (value - states.z_L), *states.levels[1:])
    return replace(states, z_L=summed(levels), levels=levels)
