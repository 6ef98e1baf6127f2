"""A tiny attention model and mixer on 4×4 Sudoku: enough to run the whole engine in milliseconds."""

from __future__ import annotations

import pytest
import torch

from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM, TRMConfig


def tiny_model(seed: int = 0, *, mlp_t: bool = False) -> TRM:
    """Random weights; L_cycles 2, H_cycles 2, 4 supervision steps: 24 recursion steps."""
    config = TRMConfig(
        vocab_size=6,
        seq_len=16,
        hidden_size=32,
        num_heads=2,
        H_cycles=2,
        L_cycles=2,
        halt_max_steps=4,
        mlp_t=mlp_t,
        puzzle_emb_ndim=32,
        puzzle_emb_len=2,
        forward_dtype="float32",
    )
    model = TRM(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.q_head.weight.normal_(generator=generator)  # a fresh halting head is all zero, which would hide mistakes
    return model.eval()


@pytest.fixture
def model() -> TRM:
    return tiny_model()


@pytest.fixture
def puzzle() -> Puzzle:
    return get_domain("sudoku").generate(3, size=4, difficulty="easy")
