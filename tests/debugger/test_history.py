"""The history's bookkeeping against what one can compute by hand with the full activations at hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laser_studio.debugger.history import STEPS_BETWEEN_TRIMS, History, SiteHistory

D = 24


def basis_of(seed: int, rank: int) -> Tensor:
    return torch.linalg.qr(torch.randn(D, rank, generator=torch.Generator().manual_seed(seed)))[0]


def rows_in(basis: Tensor, rows: int, seed: int) -> Tensor:
    """Activations that lie in the span of a basis."""
    return torch.randn(rows, basis.shape[1], generator=torch.Generator().manual_seed(seed)) @ basis.T


def add(site: SiteHistory, step: int, x: Tensor, basis: Tensor) -> None:
    site.add(step, x @ basis, basis, float(x.square().sum()))


def turned(basis: Tensor, angle: float) -> Tensor:
    """The basis with its last direction turned by `angle` radians out of its span."""
    outside = torch.randn(D, generator=torch.Generator().manual_seed(99))
    outside -= basis @ (basis.T @ outside)
    new = basis.clone()
    new[:, -1] = torch.cos(torch.tensor(angle)) * basis[:, -1] + torch.sin(torch.tensor(angle)) * outside / outside.norm()
    return new


def test_a_small_turn_carries_coefficients_over_and_keeps_one_basis() -> None:
    site, old = SiteHistory(D, threshold=0.97), basis_of(0, 6)
    x = rows_in(old, 30, 1)
    add(site, 1, x, old)
    new = turned(old, 0.1)
    site.rebase(new)
    assert site.versions == 1
    restored, share = site.read(1)  # type: ignore[misc]
    assert torch.allclose(restored, x @ old @ old.T @ new @ new.T, atol=1e-5)
    true = float(restored.square().sum() / x.square().sum())
    assert share == pytest.approx(true, rel=1e-5) and 0.97 <= share < 1
    assert site.retained == pytest.approx(true, rel=1e-5)
    assert site.ledger.basis_bytes == D * 6 * 4


def test_a_large_turn_starts_a_new_version_and_the_ledger_counts_both_bases() -> None:
    site, old, new = SiteHistory(D, threshold=0.97), basis_of(0, 6), basis_of(5, 6)
    x = rows_in(old, 30, 1)
    add(site, 1, x, old)
    site.rebase(new)
    add(site, 2, rows_in(new, 30, 2), new)
    assert site.versions == 2
    restored, share = site.read(1)  # type: ignore[misc]
    assert torch.allclose(restored, x, atol=1e-5) and share == pytest.approx(1.0, abs=1e-5)
    assert site.ledger.basis_bytes == 2 * D * 6 * 4


def test_a_much_wider_basis_is_not_carried_into_where_the_old_form_is_smaller() -> None:
    old = basis_of(0, 4)
    wide = torch.linalg.qr(torch.cat((old, basis_of(7, 12)), dim=1))[0]
    few, many = SiteHistory(D, 0.97), SiteHistory(D, 0.97)
    add(few, 1, rows_in(old, 5, 1), old)  # 5 rows · 12 more columns cost 60 numbers, the old basis 96: carried
    add(many, 1, rows_in(old, 50, 1), old)  # 50 · 12 = 600 > 96: the old basis stays
    few.rebase(wide)
    many.rebase(wide)
    add(few, 2, rows_in(wide, 5, 2), wide)
    add(many, 2, rows_in(wide, 5, 2), wide)
    assert (few.versions, many.versions) == (1, 2)


def test_ledger_counts_coefficients_bookkeeping_bases_and_exact_steps() -> None:
    site, basis = SiteHistory(D, 0.97), basis_of(0, 6)
    site.add_exact(1, torch.ones(10, D))
    add(site, 2, rows_in(basis, 10, 1), basis)
    line = site.ledger
    assert line.full_bytes == 2 * 10 * D * 4
    assert line.stored_bytes == 10 * D * 4 + 10 * 6 * 4 + 2 * 8
    assert line.basis_bytes == D * 6 * 4
    assert torch.equal(site.read(1)[0], torch.ones(10, D))  # type: ignore[index]
    assert site.read(3) is None


def test_stored_tensors_do_not_pin_larger_storages() -> None:
    site, basis = SiteHistory(D, 0.0), basis_of(0, 6)
    for step in range(1, 5):
        add(site, step, rows_in(basis, 10, step), basis)
    site.rebase(turned(basis, 0.1))
    held = [entry.data for entry in site._versions[-1].entries]
    assert all(data.untyped_storage().nbytes() == data.nbytes for data in held)


def test_the_budget_compresses_exact_steps_first_then_drops_the_oldest() -> None:
    history, basis = History(budget_bytes=6_000), basis_of(0, 6)
    site = history.site("a", D, 0.97)
    site.add_exact(1, rows_in(basis, 40, 1))
    add(site, 2, rows_in(basis, 40, 2), basis)
    assert history.nbytes <= 6_000 and history.hold_budget() is None
    add(site, 3, rows_in(basis, 40, 3), basis)
    said = history.hold_budget()
    assert said is not None and "compressed" in said and "dropped" not in said
    assert site.read(1)[1] == pytest.approx(1.0, abs=1e-5)  # type: ignore[index]
    for step in range(4, 30):
        add(site, step, rows_in(basis, 40, step), basis)
        history.hold_budget()
        assert history.nbytes <= 6_000
    assert history.dropped_before > 2
    assert site.read(history.dropped_before - 1) is None and site.read(29) is not None


def test_zero_activations_are_retained_whole() -> None:
    site, basis = SiteHistory(D, 0.97), basis_of(0, 3)
    add(site, 1, torch.zeros(4, D), basis)
    site.rebase(turned(basis, 0.2))
    assert site.retained == 1.0 and site.read(1)[1] == 1.0  # type: ignore[index]


def test_holes_are_given_back_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("laser_studio.debugger.history.give_back_freed", lambda: calls.append(1))
    history = History(1 << 20)
    for _ in range(2 * STEPS_BETWEEN_TRIMS + 5):
        history.hold_budget()
    assert len(calls) == 2
