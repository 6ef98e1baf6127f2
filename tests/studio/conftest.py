"""A small random model on 4×4 Sudoku, in a folder as a user would name it, and a channel that offers it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from laser_studio.studio.catalogue import Catalogue, ModelEntry
from laser_studio.studio.channel import Channel
from laser_studio.studio.registry import Registry
from laser_studio.trm import TRM, TRMConfig, save_checkpoint


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: 2 supervision steps of 2 × (2 + 1) recursion steps, width 32."""
    torch.manual_seed(3)
    config = TRMConfig(
        vocab_size=6,
        seq_len=16,
        hidden_size=32,
        num_heads=2,
        H_cycles=2,
        L_cycles=2,
        halt_max_steps=2,
        puzzle_emb_len=0,
        forward_dtype="float32",
    )
    folder = tmp_path_factory.mktemp("models") / "small"
    save_checkpoint(TRM(config), folder, details={"task": "sudoku-4x4", "domain": "sudoku"})
    return folder


@pytest.fixture
def catalogue(small_checkpoint: Path) -> Catalogue:
    """Offers the small model twice, under two names."""
    return Catalogue([ModelEntry(name, small_checkpoint, name, ("sudoku", 4)) for name in ("small", "again")], device="cpu")


@pytest.fixture
def channel(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    # Time must not decide how far a request gets.
    for budget in ("STEP_BUDGET_SECONDS", "SEEK_BUDGET_SECONDS"):
        monkeypatch.setattr(f"laser_studio.studio.channel.{budget}", 60.0)
    channel = Channel(catalogue, Registry(capacity=4, grace_seconds=0))
    yield channel
    channel.registry.close_all()
