"""The bench of compressed training: every arm once, exact ones exact, bytes in the order they must be in, the model left as it was."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from laser_studio.cli import app
from laser_studio.lab.bench_training import CHECKPOINTED, PLAIN, bench_training
from laser_studio.lab.tasks import get_task
from laser_studio.trm import TRM, TRMConfig


@pytest.mark.parametrize("mlp_t", [False, True], ids=["attention", "mixer"])
def test_every_arm_once(mlp_t: bool) -> None:
    config = TRMConfig(
        vocab_size=6, seq_len=16, hidden_size=64, num_heads=2, H_cycles=2, L_cycles=3, forward_dtype="float32", mlp_t=mlp_t,
        puzzle_emb_ndim=64, puzzle_emb_len=2, halt_max_steps=2, expansion=2.0,
    )  # fmt: skip
    model = TRM(config, seed=0)
    before, state = {name: p.detach().clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    result = bench_training(model, get_task("sudoku-4x4"), ranks=("25%",), batch=24, repeats=2, settle=2)
    arms = {arm.name: arm for arm in result.arms}
    assert list(arms) == [
        PLAIN, CHECKPOINTED, "rebuild only", "rebuild from int8", "linear, rank 25%", "block, rank 25%", "block, rank 25%, int8"
    ]  # fmt: skip
    assert arms[PLAIN].saving == 0 and arms[PLAIN].timing.ratio == 1
    for name in (PLAIN, CHECKPOINTED, "rebuild only"):
        assert arms[name].worst > 1 - 1e-9
    assert arms["rebuild from int8"].worst > 0.999
    bytes_of = [arms[name].saved_bytes for name in (PLAIN, "linear, rank 25%", "rebuild only", "rebuild from int8")]
    assert bytes_of == sorted(bytes_of, reverse=True) and len(set(bytes_of)) == 4
    assert arms["block, rank 25%, int8"].saved_bytes < arms["block, rank 25%"].saved_bytes < arms["rebuild only"].saved_bytes
    assert arms["block, rank 25%"].cosine < arms["linear, rank 25%"].cosine < 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert "quartiles" in str(result) and len(str(result).splitlines()) == 9


def test_the_command_runs_on_fresh_weights() -> None:
    options = ["--task", "sudoku-4x4", "--hidden-size", "64", "--l-cycles", "1", "--rank", "50%", "--batch", "2", "--repeats", "1"]
    result = CliRunner().invoke(app, ["bench", "training", *options, "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0 and "block, rank 50%, int8" in result.output
