"""A budget: the search against brute force over all combinations, and the whole of it on a small model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from laser_studio.errors import CompressionError
from laser_studio.laser import LaserPolicy, compress
from laser_studio.laser.budget import IN_FULL, MADE_AGAIN, Budget, Choice, Effect, Option, _ladder, _price, choose
from tests.laser.helpers import normal

OPTIONS = [Option(None, "int8"), Option(None, "int4"), Option("25%", "int8")]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("cosine=0.99", Budget(cosine=0.99)),
        ("bytes=64MiB", Budget(bytes=64 * 2**20)),
        (" bytes = 2.5 MB", Budget(bytes=2.5e6)),
        ("bytes=3%", Budget(share=0.03)),
        ("bytes=1000", Budget(bytes=1000)),
    ],
)
def test_budgets_that_can_be_read(text: str, budget: Budget) -> None:
    assert Budget.read(text) == budget


@pytest.mark.parametrize("text", ["", "cosine", "cosine=1.5", "cosine=nan", "bytes=0", "bytes=inf", "bytes=3 km", "bytes=-1%", "time=3"])
def test_budgets_that_cannot_are_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(CompressionError, match=r'"cosine=0\.99", "bytes=64MiB" or "bytes=3%"'):
        Budget.read(text)


def independent(
    errors: dict[tuple[str, Option], float], sizes: dict[Option, int]
) -> Callable[[int, Mapping[str, Option]], tuple[Tensor, int]]:
    """Gradients whose errors of places are orthogonal, as the search supposes, of given squared sizes."""
    places = sorted({place for place, _ in errors})

    def measure(run: int, options: Mapping[str, Option]) -> tuple[Tensor, int]:
        gradient = torch.zeros(1 + len(places), dtype=torch.float64)
        gradient[0] = 1
        for number, place in enumerate(places):
            gradient[1 + number] = errors.get((place, options[place]), 0.0) ** 0.5
        return gradient, sum(sizes[options[place]] for place in places) + 100

    return measure


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("text", ["cosine=0.99", "cosine=0.9", "bytes=1400", "bytes=40%", "bytes=99%"])
def test_the_search_holds_the_budget_and_is_near_the_best_of_all_combinations(seed: int, text: str) -> None:
    places = ["a", "b", "c", "d"]
    sizes = {IN_FULL: 1000, OPTIONS[0]: 250, OPTIONS[1]: 140, OPTIONS[2]: 70}
    draw = iter((normal(len(places), len(OPTIONS), seed=seed).abs() * torch.tensor([1e-4, 1e-2, 2e-2])).flatten().tolist())
    errors = {(place, option): next(draw) for place in places for option in OPTIONS}
    measure, budget = independent(errors, sizes), Budget.read(text)
    choice = choose(budget, dict.fromkeys(places, OPTIONS), measure, full=4100, runs=1)
    limit = budget.bytes or (budget.share or 0) * 4100

    def all_combinations() -> list[tuple[float, float]]:
        found = []
        for kept in product([IN_FULL, *OPTIONS], repeat=len(places)):
            gradient, saved = measure(0, dict(zip(places, kept, strict=True)))
            found.append((float(gradient[0] / gradient.norm()), float(saved)))
        return found

    found = all_combinations()
    assert choice.reached and any(abs(choice.cosine - cosine) < 1e-9 and choice.saved == saved for cosine, saved in found)
    if budget.cosine is not None:
        assert choice.cosine >= budget.cosine
        best = min(saved for cosine, saved in found if cosine >= budget.cosine)
        assert choice.saved <= best + 250  # one notch of one place
    else:
        assert choice.saved <= limit
        best_error = min(1 - cosine for cosine, saved in found if saved <= limit)
        assert 1 - choice.cosine <= 3 * best_error + 1e-4


def test_what_cannot_be_reached_is_said() -> None:
    errors = {("a", option): 0.5 for option in OPTIONS}
    choice = choose(
        Budget.read("bytes=10"), {"a": OPTIONS}, independent(errors, {IN_FULL: 1000, **dict.fromkeys(OPTIONS, 200)}), full=1100, runs=1
    )
    assert not choice.reached and choice.saved == 300 and "NOT reached" in str(choice)


WAYS = [*OPTIONS, MADE_AGAIN]
ERRORS = st.sampled_from([0.0, 1e-13, 1e-4, 1e-2, 0.3, float("inf")])


@given(st.tuples(*[st.builds(Effect, st.integers(-50, 1000), ERRORS) for _ in WAYS]))
def test_a_ladder_goes_from_full_to_the_cheapest_at_rising_prices(of: tuple[Effect, ...]) -> None:
    effects = {IN_FULL: Effect(0, 0.0), **dict(zip(WAYS, of, strict=True))}
    ladder = _ladder(effects)
    steps = [effects[option] for option in ladder]
    assert ladder[0] == IN_FULL and max(one.freed for one in effects.values()) == steps[-1].freed
    prices = [_price(*pair) for pair in pairwise(steps)]
    assert all(a.freed < b.freed and a.error <= b.error for a, b in pairwise(steps)) and prices == sorted(prices)
    for one in effects.values():  # none is better than what the ladder has for as many bytes
        assert min(step.error for step in steps if step.freed >= one.freed) <= one.error or one.error > 0
    free = [one.freed for one in effects.values() if one.error == 0]
    assert max(free) in [one.freed for one in steps if one.error == 0], "what costs nothing is taken"


@pytest.mark.parametrize("again", [0.0, 1e-13], ids=["exactly", "but for rounding"])
def test_what_is_made_again_comes_first_and_stays_where_others_are_taken_back(again: float) -> None:
    """Alone it leaves no error; of a place that is not in full it makes that one's error larger, which only the whole shows."""
    sizes = {IN_FULL: 1000, OPTIONS[0]: 250, OPTIONS[1]: 140, OPTIONS[2]: 70, MADE_AGAIN: 0}
    errors = {("a", OPTIONS[0]): 1e-3, ("a", OPTIONS[1]): 8e-3, ("a", OPTIONS[2]): 0.4}
    errors |= {("b", OPTIONS[0]): 1e-3, ("b", OPTIONS[1]): 4e-3, ("b", OPTIONS[2]): 0.4, ("b", MADE_AGAIN): again}

    def measure(run: int, kept: Mapping[str, Option]) -> tuple[Tensor, int]:
        passed_on = 2 if kept["b"] == MADE_AGAIN else 1
        parts = [1.0, (passed_on**2 * errors.get(("a", kept["a"]), 0.0)) ** 0.5, errors.get(("b", kept["b"]), 0.0) ** 0.5]
        return torch.tensor(parts, dtype=torch.float64), sizes[kept["a"]] + sizes[kept["b"]]

    def chosen(text: str) -> Choice:
        ways = {"a": OPTIONS, "b": [*OPTIONS, MADE_AGAIN]}
        return choose(Budget.read(text), ways, measure, full=2000, runs=1)

    tight = chosen("cosine=0.99")  # four bits of "a" would do alone, with what is made of them they do not
    alone = tight.effects["b", MADE_AGAIN]
    assert alone.freed == 1000 and alone.error == pytest.approx(again, abs=1e-15)
    assert tight.reached and tight.options == {"a": OPTIONS[0], "b": MADE_AGAIN} and tight.saved == 250
    assert chosen("cosine=0.9").options == {"a": OPTIONS[1], "b": MADE_AGAIN}
    exact = chosen("cosine=0.99999")
    assert exact.reached and exact.options == {"a": IN_FULL, "b": MADE_AGAIN} and "made again" in str(exact)
    assert exact.cosine == pytest.approx(1) and exact.alone("b") == pytest.approx(1)
    few = chosen("bytes=50%")  # what costs nothing is enough
    assert few.reached and few.options == exact.options and few.saved == 1000
    assert chosen("bytes=4%").options == {"a": OPTIONS[2], "b": MADE_AGAIN}


def test_a_place_is_kept_in_few_bits_where_what_it_would_pass_on_costs_more() -> None:
    sizes = {IN_FULL: 1000, OPTIONS[0]: 250, OPTIONS[1]: 140, MADE_AGAIN: 0}
    errors = {("a", OPTIONS[0]): 8e-3, ("a", OPTIONS[1]): 0.1, ("b", OPTIONS[0]): 1e-3, ("b", OPTIONS[1]): 9e-3}

    def measure(run: int, kept: Mapping[str, Option]) -> tuple[Tensor, int]:
        passed_on = 4 if kept["b"] == MADE_AGAIN else 1
        error = passed_on * errors.get(("a", kept["a"]), 0.0) + errors.get(("b", kept["b"]), 0.0)
        return torch.tensor([1.0, error**0.5], dtype=torch.float64), sizes[kept["a"]] + sizes[kept["b"]]

    ways = {"a": OPTIONS[:2], "b": [*OPTIONS[:2], MADE_AGAIN]}
    choice = choose(Budget.read("cosine=0.99"), ways, measure, full=2000, runs=1)
    assert choice.reached and choice.options == {"a": OPTIONS[0], "b": OPTIONS[1]} and choice.saved == 390
    choice = choose(Budget.read("bytes=30%"), ways, measure, full=2000, runs=1)  # at as few bytes the nearest gradient
    assert choice.reached and choice.options == {"a": OPTIONS[0], "b": OPTIONS[0]} and choice.saved == 500
    choice = choose(Budget.read("bytes=8%"), ways, measure, full=2000, runs=1)  # too few for anything else
    assert choice.reached and choice.options == {"a": OPTIONS[1], "b": MADE_AGAIN}


def test_places_that_share_what_they_keep_are_lowered_together() -> None:
    """Each of two alone keeps a second copy of what the other keeps."""
    sizes = {IN_FULL: 1000, OPTIONS[0]: 250, OPTIONS[1]: 140, OPTIONS[2]: 70}

    def measure(run: int, kept: Mapping[str, Option]) -> tuple[Tensor, int]:
        error = sum({OPTIONS[0]: 1e-4, OPTIONS[1]: 4e-3}.get(kept[place], 0.0) for place in "ac")
        shared = sizes[kept["a"]] if kept["a"] == kept["c"] else sizes[kept["a"]] + sizes[kept["c"]]
        return torch.tensor([1.0, error**0.5], dtype=torch.float64), shared + sizes[kept["b"]]

    places, full = dict.fromkeys("abc", OPTIONS[:2]), 2000
    apart = choose(Budget.read("cosine=0.999"), places, measure, full=full, runs=1)
    assert apart.effects["a", OPTIONS[0]].freed < 0 and apart.options["a"] == apart.options["c"] == IN_FULL
    choice = choose(Budget.read("cosine=0.999"), places, measure, full=full, runs=1, together=[{"c", "a"}])
    assert choice.reached and list(choice.options) == ["a", "b", "c"] and choice.saved == 250 + 140 < apart.saved
    assert choice.options == {"a": OPTIONS[0], "b": OPTIONS[1], "c": OPTIONS[0]}
    alone = choice.effects["a", OPTIONS[0]]
    assert alone == choice.effects["c", OPTIONS[0]] and alone.freed == 750 and alone.error == pytest.approx(2e-4)
    assert (choice.beside("a"), choice.beside("b"), choice.beside("c")) == (["c"], [], ["a"]) and choice.alone("c") == choice.alone("a")
    assert str(choice).splitlines()[-1].split() == ["c", "whole,", "int8", "with", "a"] and choice.runs < apart.runs


def test_options_that_turn_the_gradient_round_come_last() -> None:
    sizes = {IN_FULL: 1000, OPTIONS[0]: 250, OPTIONS[1]: 140, OPTIONS[2]: 70}

    def measure(run: int, kept: Mapping[str, Option]) -> tuple[Tensor, int]:
        turned = -1.0 if OPTIONS[2] in kept.values() else 1.0
        return torch.tensor([turned, 0.1 * sum(one == OPTIONS[1] for one in kept.values())]), sum(map(sizes.__getitem__, kept.values()))

    for text, saved in (("cosine=0.5", 280), ("bytes=14%", 280), ("bytes=12%", 210), ("bytes=7%", 140)):
        choice = choose(Budget.read(text), {"a": OPTIONS, "b": OPTIONS}, measure, full=2000, runs=1)
        assert choice.reached and choice.saved == saved, text


class Looped(nn.Module):
    """Applies one layer again and again."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer, self.head = nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.tanh(self.layer(x)) + x
        return self.head(x)


def runs(model: nn.Module, count: int) -> list[Callable[[], object]]:
    low = normal(3, 32, seed=9)
    batches = [normal(200, 3, seed=seed) @ low for seed in range(count)]

    def run(x: Tensor) -> object:
        return model(x).square().mean().backward()

    return [lambda x=x: run(x) for x in batches]  # type: ignore[misc]


def test_a_chosen_compression_holds_its_budget_and_goes_on_from_its_state() -> None:
    model = Looped()
    laser = compress(model, budget="cosine=0.99", mode="linear")
    some = runs(model, 4)
    model.layer.weight.grad = before = torch.ones(32, 32)
    choice: Choice = laser.choose(some)
    assert model.layer.weight.grad is before and torch.equal(before, torch.ones(32, 32))
    assert choice.reached and choice.cosine >= 0.99 and choice.saved < choice.full
    assert laser.chosen == choice.options and any(option.rank for option in choice.options.values())
    assert not any(option == MADE_AGAIN for _, option in choice.effects), "a layer by itself has nothing to be made again from"

    def gradient(of: object) -> Tensor:
        model.zero_grad()
        with of:  # type: ignore[attr-defined]
            some[3]()
        return model.layer.weight.grad.clone()  # type: ignore[union-attr]

    state = laser.state_dict()
    other = compress(model, budget="cosine=0.99", mode="linear")
    other.load_state_dict(state)
    assert other.chosen == laser.chosen and torch.equal(gradient(laser), gradient(other))
    assert laser.ledger().total.all_saved_bytes == choice.saved
    laser.step()
    cosine, again = laser.hold(some)
    assert cosine >= 0.99 and again is None


def test_before_it_was_chosen_the_gradient_is_plain_autograds() -> None:
    model = Looped()
    (run,) = runs(model, 1)
    run()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with compress(model, budget="bytes=10%", mode="linear"):
        run()
    assert all(torch.equal(p.grad, wanted[name]) for name, p in model.named_parameters() if p.grad is not None)


def test_what_cannot_be_chosen_is_refused() -> None:
    model = Looped()
    with pytest.raises(CompressionError, match="has no budget"):
        compress(model, LaserPolicy(rank=4), mode="linear").choose(runs(model, 2))
    with pytest.raises(CompressionError, match="at least one more"):
        compress(model, budget="bytes=10%", mode="linear").choose(runs(model, 1))
    with pytest.raises(CompressionError, match="policy, or a budget"):
        compress(model)
    with pytest.raises(CompressionError, match="with a budget"):
        compress(model, budget="bytes=10%", mode="linear").load_state_dict(compress(model, LaserPolicy(rank=4), mode="linear").state_dict())
