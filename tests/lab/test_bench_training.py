"""The bench of compressed training: every arm once, exact ones exact, bytes in the order they must be in, the model left as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from laser_studio.assets import asset_path
from laser_studio.cli import app
from laser_studio.errors import TrainingError
from laser_studio.lab.bench_training import bench_training, fresh_model
from laser_studio.lab.front import Tolerance
from laser_studio.lab.tasks import get_task
from laser_studio.lab.training_rivals import BUDGETS, CHECKPOINTED, EIGHT_BITS, FUSED, ON_CPU, PLAIN
from laser_studio.trm import TRM, TRMConfig

BUDGETED = [f"budget {cosine}" for cosine in BUDGETS]


@pytest.mark.slow
@pytest.mark.parametrize("mlp_t", [False, True], ids=["attention", "mixer"])
def test_every_arm_once(mlp_t: bool) -> None:
    config = TRMConfig(
        vocab_size=6, seq_len=16, hidden_size=64, num_heads=2, H_cycles=2, L_cycles=3, forward_dtype="float32", mlp_t=mlp_t,
        puzzle_emb_ndim=64, puzzle_emb_len=2, halt_max_steps=2, expansion=2.0,
    )  # fmt: skip
    model = TRM(config, seed=0)
    before, state = {name: p.detach().clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    told: list[tuple[int, int, str]] = []
    result = bench_training(
        model, get_task("sudoku-4x4"), ranks=("25%",), batch=24, repeats=1, settle=2, watch=lambda *what: told.append(what)
    )
    arms = {arm.name: arm for arm in result.arms}
    assert list(arms) == [
        PLAIN, CHECKPOINTED, EIGHT_BITS, FUSED, "rebuild only", "rebuild from int8", "rebuild from int4",
        "rebuild blocks from int8", "rebuild blocks from int4",
        *BUDGETED, "linear, rank 25%", "block, rank 25%", "block, rank 25%, int8", "fixed basis, rank 25%", "fixed basis, rank 25%, int8",
        "fresh svd_lowrank, rank 25%", "random basis, rank 25%", "random basis, linear, rank 25%",
    ]  # fmt: skip
    assert arms[PLAIN].saving == 0 and arms[PLAIN].timing.ratio == 1
    for name in (PLAIN, CHECKPOINTED, FUSED, "rebuild only"):
        assert arms[name].worst > 1 - 1e-9
    assert arms["rebuild from int8"].worst > 0.999 and 0.99 < arms[EIGHT_BITS].worst < 1 - 1e-9
    assert arms["rebuild blocks from int8"].worst > 0.999
    falling = [PLAIN, FUSED, EIGHT_BITS, "rebuild only", CHECKPOINTED]
    bits = ["rebuild only", "rebuild from int8", "rebuild blocks from int8", "rebuild blocks from int4"]
    bits = bits[:3] if mlp_t else bits  # four bits come 64 at a time, and a mixer's rows are 18 long here
    for names in (falling, [PLAIN, "linear, rank 25%", "rebuild only"], bits):
        bytes_of = [arms[name].saved_bytes for name in names]
        assert bytes_of == sorted(bytes_of, reverse=True) and len(set(bytes_of)) == len(bytes_of)
    assert arms["block, rank 25%, int8"].saved_bytes < arms["block, rank 25%"].saved_bytes < arms["rebuild only"].saved_bytes
    assert arms["fixed basis, rank 25%"].saved_bytes < arms["block, rank 25%"].saved_bytes  # no books
    assert arms["fixed basis, rank 25%"].saved_bytes == arms["random basis, rank 25%"].saved_bytes
    assert arms["block, rank 25%"].cosine < arms["linear, rank 25%"].cosine < 1
    for name in ("fixed basis, rank 25%", "fresh svd_lowrank, rank 25%"):
        assert arms["random basis, rank 25%"].cosine < arms[name].cosine < 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    chosen, told = [what for what in told if what[2].endswith("choosing")], [what for what in told if not what[2].endswith("choosing")]
    assert [name for _, _, name in chosen] == [f"{name}, choosing" for name in BUDGETED]
    assert [done for done, _, _ in told] == list(range(told[-1][1] + 1)) and {name for _, _, name in told} == set(arms)
    text = str(result)
    assert set(result.choices) == set(BUDGETED) and all(choice in text for choice in result.choices.values())
    rows = text.removesuffix("\n  ".join(("", *(f"{name}: {choice}" for name, choice in result.choices.items()))))
    assert "quartiles" in text and len(rows.splitlines()) == 2 + len(arms) + 2 and f"left out: {ON_CPU}: " in text
    assert "peak" not in text and all(arm.peak_bytes is None for arm in result.arms)  # CUDA's only


def test_the_table_names_who_dominates() -> None:
    """Read off the figures of a run, so that the marks cannot say anything else than the figures."""
    model = fresh_model(get_task("sudoku-4x4"), variant="attention", dtype="float32", hidden_size=64, l_cycles=1, device="cpu")
    all_equal = Tolerance(1e9, 1e9, 2)
    arms = ["block*", FUSED]
    result = bench_training(model, get_task("sudoku-4x4"), ranks=("50%",), patterns=arms, batch=4, repeats=1, tolerance=all_equal)
    assert not any(arm.dominated_by for arm in result.arms)
    times_equal = Tolerance(0, 1e9, 0)
    result = bench_training(model, get_task("sudoku-4x4"), ranks=("50%",), patterns=[FUSED], batch=4, repeats=1, tolerance=times_equal)
    plain, fused = result.arms
    assert fused.saved_bytes < plain.saved_bytes
    if fused.cosine >= plain.cosine:  # to the last bit
        assert plain.dominated_by == (FUSED,) and str(result).splitlines()[2].endswith(FUSED)
    assert not fused.dominated_by and str(result).splitlines()[3].endswith("*")


def command(*options: str) -> Result:
    shape = ["--task", "sudoku-4x4", "--batch", "2", "--repeats", "1", "--device", "cpu"]
    return CliRunner().invoke(app, ["bench", "training", *shape, *options], catch_exceptions=False)


SMALL = ("--hidden-size", "64", "--rank", "50%")


@pytest.mark.slow
def test_the_command_makes_a_case_of_each_combination(tmp_path: Path) -> None:
    file = tmp_path / "new" / "figures.json"
    options = ["--variant", "attention", "--variant", "mixer", "--unroll", "2", "--unroll", "3", "--dtype", "bfloat16"]
    result = command(*SMALL, *options, "--arms", "block*", "--arms", "fused*", "--json", str(file))
    assert result.exit_code == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["format"] == "laser-studio-bench-training" and len(record["cases"]) == 4
    found = [(case["setup"]["model"]["mlp_t"], case["setup"]["unroll"], case["setup"]["model"]["L_cycles"]) for case in record["cases"]]
    assert found == [(False, 2, 1), (False, 3, 2), (True, 2, 1), (True, 3, 2)]
    for case in record["cases"]:
        assert case["case"] in result.output and case["setup"]["model"]["forward_dtype"] == "bfloat16" and case["setup"]["tokens"] == 32
        assert [arm["name"] for arm in case["arms"]] == [PLAIN, FUSED, "block, rank 50%", "block, rank 50%, int8"]
        assert case["arms"][0]["saved_bytes"] > case["arms"][2]["saved_bytes"] > 0
    assert [each.name for each in file.parent.iterdir()] == [file.name]  # no unfinished files


def test_a_checkpoint_can_be_unrolled_further() -> None:
    folder = str(asset_path("checkpoints", "sudoku-6x6"))
    result = CliRunner().invoke(
        app, ["bench", "training", folder, "--unroll", "2", "--arms", "rebuild from*", "--batch", "2", "--repeats", "1", "--device", "cpu"]
    )
    assert (
        result.exit_code == 0 and "cycles 3×1 (2 net applications with gradient)" in result.output and "rebuild from int8" in result.output
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["CHECKPOINT", "--variant", "mixer"], "of fresh weights"),
        (["--unroll", "3", "--l-cycles", "2"], "give one of them"),
        ([*SMALL, "--variant", "mixed"], "a variant is attention or mixer, not 'mixed'"),
        ([*SMALL, "--arms", "nothing"], "no arm is called 'nothing': there are plain autograd; "),
        ([*SMALL, "--l-cycles", "1", "--arms", "plain*", "--json", "{folder}"], "cannot be written"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        command(*(option.format(folder=tmp_path) for option in options))


def test_models_of_tasks_with_identifiers_can_be_made() -> None:
    task = get_task("arc-3")
    model = fresh_model(task, variant="attention", dtype="float32", hidden_size=64, l_cycles=1, device="cpu")
    assert model.config.num_puzzle_identifiers == task.identifiers() > 1
    result = bench_training(model, task, ranks=("50%",), patterns=["fused*"], batch=2, repeats=1)
    assert "25 tokens" in result.case
