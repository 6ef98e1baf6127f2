"""Settings: ranges, parts of a width, and overrides per site."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from laser_studio.errors import PolicyError
from laser_studio.laser import LaserPolicy


@pytest.mark.parametrize(
    ("rank", "dim", "expected"),
    [
        (32, 128, 32),
        (200, 128, 128),
        ("25%", 128, 32),
        ("25%", 36, 9),
        ("0.1%", 128, 1),
        ("100%", 7, 7),
        (" 12 ", 128, 12),
        ("12.5 %", 64, 8),
    ],
)
def test_a_rank_is_a_number_or_a_part_and_is_clamped_to_the_width(rank: int | str, dim: int, expected: int) -> None:
    assert LaserPolicy(rank=rank).rank_for(dim) == expected


def test_without_a_maximum_the_width_is_the_maximum() -> None:
    assert LaserPolicy().max_rank_for(40) == 40
    assert LaserPolicy(max_rank="50%").max_rank_for(128) == 64


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": -3}, "rank"),
        ({"rank": True}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"rank": float("nan")}, "rank"),
        ({"rank": "0%"}, "rank"),
        ({"rank": "101%"}, "rank"),
        ({"rank": "nan%"}, "rank"),
        ({"rank": "a lot"}, "rank"),
        ({"rank": 10**9}, "rank"),
        ({"min_fidelity": 1.01}, "min_fidelity"),
        ({"min_fidelity": -0.1}, "min_fidelity"),
        ({"min_fidelity": float("nan")}, "min_fidelity"),
        ({"patience": 0}, "patience"),
        ({"growth": 0}, "growth"),
        ({"max_rank": 31}, "max_rank 31 is below rank 32"),
        ({"rank": "50%", "max_rank": "25%"}, "max_rank 25% is below rank 50%"),
        ({"refresh": "epoch"}, "refresh"),
        ({"measure": "loss"}, "measure"),
        ({"seed": -1}, "seed"),
        ({"ranks": 3}, "ranks"),
        ({"sites": {"a": {"rank": 0}}}, "site 'a'"),
        ({"sites": {"a": {"max_rank": 8}}}, "site 'a'"),
        ({"sites": {"a": {"refresh": "step"}}}, "cannot set refresh"),
        ({"sites": {"a": {"enabled": "maybe"}}}, "enabled is true or false"),
        ({"sites": {"a": 3}}, "sites"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(PolicyError, match=name):
        LaserPolicy(**settings)


def test_a_maximum_below_the_rank_is_found_where_the_width_is_known() -> None:
    policy = LaserPolicy(rank="50%", max_rank=40)
    assert policy.max_rank_for(80) == 40
    with pytest.raises(PolicyError, match="max_rank 40 is 40 at a site of width 128, below its rank 64"):
        policy.max_rank_for(128)


def test_later_overrides_win_and_the_rest_stays() -> None:
    policy = LaserPolicy(
        rank=20, patience=5, sites={"*.down": {"rank": 8, "enabled": False}, "a.down": {"enabled": True}, "b.?p": {"min_fidelity": 0.5}}
    )
    assert policy.for_site("a.down") == LaserPolicy(rank=8, patience=5)
    assert policy.for_site("b.up") == LaserPolicy(rank=20, patience=5, min_fidelity=0.5)
    assert policy.for_site("other") == LaserPolicy(rank=20, patience=5)
    assert [policy.enabled_for(name) for name in ("a.down", "b.down", "b.up")] == [True, False, True]


def test_a_policy_is_frozen_and_can_be_replaced() -> None:
    policy = LaserPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.rank = 3  # type: ignore[misc]
    assert dataclasses.replace(policy, rank=3) == LaserPolicy(3)
    with pytest.raises(PolicyError, match="rank"):
        dataclasses.replace(policy, rank=0)
