"""A checkpoint whose puzzle embedding is nearly all of it: only the rows asked for are read, and memory stays that of the network."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from laser_studio.errors import CheckpointError
from laser_studio.trm import TRM, CheckpointNeeds, load_checkpoint, save_checkpoint
from laser_studio.trm.checkpoints import known_tasks, official_weights
from tests.trm.helpers import small_model

ROWS, WIDTH = 200_000, 512  # 409.6 MB, of which the disk holds next to nothing
TRAINED = {0: 0.0, 7: 1.5, 123_456: -2.0, ROWS - 1: 3.25}
NAMES = ["<blank>", "00576224", "00576224|||t1|||0213456789", "007bbfb7", "009d5c81", "00dbd492", "03560426", "05a7bcf2"]


def arc_model() -> TRM:
    sizes = {"vocab_size": 12, "hidden_size": WIDTH, "num_heads": 8, "L_layers": 1, "puzzle_emb_ndim": WIDTH, "puzzle_emb_len": 2}
    return small_model(**sizes, num_puzzle_identifiers=1, seq_len=None)


def write_sparse(file: Path, weights: dict[str, Tensor], big: str, rows: dict[int, float]) -> None:
    """What torch.save would write, with a hole in the file where `big` is zero."""
    plan = file.with_suffix(".plan")
    with torch.serialization.skip_data():
        torch.save(weights | {big: torch.empty(ROWS, WIDTH)}, plan)
    with zipfile.ZipFile(plan) as archive:
        small = {name: archive.read(name) for name in archive.namelist() if "/data/" not in name}
    plan.unlink()
    root = next(iter(small)).partition("/")[0]
    contents: dict[str, bytes | dict[int, bytes]] = {**small}
    for place, tensor in enumerate(weights.values()):
        contents[f"{root}/data/{place}"] = tensor.detach().contiguous().numpy().tobytes()
    pitch = WIDTH * 4
    contents[f"{root}/data/{len(weights)}"] = {row * pitch: torch.full((WIDTH,), value).numpy().tobytes() for row, value in rows.items()}
    directory = b""
    with file.open("wb") as stream:
        for name, content in contents.items():
            size = len(content) if isinstance(content, bytes) else ROWS * pitch
            pieces = {0: content} if isinstance(content, bytes) else content
            checksum, reached, at = 0, 0, stream.tell()
            for place, piece in sorted(pieces.items()):
                checksum = zlib.crc32(piece, _zeros(place - reached, checksum))
                reached = place + len(piece)
            checksum = _zeros(size - reached, checksum)
            middle = struct.pack("<HHHHIIIHH", 0, 0, 0, 0x21, checksum, size, size, len(name), 0)
            stream.write(b"PK\x03\x04" + struct.pack("<H", 20) + middle + name.encode())
            start = stream.tell()
            for place, piece in pieces.items():
                stream.seek(start + place)
                stream.write(piece)
            stream.seek(start + size)
            stream.truncate()
            directory += b"PK\x01\x02" + struct.pack("<HH", 20, 20) + middle + struct.pack("<HHHII", 0, 0, 0, 0, at) + name.encode()
        end = stream.tell()
        stream.write(directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(contents), len(contents), len(directory), end, 0))


def _zeros(count: int, checksum: int) -> int:
    """The checksum once so many zeros have been added."""
    block = bytes(1 << 22)
    while count > 0:
        checksum = zlib.crc32(block[: min(count, len(block))], checksum)
        count -= len(block)
    return checksum


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("arc"), arc_model()
    weights = {f"inner.{name}": value for name, value in official_weights(model).items() if not name.startswith("puzzle_emb")}
    write_sparse(folder / "step_9", weights, "inner.puzzle_emb.weights", TRAINED)
    config = model.config
    names = [
        "H_cycles",
        "L_cycles",
        "L_layers",
        "hidden_size",
        "num_heads",
        "expansion",
        "pos_encodings",
        "forward_dtype",
        "puzzle_emb_ndim",
        "puzzle_emb_len",
    ]
    arch = {name: getattr(config, name) for name in (*names, "halt_max_steps")} | {"name": "recursive_reasoning.trm@X"}
    (folder / "all_config.yaml").write_text(yaml.safe_dump({"arch": arch}))
    assert (folder / "step_9").stat().st_size > 400_000_000
    assert (folder / "step_9").stat().st_blocks * 512 < 60_000_000
    return folder


def test_a_trained_task_has_to_be_chosen(large: Path) -> None:
    with pytest.raises(CheckpointNeeds, match="has a puzzle embedding of 200,000 rows, one per trained task") as caught:
        load_checkpoint(large, device="cpu")
    (need,) = caught.value.needs
    assert need.name == "task" and need.proposed is None and "numbers 0 to 199,999" in str(caught.value)
    (large / "identifiers.json").write_text(json.dumps(NAMES))
    try:
        assert known_tasks(large) == NAMES
        with pytest.raises(CheckpointNeeds, match=r"identifiers\.json names 00576224, 007bbfb7, ") as caught:
            load_checkpoint(large, device="cpu")
        assert caught.value.needs[0].choices == tuple(name for name in NAMES[1:] if "|||" not in name)
        model = load_checkpoint(large, device="cpu", task="05a7bcf2")
        assert model.details["tasks"] == ["05a7bcf2"] and model.details["puzzle_identifiers"] == [7]
        assert model.embedding.puzzles is not None and (model.embedding.puzzles == 1.5).all() and len(model.embedding.puzzles) == 1
        with pytest.raises(CheckpointError, match="has no task 00576225: it has 00576224"):
            load_checkpoint(large, device="cpu", task="00576225")
    finally:
        (large / "identifiers.json").unlink()


def test_rows_by_number(large: Path, tmp_path: Path) -> None:
    model = load_checkpoint(large, device="cpu", puzzle_identifiers=[ROWS - 1, 7, 123_456])
    assert model.embedding.puzzles is not None
    assert model.embedding.puzzles[:, 0].tolist() == [3.25, 1.5, -2.0]
    assert model.config.num_puzzle_identifiers == 3
    for name, value in official_weights(arc_model()).items():
        if not name.startswith("puzzle_emb"):
            assert torch.equal(official_weights(model)[name], value), name
    save_checkpoint(model, tmp_path)
    again = load_checkpoint(tmp_path, device="cpu", puzzle_identifiers=[2])
    assert again.embedding.puzzles is not None and again.embedding.puzzles[0, 0] == -2.0
    assert "blank puzzle identifier" in load_checkpoint(large, device="cpu", task=0).details["warnings"][0]
    for wrong, message in (([ROWS], "identifiers 0 to 199999, not 200000"), ([-1], "not -1"), ([], "1 to 4096"), (["a"], "whole numbers")):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(large, device="cpu", puzzle_identifiers=wrong)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not both"):
        load_checkpoint(large, device="cpu", puzzle_identifiers=[1], task=1)


_MEASURE = """
import sys, torch
from laser_studio.trm import load_checkpoint
def high():
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
load_checkpoint(sys.argv[2], device="cpu")  # whatever a first load takes for good
open("/proc/self/clear_refs", "w").write("5")
before = high()
model = load_checkpoint(sys.argv[1], device="cpu", task=7)
assert model.embedding.puzzles[0, 0] == 1.5
print(high() - before, sum(value.nbytes for value in model.state_dict().values()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the highest memory since a moment")
def test_memory_is_that_of_the_network(large: Path, tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _MEASURE, str(large), str(tmp_path)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    peak, network = map(int, told.split())
    print(f"peak {peak / 1e6:.1f} MB, network {network / 1e6:.1f} MB")
    assert network > 10_000_000
    assert peak <= network + (64 << 20)


def test_inspection_leaves_it_in_the_file(large: Path) -> None:
    from laser_studio.lab.inspection import inspect_checkpoint

    found = inspect_checkpoint(large)
    assert found.puzzle_rows == ROWS
    assert found.parameters["puzzle embedding"] == ROWS * WIDTH
    assert [need.name for need in found.needs] == ["task"]
    assert any("blank row 0 it scores 0 %" in warning for warning in found.warnings)
