"""Some spoiled checkpoints of each container by seed; scripts/fuzz_checkpoints.py opens thousands."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
import torch

from laser_studio.errors import CheckpointError
from laser_studio.trm import load_checkpoint, save_checkpoint
from tests.attacks.mutations import mutated
from tests.trm.helpers import small_model, write_official

CASES = 24


def opened(file: Path) -> str:
    """ "" where it opens, else why not."""
    try:
        load_checkpoint(file, device="cpu")
    except CheckpointError as failure:
        return str(failure)
    return ""


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors"])
def test_spoiled_files_open_or_are_refused(tmp_path: Path, container: str) -> None:
    if container == "safetensors":
        save_checkpoint(small_model(), tmp_path)
        file = tmp_path / "model.safetensors"
    else:
        file = write_official(tmp_path, small_model())
    content = file.read_bytes()
    if container == "legacy":
        made = io.BytesIO()
        torch.save(torch.load(file, weights_only=True), made, _use_new_zipfile_serialization=False)
        content = made.getvalue()
    refused = 0
    for seed in range(CASES):
        file.write_bytes(mutated(content, container, seed))
        begin = time.process_time()
        message = opened(file)
        refused += bool(message)
        assert message.isprintable() and str(tmp_path) not in message
        assert time.process_time() - begin < 5
    assert CASES // 2 < refused < CASES  # both happen, or the cases would say nothing
    assert mutated(content, container, 3) == mutated(content, container, 3) != mutated(content, container, 4)
