"""Runs of the training page: one process at a time, saved and let go when its page is gone, resumed from disk, steered by its page only."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from laser_studio.lab.paired import PairedTraining
from laser_studio.lab.recipes import get_recipe
from laser_studio.lab.train import LaserSettings
from laser_studio.laser.budget import Budget
from laser_studio.settings import describe
from laser_studio.studio import trained
from laser_studio.studio.catalogue import Catalogue, ModelEntry
from laser_studio.studio.channel import Channel
from laser_studio.studio.training_requests import LIVE_CONTROLS, PLAN, PLAN_CHOICES, LaserPlan, LaserView, Task, Variant
from laser_studio.studio.trainings import Trainings
from laser_studio.trm import load_checkpoint

PAGE, OTHER = "a page's secret", "another's secret"
# Small, and long enough that no test sees its end unless it wants to.
TINY = (
    "model.hidden_size=32", "model.puzzle_emb_ndim=32", "model.num_heads=2", "model.L_layers=1", "model.H_cycles=1", "model.L_cycles=2",
    "train.batch_size=8", "train.steps=4000", "train.eval_every=10", "data.phases=[{puzzles: 40}]",
)  # fmt: skip
SHORT = (*TINY, "train.steps=12")
QUICK = {
    "task": "sudoku-4x4",
    "variant": "mixer",
    "laser": {"rank": 25, "min_fidelity": 0.98, "patience": 2, "growth": 4},
}


@pytest.fixture
def made() -> Iterator[Callable[..., Trainings]]:
    services: list[Trainings] = []

    def make(folder: Path, changes: tuple[str, ...] = TINY, **options: Any) -> Trainings:
        services.append(Trainings(folder, device="cpu", changes=changes, **options))
        return services[-1]

    yield make
    for service in services:
        service.close()


class Page:
    """A page that asks and keeps what it is sent, as the script does."""

    def __init__(self, service: Trainings, secret: str = PAGE) -> None:
        self.service, self.secret = service, secret
        self.run, self.size, self.held = "", 0, dict[str, list[float | None]]()

    def start(self, **changes: Any) -> Page:
        reply = self.service.start({"page": self.secret, **QUICK, **changes})
        assert "error" not in reply, reply
        self.run = reply["run"]
        return self

    def asks(self) -> dict[str, Any]:
        block = max((len(column) for column in self.held.values()), default=0)
        reply = self.service.follow({"page": self.secret, "run": self.run, "block": max(0, block - 1), "size": self.size})
        assert "error" not in reply, reply
        json.dumps(reply, allow_nan=False)
        figures = reply["figures"]
        self.size = figures["size"]
        for name, column in figures["low"].items():
            known = self.held.setdefault(name, [])[: figures["start"]]
            self.held[name] = known + [None] * (figures["start"] - len(known)) + column
        return reply

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            reply = self.asks()
            if holds(reply):
                return reply
            assert not reply["problem"], reply
            time.sleep(0.05)
        raise AssertionError(f"never: {reply['state']}, step {reply['figures']['steps']}")

    def step(self, least: int) -> dict[str, Any]:
        return self.until(lambda reply: reply["figures"]["steps"] >= least)

    def state(self, *wanted: str) -> dict[str, Any]:
        return self.until(lambda reply: reply["state"] in wanted)

    def does(self, name: str) -> dict[str, Any]:
        return self.service.command({"page": self.secret, "run": self.run, "name": name})


def numbers(column: Sequence[float | None]) -> list[float]:
    """Without figures: −1, which none of ours is."""
    return [-1.0 if value is None else value for value in column]


def alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(service: Trainings) -> int:
    assert service._live is not None and service._live.process is not None and service._live.process.pid is not None
    return service._live.process.pid


@pytest.mark.slow
def test_a_run_from_start_to_its_end_is_the_paired_training_itself(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path, SHORT)).start()
    begun = page.step(1)
    assert begun["state"] in ("running", "done") and begun["own"] and page.run == "sudoku-4x4-mixer-1"
    done = page.state("done")
    assert done["figures"]["steps"] == done["steps"] == 12 and done["batch"] == 8
    recipe = get_recipe("sudoku-4x4", file=tmp_path / page.run / "recipe.yaml")
    alone = PairedTraining(recipe, LaserSettings(enabled=True, rank="25%", min_fidelity=0.98, patience=2, growth=4), torch.device("cpu"))
    while not alone.complete:
        alone.advance()
    for name, column in alone.history.low.items():
        if not name.startswith("seconds"):
            assert numbers(page.held[name]) == pytest.approx(numbers(column), rel=1e-6), name
    assert [site["label"] for site in done["sites"]][:3] == ["L0 mix g·up", "L0 gate·up", "output"] and done["sites"][1]["dim"] == 32
    assert [site["dim"] for site in done["sites"] if site["name"].endswith("down_proj")] == [0, 0]
    assert [model[1:] for model in done["models"]] == [[10, "laser"], [10, "plain"], [12, "laser"], [12, "plain"]]
    listed = page.service.open({"page": PAGE})["runs"]
    assert [(run["run"], run["step"], run["steps"]) for run in listed] == [(page.run, 12, 12)]
    assert "complete" in page.does("resume")["error"]


@pytest.mark.slow
def test_pause_tune_resume_and_stop(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path)).start()
    page.step(3)
    assert "one run is trained at a time" in page.service.start({"page": PAGE, **QUICK})["error"]
    page.does("pause")
    paused = page.state("paused")
    at = paused["figures"]["steps"]
    time.sleep(0.3)
    assert page.asks()["figures"]["steps"] == at
    assert trained.about_run(tmp_path / page.run)["step"] == at, "a pause is a checkpoint"
    page.service.tune({"page": PAGE, "run": page.run, "laser": {"rank": 75, "min_fidelity": 0.6, "patience": 4, "growth": 2}})
    page.until(lambda reply: reply["laser"]["rank"] == "75%")
    page.does("resume")
    later = page.step(at + 3)
    assert later["notes"] == [[at + 1, {"rank": "75%", "min_fidelity": 0.6, "patience": 4, "growth": 2}]]
    gate = "net.layers.0.mlp.gate_up_proj"
    assert page.held[f"rank:{gate}"][at + 1] == 24, "75 % of 32, from the step after the change was in force"
    pid = pid_of(page.service)
    page.does("stop")
    rests = page.state("resting")
    assert (
        not alive(pid) and rests["laser"]["rank"] == "75%" and trained.about_run(tmp_path / page.run)["step"] == rests["figures"]["steps"]
    )
    page.does("resume")
    page.step(rests["figures"]["steps"] + 2)
    page.does("stop")
    page.state("resting")
    assert page.does("delete") == {"run": page.run} and not (tmp_path / page.run).exists()
    assert page.service.follow({"page": PAGE, "run": page.run})["expired"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "laser"),
    [
        ({"keeps": "whole", "storage": "int4", "products": "float"}, {"whole": True, "storage": "int4", "products": "float"}),
        ({"keeps": "blocks", "storage": "int8"}, {"whole": True, "blocks": True, "storage": "int8"}),
        ({"keeps": "budget", "cosine": 0.98, "recheck": 20}, {"budget": "cosine=0.98", "recheck": 20}),
    ],
    ids=["whole", "blocks", "budget"],
)
def test_a_run_without_a_rule_is_the_paired_training_itself_and_its_sliders_do_not_count(
    made: Callable[..., Trainings], tmp_path: Path, plan: dict[str, Any], laser: dict[str, Any]
) -> None:
    page = Page(made(tmp_path, (*TINY, "train.steps=24"))).start(plan=plan)
    page.step(1)
    page.service.tune({"page": PAGE, "run": page.run, "laser": {"rank": 75, "min_fidelity": 0.6, "patience": 4, "growth": 2}})
    refused = page.until(lambda reply: bool(reply["refused"]) or reply["state"] == "done")
    assert "do not count" in refused["refused"] and refused["laser"]["rank"] == "25%"
    page.does("pause")
    page.state("paused", "done")
    page.does("stop")
    page.state("resting", "done")
    page.does("resume")
    done = page.state("done")
    assert {name: done["laser"][name] for name in laser} == laser
    settings = LaserSettings(enabled=True, rank="25%", min_fidelity=0.98, patience=2, growth=4, **laser)
    alone = PairedTraining(get_recipe("sudoku-4x4", file=tmp_path / page.run / "recipe.yaml"), settings, torch.device("cpu"))
    while not alone.complete:
        alone.advance()
    for name, column in alone.history.low.items():
        if not name.startswith("seconds"):
            assert numbers(page.held[name]) == pytest.approx(numbers(column), rel=1e-6), name
    widths = {site["name"]: site["dim"] for site in done["sites"]}
    assert widths["net.layers.0.mlp.gate_up_proj"] == widths["net.output"] == 32, "places kept whole are told of as those with a basis"
    told = page.service.follow({"page": PAGE, "run": page.run})["notes"]
    assert [step for step, _ in told] == ([4, 21] if "budget" in laser else [])
    for (step, note), (number, by_hand) in zip(told, alone.history.notes, strict=True):
        assert step == number and {**note["budget"], "seconds": 0} == {**by_hand["budget"], "seconds": 0}


@pytest.mark.slow
def test_a_page_that_is_gone_lets_its_run_go_and_comes_back_to_the_same_curve(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path, gone_seconds=1.0)).start()
    page.step(4)
    pid = pid_of(page.service)
    end = time.monotonic() + 30
    while page.service._live is not None and time.monotonic() < end:
        time.sleep(0.1)  # and never asks
    assert page.service._live is None and not alive(pid), "the memory of a page that is gone is given back"
    back = Page(page.service)
    listed = page.service.open({"page": PAGE})
    assert listed["live"] is None and listed["runs"][0]["run"] == page.run and listed["runs"][0]["step"] >= 4
    back.run = page.run
    rests = back.asks()
    known = len(back.held["loss.laser"])
    assert rests["state"] == "resting" and known == listed["runs"][0]["step"]
    assert back.held["loss.laser"][:4] == page.held["loss.laser"][:4]
    back.does("resume")
    back.step(known + 3)
    straight = PairedTraining(
        get_recipe("sudoku-4x4", file=tmp_path / page.run / "recipe.yaml"),
        LaserSettings(enabled=True, rank="25%", min_fidelity=0.98, patience=2, growth=4), torch.device("cpu"),
    )  # fmt: skip
    for _ in range(known + 3):
        straight.advance()
    assert back.held["loss.laser"][: known + 3] == pytest.approx(numbers(straight.history.low["loss.laser"]), rel=1e-6)


@pytest.mark.slow
def test_a_run_paused_for_long_gives_its_memory_back(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path, paused_seconds=0.5)).start()
    page.step(2)
    pid = pid_of(page.service)
    page.does("pause")
    page.state("resting")
    assert not alive(pid)
    page.does("resume")
    assert page.state("running")["own"]


@pytest.mark.slow
def test_only_the_page_that_started_steers_and_all_may_look(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path)).start()
    page.step(2)
    other = Page(page.service, OTHER)
    other.run = page.run
    seen = other.asks()
    assert not seen["own"] and seen["live"] == page.run and other.held["loss.laser"]
    for name in ("pause", "stop"):
        assert "another page" in other.does(name)["error"]
    assert "another page" in other.service.tune({"page": OTHER, "run": page.run, "laser": {}})["error"]
    assert "another page" in other.service.start({"page": OTHER, **QUICK})["error"]
    assert "stop it before" in other.does("delete")["error"]
    page.does("pause")
    page.state("paused")
    assert other.does("resume") == {"run": page.run}
    assert other.until(lambda reply: reply["state"] == "running")["own"] and not page.asks()["own"]


@pytest.mark.slow
def test_the_model_of_the_moment_opens_in_the_debugger(made: Callable[..., Trainings], tmp_path: Path, small_checkpoint: Path) -> None:
    page = Page(made(tmp_path)).start()
    page.step(3)
    name = page.service.model({"page": PAGE, "run": page.run, "side": "plain"})["model"]
    step = int(name.partition("@")[2].partition("-")[0])
    assert name == f"{page.run}@{step}-plain" and step >= 3
    folder = tmp_path / page.run / "opened" / f"{step}-plain"
    assert load_checkpoint(folder).details["optimiser_steps"] == step
    channel = Channel(Catalogue([ModelEntry("small", small_checkpoint, "small", ("sudoku", 4))], device="cpu", runs=tmp_path))
    opened = channel.open({"query": f"?model={name}"})
    assert opened["model"]["name"] == name and opened["notices"] == [] and opened["model"]["hidden_size"] == 32
    moved = channel.advance({"run": opened["run"], "at": 0, "steps": 1, "epoch": opened["epoch"]})
    assert moved["frame"]["index"] == 1
    assert channel.report({"model": name})["model"] == name
    for wrong in ("sudoku-4x4-mixer-1@99999-laser", "../small@1-laser", "sudoku-4x4-mixer-1@../..", "@"):
        assert "not offered" in channel.open({"query": f"?model={wrong}"})["notices"][0]
    page.step(12)
    page.does("stop")
    page.state("resting")
    resting = page.service.model({"page": PAGE, "run": page.run, "side": "laser"})["model"]
    assert resting.endswith("-laser") and trained.find_model(tmp_path, resting) is not None
    channel.registry.close_all()


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_the_run_goes_on_from_its_last_state(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path)).start()
    page.step(2)
    page.does("pause")
    at = page.state("paused")["figures"]["steps"]
    os.kill(pid_of(page.service), 9)
    end = time.monotonic() + 20
    while (reply := page.asks())["state"] != "error" and time.monotonic() < end:
        time.sleep(0.05)
    assert reply["state"] == "error" and "ended unexpectedly" in reply["problem"] and reply["figures"]["steps"] == at
    page.does("resume")
    assert page.step(at + 1)["problem"] == ""


@pytest.mark.slow
def test_a_run_that_cannot_train_says_why(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path, (*TINY, "train.speed=3"))).start()
    end = time.monotonic() + 30
    while (reply := page.asks())["state"] != "error" and time.monotonic() < end:
        time.sleep(0.05)
    assert reply["state"] == "error" and "speed" in reply["problem"] and reply["figures"]["steps"] == 0
    assert page.does("delete") == {"run": page.run}


@pytest.mark.slow
def test_closing_saves(made: Callable[..., Trainings], tmp_path: Path) -> None:
    page = Page(made(tmp_path)).start()
    page.step(5)
    pid = pid_of(page.service)
    page.service.close()
    assert not alive(pid) and trained.about_run(tmp_path / page.run)["step"] >= 5
    assert "closing" in page.service.start({"page": PAGE, **QUICK})["error"]


@pytest.mark.parametrize(
    ("call", "data", "message"),
    [
        ("start", {"page": PAGE, "task": "sudoku-9x9"}, "task"),
        ("start", {"page": PAGE, "task": "arc-30"}, "task"),
        ("start", {"page": PAGE, "variant": "rnn"}, "variant"),
        ("start", {"page": PAGE, "laser": {"rank": 0}}, "rank"),
        ("start", {"page": PAGE, "laser": {"min_fidelity": float("nan")}}, "min_fidelity"),
        ("start", {"page": PAGE, "laser": {"growth": 10**9}}, "growth"),
        ("start", {"page": PAGE, "steps": 10**9}, "steps"),
        ("start", {"page": PAGE, "plan": {"storage": "int2"}}, "storage"),
        ("start", {"page": PAGE, "plan": {"keeps": "budget", "cosine": 2}}, "cosine"),
        ("start", {"page": PAGE, "plan": {"keeps": "budget", "share": "many"}}, "share"),
        ("start", {"page": PAGE, "plan": {"keeps": "budget", "recheck": 0}}, "recheck"),
        ("start", {"page": PAGE, "plan": {"keeps": "whole", "mode": "linear"}}, "mode linear has none"),
        ("start", {"page": PAGE, "plan": {"rank": 3}}, "rank"),
        ("start", {"page": "x"}, "reload"),
        ("command", {"page": PAGE, "run": "../..", "name": "delete"}, "not kept here"),
        ("command", {"page": PAGE, "run": "sudoku-4x4-mixer-9", "name": "resume"}, "not kept here"),
        ("command", {"page": PAGE, "run": "", "name": "pause"}, "rests"),
        ("command", {"page": PAGE, "name": "explode"}, "name"),
        ("tune", {"page": PAGE, "run": "none", "laser": {"rank": 50}}, "rests"),
        ("model", {"page": PAGE, "run": "none"}, "not kept here"),
        ("follow", {"page": PAGE, "run": "\0"}, "not kept here"),
        ("follow", {"page": PAGE, "run": "none", "block": -1}, "block"),
        ("open", [], "not one the studio knows"),
        ("open", {}, "page"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, call: str, data: Any, message: str) -> None:
    reply = getattr(Trainings(tmp_path), call)(data)
    assert message in reply["error"] and "Traceback" not in reply["error"] and not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_and_too_many_runs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    reply = Trainings(tmp_path / "file").start({"page": PAGE, **QUICK})
    assert "--runs" in reply["error"] and str(tmp_path) not in reply["error"]
    monkeypatch.setattr(trained, "MAX_RUNS", 0)
    assert "delete one" in Trainings(tmp_path / "runs").start({"page": PAGE, **QUICK})["error"]


def test_models_of_many_steps_are_thinned_out_evenly(tmp_path: Path) -> None:
    for step in range(10, 310, 10):
        folder = trained.model_folder(tmp_path, trained.EVALUATED, step, "laser")
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        trained.thin_out(tmp_path, trained.EVALUATED)
    steps = [model.step for model in trained.models(tmp_path)]
    assert len(steps) == trained.MOST_MODELS and steps[0] == 10 and steps[-1] == 300
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(gaps) <= 90


def test_controls_are_those_of_the_engine() -> None:
    engine = describe(LaserSettings)
    for name, info in LIVE_CONTROLS.items():
        if name != "rank":
            assert engine[name].low <= info.low < info.high <= engine[name].high  # type: ignore[operator]
    settings = LaserSettings(enabled=True, **LaserView().changes())
    assert settings.rank == "50%" and settings.growth == LaserSettings().growth and settings.patience == LaserSettings().patience
    for name, values in PLAN_CHOICES.items():
        for value in values:
            plan = LaserPlan(**{name: value})
            told = LaserSettings(enabled=True, **plan.changes())
            if name not in ("keeps", "budget"):
                assert getattr(told, name) == value
            assert (told.whole, told.blocks) == (plan.keeps in ("whole", "blocks"), plan.keeps == "blocks")
            assert bool(told.budget) == (plan.keeps == "budget")
    for keeps, budget in itertools.product(PLAN_CHOICES["keeps"], PLAN_CHOICES["budget"]):  # a hidden control of the page says nothing
        told = LaserSettings(enabled=True, **LaserPlan(keeps=keeps, budget=budget).changes())
        assert told.budget.startswith(budget if keeps == "budget" else "") and (not told.budget or not (told.whole or told.blocks))
    for name, asked in (("mode", "mode"), ("storage", "storage"), ("products", "products"), ("on_miss", "on_miss")):
        assert PLAN[name].default == engine[asked].default and set(PLAN_CHOICES[name]) == set(
            get_args(get_type_hints(LaserSettings)[asked])
        )
    assert engine["recheck"].low <= PLAN["recheck"].low and PLAN["recheck"].default == engine["recheck"].default  # type: ignore[operator]
    for cosine in (PLAN["cosine"].low, PLAN["cosine"].default, PLAN["cosine"].high):
        assert Budget.read(LaserPlan(keeps="budget", cosine=cosine or 0).changes()["budget"]) == Budget(cosine=cosine)
    for share in (PLAN["share"].low, PLAN["share"].default, PLAN["share"].high):
        budget = LaserPlan(keeps="budget", budget="bytes", share=share or 0).changes()["budget"]
        assert Budget.read(budget).share == pytest.approx((share or 0) / 100)
    for task in get_args(Task):
        for variant in get_args(Variant):
            assert get_recipe(task, variant=variant).train.steps <= 4_000, "what a stranger may start ends"
