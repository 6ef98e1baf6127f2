"""The matrix work against torch's own factorisations, and where those have to be rescued."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laser_studio.laser.linalg import (
    directions_outside,
    leading_directions,
    principal_angles,
    private_generator,
    right_singular,
    shares_lower_bound,
    singular_energies,
    steady_signs,
)
from tests.laser.helpers import DEVICES, fidelity, normal, orthonormality_error, rotation, rows_in


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [10, 40, 200])
def test_right_singular_is_the_svd_of_the_stack(rows: int, device: str) -> None:
    x = normal(rows, 40, seed=1).to(device)
    directions, energies = right_singular([x[:7], x[7:]])
    expected = torch.linalg.svdvals(x.double()).square().cpu()
    assert directions.shape == (40, min(rows, 40))
    assert directions.dtype == torch.float32 and directions.device == x.device
    torch.testing.assert_close(energies, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((x @ directions).square().sum(0).double().cpu(), expected, rtol=1e-4, atol=1e-4)
    assert orthonormality_error(directions) < 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 10, 40, 200])
@pytest.mark.parametrize("broken", [False, True])
def test_singular_energies_are_those_of_the_svd(rows: int, device: str, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    if broken:
        monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    x = rows_in(rotation(40, 18), torch.logspace(1, -4, 40), rows, 19).to(device)
    energies = singular_energies(x)
    expected = torch.linalg.svdvals(x.double()).square()
    assert energies.shape == (min(rows, 40),) and energies.device == x.device and (energies >= 0).all()
    torch.testing.assert_close(
        energies.sort(descending=True).values.double(), expected, rtol=0, atol=(1e-5 if x.is_cuda else 1e-6) * float(expected[0])
    )


@pytest.mark.parametrize(("rows", "broken"), [(20, "svd"), (60, "eigh")])
def test_a_factorisation_that_does_not_converge_is_replaced(rows: int, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(rows, 30, seed=2)
    expected = right_singular([x])[1]

    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, broken, fails)
    directions, energies = right_singular([x])
    torch.testing.assert_close(energies, expected, rtol=1e-4, atol=1e-6)
    assert orthonormality_error(directions) < 1e-5


def test_one_step_of_iteration_turns_towards_the_leading_directions_in_order() -> None:
    x = rows_in(rotation(48, 3), torch.logspace(0, -2, 48), 300, 4)
    basis = torch.linalg.qr(normal(48, 12, seed=5))[0]
    total = float(x.square().sum())
    bounds = []
    for _ in range(6):
        basis, shares = leading_directions(x.T @ (x @ basis), basis, total)
        true = (x @ basis).square().sum(0).double() / total
        assert orthonormality_error(basis) < 1e-5
        assert (shares <= true + 1e-6).all()  # never flattering
        assert (shares.diff() <= 1e-9).all()
        bounds.append(float(shares.sum()))
    best = right_singular([x])[1][:12].sum() / total
    assert bounds[-1] == pytest.approx(float(best), rel=1e-3)
    assert bounds[-1] <= float(best) + 1e-6


def test_orthonormal_where_cholesky_qr_breaks_down() -> None:
    # One direction holds nearly all energy: the Gram matrix of the sketch is singular in fp32, and Cholesky refuses it.
    x = rows_in(rotation(64, 6), torch.logspace(0, -12, 64), 200, 7)
    basis = torch.linalg.qr(normal(64, 24, seed=8))[0]
    sketch = x.T @ (x @ basis)
    assert torch.linalg.cholesky_ex(sketch.T @ sketch).info > 0
    directions, shares = leading_directions(sketch, basis, float(x.square().sum()))
    assert orthonormality_error(directions) < 1e-5
    assert shares.isfinite().all()
    assert fidelity(x, directions) > 0.9999


def test_rounding_is_not_taken_for_energy() -> None:
    # Column 2 of the sketch is nothing but rounding, and of the size that all but cancels the shift.
    frame, rounding = rotation(20, 17), 2 * torch.finfo(torch.float32).eps
    sketch = torch.stack((frame[:, 0], 1e-6 * frame[:, 5] - (1 - 1e-5) * rounding * frame[:, 1]), dim=1)
    _, shares = leading_directions(sketch, frame[:, :2], 1.0)
    assert shares[0] == pytest.approx(1, abs=1e-5)
    assert shares[1] < 1e-5


def test_the_bound_on_another_basis_is_below_the_truth_and_near_it() -> None:
    x = rows_in(rotation(40, 9), torch.logspace(0, -2, 40), 200, 10)
    test = torch.linalg.qr(normal(40, 14, seed=11))[0]
    sketch = x.T @ (x @ test)
    total = float(x.square().sum())
    other = torch.linalg.qr(normal(40, 5, seed=12))[0]
    assert shares_lower_bound(sketch, test, other, total) <= fidelity(x, other) + 1e-6
    other = leading_directions(sketch, test, total)[0][:, :8]
    bound, truth = shares_lower_bound(sketch, test, other, total), fidelity(x, other)
    assert bound <= truth + 1e-6
    assert bound > 0.9 * truth


@pytest.mark.parametrize("candidates", [torch.zeros(30, 4), torch.zeros(30, 0), rotation(30, 12)[:, :4]], ids=["zero", "none", "inside"])
def test_directions_outside_are_orthonormal_even_where_candidates_give_nothing(candidates: Tensor) -> None:
    for basis in (rotation(30, 12)[:, :10], torch.eye(30)[:, :10]):
        found = directions_outside(basis, candidates, 6, private_generator(0))
        assert orthonormality_error(torch.cat((basis, found), 1)) < 1e-5


def test_directions_outside_find_the_leading_residual_first() -> None:
    frame = rotation(30, 13)
    candidates = frame[:, :3] * 100 + frame[:, 10:13] * torch.tensor([3.0, 1.0, 2.0])
    found = directions_outside(frame[:, :10], candidates, 2, private_generator(0))
    assert principal_angles(found, frame[:, [10, 12]])[0] < 0.01


def test_the_last_directions_of_a_space_can_be_had() -> None:
    basis = rotation(20, 14)[:, :18]
    outside = directions_outside(basis, basis[:, :0], 2, private_generator(0))
    assert orthonormality_error(torch.cat((basis, outside), 1)) < 1e-5


def test_principal_angles_known_and_tiny() -> None:
    frame = torch.eye(8, dtype=torch.float64)
    turn = torch.tensor([30.0, 1e-4])
    second = frame[:, :2] * torch.cos(torch.deg2rad(turn)) + frame[:, 4:6] * torch.sin(torch.deg2rad(turn))
    torch.testing.assert_close(principal_angles(frame[:, :2], second), turn.double(), rtol=1e-4, atol=0)
    assert principal_angles(frame[:, :2], frame[:, :5]).tolist() == [0.0, 0.0]
    assert principal_angles(frame[:, :2], frame[:, 5:6]).tolist() == [90.0]


def test_signs_follow_the_previous_basis() -> None:
    previous = rotation(20, 15)[:, :5]
    now = torch.linalg.qr(previous + 0.05 * normal(20, 5, seed=16))[0] * torch.tensor([1.0, -1, 1, -1, -1])
    assert ((previous * steady_signs(now, previous)).sum(0) > 0).all()
    alone = steady_signs(now, None)
    assert (alone.gather(0, alone.abs().argmax(0, keepdim=True)) > 0).all()


def test_private_generators_depend_on_their_key_alone() -> None:
    def draw(*key: object) -> list[float]:
        return torch.randn(3, generator=private_generator(*key)).tolist()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert draw(1, "a") == draw(1, "a")
    assert draw(1, "a") != draw(1, "b")
    assert torch.equal(torch.get_rng_state(), state)
