"""Products in eight bits against exact integer arithmetic in fp64 and against plain products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_studio.laser import int8
from laser_studio.laser import quantise as quantising
from laser_studio.laser.products import arithmetic, rebuilding_arithmetic
from laser_studio.laser.quantise import quantise, restored
from tests.laser.helpers import DEVICES, normal


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 70), inner=st.integers(1, 70), out=st.integers(1, 40), seed=st.integers(0, 99))
def test_rebuilding_is_the_product_of_what_the_codes_mean(rows: int, inner: int, out: int, seed: int) -> None:
    x, weight = normal(rows, inner, seed=seed), normal(out, inner, seed=seed + 1)
    codes, scale = quantise(x, "int8")
    wanted = restored(codes, scale, inner, torch.float64) @ restored(*quantise(weight, "int8"), inner, torch.float64).T
    found = int8.rebuilt(codes, scale, quantise(weight, "int8"), torch.float32)
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [3, 500])
def test_near_the_plain_products(rows: int, device: str) -> None:
    left, right, weight = normal(rows, 96, seed=0).to(device), normal(rows, 64, seed=1).to(device), normal(80, 64, seed=2).to(device)
    codes, scale = quantise(right, "int8")

    def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
        assert found.dtype == torch.float32 and found.shape == wanted.shape
        return float((found - wanted).norm() / wanted.norm())

    assert error(int8.rebuilt(codes, scale, quantise(weight, "int8"), torch.float32), right @ weight.T) < 0.02
    assert error(int8.outer(left, right), left.T @ right) < 0.02
    assert error(int8.outer(left, codes, scale), left.T @ right) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_tensors_in_parts_are_what_they_are_at_once(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    left, right, weight = normal(300, 40, seed=3).to(dtype), normal(300, 32, seed=4).to(dtype), normal(24, 32, seed=5)

    def all_of_it() -> list[torch.Tensor]:
        codes, scale = quantise(right, "int8")
        rebuilt = int8.rebuilt(codes, scale, quantise(weight, "int8"), dtype)
        found = [codes, scale, rebuilt, *quantise(right, "int4"), int8.outer(left, right), int8.outer(left, codes, scale)]
        return [each.float() for each in found]

    whole = all_of_it()
    monkeypatch.setattr(quantising, "ALL_AT_ONCE", 100)
    monkeypatch.setattr(quantising, "AT_ONCE", 1_000)
    assert len(list(quantising.in_parts(left.shape, left.device))) == 12
    for one, other in zip(all_of_it(), whole, strict=True):
        assert one.shape == other.shape and float((one - other).norm()) <= 1e-3 * float(other.norm())


def test_rows_of_very_different_size_are_summed_by_their_size() -> None:
    sizes = 10.0 ** torch.arange(-3, 3).repeat_interleave(50)[:, None]
    left, right = normal(300, 40, seed=3), normal(300, 32, seed=4) * sizes
    found = int8.outer(left, *quantise(right, "int8"))
    assert float((found - left.T @ right).norm() / (left.T @ right).norm()) < 0.02


def test_a_sum_longer_than_int32_holds_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = torch.full((301, 8), 2.0), torch.full((301, 8), 3.0)
    whole = int8.outer(left, right)
    monkeypatch.setattr(int8, "MOST_SUMMED", 100)
    assert torch.allclose(int8.outer(left, right), whole, rtol=1e-5) and torch.allclose(whole, torch.full((8, 8), 1806.0), rtol=1e-4)


def test_a_product_is_added_onto_another_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, before = normal(301, 8, seed=7), normal(301, 6, seed=8), normal(8, 6, seed=9)
    monkeypatch.setattr(int8, "MOST_SUMMED", 100)
    for other in ((right,), quantise(right, "int8")):
        sums = before.clone()
        found = int8.outer(left, *other, onto=sums)
        assert found is sums and torch.allclose(found, before + int8.outer(left, *other), rtol=1e-5, atol=1e-5)
    assert torch.equal(int8.outer(left[:0], right[:0], onto=before.clone()), before)


def test_what_is_not_finite_shows() -> None:
    left, right = normal(20, 8, seed=5), normal(20, 8, seed=6)
    left[3, 2] = float("nan")
    assert not bool(int8.outer(left, right)[2].isfinite().any())
    right[4, 1] = float("inf")
    assert not bool(int8.outer(normal(20, 8, seed=5), *quantise(right, "int8")).isfinite().all())


def test_no_rows_give_zeros() -> None:
    assert not bool(int8.outer(torch.zeros(0, 4), torch.zeros(0, 3)).any())


@pytest.mark.parametrize(
    ("has", "least"), [((True, False), 128), ((True, True), 256), ((False, False), None)], ids=["VNNI", "VNNI and AMX", "neither"]
)
def test_short_rows_and_half_precision_are_never_traded_for_eight_bits(
    monkeypatch: pytest.MonkeyPatch, has: tuple[bool, bool], least: int | None
) -> None:
    monkeypatch.setattr(int8, "_integers", lambda: has)
    cpu = torch.device("cpu")
    assert not any(int8.pays(cpu, dtype, 512) for dtype in (torch.bfloat16, torch.float16, torch.float64))
    assert [columns for columns in (64, 128, 256, 512) if int8.pays(cpu, torch.float32, columns)] == [
        columns for columns in (128, 256, 512) if least is not None and columns >= least
    ]
    assert not int8.pays(torch.device("cuda"), torch.float32, 512)


@pytest.mark.parametrize("has", [(True, False), (True, True), (False, False)], ids=["VNNI", "VNNI and AMX", "neither"])
def test_bfloat16_is_rebuilt_in_eight_bits_where_rows_are_long_and_there_is_no_amx(
    monkeypatch: pytest.MonkeyPatch, has: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(int8, "_integers", lambda: has)
    cpu, half = torch.device("cpu"), torch.bfloat16
    wanted = ["float", "float", "int8", "int8"] if has == (True, False) else ["float"] * 4
    assert [rebuilding_arithmetic("auto", cpu, half, columns) for columns in (64, 255, 256, 512)] == wanted
    assert {arithmetic("auto", cpu, half, columns) for columns in (64, 255, 256, 512)} == {"float"}  # for weight gradients it never pays
    for dtype in (torch.float16, torch.float64):
        assert rebuilding_arithmetic("auto", cpu, dtype, 512) == "float"
    for columns in (64, 128, 512):
        assert rebuilding_arithmetic("auto", cpu, torch.float32, columns) == arithmetic("auto", cpu, torch.float32, columns)
    for asked in ("float", "int8", "bf16"):
        assert rebuilding_arithmetic(asked, cpu, half, 512) == arithmetic(asked, cpu, half, 512) == asked
    assert rebuilding_arithmetic("auto", torch.device("cuda"), half, 512) == "float"


def test_what_this_processor_has_is_asked_of_torch() -> None:
    assert int8._integers() == (torch.cpu._is_vnni_supported(), torch.cpu._is_amx_tile_supported())
    assert int8.pays(torch.device("cpu"), torch.float32, 512) == torch.cpu._is_vnni_supported()
