"""Losses, optimisers and sets against plain restatements; training that learns, stops, and resumes to the identical curve."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from laser_studio.cli import app
from laser_studio.errors import TrainingError
from laser_studio.lab import runs
from laser_studio.lab.augment import SquareSymmetry, SudokuSymmetry, apply
from laser_studio.lab.data import maze_set, sudoku_set
from laser_studio.lab.evaluate import evaluate
from laser_studio.lab.losses import IGNORED, supervision_loss
from laser_studio.lab.optim import SignSGD, WeightAverage
from laser_studio.lab.recipes import PRESETS, get_recipe
from laser_studio.lab.runs import Observer, run
from laser_studio.lab.train import STATE_FILE, LaserSettings, Progress, Stage, Trainer, TrainSettings, fit
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.puzzles.sudoku_rules import count_solutions, split_of
from laser_studio.trm import TRM, Outputs, TRMConfig, load_checkpoint
from laser_studio.trm.stablemax import log_stablemax

CONFIG = TRMConfig(
    vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_cycles=2, L_cycles=2, halt_max_steps=3, forward_dtype="float32",
    puzzle_emb_ndim=32, puzzle_emb_len=1, halt_exploration_prob=0.5,
)  # fmt: skip
SETTINGS = TrainSettings(steps=8, batch_size=8, warmup=2, eval_every=4, save_every=3, lr=3e-3)
CPU = torch.device("cpu")


def tiny_trainer(settings: TrainSettings = SETTINGS, laser: LaserSettings | None = None) -> Trainer:
    stages = [Stage(0, sudoku_set(4, 40, 0, "train", (6, 10))), Stage(5, sudoku_set(4, 30, 1, "train", (8, 12)))]
    return Trainer(CONFIG, settings, stages, CPU, laser)


def test_stablemax_is_the_papers_formula() -> None:
    x = torch.tensor([[-3.0, 0.0, 2.5]])
    s = [1 / (1 + 3.0), 1.0, 3.5]
    expected = [math.log(v / sum(s)) for v in s]
    assert log_stablemax(x)[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert log_stablemax(x).dtype is torch.float64


def test_loss_is_the_mean_over_samples_of_cell_means_and_half_the_halting_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, q = torch.randn(3, 5, 6, generator=generator), torch.tensor([0.3, -2.0, 4.0])
    labels = torch.randint(0, 6, (3, 5), generator=generator)
    labels[1, :3] = IGNORED
    labels[2] = logits[2].argmax(-1)
    loss = supervision_loss(Outputs(logits, q, q), labels)
    expected = 0.0
    for b in range(3):
        cells = [t for t in range(5) if labels[b, t] != IGNORED]
        answer = -sum(float(log_stablemax(logits[b, t])[labels[b, t]]) for t in cells) / len(cells)
        target = float(all(int(logits[b, t].argmax()) == int(labels[b, t]) for t in cells))
        p = 1 / (1 + math.exp(-float(q[b])))
        expected += answer - 0.5 * (target * math.log(p) + (1 - target) * math.log(1 - p))
    assert float(loss.total) == pytest.approx(expected / 3, rel=1e-6)
    assert loss.exact.tolist() == [False, False, True]


@pytest.mark.parametrize("size", [4, 6, 9])
def test_sudoku_images_are_solutions_of_images_and_keep_their_side_of_the_split(size: int) -> None:
    domain = get_domain("sudoku")
    data = sudoku_set(size, 6, 0, "train", (size**2 // 2, size**2 // 2 + 4))
    generator = torch.Generator().manual_seed(1)
    assert data.symmetry is not None
    cells, names = data.symmetry.draw(len(data), generator)
    inputs, labels = apply(data.inputs, cells, names), apply(data.labels, cells, names)
    assert not torch.equal(inputs, data.inputs)
    for before, puzzle, solution in zip(data.inputs.tolist(), (inputs - 1).tolist(), (labels - 1).tolist(), strict=True):
        image = Puzzle("sudoku", size, size, tuple(puzzle))
        assert domain.solutions(image, 2) == [tuple(solution)]
        assert sum(value > 0 for value in puzzle) == sum(token > 1 for token in before)
        assert split_of(tuple(puzzle), tuple(solution)) == "train"


def test_all_orders_of_rows_columns_and_names_are_drawn() -> None:
    cells, names = SudokuSymmetry(4).draw(4_000, torch.Generator().manual_seed(2))
    assert len({tuple(row) for row in cells.tolist()}) == 128  # 2 · (2 · 2 · 2)²
    assert len({tuple(row) for row in names.tolist()}) == 24
    assert names[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert len({tuple(row) for row in SquareSymmetry(3).draw(200, torch.Generator().manual_seed(2))[0].tolist()}) == 8


def test_mazes_small_ones_on_a_larger_board_and_images_keep_their_only_path() -> None:
    domain = get_domain("maze")
    generator = torch.Generator().manual_seed(3)
    for size, board in ((7, 7), (5, 9)):
        data = maze_set(size, 20, 0, "train", (4, 12), board=board)
        batch = data.sample(20, generator, augment=True)
        assert not batch["puzzle_identifiers"].any()
        for puzzle, solution in zip((batch["inputs"] - 1).tolist(), (batch["labels"] - 1).tolist(), strict=True):
            maze = Puzzle("maze", board, board, tuple(puzzle))
            assert domain.solutions(maze, 2) == [tuple(solution)]
            assert 4 <= domain.measures(maze)["path"] <= 12


def test_sets_hold_distinct_puzzles_with_one_solution_on_their_side_of_the_split() -> None:
    for split in ("train", "held-out"):
        data = sudoku_set(6, 30, 3, split, (9, 18))
        assert len({tuple(row) for row in data.inputs.tolist()}) == 30
        for puzzle, solution in zip((data.inputs - 1).tolist(), (data.labels - 1).tolist(), strict=True):
            assert split_of(tuple(puzzle), tuple(solution)) == split
            assert count_solutions(tuple(puzzle)) == 1
            assert all(p in (0, s) for p, s in zip(puzzle, solution, strict=True))


def test_sign_sgd_and_average_step_as_written() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    p.grad = torch.tensor([0.5, -0.1, 0.0])
    SignSGD([p], lr=0.1, weight_decay=0.2).step()
    assert p.tolist() == pytest.approx([1.0 * 0.98 - 0.1, -2.0 * 0.98 + 0.1, 3.0 * 0.98])
    layer = torch.nn.Linear(2, 1)
    average = WeightAverage(layer, 0.9)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update(layer, 0)
    assert torch.allclose(average.average["weight"], before + 0.9)  # the first update takes most of the new weights
    average.update(layer, 10_000)
    assert torch.allclose(average.average["weight"], before + 0.91)


def test_training_lowers_the_loss_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    trainer = tiny_trainer()
    losses = [trainer.advance() for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert torch.equal(torch.get_rng_state(), state)


def test_rate_rises_falls_and_stages_change_when_they_should() -> None:
    trainer = tiny_trainer(replace(SETTINGS, steps=10, warmup=2, cooldown=4))
    shares, sizes = [], []
    for _ in range(10):
        sizes.append(len(trainer.data))
        trainer.advance()
        shares.append(trainer.adam.param_groups[0]["lr"] / SETTINGS.lr)
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert sizes == [40] * 5 + [30] * 5


def test_a_stopped_run_resumes_to_the_identical_curve(tmp_path: Path) -> None:
    held_out = sudoku_set(4, 10, 0, "held-out", (6, 10))
    whole: list[Progress] = []
    straight = tiny_trainer()
    fit(straight, held_out, tmp_path / "whole", on_step=whole.append)
    parts: list[Progress] = []
    fit(tiny_trainer(), held_out, tmp_path / "parts", on_step=parts.append, should_stop=lambda: len(parts) == 4)
    assert parts[-1].step < 8
    resumed = tiny_trainer()
    fit(resumed, held_out, tmp_path / "parts", on_step=parts.append)
    assert [(p.step, p.loss) for p in parts] == [(p.step, p.loss) for p in whole]
    for (name, a), b in zip(straight.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, resumed.ema.average[k]) for k, a in straight.ema.average.items())
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "parts/log.csv").read_text()


@pytest.mark.parametrize("mode", ["linear", "block"])
def test_training_compressed_at_full_rank_is_training(mode: Any) -> None:
    plain, compressed = tiny_trainer(), tiny_trainer(laser=LaserSettings(enabled=True, mode=mode, rank="100%", min_fidelity=0))
    assert [compressed.advance() for _ in range(8)] == pytest.approx([plain.advance() for _ in range(8)], rel=1e-3)


@pytest.mark.parametrize("storage", ["exact", "int8"])
def test_a_compressed_run_learns_and_resumes_to_the_identical_curve(storage: Any, tmp_path: Path) -> None:
    held_out = sudoku_set(4, 10, 0, "held-out", (6, 10))
    laser = LaserSettings(enabled=True, rank=6, min_fidelity=0.98, patience=2, growth=2, storage=storage)
    whole: list[Progress] = []
    straight = tiny_trainer(laser=laser)
    fit(straight, held_out, tmp_path / "whole", on_step=whole.append)
    parts: list[Progress] = []
    fit(tiny_trainer(laser=laser), held_out, tmp_path / "parts", on_step=parts.append, should_stop=lambda: len(parts) == 4)
    resumed = tiny_trainer(laser=laser)
    fit(resumed, held_out, tmp_path / "parts", on_step=parts.append)
    assert [(p.step, p.loss) for p in parts] == [(p.step, p.loss) for p in whole]
    assert straight.laser is not None and resumed.laser is not None
    assert straight.laser.ledger().sites == resumed.laser.ledger().sites
    log = (tmp_path / "whole/log.csv").read_text()
    assert "saving,fidelity,misses,resets" in log and log == (tmp_path / "parts/log.csv").read_text()
    with pytest.raises(TrainingError, match="other settings"):
        tiny_trainer().load(tmp_path / "whole" / STATE_FILE)


def test_a_run_stopped_while_a_budget_is_measured_saves_what_was_before_and_resumes_to_the_identical_curve(tmp_path: Path) -> None:
    held_out, laser = sudoku_set(4, 10, 0, "held-out", (6, 10)), LaserSettings(enabled=True, budget="cosine=0.98")
    whole: list[Progress] = []
    straight = tiny_trainer(laser=laser)
    fit(straight, held_out, tmp_path / "whole", on_step=whole.append)
    parts: list[Progress] = []
    stopped, asked = tiny_trainer(laser=laser), 0

    def in_its_midst() -> bool:
        nonlocal asked
        asked += stopped.budget_is_due
        return asked == 10  # the step before asks once

    assert not fit(stopped, held_out, tmp_path / "parts", on_step=parts.append, should_stop=in_its_midst)
    assert stopped.step == len(parts) == 3 and not stopped.choices and asked == 10
    resumed = tiny_trainer(laser=laser)
    fit(resumed, held_out, tmp_path / "parts", on_step=parts.append)
    assert [(p.step, p.loss) for p in parts] == [(p.step, p.loss) for p in whole]
    assert resumed.choices == straight.choices and len(resumed.choices) == 1
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "parts/log.csv").read_text()


def test_laser_settings_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(TrainingError, match=r"train\.compile and laser\.enabled"):
        tiny_trainer(replace(SETTINGS, compile=True), LaserSettings(enabled=True))
    with pytest.raises(TrainingError, match=r"laser: .*whole number or a part"):
        LaserSettings(rank="half")
    recipe = get_recipe("sudoku-4x4", changes=["laser.enabled=true", "laser.rank=12%"])
    assert recipe.laser == LaserSettings(enabled=True, rank="12%") and "rank: 12%" in recipe.text()
    assert "laser" not in get_recipe("sudoku-4x4").text()


def test_a_state_of_other_settings_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    trainer.advance()
    trainer.save(tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="other settings"):
        tiny_trainer(replace(SETTINGS, lr=1e-3)).load(tmp_path / STATE_FILE)
    tiny_trainer(replace(SETTINGS, steps=99)).load(tmp_path / STATE_FILE)  # going on longer is no other run
    (tmp_path / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="delete it"):
        tiny_trainer().load(tmp_path / STATE_FILE)


def test_evaluation_counts_exact_and_cell_accuracy_per_supervision_step() -> None:
    data = sudoku_set(4, 12, 0, "held-out", (6, 10))
    model = TRM(CONFIG, seed=4)
    accuracy = evaluate(model, data, batch_size=5)
    assert model.training  # the mode it came in
    batch = {"inputs": data.inputs, "puzzle_identifiers": torch.zeros(12, dtype=torch.long)}
    model.eval()
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for step in range(3):
            carry, outputs = model(carry, batch)
            right = outputs.logits.argmax(-1) == data.labels
            assert accuracy.cell[step] == pytest.approx(float(right.float().mean()), abs=1e-6)
            assert accuracy.exact[step] == pytest.approx(float(right.all(-1).float().mean()), abs=1e-6)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("lr", -1.0), ("ema", 1.0), ("batch_size", "many")])
def test_settings_outside_their_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=field):
        TrainSettings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("variant", ["attention", "mixer"])
def test_every_task_has_a_recipe_in_every_preset(preset: str, variant: str) -> None:
    for task in ("sudoku-4x4", "sudoku-6x6", "sudoku-9x9", "maze-9x9", "maze-13", "arc-4", "arc-10"):
        recipe = get_recipe(task, variant=variant, preset=preset)
        assert recipe.variant == variant and recipe.model.seq_len == recipe.task.size**2
    official = get_recipe("sudoku-9x9", variant=variant, preset="official")
    assert (official.model.hidden_size, official.model.L_cycles, official.train.lr, official.train.weight_decay) == (512, 6, 1e-4, 1.0)


def test_recipes_take_a_file_then_single_fields_and_give_themselves_again(tmp_path: Path) -> None:
    written = tmp_path / "recipe.yaml"
    written.write_text(
        "model: {mlp_t: true, hidden_size: 64}\ntrain: {lr: 0.002, steps: 7}\ndata: {phases: [{puzzles: 30}, {start: 3, puzzles: 20}]}"
    )
    recipe = get_recipe("sudoku-4x4", file=written, changes=["train.steps=9", "model.L_cycles=3"])
    assert (recipe.variant, recipe.model.hidden_size, recipe.model.L_cycles) == ("mixer", 64, 3)
    assert (recipe.train.lr, recipe.train.steps) == (0.002, 9)
    assert [(stage.start, len(stage.data)) for stage in recipe.stages()] == [(0, 30), (3, 20)]
    again = tmp_path / "again.yaml"
    again.write_text(recipe.text())
    same = get_recipe("sudoku-4x4", preset="official", file=again)
    assert (same.model, same.train, same.data) == (recipe.model, recipe.train, recipe.data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "chess"}, "sudoku-6x6"),
        ({"task": "maze-10"}, "N odd"),
        ({"variant": "rnn"}, "attention or mixer"),
        ({"preset": "tpu"}, "laptop"),
        ({"changes": ["lr=1"]}, "SECTION.FIELD=VALUE"),
        ({"changes": ["train.lr=[1"]}, "cannot be read"),
        ({"changes": ["train.speed=1"]}, "speed"),
        ({"changes": ["optimiser.lr=1"]}, "unknown section"),
        ({"changes": ["model.seq_len=9"]}, "leave both out"),
        ({"changes": ["data.phases=[{start: 5}]"]}, "starts at step 0"),
        ({"changes": ["data.phases=[{size: 4}]"]}, "only mazes"),
    ],
)
def test_recipes_that_cannot_be_are_refused_with_the_reason(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        get_recipe(**{"task": "sudoku-6x6", **arguments})


@pytest.mark.parametrize("text", ["- a list", "model: 3", "model: {x: &a 1}", "{", "\xff", "[" * 10_000])
def test_recipe_files_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match=r"recipe\.yaml"):
        get_recipe("sudoku-4x4", file=path)


TINY = ["model.hidden_size=32", "model.puzzle_emb_ndim=32", "model.num_heads=2", "model.L_layers=1", "model.H_cycles=1", "model.L_cycles=2"]
BRIEF = ["train.batch_size=8", "train.steps=40", "train.eval_every=20", "train.warmup=2", "train.lr=0.01", "data.phases=[{puzzles: 40}]"]
SMOKE = [
    ("sudoku-4x4", "attention"), ("sudoku-6x6", "mixer"), ("sudoku-9x9", "mixer"), ("maze-7", "attention"), ("maze-9", "mixer"),
    ("arc-5", "attention"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "variant"), SMOKE)
def test_a_run_of_every_kind_ends_with_a_model_its_card_and_its_curve(
    task: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss falls, a stopped run resumes to the same losses, log and weights, and what is exported measures as its card says."""
    monkeypatch.setattr(runs, "VALIDATION_PUZZLES", 10)
    recipe = get_recipe(task, variant=variant, changes=[*TINY, *BRIEF])
    seen: list[Progress] = []
    whole = run(recipe, tmp_path / "whole", CPU, command="train it", held_out=10, observer=Observer(on_step=seen.append))
    assert whole is not None and len(seen) == 40
    assert sum(p.loss for p in seen[-5:]) < 0.985 * sum(p.loss for p in seen[:5])
    halves: list[Progress] = []
    stopping = Observer(on_step=halves.append, should_stop=lambda: len(halves) == 13)
    assert run(recipe, tmp_path / "parts", CPU, command="train it", held_out=10, observer=stopping) is None
    resumed = run(recipe, tmp_path / "parts", CPU, command="train it", held_out=10, observer=Observer(on_step=halves.append))
    assert resumed is not None and [p.loss for p in halves] == [p.loss for p in seen]
    for name in ("recipe.yaml", "curve.svg"):
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes(), name
    assert (whole.folder / "curve.svg").read_text().startswith("<?xml")
    model, twin = load_checkpoint(whole.folder), load_checkpoint(resumed.folder)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert evaluate(model, recipe.held_out(10)) == whole.accuracy
    assert model.details["exact_accuracy"] == whole.accuracy.exact[-1]
    card = (whole.folder / "README.md").read_text()
    assert "`train it`" in card and f"{100 * whole.accuracy.cell[-1]:.1f} % of all cells" in card
    sections = yaml.safe_load((whole.folder / "recipe.yaml").read_text())
    assert sections["train"]["steps"] == 40


def test_target_and_patience_end_a_run(tmp_path: Path) -> None:
    held_out = sudoku_set(4, 10, 0, "held-out", (6, 10))
    trainer = tiny_trainer(replace(SETTINGS, steps=40, eval_every=2, patience=2))
    trainer.evaluations = [(0, 0.9)]  # better than anything this run will reach
    assert fit(trainer, held_out, tmp_path / "patience") and trainer.step == 4
    assert trainer.best == (0, 0.9) and not (tmp_path / "patience" / "best").exists()
    trainer = tiny_trainer(replace(SETTINGS, steps=40, eval_every=2, target=0.8))
    assert not trainer.enough()
    trainer.evaluations = [(0, 0.8)]
    assert trainer.enough() and fit(trainer, held_out, tmp_path / "target") and trainer.step == 0


def test_sets_are_kept_in_the_runs_folder_and_drawn_anew_only_where_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = get_recipe("sudoku-4x4", changes=["data.phases=[{puzzles: 20}, {start: 3, puzzles: 20, least: 6, most: 8}]"])
    drawn = recipe.stages(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(type(recipe.task), "puzzles", lambda *_, **__: pytest.fail("drawn again"))
    for one, again in zip(drawn, recipe.stages(tmp_path), strict=True):
        assert torch.equal(one.data.inputs, again.data.inputs) and torch.equal(one.data.labels, again.data.labels)
        assert one.data.inputs.dtype == again.data.inputs.dtype == torch.int64 and one.data.symmetry == again.data.symmetry
    monkeypatch.undo()
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:200])
    assert all(torch.equal(one.data.inputs, again.data.inputs) for one, again in zip(drawn, recipe.stages(tmp_path), strict=True))
    other = get_recipe("sudoku-4x4", changes=["data.phases=[{puzzles: 20}]", "train.seed=1"]).stages(tmp_path)
    assert not torch.equal(other[0].data.inputs, drawn[0].data.inputs)


def test_the_devices_of_all_sittings_are_told(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    trainer.advance()
    trainer.devices = ["a GPU"]
    trainer.save(tmp_path / STATE_FILE)
    resumed = tiny_trainer()
    own = resumed.devices[0]
    resumed.load(tmp_path / STATE_FILE)
    assert resumed.devices == ["a GPU", own]
    resumed.save(tmp_path / STATE_FILE)
    again = tiny_trainer()
    again.load(tmp_path / STATE_FILE)
    assert again.devices == ["a GPU", own]


def test_the_report_of_a_run_with_laser_says_what_compression_did_and_how_often_its_rule_acted(tmp_path: Path) -> None:
    changes = [*TINY, "train.steps=12", "train.eval_every=6", "data.phases=[{puzzles: 40}]", "laser.rank=25%", "laser.growth=1"]
    options = [part for change in changes for part in ("--set", change)]
    command = ["train", "sudoku-4x4", "--variant", "mixer", *options, "--held-out", "10", "--device", "cpu", "--out", str(tmp_path)]
    said = CliRunner().invoke(app, [*command, "--laser"])
    assert said.exit_code == 0, said.output
    *_, last = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    rates = {name: 1_000 * float(last[name]) / 12 for name in ("misses", "resets")}
    [line] = [line for line in said.output.splitlines() if line.startswith("LASER:")]
    assert f"{float(last['saving']):.1%} of all saved bytes gone" in line and rates["misses"] > 0
    assert f"misses {rates['misses']:.1f}, growths " in line and line.endswith(f"resets {rates['resets']:.1f}")


@pytest.mark.parametrize("name", ["whole", "blocks"])
def test_a_budget_and_a_way_to_keep_places_exclude_each_other(name: str, tmp_path: Path) -> None:
    wanted = rf"laser\.{name} .* laser\.budget \(cosine=0\.99\) .*leave one of them out"
    with pytest.raises(TrainingError, match=wanted):
        LaserSettings(enabled=True, budget="cosine=0.99", mode="linear", **{name: True})  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=wanted):
        get_recipe("sudoku-4x4", changes=[f"laser.{name}=true", "laser.budget=cosine=0.99"])
    file = tmp_path / "recipe.yaml"
    file.write_text(f"laser: {{{name}: true, budget: cosine=0.99}}")
    for command in (["train", "--budget", "cosine=0.99", "--set"], ["study", "--set"], ["train", "--config", str(file), "--set"]):
        first, *options = command
        said = CliRunner().invoke(app, [first, "sudoku-4x4", *options, f"laser.{name}=true", "--out", str(tmp_path / "run")])
        own = wanted.replace("0\\.99", "0\\.999") if first == "study" else wanted  # its default
        assert said.exit_code and re.search(own, str(said.exception)), said.output
    assert '--budget ""' in str(said.exception) and not (tmp_path / "run").exists()
    apart = get_recipe("sudoku-4x4", changes=["laser.enabled=true", "laser.budget=cosine=0.99"]).laser
    assert apart.budget and not get_recipe("sudoku-4x4", file=file, changes=['laser.budget=""']).laser.budget


def test_blocks_can_be_kept_without_what_is_within() -> None:
    within = LaserSettings(enabled=True, whole=True, storage="int8", blocks=True)
    saved = []
    for laser in (within, replace(within, blocks=False)):
        trainer = tiny_trainer(laser=laser)
        trainer.advance()
        assert trainer.laser is not None
        saved.append(trainer.laser.ledger().total.all_saved_bytes)
    assert 0 < saved[0] < saved[1]
    with pytest.raises(TrainingError, match="has none"):
        LaserSettings(enabled=True, mode="linear", blocks=True)
