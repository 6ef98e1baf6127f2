"""Every rule of TRMConfig, with the words it is told in."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from laser_studio.errors import CheckpointError
from laser_studio.trm import TRMConfig
from tests.trm.helpers import small_config

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"vocab_size": 1}, r"vocab_size: .*greater than or equal to 2 \(got 1\)"),
    ({"seq_len": 0}, "seq_len"),
    ({"num_puzzle_identifiers": 0}, "num_puzzle_identifiers must be at least 1"),
    ({"H_cycles": 0}, "H_cycles"),
    ({"H_cycles": 10**9}, r"H_cycles: .*less than or equal to 1000 \(got 1000000000\)"),
    ({"L_cycles": 10**9}, "L_cycles"),
    ({"L_layers": 0}, "L_layers"),
    ({"L_layers": 10**6}, "L_layers"),
    ({"hidden_size": 30}, "hidden_size 30 is not divisible by num_heads 4"),
    ({"hidden_size": 12}, "rope needs an even head width, hidden_size / num_heads is 3"),
    ({"num_heads": 0}, "num_heads"),
    ({"expansion": 0.0}, "expansion"),
    ({"expansion": float("nan")}, "expansion"),
    ({"pos_encodings": "alibi"}, r"pos_encodings: .*'rope', 'learned' or 'none' \(got alibi\)"),
    ({"forward_dtype": "float16"}, "forward_dtype"),
    ({"mlp_t": True, "seq_len": None}, r"a mixer \(mlp_t\) has weights as wide as the sequence: give seq_len"),
    ({"pos_encodings": "learned", "seq_len": None}, "learned positions have one row per token: give seq_len"),
    ({"puzzle_emb_ndim": 65, "puzzle_emb_len": 2}, "puzzle_emb_ndim 65 does not fit puzzle_emb_len 2 × hidden_size 32"),
    ({"puzzle_emb_ndim": -1}, "puzzle_emb_ndim"),
    ({"halt_max_steps": 0}, "halt_max_steps"),
    ({"halt_exploration_prob": 1.5}, "halt_exploration_prob"),
    ({"rope_theta": float("inf")}, "rope_theta"),
    ({"H_cycle": 3}, "H_cycle: unexpected keyword argument"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^TRMConfig: .*{message}"):
        small_config(**changes)


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({"puzzle_emb_ndim": 0, "puzzle_emb_len": 16}, 0),
        ({"puzzle_emb_ndim": 32, "puzzle_emb_len": 0}, 1),
        ({"puzzle_emb_ndim": 33, "puzzle_emb_len": 0}, 2),
        ({"puzzle_emb_ndim": 33, "puzzle_emb_len": 5}, 5),
    ],
)
def test_prefix_length(changes: dict[str, Any], prefix: int) -> None:
    assert small_config(**changes).prefix_len == prefix


@pytest.mark.parametrize("spelling", [None, "None", "none", "null"])
def test_no_positions_in_every_spelling(spelling: str | None) -> None:
    assert small_config(pos_encodings=spelling).pos_encodings == "none"


def test_frozen_comparable_and_replaceable() -> None:
    config = small_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.H_cycles = 4  # type: ignore[misc]
    assert config == small_config()
    assert dataclasses.replace(config, H_cycles=4) != config
    with pytest.raises(CheckpointError, match="H_cycles"):
        dataclasses.replace(config, H_cycles=0)
    assert TRMConfig(**dataclasses.asdict(config)) == config


def test_a_mixer_needs_no_heads_that_divide() -> None:
    assert small_config(mlp_t=True, num_heads=5).mlp_t


def test_steps_per_supervision() -> None:
    assert small_config(H_cycles=3, L_cycles=6).steps_per_supervision == 21
