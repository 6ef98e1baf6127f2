"""Losses, optimisers and sets against plain restatements; training that learns, stops, and resumes to the identical curve."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from laser_studio.errors import TrainingError
from laser_studio.lab.data import relabel_digits, sudoku_set
from laser_studio.lab.evaluate import evaluate
from laser_studio.lab.losses import IGNORED, supervision_loss
from laser_studio.lab.optim import SignSGD, WeightAverage
from laser_studio.lab.train import STATE_FILE, Progress, Stage, Trainer, TrainSettings, fit
from laser_studio.puzzles.sudoku_rules import count_solutions, relabelled, split_of
from laser_studio.trm import TRM, Outputs, TRMConfig
from laser_studio.trm.stablemax import log_stablemax

CONFIG = TRMConfig(
    vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_cycles=2, L_cycles=2, halt_max_steps=3, forward_dtype="float32",
    puzzle_emb_ndim=32, puzzle_emb_len=1, halt_exploration_prob=0.5,
)  # fmt: skip
SETTINGS = TrainSettings(steps=8, batch_size=8, warmup=2, eval_every=4, save_every=3, lr=3e-3)
CPU = torch.device("cpu")


def tiny_trainer(settings: TrainSettings = SETTINGS) -> Trainer:
    return Trainer(
        CONFIG, settings, [Stage(0, sudoku_set(4, 40, 0, "train", (6, 10))), Stage(5, sudoku_set(4, 30, 1, "train", (8, 12)))], CPU
    )


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


def test_relabelling_renames_digits_alike_in_puzzle_and_solution() -> None:
    data = sudoku_set(6, 20, 0, "train", (9, 18))
    inputs, labels = relabel_digits(data.inputs, data.labels, 6, torch.Generator().manual_seed(1))
    assert not torch.equal(labels, data.labels)
    for new, old, puzzle, before in zip(labels, data.labels, inputs, data.inputs, strict=True):
        assert relabelled(tuple((new - 1).tolist())) == relabelled(tuple((old - 1).tolist()))
        given = puzzle > 1
        assert torch.equal(given, before > 1)
        assert torch.equal(puzzle[given], new[given])


def test_sets_hold_distinct_puzzles_with_one_solution_on_their_side_of_the_split() -> None:
    for split in ("train", "held-out"):
        data = sudoku_set(6, 30, 3, split, (9, 18))
        assert len({tuple(row) for row in data.inputs.tolist()}) == 30
        for puzzle, solution in zip((data.inputs - 1).tolist(), (data.labels - 1).tolist(), strict=True):
            assert split_of(tuple(solution)) == split
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
