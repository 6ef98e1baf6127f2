"""Paired training: each side is a plain `Trainer` bit for bit, a resumed run is the same run, settings act on the next step."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from laser_studio.errors import TrainingError
from laser_studio.lab.evaluate import evaluate
from laser_studio.lab.paired import MEAN, PairedStep, PairedTraining
from laser_studio.lab.recipes import Recipe, get_recipe
from laser_studio.lab.saved_runs import LIVE, SIDES, Side, newest_state, read_record, read_summary
from laser_studio.lab.train import LaserSettings, Trainer
from laser_studio.laser import LaserPolicy, compress
from laser_studio.trm import load_checkpoint

CPU = torch.device("cpu")
LASER = LaserSettings(enabled=True, rank="25%", min_fidelity=0.98, patience=2, growth=2)
TINY = [
    "model.hidden_size=32", "model.puzzle_emb_ndim=32", "model.num_heads=2", "model.L_layers=1", "model.L_cycles=2", "train.batch_size=8",
    "train.steps=14", "train.eval_every=5", "train.warmup=2", "train.lr=0.003", "data.phases=[{puzzles: 40}, {start: 6, puzzles: 30}]",
]  # fmt: skip


def recipe(variant: str = "mixer") -> Recipe:
    return get_recipe("sudoku-4x4", variant=variant, changes=TINY)


def paired(laser: LaserSettings = LASER, variant: str = "mixer") -> PairedTraining:
    return PairedTraining(recipe(variant), laser, CPU, validation=10)


def timeless(step: PairedStep) -> PairedStep:
    return replace(step, seconds=step.seconds.__class__(0.0, 0.0), seconds_left=0.0)


@pytest.mark.parametrize("variant", ["mixer", "attention"])
def test_each_side_is_a_trainer_of_its_own_bit_for_bit(variant: str) -> None:
    state = torch.get_rng_state()
    both = paired(variant=variant)
    one = recipe(variant)
    alone: dict[Side, Trainer] = {
        "plain": Trainer(one.model, one.train, one.stages(), CPU),
        "laser": Trainer(one.model, one.train, one.stages(), CPU, LASER),
    }
    losses: list[float] = []
    while not both.complete:
        step = both.advance()
        assert (step.loss.laser, step.loss.plain) == (alone["laser"].advance(), alone["plain"].advance())
        losses.append(step.loss.plain)
        assert step.training_exact.plain == alone["plain"].training_exact
        assert step.mean_loss.plain == pytest.approx(sum(losses[-MEAN:]) / len(losses[-MEAN:]))
    for side, trainer in alone.items():
        for name, value in trainer.model.state_dict().items():
            assert torch.equal(value, both.trainers.of(side).model.state_dict()[name]), (side, name)
    assert both.history.low["loss.plain"] != both.history.low["loss.laser"]
    assert both.history.low["loss.plain"][0] == both.history.low["loss.laser"][0], "the first step is kept exact"
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TrainingError, match="complete"):
        both.advance()


def test_a_step_tells_what_compression_itself_tells() -> None:
    """The same loop by hand, with `compress` and its events and ledger read directly."""
    both, one = paired(), recipe()
    trainer = Trainer(one.model, one.train, one.stages(), CPU, LASER)
    told: list[Any] = []
    trainer.on_events = told.append
    grew = reset = 0
    for _ in range(14):
        step = both.advance()
        trainer.advance()
        assert trainer.laser is not None
        ledger, events = trainer.laser.ledger(), told[-1]
        assert step.sites.keys() == ledger.sites.keys() and step.all_saved_bytes == ledger.total.all_saved_bytes > 0
        for name, site in step.sites.items():
            line = ledger.sites[name]
            assert (site.full_bytes, site.stored_bytes, site.beside_bytes) == (line.full_bytes, line.stored_bytes, line.basis_bytes)
            if name in events and site.rank:
                assert (site.rank, site.fidelity, site.action) == (line.rank, events[name].fidelity, events[name].action)
                assert events[name].previous_rank == site.rank
        grew += sum(event.startswith("grow:") for event in step.events())
        reset += sum(event.startswith("reset:") for event in step.events())
    totals = trainer.laser.ledger().total  # type: ignore[union-attr]
    assert (grew, reset) == (totals.growths, totals.resets) and grew > 0
    counted = {kind: sum(sum(c) for name, c in both.history.counts.items() if name.startswith(kind)) for kind in ("grow", "reset")}
    assert counted == {"grow": grew, "reset": reset}


def test_both_sides_are_evaluated_on_the_averaged_weights_when_due() -> None:
    both = paired()
    found = {}
    while not both.complete:
        step = both.advance()
        if step.accuracy is not None:
            found[step.step] = step.accuracy
            for side in SIDES:
                assert step.accuracy.of(side) == evaluate(both.trainers.of(side).averaged(), both.validation)
    assert list(found) == [5, 10, 14]
    assert both.history.low["exact.plain"][13] == found[14].plain.exact[-1] and both.history.low["exact.plain"][12] is None


@pytest.mark.parametrize("storage", ["exact", "int8"])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_run_is_the_same_run(storage: Any, stop: int, tmp_path: Path) -> None:
    """Also when settings changed before, and with a change that was asked for but not yet in force when it was saved."""

    def settings(run: PairedTraining, done: int) -> None:
        if done == 3:
            run.set_policy(rank="50%", min_fidelity=0.9)
        if done == 7:
            run.set_policy(rank=4, patience=1, growth=5)

    laser = replace(LASER, storage=storage)
    straight, whole, parts = paired(laser), list[PairedStep](), list[PairedStep]()
    for done in range(14):
        settings(straight, done)
        whole.append(straight.advance())
    first = paired(laser)
    for done in range(stop):
        settings(first, done)
        parts.append(first.advance())
    settings(first, stop)
    saved = first.save(tmp_path)
    second = paired(laser)
    assert saved is not None and second.resume(tmp_path) and second.step == stop
    for done in range(stop, 14):
        if done > stop:
            settings(second, done)
        parts.append(second.advance())
    assert [timeless(step) for step in parts] == [timeless(step) for step in whole]
    columns = [{name: c for name, c in run.history.low.items() if not name.startswith("seconds")} for run in (straight, second)]
    assert columns[0] == columns[1] and straight.history.counts == second.history.counts and straight.history.notes == second.history.notes
    for side in SIDES:
        one, other = straight.trainers.of(side), second.trainers.of(side)
        assert all(torch.equal(a, other.model.state_dict()[name]) for name, a in one.model.state_dict().items())
        assert all(torch.equal(a, other.ema.average[name]) for name, a in one.ema.average.items())


def test_settings_act_on_the_next_step_and_are_part_of_the_record() -> None:
    both = paired(replace(LASER, min_fidelity=0))
    for _ in range(3):
        before = both.advance()
    mixed = "net.layers.0.mlp.gate_up_proj"
    assert before.settings is None and before.sites[mixed].rank == 8
    assert both.set_policy(rank="75%").rank == "75%" and both.set_policy(growth=5).growth == 5
    during, after = both.advance(), both.advance()
    assert during.settings is not None and (during.settings.rank, during.settings.growth) == ("75%", 5)
    assert (during.sites[mixed].rank, after.sites[mixed].rank) == (8, 24), "a rank is gone to when the step's window closes"
    assert after.settings is None and both.history.notes == [
        (4, {"rank": "75%", "min_fidelity": 0.0, "patience": 2, "growth": 5}),
    ]
    both.set_policy(rank="10%")
    both.set_policy(rank="75%")  # back to what is in force: no change
    assert both.advance().settings is None
    for wrong, message in (({"storage": "int8"}, "cannot change"), ({"rank": "lots"}, "rank"), ({"patience": 0}, "patience")):
        with pytest.raises(TrainingError, match=message):
            both.set_policy(**wrong)
    assert both.advance().settings is None
    assert set(LIVE) <= set(vars(LASER)) and set(LIVE) <= set(vars(LaserPolicy()))


def test_states_replace_one_another_whole(tmp_path: Path) -> None:
    both = paired()
    assert both.save(tmp_path) is None and not paired().resume(tmp_path) and newest_state(tmp_path / "none") is None
    both.advance()
    first = both.save(tmp_path)
    second = both.save(tmp_path)
    assert first is not None and second is not None and not first.exists() and newest_state(tmp_path) == second
    assert read_summary(second)["step"] == 1 and read_record(second)["history"]["steps"] == 1
    both.advance()
    shutil.copytree(second, tmp_path / "kept")
    third = both.save(tmp_path)
    assert third is not None and [path.name for path in sorted(tmp_path.iterdir())] == ["kept", third.name]
    (tmp_path / "kept").rename(second)  # as if the process had died before it took the old one away
    (tmp_path / ".state-half").mkdir()
    again = paired()
    assert again.resume(tmp_path) and again.step == 2


def test_what_belongs_to_another_run_or_is_broken_is_refused(tmp_path: Path) -> None:
    both = paired()
    both.advance()
    state = both.save(tmp_path)
    assert state is not None
    with pytest.raises(TrainingError, match="other settings"):
        paired(variant="attention").resume(tmp_path)
    (state / "history.json").write_text("{")
    for read in (read_record, lambda _: paired().resume(tmp_path)):
        with pytest.raises(TrainingError, match="delete that folder"):
            read(state)
    with pytest.raises(TrainingError, match=r"laser\.enabled"):
        paired(LaserSettings())
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be saved"):
        both.save(tmp_path / "file" / "inside")


def test_the_model_of_either_side_is_exported_at_any_moment(tmp_path: Path) -> None:
    both = paired()
    for _ in range(5):
        both.advance()
    for side in SIDES:
        model = load_checkpoint(both.export(side, tmp_path / side))
        average = both.trainers.of(side).averaged().state_dict()
        assert all(torch.equal(value, average[name].half().float()) for name, value in model.state_dict().items())
        assert model.details["optimiser_steps"] == 5 and model.details["task"] == "sudoku-4x4"
        assert model.details["exact_accuracy"] == both.history.newest(f"exact.{side}")
    both.advance()
    assert "exact_accuracy" not in load_checkpoint(both.export("laser", tmp_path / "later")).details, "not measured at this step"


def test_the_compressed_side_stores_what_compress_stores() -> None:
    """An oracle that shares no code with the record: the bytes of a fresh `compress` on the same model and batch."""
    both = paired(replace(LASER, min_fidelity=0))
    for _ in range(2):
        step = both.advance()
    one = recipe()
    model = Trainer(one.model, one.train, one.stages(), CPU).model
    laser = compress(model, replace(LASER, min_fidelity=0).policy())
    batch = one.stages()[0].data.sample(8, torch.Generator().manual_seed(0), augment=False)
    for _ in range(2):
        with laser:
            _, outputs = model(model.initial_carry(batch), batch)
            outputs.logits.sum().backward()
        laser.step()
    for name in ("net.layers.0.mlp.gate_up_proj", "net.layers.0.mlp_t.gate_up_proj", "net.output"):
        assert step.sites[name].stored_bytes == laser.ledger().sites[name].stored_bytes > 0


WHOLE = LaserSettings(enabled=True, whole=True, storage="int4")
BUDGET = LaserSettings(enabled=True, budget="cosine=0.98", recheck=6)


def row_bytes(width: int) -> int:
    """Of a row in four bits."""
    return 32 * -(-width // 64) + 4 * -(-width // 32)


def test_places_kept_whole_are_told_with_their_bytes_and_without_a_basis() -> None:
    both = paired(WHOLE)
    for _ in range(2):
        step = both.advance()
    config, batch = both.recipe.model, both.recipe.train.batch_size
    applications, tokens = config.L_cycles + 1, both.recipe.task.size**2 + config.puzzle_emb_len
    # By hand: half a byte a value in groups of 64, two bytes of scale and two of lowest value per 32; the mixer's rows are features, as
    # long as tokens. The first place is kept three times, whatever the applications: the first sum so, and as the block's outputs what
    # is added all along and the state that the last application reads.
    rows = {"net.layers.0.mlp_t.gate_up_proj": (batch * 32, tokens), "net.layers.0.mlp.gate_up_proj": (batch * tokens, 32)}
    rows["net.output"] = rows["net.layers.0.mlp.gate_up_proj"]
    for name, (count, width) in rows.items():
        site = step.sites[name]
        assert both.sites[name] == width and site.rank is None and site.fidelity is None and site.beside_bytes == 0
        each = count * row_bytes(width)
        first = each + 2 * batch * tokens * row_bytes(32)
        assert site.stored_bytes == (first if name == "net.layers.0.mlp_t.gate_up_proj" else applications * each)
    assert 0 < step.all_saved_bytes < step.all_full_bytes and step.events() == [] and "rank:net.output" not in both.history.low
    with pytest.raises(TrainingError, match=r"kept whole.*do not count"):
        both.set_policy(rank="50%")
    assert both.asked is None
    with pytest.raises(TrainingError, match="mode"):
        LaserSettings(enabled=True, whole=True, mode="linear")


def test_a_budget_is_told_when_it_is_measured_and_the_run_is_that_of_the_command_line(tmp_path: Path) -> None:
    both, one = paired(BUDGET), recipe()
    alone = Trainer(one.model, one.train, one.stages(), CPU, BUDGET)
    due = []
    while not both.complete:
        due += [both.step] if both.budget_is_due else []
        step = both.advance()
        assert step.loss.laser == alone.advance()
        assert (step.budget is None) == (step.note() is None) and step.settings is None
    assert due == [3, 6, 12]
    notes = {number: note["budget"] for number, note in both.history.notes}
    assert list(notes) == [4, 7, 13], "it acts on the step after"
    told = [(step, "MiB saved" in text) for step, text in alone.choices]
    assert [(number - 1, "choice" in note) for number, note in notes.items()] == told
    assert alone.laser is not None
    chosen = [note["choice"] for note in notes.values() if "choice" in note][-1]
    in_force = {name: (option.rank, option.storage) for name, option in (alone.laser.chosen or {}).items()}
    assert {name: (one["rank"], one["storage"]) for name, one in chosen["options"].items()} == in_force
    assert set(chosen["options"]) == set(both.sites), "every place is told of"
    assert {"net.output", "lm_head"} == set(chosen["options"][next(iter(chosen["options"]))]["with"]), "what enters is what left before"
    assert chosen["reached"] and chosen["mean"] >= 0.98 and chosen["asked"] == "cosine ≥ 0.98"
    with pytest.raises(TrainingError, match=r"budget.*do not count"):
        both.set_policy(min_fidelity=0.9)
    # Stopped and resumed it is the same run, and its record too.
    first = paired(BUDGET)
    for _ in range(5):
        first.advance()
    first.save(tmp_path)
    second = paired(BUDGET)
    assert second.resume(tmp_path) and second.sites == first.sites
    while not second.complete:
        second.advance()
    assert second.history.low["loss.laser"] == both.history.low["loss.laser"]

    def untimed(run: PairedTraining) -> list[Any]:
        return [(step, {**note["budget"], "seconds": 0}) for step, note in run.history.notes]

    assert untimed(second) == untimed(both)
