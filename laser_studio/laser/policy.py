"""The settings of the LASER rule, for all sites and per site. Ranges and help live here; what they do is in `rule`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from laser_studio.errors import PolicyError
from laser_studio.settings import setting, settings

Rank = int | str
RANK_LIMIT = 65_536
ALL_OFF: Mapping[str, Mapping[str, Any]] = {"*": {"enabled": False}}
"""`LaserPolicy.sites` that switch every site off; entries after it switch single ones on again."""


@settings(PolicyError)
class LaserPolicy:
    """Settings of one tracker or, with overrides, of all trackers of a model.

    >>> policy = LaserPolicy(rank="25%", sites={"*.down_proj": {"rank": 16}, "layers.0.self_attn.o_proj": {"enabled": False}})
    >>> policy.rank_for(128), policy.for_site("layers.1.mlp.down_proj").rank, policy.enabled_for("layers.0.self_attn.o_proj")
    (32, 16, False)

    Ranks are a number of directions or, as "25%", a part of each site's width. `sites` maps a site's name, or a
    pattern with * and ?, to the settings that differ there (a later entry wins); `"enabled": False` switches it off.

    Raises `PolicyError` naming each setting outside its range.
    """

    rank: Rank = setting(
        default=32, unit="directions", help="Directions of a basis at the start, or a part of the site's width such as 25%."
    )
    min_fidelity: float = setting(default=0.97, low=0, high=1, help="Fidelity ε below which a window is a miss.")
    patience: int = setting(
        default=3, low=1, high=1_000, unit="windows", help="Misses in a row before a reset, and windows of rest after it."
    )
    growth: int = setting(default=8, low=1, high=4_096, unit="directions", help="Directions added at a miss.")
    max_rank: Rank | None = setting(
        default=None, unit="directions", help="Most directions, as a number or a part; empty: the site's width."
    )
    refresh: Literal["step", "cycle", "supervision"] = setting(
        default="cycle", help="A window: one recursion step, H cycle or supervision step."
    )
    measure: Literal["energy", "centred", "functional"] = setting(
        default="energy", help="Fidelity the rule reads: of all energy, with the mean removed, or of the model's answer."
    )
    turn: float = setting(
        default=0.01,
        low=0,
        high=1,
        help="Fall below the last window's fidelity at which a basis turns at once, not only at the refresh; 1: never.",
    )
    release: bool = setting(default=False, help="Let the rank shrink again, down to the start rank, when directions are not needed.")
    seed: int = setting(default=0, low=0, high=2**63 - 1, help="Seed of what is drawn at random; the global random state is never used.")
    sites: Mapping[str, Mapping[str, Any]] = setting(default={}, help="Settings that differ at single sites.")

    @field_validator("rank", "max_rank", mode="before")
    @classmethod
    def _readable_rank(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise ValueError(f'a rank is a whole number or a part such as "25%", not {value!r:.80}')
        if isinstance(value, str):
            text = value.strip()
            if text.isdecimal():
                value = int(text)
            elif not 0 < _part(text) <= 1:
                raise ValueError('a part of the width is above 0% and at most 100%, such as "25%"')
            else:
                value = text
        if isinstance(value, int) and not 1 <= value <= RANK_LIMIT:
            raise ValueError(f"a rank lies between 1 and {RANK_LIMIT}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_rank is not None and isinstance(self.rank, int) == isinstance(self.max_rank, int):
            same_kind = (self.rank, self.max_rank) if isinstance(self.rank, int) else (_part(str(self.rank)), _part(str(self.max_rank)))
            if same_kind[1] < same_kind[0]:  # type: ignore[operator]  # both int or both float
                raise ValueError(f"max_rank {self.max_rank} is below rank {self.rank}: raise the one or lower the other")
        for name, override in self.sites.items():
            foreign = sorted(set(override) - _OVERRIDABLE)
            if foreign:
                wrong, right = ", ".join(map(str, foreign))[:200], ", ".join(sorted(_OVERRIDABLE))
                raise ValueError(f"site {name!r:.80} cannot set {wrong}; it can set {right}")
            if not isinstance(override.get("enabled", True), bool):
                raise ValueError(f"site {name!r:.80}: enabled is true or false")
        return self

    def __post_init__(self) -> None:
        # Every override must make a valid policy now, not at the first forward that meets its site.
        for name in self.sites:
            try:
                self.for_site(name)
            except PolicyError as error:
                raise PolicyError(f"site {name!r:.80}: {error}") from None

    def rank_for(self, dim: int) -> int:
        """The start rank at a site of width `dim`, between 1 and `dim`."""
        return _absolute(self.rank, dim)

    def max_rank_for(self, dim: int) -> int:
        """The largest rank at a site of width `dim`. Raises `PolicyError` where it lies below the start rank there."""
        most = dim if self.max_rank is None else _absolute(self.max_rank, dim)
        if most < self.rank_for(dim):
            raise PolicyError(
                f"max_rank {self.max_rank} is {most} at a site of width {dim}, below its rank {self.rank_for(dim)} ({self.rank}): "
                "raise max_rank or lower rank"
            )
        return most

    def for_site(self, name: str) -> LaserPolicy:
        """The policy in force at site `name`: overrides applied, none left in `sites`."""
        changes = {key: value for override in self._overrides(name) for key, value in override.items() if key != "enabled"}
        return dataclasses.replace(self, sites={}, **changes) if self.sites else self

    def enabled_for(self, name: str) -> bool:
        """False where an override switches site `name` off."""
        return [True, *(override["enabled"] for override in self._overrides(name) if "enabled" in override)][-1]

    def check_sites(self, widths: Mapping[str, int], others: Iterable[str] = ()) -> None:
        """Raise `PolicyError` where an override speaks of no site, or a site is too narrow for its ranks.

        widths: of the sites by name; others: further names that overrides may speak of.
        """
        known = [*widths, *others]
        idle = [pattern for pattern in self.sites if not any(self.matches(pattern, name) for name in known)]
        if idle:
            raise PolicyError(f"no site is called {', '.join(map(repr, idle))[:200]}; the sites are {', '.join(known)[:400]}")
        for name, width in widths.items():
            if self.enabled_for(name):
                try:
                    self.for_site(name).max_rank_for(width)
                except PolicyError as error:
                    raise PolicyError(f"site {name}: {error}") from None

    def _overrides(self, name: str) -> list[Mapping[str, Any]]:
        return [override for pattern, override in self.sites.items() if self.matches(pattern, name)]

    @staticmethod
    def matches(pattern: str, name: str) -> bool:
        """Whether a key of `sites` speaks of site `name`."""
        return pattern == name or fnmatchcase(name, pattern)


# Not `refresh`: the caller closes the windows of all sites at once.
_OVERRIDABLE = {"enabled", "rank", "min_fidelity", "patience", "growth", "max_rank", "measure", "turn", "release", "seed"}


def _part(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f'a rank is a whole number or a part such as "25%", not {text!r:.80}')
    return value


@lru_cache(maxsize=1024)
def _absolute(rank: Rank, dim: int) -> int:
    wanted = rank if isinstance(rank, int) else round(_part(rank) * dim)
    return min(max(wanted, 1), dim)
