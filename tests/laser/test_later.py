"""Windows put off to their end and worked on at once say what windows observed one by one say, whoever looks, whenever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from laser_studio.errors import LaserStudioError
from laser_studio.laser import LaserPolicy, SiteTap, TrackerEvent, later
from laser_studio.laser.window_graph import WindowGraph
from tests.laser.helpers import DEVICES, normal, orthonormality_error
from tests.laser.test_sites import SITES, Loop

POLICY = LaserPolicy(rank=4, min_fidelity=0.3, growth=2, max_rank=8)


@pytest.fixture(autouse=True)
def put_off_everywhere(monkeypatch: pytest.MonkeyPatch) -> list[WindowGraph]:
    """A CPU too puts windows off; gives the graphs that ran, once for each window."""
    ran: list[WindowGraph] = []
    work = WindowGraph.run

    def run(graph: WindowGraph) -> Tensor:
        ran.append(graph)
        return work(graph)

    monkeypatch.setattr(later, "pays", lambda x: True)
    monkeypatch.setattr(WindowGraph, "run", run)
    return ran


class Pair:
    """The same module seen by a tap that puts off and by one that never does."""

    def __init__(self, policy: LaserPolicy = POLICY, device: str = "cpu", module: nn.Module | None = None) -> None:
        self.module, self.device = (Loop() if module is None else module).to(device), device
        self.late, self.plain = SiteTap(self.module, policy), SiteTap(self.module, policy)
        self.plain._later._never = True
        self.late.attach(), self.plain.attach()

    def forward(self, seed: int, scale: float = 1.0, rows: int = 5) -> None:
        x = normal(2, rows, 12, seed=seed) * torch.linspace(1, 0.1, 12) * scale
        with torch.no_grad():
            self.module(x.to(self.device))

    def window(self, seed: int, **kind: float) -> tuple[Mapping[str, TrackerEvent], Mapping[str, TrackerEvent]]:
        self.forward(seed, **kind)  # type: ignore[arg-type]
        return self.late.refresh(), self.plain.refresh()


def same(late: Mapping[str, TrackerEvent], plain: Mapping[str, TrackerEvent]) -> None:
    assert list(late) == list(plain)
    for one, other in zip(late.values(), plain.values(), strict=True):
        told = [(e.site, e.window, e.closes, e.rank, e.previous_rank, e.action, e.state, e.misses, e.cause) for e in (one, other)]
        assert told[0] == told[1]
        for figure in ("fidelity", "centred_fidelity", "energy", "fidelity_after"):
            mine, theirs = getattr(one, figure), getattr(other, figure)
            assert mine == theirs or mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
        assert one.sums.values[2] == other.sums.values[2]
        for name in ("basis", "new_basis", "coefficients"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=2e-3)
        assert one.spectrum == other.spectrum or one.spectrum == pytest.approx(other.spectrum, abs=1e-3)


def same_state(pair: Pair) -> None:
    for name, tracker in pair.late.trackers.items():
        mine, theirs = tracker.snapshot(), pair.plain.trackers[name].snapshot()
        assert (mine.window, mine.standing, mine.rank, mine.holds) == (theirs.window, theirs.standing, theirs.rank, theirs.holds)
        assert mine.reference == pytest.approx(theirs.reference, abs=1e-4)
        if mine.basis is not None and theirs.basis is not None:
            assert orthonormality_error(mine.basis) < 1e-5
            torch.testing.assert_close(mine.basis, theirs.basis, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_steady_windows_are_put_off_and_say_the_same(device: str, put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair(device=device)
    told = [pair.window(seed) for seed in range(9)]
    assert len(put_off_everywhere) == 7  # the first two show what a window is like
    for late, plain in told:
        same(late, plain)
    same(pair.late.take(), pair.plain.take())
    same_state(pair)


def test_nothing_is_read_from_the_device_while_nobody_looks(put_off_everywhere: list[WindowGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(LaserPolicy(rank=4, min_fidelity=0.01))
    for seed in range(4):
        pair.window(seed)
    reads = 0
    numbers = WindowGraph.numbers

    def counted(graph: WindowGraph) -> object:
        nonlocal reads
        reads += 1
        return numbers(graph)

    monkeypatch.setattr(WindowGraph, "numbers", counted)

    def refuse(*_: object) -> None:
        raise AssertionError("a value was read on the host")

    pair.plain.detach()
    pair.late.take()
    with monkeypatch.context() as patch:
        for name in ("item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, refuse)
        for seed in range(4, 8):
            pair.forward(seed)
            pair.late.take()
            pair.late.refresh()
    assert reads == 4  # of the window before, once each


def test_a_miss_is_seen_one_window_later_and_nothing_of_it_is_lost(put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair(LaserPolicy(rank=4, min_fidelity=0.9, growth=2, patience=4))
    pair.window(0), pair.window(1), pair.window(2)
    told = [pair.window(seed) for seed in range(3, 30)]
    for late, plain in told:
        same(late, plain)
    assert any(event.action == "grow" for _, plain in told for event in plain.values())
    same_state(pair)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e25])
def test_what_is_not_finite_is_left_out(bad: float, put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair()
    for seed in range(8):
        late, plain = pair.window(seed, scale=bad if seed == 5 else 1.0)
        for site, event in plain.items():
            # Not the bases: the module makes all rows alike of what is large, and trailing directions of such a window are rounding.
            assert (late[site].cause, late[site].window, late[site].rank) == (event.cause, event.window, event.rank)
            assert late[site].sums.values[2] == event.sums.values[2]
            assert late[site].fidelity == pytest.approx(event.fidelity, abs=1e-4 if seed < 6 else 0.05)
            assert late[site].new_basis is not None and orthonormality_error(late[site].new_basis) < 1e-5  # type: ignore[arg-type]
    assert len(put_off_everywhere) == 6


def test_events_taken_in_the_middle_of_a_window_are_those_up_to_then() -> None:
    pair = Pair()
    for seed in range(4):
        pair.window(seed)
    pair.late.take(), pair.plain.take()
    pair.forward(10)
    middle = pair.late.take(), pair.plain.take()
    pair.forward(11)
    end = pair.late.take(), pair.plain.take()
    same(*middle)
    same(*end)
    same(pair.late.refresh(), pair.plain.refresh())
    same_state(pair)


def test_events_taken_at_the_end_and_looked_at_after_the_refresh() -> None:
    pair = Pair()
    for seed in range(4):
        pair.window(seed)
    pair.late.take(), pair.plain.take()
    taken = []
    for seed in range(4, 8):
        pair.forward(seed)
        taken.append((pair.late.take(), pair.plain.take(), pair.late.refresh(), pair.plain.refresh()))
    for late, plain, closed, plainly in reversed(taken):
        same(late, plain)
        same(closed, plainly)


def test_a_module_that_changes_what_its_layers_read_is_not_put_off(put_off_everywhere: list[WindowGraph]) -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            x.add_(y)
            return x

    with torch.no_grad(), SiteTap(module := Careless(), LaserPolicy(rank=2, min_fidelity=0)) as tap:
        for seed in range(6):
            module(normal(20, 8, seed=seed))
            tap.refresh()
    assert not put_off_everywhere and tap.trackers["one"].snapshot().window == 6


def test_large_windows_are_not_put_off(monkeypatch: pytest.MonkeyPatch, put_off_everywhere: list[WindowGraph]) -> None:
    monkeypatch.setattr(later, "most_bytes", lambda device: 4 * 2 * 5 * (12 + 20) * 6 - 1)
    pair = Pair()
    for seed in range(5):
        same(*pair.window(seed))
    assert not put_off_everywhere and not pair.late._later._waiting


def test_windows_of_other_shapes_are_observed_as_they_come(put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair()
    for seed, rows in enumerate((5, 5, 5, 7, 7, 7, 7, 5, 5, 5, 5)):
        same(*pair.window(seed, rows=rows))
    same_state(pair)
    assert len(put_off_everywhere) == 5


def test_a_window_that_never_closes_does_not_pile_up(put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair()
    for seed in range(4):
        pair.window(seed)
    for seed in range(50):
        pair.forward(seed)
    assert not pair.late._later.on
    same(pair.late.refresh(), pair.plain.refresh())


def test_forgotten_windows_keep_nothing() -> None:
    """A long run in which nobody looks holds one window, not a chain of them."""
    pair = Pair()
    for seed in range(4):
        pair.window(seed)
    newest = pair.late._later._newest
    for seed in range(4, 9):
        pair.window(seed)
    assert newest is not None
    chain, depth = pair.late._later._newest, 0
    while chain is not None and chain is not newest and depth < 9:
        chain, depth = getattr(chain._before, "window", None), depth + 1
    assert chain is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["window", "window", "window", "take", "look", "policy", "back", "forward", "keep", "jump"]), max_size=14),
    st.sampled_from([0.0, 0.6, 0.9]),
    st.integers(0, 99),
)
def test_whatever_is_done_in_whatever_order(deeds: list[str], epsilon: float, seed: int) -> None:
    pair = Pair(replace(POLICY, min_fidelity=epsilon))
    for first in range(3):
        pair.window(first)
    saved = pair.late.snapshot(), pair.plain.snapshot()
    for place, deed in enumerate(deeds, seed):
        if deed == "window":
            same(*pair.window(place))
        elif deed == "jump":
            pair.window(place, scale=3.0)
        elif deed == "forward":
            pair.forward(place)
        elif deed == "take":
            same(pair.late.take(), pair.plain.take())
        elif deed == "look":
            same_state(pair)
        elif deed == "policy":
            for tap in (pair.late, pair.plain):
                tap.set_policy(replace(tap.policy, min_fidelity=0.5, sites={SITES[1]: {"rank": 3 + place % 3}}))
        elif deed == "keep":
            for tap in (pair.late, pair.plain):
                tap.keep_windows = not tap.keep_windows
        else:
            pair.late.restore(saved[0])
            pair.plain.restore(saved[1])
    same_state(pair)
    same(*pair.window(7))


class Casting(nn.Linear):
    """Reads any dtype."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name `nn.Linear` gives it, and callers by keyword use
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


Call = tuple[str, Tensor]


class Script(nn.Module):
    """Applies its layers, two of them alike, as it is told; a name that ends in "=" calls by keyword, "" fails."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b, self.c = Casting(12, 3), Casting(20, 3), Casting(12, 3)

    def forward(self, calls: Sequence[Call]) -> None:
        for name, x in calls:
            if not name:
                raise ValueError("the module fails")
            layer = self.get_submodule(name.removesuffix("="))
            layer(input=x) if name.endswith("=") else layer(x)


def activations(site: str, seed: int, *shape: int) -> Tensor:
    width = 20 if site == "b" else 12
    return normal(*shape, width, seed=seed) * torch.linspace(1, 0.1, width)


def usual(seed: int) -> list[Call]:
    return [(site, activations(site, 10 * seed + place, 2, 5)) for place, site in enumerate("abcb")]


UNUSUAL: dict[str, Callable[[list[Call]], list[Call]]] = {
    "sites alike the other way round": lambda calls: [calls[2], calls[1], calls[0], calls[3]],
    "another order": lambda calls: [calls[0], calls[2], calls[1], calls[3]],
    "backwards": lambda calls: calls[::-1],
    "fewer rows": lambda calls: [*calls[:2], ("c", calls[2][1][:, :3]), calls[3]],
    "more rows": lambda calls: [*calls[:2], ("c", calls[2][1].repeat(4, 1, 1)), calls[3]],
    "a batch of one, which a copy would spread out": lambda calls: [*calls[:2], ("c", calls[2][1][:1]), calls[3]],
    "as many rows otherwise": lambda calls: [*calls[:2], ("c", calls[2][1].flatten(0, 1)), calls[3]],
    "a single vector": lambda calls: [*calls[:3], ("b", calls[3][1][0, 0])],
    "nothing": lambda calls: [*calls[:3], ("b", calls[3][1][:0])],
    "half precision": lambda calls: [*calls[:2], ("c", calls[2][1].bfloat16()), calls[3]],
    "double precision": lambda calls: [*calls[:3], ("b", calls[3][1].double())],
    "more than expected": lambda calls: [*calls, *calls[:3]],
    "fewer than expected": lambda calls: calls[:3],
    "a site less": lambda calls: [calls[0], calls[2]],
    "no site": lambda calls: [],
    "one site twice in place of another": lambda calls: [*calls[:2], ("a", calls[2][1]), calls[3]],
    "by keyword": lambda calls: [(f"{name}=", x) for name, x in calls],
    "lying otherwise": lambda calls: [(name, x.mT.contiguous().mT) for name, x in calls],
    "one object for two observations": lambda calls: [*calls[:2], ("c", calls[0][1]), calls[1]],
    "failing in the middle": lambda calls: [*calls[:2], ("", calls[0][1]), *calls[2:]],
    "failing in the middle, and again from the start": lambda calls: [*calls[:3], ("", calls[0][1])],
}
STILL_PUT_OFF = {"by keyword", "lying otherwise", "one object for two observations"}


def run(pair: Pair, calls: Sequence[Call]) -> None:
    with torch.no_grad():
        try:
            pair.module(calls)
        except ValueError:
            if calls[-1][0] == "":
                pair.module(usual(77))


@pytest.mark.parametrize("look", ["", "take", "take in the middle", "state"])
@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_was_not_expected_reaches_the_trackers_as_it_came(kind: str, look: str, put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair(LaserPolicy(rank=2, min_fidelity=0.1), module=Script())
    for seed in range(4):
        run(pair, usual(seed))
        same(pair.late.refresh(), pair.plain.refresh())
    assert len(put_off_everywhere) == 2
    pair.late.take(), pair.plain.take()
    calls = UNUSUAL[kind](usual(4))
    if look == "take in the middle":
        run(pair, calls[:2])
        middle = pair.late.take(), pair.plain.take()
        run(pair, calls[2:])
        same(*middle)
    else:
        run(pair, calls)
    if look == "take":
        taken = pair.late.take(), pair.plain.take()
    if look == "state":
        same_state(pair)
    same(pair.late.refresh(), pair.plain.refresh())
    if look == "take":
        same(*taken)
    assert (len(put_off_everywhere) == 3) is (kind in STILL_PUT_OFF and look in ("", "take"))
    same(pair.late.take(), pair.plain.take())
    for seed in range(5, 10):
        run(pair, usual(seed))
        same(pair.late.refresh(), pair.plain.refresh())
    same_state(pair)
    assert len(put_off_everywhere) >= 4  # put off again


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["usual"] * 3 + list(UNUSUAL)), st.sampled_from(["", "", "take", "state", "open"])), max_size=10),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_unusual_windows_in_whatever_order(windows: list[tuple[str, str]], epsilon: float) -> None:
    pair = Pair(replace(POLICY, rank=2, min_fidelity=epsilon), module=Script())
    for seed, (kind, look) in enumerate([("usual", "")] * 3 + windows):
        run(pair, UNUSUAL[kind](usual(seed)) if kind != "usual" else usual(seed))
        if look == "take":
            same(pair.late.take(), pair.plain.take())
        if look == "state":
            same_state(pair)
        if look != "open":
            same(pair.late.refresh(), pair.plain.refresh())
    same_state(pair)


def test_what_is_larger_or_more_than_expected_waits_for_no_close() -> None:
    pair = Pair(LaserPolicy(rank=2, min_fidelity=0.1), module=Script())
    for unexpected in (("a", activations("a", 50, 200, 5)), usual(0)[0]):
        for seed in range(4):
            run(pair, usual(seed))
            pair.late.refresh()
        run(pair, usual(4) if unexpected[1].shape == (2, 5, 12) else usual(4)[:2])
        states = [pair.late._later.on]
        run(pair, [unexpected])
        assert [*states, pair.late._later.on] == [True, False]
        pair.late.refresh()


def test_what_a_tracker_refuses_is_refused_within_the_forward() -> None:
    pair = Pair(LaserPolicy(rank=2, min_fidelity=0.1), module=Script())
    for seed in range(4):
        run(pair, usual(seed))
        pair.late.refresh(), pair.plain.refresh()
    calls = usual(4)
    with pytest.raises(LaserStudioError, match="float tensors"):
        run(pair, [*calls[:2], ("c", calls[2][1].to(torch.complex64))])
    same(pair.late.refresh(), pair.plain.refresh())
    same_state(pair)


def test_an_activation_changed_while_it_waits_is_left_out_and_nothing_is_put_off_again(put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair(LaserPolicy(rank=2, min_fidelity=0.1), module=Script())
    for seed in range(4):
        run(pair, usual(seed))
        pair.late.refresh(), pair.plain.refresh()
    calls = usual(4)
    run(pair, calls)
    calls[1][1].add_(1)
    late, plain = pair.late.refresh(), pair.plain.refresh()
    assert {site: event.sums.values[2] for site, event in late.items()} == {"a": 10, "b": 10, "c": 10}
    same({site: late[site] for site in "ac"}, {site: plain[site] for site in "ac"})
    assert late["b"].energy == pytest.approx(float(calls[3][1].square().sum()), rel=1e-5)
    for seed in range(5, 9):
        run(pair, usual(seed))
        assert [event.sums.values[2] for event in pair.late.refresh().values()] == [10, 20, 10]
    assert len(put_off_everywhere) == 2


@pytest.mark.parametrize("modes", ["iiiiii", "nnnnini", "iiinnni", "mmmmmm", "nnnmmmn"])
def test_inference_mode_makes_no_difference(modes: str, put_off_everywhere: list[WindowGraph]) -> None:
    """i: activations made in inference mode; n: without gradient; m: some of both."""
    pair = Pair(module=Script(), policy=LaserPolicy(rank=2, min_fidelity=0.1))
    for seed, mode in enumerate(modes):
        with torch.inference_mode(mode != "n"):
            calls = usual(seed)
            if mode == "m":
                with torch.inference_mode(False):
                    calls[1:3] = usual(seed)[1:3]
            pair.module(calls)
            same(pair.late.refresh(), pair.plain.refresh())
    same_state(pair)
    assert len(put_off_everywhere) == len(modes) - 2


def test_a_change_in_place_beside_tensors_of_inference_mode_is_noticed(put_off_everywhere: list[WindowGraph]) -> None:
    pair = Pair(module=Script(), policy=LaserPolicy(rank=2, min_fidelity=0.1))
    for seed in range(6):
        outside = usual(seed)
        with torch.inference_mode():
            pair.module([outside[0], *usual(seed)[1:]])
        if seed == 4:
            outside[0][1].mul_(2)
        pair.late.refresh()
    assert len(put_off_everywhere) == 2 and not pair.late._later.on


def test_no_graph_is_kept_alive_by_what_waits(put_off_everywhere: list[WindowGraph]) -> None:
    class Payload:
        pass

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, payload: Payload) -> Tensor:
            ctx.payload = payload
            return x * 2

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            return gradients[0] * 2, None

    pair = Pair(module=Script(), policy=LaserPolicy(rank=2, min_fidelity=0.1))
    for seed in range(5):
        payload = Payload()
        alive = weakref.ref(payload)
        pair.module([(name, Double.apply(x.requires_grad_(), payload)) for name, x in usual(seed)])
        del payload
        gc.collect()
        assert alive() is None
        same(pair.late.refresh(), pair.plain.refresh())
    assert len(put_off_everywhere) == 3


@pytest.mark.parametrize("deed", ["switch off", "go back"])
def test_a_site_without_a_tracker_is_put_off_no_more(deed: str) -> None:
    pair = Pair(module=Script(), policy=LaserPolicy(rank=2, min_fidelity=0.1))
    run(pair, [usual(0)[0], usual(0)[2]])
    saved = pair.late.snapshot(), pair.plain.snapshot()
    for seed in range(4):
        run(pair, usual(seed))
        pair.late.refresh(), pair.plain.refresh()
    for tap, snapshot in zip((pair.late, pair.plain), saved, strict=True):
        if deed == "switch off":
            tap.set_policy(replace(tap.policy, sites={"b": {"enabled": False}}))
        else:
            tap.restore(snapshot)
    for seed in range(4, 9):
        run(pair, usual(seed))
        same(pair.late.take(), pair.plain.take())
        same(pair.late.refresh(), pair.plain.refresh())
        same_state(pair)


@pytest.mark.parametrize("lying", ["....", "x.x.", "xxxx"])
def test_activations_that_lie_otherwise_are_copied_as_they_are(lying: str, put_off_everywhere: list[WindowGraph]) -> None:
    """Those marked x have their rows apart in the first windows; later it is the others."""
    pair = Pair(LaserPolicy(rank=2, min_fidelity=0.1), module=Script())
    for seed in range(8):
        apart = [(mark == "x") is (seed < 5) for mark in lying]
        run(pair, [(name, x.mT.contiguous().mT if other else x) for (name, x), other in zip(usual(seed), apart, strict=True)])
        same(pair.late.refresh(), pair.plain.refresh())
    assert len(put_off_everywhere) == 6
