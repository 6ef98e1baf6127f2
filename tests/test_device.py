"""Which device a name stands for."""

from __future__ import annotations

import pytest
import torch

from laser_studio.device import resolve_device
from laser_studio.errors import DeviceError, LaserStudioError


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device() == torch.device(expected)


def test_names_and_devices_pass() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "tpu", "meta", "AUTO", "cpu; rm", "x" * 500])
def test_unknown_names(name: str) -> None:
    with pytest.raises(DeviceError, match="is not known: use auto, cpu, cuda") as caught:
        resolve_device(name)
    assert len(str(caught.value)) < 200
    assert isinstance(caught.value, LaserStudioError)


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [(0, "cuda", "cuda: no CUDA device is usable here"), (2, "cuda:2", "cuda:2: there are 2 CUDA devices here, cuda:0 to cuda:1")],
)
def test_absent_cuda(monkeypatch: pytest.MonkeyPatch, count: int, name: str, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(DeviceError, match=message):
        resolve_device(name)


def test_absent_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="mps: Apple's Metal is not available here"):
        resolve_device("mps")
