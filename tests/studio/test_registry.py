"""The registry of runs: ids, limits, idle closing, and locks that let a step end before its run is closed."""

from __future__ import annotations

import threading
import time

import pytest

from laser_studio.studio.registry import Registry, StudioError


class Item:
    """Something to hold, which knows how often it was closed."""

    def __init__(self, nbytes: int = 1) -> None:
        self.nbytes = nbytes
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_id_opens_its_run_and_no_other() -> None:
    registry: Registry[Item] = Registry()
    first, second = Item(), Item()
    ids = registry.add(first), registry.add(second)
    assert registry.get(ids[0]).item is first and registry.get(ids[1]).item is second
    assert len(set(ids)) == 2 and all(len(run) >= 32 for run in ids)
    registry.close_all()


@pytest.mark.parametrize("run", ["", "x", "a" * 10_000, None, 7, ["a"], {"a": 1}])
def test_an_unknown_id_is_expired(run: object) -> None:
    registry: Registry[Item] = Registry()
    with pytest.raises(StudioError, match="reload") as caught:
        registry.get(run)
    assert caught.value.expired
    registry.close(run)  # and closing it does nothing


def test_the_idlest_run_makes_room() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(capacity=2, grace_seconds=10, clock=clock)
    items = [Item(), Item(), Item()]
    first, second = registry.add(items[0]), registry.add(items[1])
    clock.now = 20
    registry.get(first)
    third = registry.add(items[2])
    assert [item.closed for item in items] == [0, 1, 0]
    with pytest.raises(StudioError):
        registry.get(second)
    assert registry.get(first) and registry.get(third)
    registry.close_all()


def test_runs_in_use_are_not_driven_out() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(capacity=1, grace_seconds=10, clock=clock)
    held, refused = Item(), Item()
    run = registry.add(held)
    clock.now = 5
    with pytest.raises(StudioError, match="places are in use"):
        registry.add(refused)
    assert (held.closed, refused.closed, len(registry)) == (0, 1, 1)
    registry.close(run)
    assert held.closed == 1


def test_bytes_are_bounded() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(capacity=9, max_bytes=100, grace_seconds=1, clock=clock)
    items = [Item(60), Item(30)]
    for item in items:
        registry.add(item)
        clock.now += 1
    items[1].nbytes = 80
    clock.now += 5
    assert registry.sweep() == 1
    assert [item.closed for item in items] == [1, 0]
    registry.close_all()


def test_idle_runs_are_closed_and_the_sweeper_ends_with_the_last() -> None:
    registry: Registry[Item] = Registry(idle_seconds=0.05)
    item = Item()
    registry.add(item)
    assert any(thread.name == "studio-sweeper" for thread in threading.enumerate())
    until = time.monotonic() + 5
    while time.monotonic() < until and (item.closed == 0 or registry._sweeper is not None):
        time.sleep(0.01)
    assert item.closed == 1 and len(registry) == 0
    assert registry._sweeper is None


def test_a_run_is_closed_only_after_the_step_under_way() -> None:
    registry: Registry[Item] = Registry()
    item = Item()
    run = registry.add(item)
    entry = registry.get(run)
    closer = threading.Thread(target=registry.close, args=(run,))
    with entry.lock:
        closer.start()
        time.sleep(0.05)
        assert item.closed == 0
    closer.join(5)
    assert item.closed == 1 and entry.closed


def test_a_run_that_was_left_is_closed_a_while_later() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(clock=clock)
    item, other = Item(), Item()
    run, _ = registry.add(item), registry.add(other)
    registry.leave(run, 20)
    clock.now = 19
    assert registry.sweep() == 0
    clock.now = 20
    assert registry.sweep() == 1 and (item.closed, other.closed) == (1, 0)
    registry.close_all()


def test_a_run_that_is_used_again_stays() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(clock=clock)
    item = Item()
    run = registry.add(item)
    registry.leave(run, 20)
    clock.now = 15
    assert registry.get(run).item is item
    clock.now = 100
    assert registry.sweep() == 0 and item.closed == 0
    registry.close_all()


@pytest.mark.parametrize("run", ["", "x", None, 7, ["a"]])
def test_leaving_an_unknown_run_does_nothing(run: object) -> None:
    Registry[Item]().leave(run, 20)


def test_the_sweeper_wakes_for_a_run_that_was_left() -> None:
    registry: Registry[Item] = Registry()  # its sweeper looks every half minute, unless there is a reason
    item, other = Item(), Item()
    run, _ = registry.add(item), registry.add(other)
    time.sleep(0.05)  # it sleeps by now
    registry.leave(run, 0.05)
    until = time.monotonic() + 5
    while time.monotonic() < until and item.closed == 0:
        time.sleep(0.01)
    assert (item.closed, other.closed) == (1, 0)
    registry.close_all()


def test_a_run_that_was_left_makes_room_first() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(capacity=2, grace_seconds=10, clock=clock)
    items = [Item(), Item(), Item()]
    registry.add(items[0])
    clock.now = 1
    left = registry.add(items[1])
    registry.leave(left, 20)
    registry.add(items[2])
    assert [item.closed for item in items] == [0, 1, 0]
    registry.close_all()


def test_runs_that_join_another_share_its_place_and_its_fate() -> None:
    clock = Clock()
    registry: Registry[Item] = Registry(capacity=1, grace_seconds=10, clock=clock)
    items = [Item() for _ in range(4)]
    host = registry.add(items[0])
    joined = [registry.join(host, item) for item in items[1:3]]
    second = registry.join(joined[0], items[3])  # a branch of a branch: the same place
    assert len(registry) == 1 and registry.together(host, second) and not registry.together(host, "none")
    assert registry.get(joined[0]).lock is registry.get(host).lock
    registry.part(joined[1])
    assert items[2].closed == 1 and registry.get(second).item is items[3]
    with pytest.raises(StudioError, match="expired"):
        registry.get(joined[1])
    registry.part(host)  # the place itself cannot be left so
    assert items[0].closed == 0
    clock.now = 8
    registry.get(second)  # using one of them is using the place
    clock.now = 12
    with pytest.raises(StudioError, match="places are in use"):
        registry.add(Item())
    registry.leave(second, 20)
    clock.now = 33
    assert registry.sweep() == 1 and [item.closed for item in items] == [1, 1, 1, 1]
    late = Item()
    with pytest.raises(StudioError, match="expired"):
        registry.join(host, late)
    assert late.closed == 1


def test_closing_one_of_a_place_closes_all_and_their_bytes_count_together() -> None:
    registry: Registry[Item] = Registry(max_bytes=100, grace_seconds=0)
    first, branch, other = Item(40), Item(40), Item(40)
    host = registry.add(first)
    run = registry.join(host, branch)
    registry.add(other)
    registry.sweep()
    assert (first.closed, branch.closed, other.closed) == (1, 1, 0)
    host = registry.add(Item())
    last = Item()
    run = registry.join(host, last)
    registry.close(run)
    assert last.closed == 1 and len(registry) == 1
    registry.close_all()
