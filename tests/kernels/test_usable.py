"""Where fused kernels run, and what happens where they do not."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from laser_studio import kernels
from laser_studio.kernels import launch

CPU = torch.device("cpu")


@pytest.fixture
def anew() -> Any:
    """The trial of a device, not remembered."""
    return kernels._work_on.__wrapped__


def test_not_on_a_cpu() -> None:
    assert not kernels.usable(torch.zeros(1))


def test_the_switch_leaves_all_to_torch(monkeypatch: pytest.MonkeyPatch, anew: Any) -> None:
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert anew(CPU) is False


def test_without_triton_it_is_said_once_and_goes_on(monkeypatch: pytest.MonkeyPatch, anew: Any) -> None:
    there = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name.startswith("laser_studio.kernels"):
            raise ImportError("No module named 'triton'")
        return there(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.warns(
        UserWarning, match=r"no fused kernels on cpu, which works but takes longer \(ImportError: No module named 'triton'\)"
    ):
        assert anew(CPU) is False


def test_where_a_kernel_runs_they_are_used(anew: Any) -> None:
    pytest.importorskip("triton", reason="Triton is not made for this system")
    if torch.cuda.is_available():
        assert anew(torch.device("cuda")) and kernels.usable(torch.zeros(1, device="cuda"))
        assert not kernels.usable(torch.zeros(1, device="cuda", dtype=torch.float64))
    else:
        assert anew(CPU)  # by the interpreter


@pytest.mark.parametrize(("width", "columns"), [(1, 1), (2, 2), (97, 128), (512, 512), (513, 1024), (kernels.WIDEST, 8192)])
def test_a_program_sees_whole_rows(width: int, columns: int) -> None:
    rows, found = launch.tile(width)
    assert found == columns >= width and rows * columns == max(columns, launch.AT_ONCE)


def test_programs_cover_everything_and_no_more() -> None:
    assert [launch.programs(many, 8)[0] for many in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
