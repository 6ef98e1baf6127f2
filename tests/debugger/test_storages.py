"""Storages that several hold are counted once, whoever comes and goes; a full history is trimmed in few rounds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.debugger import Session
from laser_studio.debugger.history import DROPPED_AT_ONCE, History, SiteHistory
from laser_studio.debugger.storages import Storages, storages_of
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM

HOLDER = st.sets(st.integers(0, 8)).map(lambda places: {place: 10 * place + 1 for place in places})


@given(st.lists(HOLDER, max_size=8), st.sets(st.integers(0, 12)), st.data())
def test_each_is_counted_once(holders: list[dict[int, int]], others: set[int], data: st.DataObject) -> None:
    storages = Storages()
    for holder in holders:
        storages.add(holder)
    gone = data.draw(st.sets(st.integers(0, len(holders) - 1))) if holders else set()
    for number in gone:
        storages.remove(holders[number])
    left: dict[int, int] = {}
    for number, holder in enumerate(holders):
        if number not in gone:
            left |= holder
    assert storages.nbytes == sum(left.values())
    assert storages.beside(others) == sum(nbytes for place, nbytes in left.items() if place not in others)


def test_views_of_one_tensor_are_one_storage() -> None:
    whole = torch.zeros(4, 6)
    assert list(storages_of([whole, whole[1:], whole.T]).values()) == [whole.nbytes]


@pytest.mark.parametrize("budget", [1 << 19, 200_000])
def test_books_equal_a_count_of_all_that_is_held(model: TRM, puzzle: Puzzle, budget: int) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=4, min_fidelity=0.9), beyond=True, history_bytes=budget, keyframe_steps=6)
    for step in range(1, 240):
        session.step()
        if step % 40 == 0:
            history = session._machine.history
            held: dict[int, int] = {}
            for keyframe in history.keyframes:
                states, tracked = keyframe.storages()
                held |= states | tracked
            coefficients = 0
            for site in history.sites.values():
                coefficients += sum(run.nbytes for run in (site._exact, *site._versions))
                held |= storages_of(run.basis for run in site._versions if run.basis is not None)
            assert history.nbytes == coefficients + sum(held.values()) <= budget
    assert session.kept.thinned or session.kept.activations_from > 1  # the budget took something, so that going is counted as well


def test_a_full_history_is_trimmed_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    history, generator, called = History(1 << 40), torch.Generator().manual_seed(0), Counter[str]()
    basis = torch.linalg.qr(torch.randn(16, 4, generator=generator)).Q
    site = history.site("a", 16, 0.9)
    for step in range(2_000):
        site.add(step, torch.ones(8, 4), basis, 40.0)
    drop = SiteHistory.drop_before

    def counted(self: SiteHistory, step: int) -> None:
        called["drops"] += 1
        drop(self, step)

    monkeypatch.setattr(SiteHistory, "drop_before", counted)
    history.budget_bytes = history.nbytes // 2
    assert (said := history.hold_budget()) is not None and "dropped" in said
    held = history.nbytes / history.budget_bytes
    assert 0.9 - 2 / DROPPED_AT_ONCE < held <= 0.9 and called["drops"] <= DROPPED_AT_ONCE
