"""Patches come and go in any order, among forwards of others, and what a tap sees through them is what the layer reads."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from laser_studio.laser import LaserPolicy, SiteTap, TrackerEvent, compress
from laser_studio.laser.patches import Patch, Reads, Wrap
from laser_studio.trm.layers import CastLinear
from tests.laser.helpers import normal, traces

X = normal(6, 12, seed=0)
POLICY = LaserPolicy(rank=3, min_fidelity=0)


class First(Wrap):
    first = True


class Net(nn.Module):
    def __init__(self, kind: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.up, self.down = kind(12, 20), kind(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(12, 4)


def events_for(net: nn.Module, xs: list[Tensor]) -> list[Mapping[str, TrackerEvent]]:
    """What a tap tells of each, a window each."""
    told = []
    with SiteTap(net, POLICY) as tap:
        for x in xs:
            net(x)
            tap.refresh()
            net(x)
            told.append(tap.take())
    return told


def same(some: list[Mapping[str, TrackerEvent]], others: list[Mapping[str, TrackerEvent]]) -> None:
    for one, other in zip(some, others, strict=True):
        assert list(one) == list(other)
        for mine, theirs in zip(one.values(), other.values(), strict=True):
            assert mine.fidelity == theirs.fidelity and mine.coefficients is not None and theirs.coefficients is not None
            assert torch.equal(mine.coefficients, theirs.coefficients)


# Order


@given(st.lists(st.one_of(st.sampled_from(["put", "put first"]), st.integers(0, 20)), max_size=25))
def test_patches_act_in_the_order_they_were_made_and_go_in_any(steps: list[str | int]) -> None:
    layer = linear()
    plain, called = layer(X), list[int]()
    firsts: list[tuple[int, Patch]] = []
    others: list[tuple[int, Patch]] = []
    for number, step in enumerate(steps):

        def call(plain: Callable[..., Tensor], x: Tensor, number: int = number) -> Tensor:
            called.append(number)
            return plain(x)

        there = firsts + others
        if step == "put":
            others.append((number, Wrap(layer, call)))
        elif step == "put first":
            firsts.insert(0, (number, First(layer, call)))
        elif there:
            assert isinstance(step, int)
            gone = there[step % len(there)]
            gone[1].remove()
            firsts, others = ([one for one in each if one is not gone] for each in (firsts, others))
        called.clear()
        assert torch.equal(layer(X), plain)
        assert called == [number for number, _ in firsts + others]
        assert ("forward" in vars(layer)) == bool(firsts + others)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("place", range(4))
def test_a_forward_of_somebody_else_among_them_is_neither_lost_nor_called_twice(place: int, order: tuple[int, ...]) -> None:
    layer, called = linear(), list[str]()
    plain = layer(X)
    patches: dict[int, Patch] = {}

    def theirs() -> None:
        below = layer.forward

        def forward(x: Tensor) -> Tensor:
            called.append("theirs")
            return below(x)

        layer.forward = forward  # type: ignore[method-assign, assignment]

    for number in range(3):
        if number == place:
            theirs()

        def call(plain: Callable[..., Tensor], x: Tensor, number: int = number) -> Tensor:
            called.append(str(number))
            return plain(x)

        patches[number] = Wrap(layer, call)
    if place == 3:
        theirs()
    there = {"theirs", "0", "1", "2"}
    for gone in order:
        assert torch.equal(layer(X), plain) and sorted(called) == sorted(there)
        called.clear()
        patches[gone].remove()
        there.remove(str(gone))
    assert torch.equal(layer(X), plain) and called == ["theirs"]


def test_who_kept_a_removed_patch_keeps_nothing_alive_by_it() -> None:
    layer = linear()

    class Owner:
        def call(self, plain: Callable[..., Tensor], x: Tensor) -> Tensor:
            return plain(x) + 1

    owner = Owner()
    patch, watch = Wrap(layer, owner.call), weakref.ref(owner)
    kept, plain = layer.forward, layer(X) - 1
    del owner
    patch.remove()
    patch.remove()
    gc.collect()
    assert watch() is None
    torch.testing.assert_close(kept(X), plain)


def test_what_a_layer_reads_is_replaced_in_order_and_by_keyword_too() -> None:
    layer = linear()
    expected = layer((X + 1) * 2)
    patches = Reads(layer, lambda x: x + 1), Reads(layer, lambda x: x * 2)
    assert torch.equal(layer(X), expected) and torch.equal(layer(input=X), expected)
    for patch in patches:
        patch.remove()
    assert traces(layer) == 0


# Copies


def through_pickle(module: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(module))


def through_file(module: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("kind", [nn.Linear, CastLinear])
@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_file])
def test_copies_made_while_attached_are_plain(copied: Callable[[nn.Module], Any], kind: type[nn.Linear]) -> None:
    net = Net(kind)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with SiteTap(net, POLICY) as tap, compress(net, POLICY, mode="linear"):
        assert net.state_dict().keys() == state.keys()
        twin = copied(net)
        twin = copied(twin)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert torch.equal(twin(X), torch.zeros(6, 12)) and not tap.take()
        net(X)
        assert list(tap.take()) == ["up", "down"]
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())


def test_a_copy_has_the_forward_that_the_layer_had_before() -> None:
    layer = linear()
    plain = layer.forward
    layer.forward = lambda x: plain(x) + 1  # type: ignore[method-assign, assignment]
    expected = layer(X)
    with SiteTap(layer, POLICY) as tap:
        assert torch.equal(copy.deepcopy(layer)(X), expected) and not tap.take()
        assert torch.equal(layer(X), expected) and list(tap.take()) == ["linear"]
    assert torch.equal(layer(X), expected)


# What a tap sees


@pytest.mark.parametrize("late", [False, True])
def test_what_hooks_leave_is_seen_whenever_they_were_put_there(late: bool) -> None:
    net, hooked = Net(), Net()
    expected = events_for(net, [X * 2, X * 3])
    told = list[Mapping[str, TrackerEvent]]()
    tap = SiteTap(hooked, POLICY)
    if late:
        tap.attach()
    hooked.up.register_forward_pre_hook(lambda _, args: (args[0] * (2 + len(told)),))
    hooked.up.register_forward_hook(lambda _, args, out: None)
    tap.attach()
    for _ in range(2):
        hooked(X)
        tap.refresh()
        hooked(X)
        told.append(tap.take())
    same(told, expected)


@pytest.mark.parametrize("late", [False, True])
def test_a_tap_is_before_all_other_patches_whenever_it_came(late: bool) -> None:
    layer = linear()
    tap = SiteTap(layer, POLICY)
    expected = events_for(layer, [X])
    if not late:
        tap.attach()
    patch = Reads(layer, lambda x: x * 2)
    tap.attach()
    layer(X)
    tap.refresh()
    layer(X)
    same([tap.take()], expected)
    patch.remove()
    tap.detach()
    assert traces(layer) == 0


def test_a_layers_forward_called_by_itself_is_seen_once() -> None:
    class Direct(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.down.forward(input=torch.relu(self.up.forward(x)))

    same(events_for(Direct(), [X]), events_for(Net(), [X]))


def test_taps_on_one_module_do_not_disturb_one_another() -> None:
    net = Net()
    expected = events_for(Net(), [X, X + 1])
    with SiteTap(net, POLICY) as one:
        same(events_for(net, [X, X + 1]), expected)
        assert one.refresh()["up"].sums.values[2] == 4 * 6
    assert traces(net) == 0


@pytest.mark.parametrize("first_in", ["tap", "compression"])
@pytest.mark.parametrize("first_out", ["tap", "compression"])
def test_with_compression_in_any_order(first_in: str, first_out: str) -> None:
    def gradients(net: Net) -> list[Tensor]:
        net.zero_grad()
        net(X).square().sum().backward()
        return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]

    net, alone = Net(), Net()
    tap, laser, other = SiteTap(net, POLICY), compress(net, POLICY, mode="linear"), compress(alone, POLICY, mode="linear")
    enter = {"tap": tap.attach, "compression": laser.__enter__}
    leave = {"tap": tap.detach, "compression": lambda: laser.__exit__(None, None, None)}
    for name in sorted(enter, key=lambda name: name != first_in):
        enter[name]()
    with other:
        for step in range(2):
            assert all(torch.equal(*pair) for pair in zip(gradients(net), gradients(alone), strict=True))
            laser.step(), other.step()
            if step == 0:
                tap.refresh()
    same([tap.take()], events_for(Net(), [X]))
    leave[first_out]()
    if first_out == "compression":
        assert all(torch.equal(*pair) for pair in zip(gradients(net), gradients(Net()), strict=True))
        assert list(tap.take()) == ["up", "down"]
    else:
        with other:
            assert all(torch.equal(*pair) for pair in zip(gradients(net), gradients(alone), strict=True))
        assert not tap.take()
    for name in leave.keys() - {first_out}:
        leave[name]()
    assert traces(net) == 0


def test_a_forgotten_tap_under_a_forward_of_somebody_else_leaves_nothing_alive() -> None:
    net = Net()
    tap = SiteTap(net, POLICY).attach()
    plain = net.up.forward
    net.up.forward = lambda x: plain(x)  # type: ignore[method-assign, assignment]
    net(X)
    tracker, expected = weakref.ref(tap.trackers["up"]), Net()(X)
    del tap
    gc.collect()
    assert tracker() is None and traces(net) == 1
    assert torch.equal(net(X), expected)


def test_an_error_of_the_layer_leaves_the_tap_as_it_is() -> None:
    net = Net()
    with SiteTap(net, POLICY) as tap:
        net.up.weight.data = net.up.weight.data[:, :5]
        with pytest.raises(RuntimeError):
            net(X)
        assert tap.attached and list(tap.take()) == ["up"]
    assert traces(net) == 0


def test_torchs_fused_layers_are_seen_inside() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)).eval()
    with torch.no_grad(), SiteTap(net, POLICY) as tap:
        net(X[None])
        assert {"0.linear1", "0.linear2"} <= tap.take().keys()
    assert traces(net) == 0


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_code_shows_the_same(whole: bool) -> None:
    torch.compiler.reset()
    net = nn.Sequential(linear())
    expected = events_for(net, [X])
    with SiteTap(net, POLICY) as tap:
        if not whole:
            net[0].compile(backend="eager")
        compiled: Any = torch.compile(net, backend="eager") if whole else net
        compiled(X)
        tap.refresh()
        compiled(X)
        told = tap.take()
    assert traces(net) == 0
    for mine, theirs in zip(told.values(), expected[0].values(), strict=True):
        assert mine.site == theirs.site and mine.fidelity == pytest.approx(theirs.fidelity, rel=1e-5)
        torch.testing.assert_close(mine.coefficients, theirs.coefficients)
    compiled(X)
    assert not tap.take()
