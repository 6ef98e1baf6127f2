"""The gradient check: nothing to find at k = D, what it reports against plain arithmetic, and the model left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from laser_studio.cli import app
from laser_studio.errors import TrainingError
from laser_studio.lab.gradcheck import closeness, gradcheck
from laser_studio.lab.tasks import get_task
from laser_studio.laser import LaserPolicy
from laser_studio.laser.policy import ALL_OFF
from laser_studio.trm import TRM, TRMConfig, save_checkpoint

DATA = get_task("sudoku-4x4").puzzles(24, 0, "held-out")


def model(mlp_t: bool = False, **changes: Any) -> TRM:
    values: dict[str, Any] = {
        "hidden_size": 32,
        "num_heads": 2,
        "H_cycles": 2,
        "L_cycles": 2,
        "forward_dtype": "float32",
        "halt_max_steps": 3,
    }
    return TRM(TRMConfig(vocab_size=6, seq_len=16, mlp_t=mlp_t, puzzle_emb_ndim=32, puzzle_emb_len=1, **(values | changes)), seed=3)


@pytest.mark.parametrize("mlp_t", [False, True])
@pytest.mark.parametrize("mode", ["linear", "block"])
def test_at_full_rank_there_is_nothing_to_find_and_nothing_is_left_behind(mlp_t: bool, mode: Any) -> None:
    subject = model(mlp_t).train()
    weights = {name: p.detach().clone() for name, p in subject.named_parameters()}
    state = torch.get_rng_state()
    found = gradcheck(subject, LaserPolicy(rank="100%", min_fidelity=0), DATA, mode=mode, batch_size=8, settle=2)
    assert [step.supervision for step in found.steps] == [1, 2, 3]
    assert found.worst_cosine > 1 - 1e-6 and max(step.whole.error for step in found.steps) < 1e-4
    assert set(found.by_parameter()) == set(weights)
    assert subject.training and all(p.grad is None for p in subject.parameters())
    assert all(torch.equal(p, weights[name]) for name, p in subject.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_lower_rank_is_farther_off_and_eight_bits_lie_between() -> None:
    def worst(rank: str, **options: Any) -> float:
        return gradcheck(model(), LaserPolicy(rank=rank, min_fidelity=0), DATA, batch_size=8, settle=2, **options).worst_cosine

    full, eight, half, low = worst("100%"), worst("100%", storage="int8"), worst("50%"), worst("12.5%")
    assert full > eight > half > low
    assert eight > 0.999


def test_closeness() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    assert closeness(a, b).cosine == pytest.approx(2**-0.5) and closeness(a, b).error == pytest.approx(2**-0.5)
    zero = torch.zeros(2)
    assert (closeness(zero, zero).cosine, closeness(zero, zero).error) == (1, 0)
    assert (closeness(zero, a).cosine, closeness(zero, a).error) == (0, 1)


def test_too_few_puzzles_are_refused() -> None:
    with pytest.raises(TrainingError, match="40 in all"):
        gradcheck(model(), LaserPolicy(), DATA, batch_size=20)


def test_the_command_prints_steps_and_parameters(tmp_path: Path) -> None:
    save_checkpoint(model(), tmp_path / "small", details={"task": "sudoku-4x4"})
    options = ["--puzzles", "4", "--settle", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, ["gradcheck", str(tmp_path / "small"), "--rank", "50%", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for mode in ("linear", "block"):
        assert f"{mode}, exact, rank 50%" in result.output
    assert result.output.count("net.layers.0.self_attn.qkv_proj.weight") == 2
    bad = CliRunner().invoke(app, ["gradcheck", str(tmp_path / "small"), "--mode", "sideways", *options])
    assert "linear or block" in str(bad.exception)
    bad = CliRunner().invoke(app, ["gradcheck", str(tmp_path / "small"), "--blocks", "--mode", "linear", *options])
    assert "--blocks is for mode block" in str(bad.exception)


def test_what_is_made_again_within_blocks_takes_bytes_and_next_to_nothing_of_the_gradient() -> None:
    places, blocks = (
        gradcheck(model(), LaserPolicy(sites=ALL_OFF), DATA, batch_size=8, settle=2, storage="int8", blocks=blocks)
        for blocks in (False, True)
    )
    saved = [found.ledger.total.all_saved_bytes for found in (places, blocks)]
    assert saved[1] < 0.8 * saved[0]
    assert blocks.worst_cosine > 0.999
