"""What all tests share: one thread, fixed seeds, and the rule for a missing browser."""

from __future__ import annotations

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # has to be there before anything imports Triton

from tests.chromium import require_chromium

# The same examples on every run, and no deadline: a busy machine is no reason to fail.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("fixed")

# One thread: small products gain nothing from more, and sums are then the same on every machine with this CPU.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same global generators, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the system's Chromium. Where there is none the test fails under CI and is skipped elsewhere."""
    return require_chromium(os.environ)
