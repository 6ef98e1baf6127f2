"""`inspect` and `convert` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from laser_studio.cli import app, checkpoints
from laser_studio.errors import CheckpointError
from laser_studio.trm import CheckpointNeeds, load_checkpoint
from tests.trm.helpers import LENGTH, small_model, write_official
from tests.trm.test_checkpoints import same
from tests.trm.test_variants import variant_model, written


def run(*words: object, **options: Any) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("variant", ["trm", "singlez", "hier6", "hrm"])
def test_there_and_back(tmp_path: Path, variant: str) -> None:
    model = small_model() if variant == "trm" else variant_model(variant)
    file = write_official(tmp_path, model) if variant == "trm" else written(tmp_path, model)
    output = run("convert", file, tmp_path / "own", "--seq-len", LENGTH)
    assert f"variant {variant}" in run("inspect", tmp_path / "own").replace("\n", " ")
    assert f"{variant}: " in output
    same(load_checkpoint(tmp_path / "own", device="cpu"), model)
    run("convert", tmp_path / "own", tmp_path / "official", "--to", "official", "--step", 12)
    assert (tmp_path / "official" / "step_12").is_file()
    same(load_checkpoint(tmp_path / "official", device="cpu", seq_len=LENGTH), model)


def test_answers_by_option(tmp_path: Path) -> None:
    model = small_model(puzzle_emb_len=2)
    file = write_official(tmp_path, model)
    (tmp_path / "all_config.yaml").unlink()
    with pytest.raises(CheckpointNeeds, match=r"--assume H_cycles=3 .*or --official for all official values"):
        run("convert", file, tmp_path / "own")
    assert not (tmp_path / "own").exists()
    told: dict[str, Any] = {"H_cycles": 2, "L_cycles": 2, "halt_max_steps": 3, "num_heads": 4}
    told |= {"pos_encodings": "rope", "puzzle_emb_len": 2, "forward_dtype": "float32"}
    words = [word for name, value in told.items() for word in ("--assume", f"{name}={value}")]
    run("convert", file, tmp_path / "own", *words)
    same(load_checkpoint(tmp_path / "own", device="cpu"), model)
    run("convert", file, tmp_path / "guess", "--official", "--assume", "num_heads=4")
    assert load_checkpoint(tmp_path / "guess", device="cpu").config.H_cycles == 3
    with pytest.raises(CheckpointError, match="nothing is called heads here"):
        run("convert", file, tmp_path / "other", *words, "--assume", "heads=4")


def test_answers_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(puzzle_emb_len=16)
    file = write_official(tmp_path, model)
    (tmp_path / "all_config.yaml").unlink()
    monkeypatch.setattr(checkpoints, "_at_terminal", lambda: True)
    output = run("convert", file, tmp_path / "own", input="2\n2\n3\n4\n\n\nfloat32\n")  # places and prefix as proposed
    assert "H_cycles: cycles that end in an update of z_H, per supervision step [3]:" in output
    assert "forward_dtype: dtype of states and matrix products (bfloat16, float32) [bfloat16]:" in output
    same(load_checkpoint(tmp_path / "own", device="cpu"), model)


def test_single_rows_of_the_puzzle_embedding(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    run("convert", file, tmp_path / "one", "--task", "2")
    run("convert", file, tmp_path / "two", "--puzzle-identifier", 3, "--puzzle-identifier", 1)
    rows = small_model().embedding.puzzles
    for name, kept in (("one", [2]), ("two", [3, 1])):
        loaded = load_checkpoint(tmp_path / name, device="cpu").embedding.puzzles
        assert loaded is not None and rows is not None
        assert loaded.tolist() == rows[kept].tolist()


def test_plain_data(tmp_path: Path) -> None:
    record = json.loads(run("inspect", write_official(tmp_path, small_model()), "--json"))
    assert record["source"] == "official" and record["needs"] == []
    assert record["sites"][0] == {"name": "layers.0.self_attn.qkv_proj", "inputs": 32, "outputs": 96, "applications": 6}


def test_faults(tmp_path: Path) -> None:
    file = write_official(tmp_path, small_model())
    for words, message in (
        (("--to", "gguf"), "'gguf' is no format that can be written"),
        (("--to", "official", "--half"), "the official format holds full precision"),
        (("--task", "x"), "no identifiers.json beside step_7"),
    ):
        with pytest.raises(CheckpointError, match=message):
            run("convert", file, tmp_path / "own", *words)
    assert CliRunner().invoke(app, ["convert", str(file), str(tmp_path / "own"), "--assume", "H_cycles"]).exit_code == 2
