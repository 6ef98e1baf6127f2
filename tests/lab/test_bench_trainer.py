"""The trainer's benchmark times equal work: both sides take the same steps."""

from __future__ import annotations

import pytest
import torch

from laser_studio.lab.bench_trainer import PLAIN, PlainTrainer, bench_trainer
from laser_studio.lab.tasks import get_task
from laser_studio.lab.train import Stage, Trainer, TrainSettings
from laser_studio.trm import TRMConfig


def test_every_case_once_with_both_sides() -> None:
    before = torch.get_rng_state()
    results = list(bench_trainer(task="sudoku-4x4", batch=2, hidden_size=64, cycles=(1, 1), repeats=2, device="cpu"))
    assert [(r.variant, r.dtype) for r in results] == [(v, d) for v in ("attention", "mixer") for d in ("float32", "bfloat16")]
    for result in results:
        assert [side.name for side in result.sides] == [PLAIN, "this trainer"]
        assert result.sides[0].ratio == 1 and all(side.seconds > 0 for side in result.sides)
        assert "batch 2" in str(result) and PLAIN in str(result)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mlp_t", [False, True])
def test_plain_steps_have_the_losses_of_the_trainer(mlp_t: bool) -> None:
    """Same weights, puzzles, halting and optimisers: the losses agree as long as rounding lets them."""
    task = get_task("sudoku-4x4")
    config = TRMConfig(
        vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_cycles=2, L_cycles=2, forward_dtype="float32", mlp_t=mlp_t,
        puzzle_emb_ndim=32, puzzle_emb_len=1, halt_max_steps=3, halt_exploration_prob=0.5,
    )  # fmt: skip
    settings = TrainSettings(batch_size=8, warmup=0, lr=1e-3)
    data = task.puzzles(30, 0, "train")
    ours = Trainer(config, settings, [Stage(0, data)], torch.device("cpu"))
    plain = PlainTrainer(config, settings, data, torch.device("cpu"))
    assert [plain.advance() for _ in range(12)] == pytest.approx([ours.advance() for _ in range(12)], rel=2e-3)
