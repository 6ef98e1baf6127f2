"""The forward benchmark times what it says, side by side, and leaves nothing behind."""

from __future__ import annotations

import itertools

import pytest
import torch

from laser_studio.errors import DeviceError
from laser_studio.lab import bench_forward as bench


def test_every_case_once_with_its_facts() -> None:
    before = torch.get_rng_state()
    results = list(bench.bench_forward(hidden_size=64, seq_len=9, batches=(1, 2), pairs=2, cycles=(1, 1), device="cpu"))
    cases = [(result.variant, result.dtype, result.batch) for result in results]
    assert cases == list(itertools.product(("attention", "mixer"), ("float32", "bfloat16"), (1, 2)))
    for result in results:
        assert (result.pairs, result.device, result.hidden_size, result.seq_len) == (2, "cpu", 64, 9)
        assert result.threads == torch.get_num_threads()
        assert 0 < result.low <= result.speed <= result.high
        assert result.variant in str(result)
    assert torch.equal(torch.get_rng_state(), before)


def test_ratio_is_plain_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock on which ours takes 2 s and the plain code 3 s, the speed is 1.5."""

    def clocked(run: object, device: torch.device) -> float:
        run()  # type: ignore[operator]
        free = dict(zip(run.__code__.co_freevars, run.__closure__, strict=True))  # type: ignore[attr-defined]
        net = free["net"].cell_contents
        return 2.0 if isinstance(net, bench.TRM) else 3.0

    monkeypatch.setattr(bench, "_timed", clocked)
    options = {"variants": ("attention",), "dtypes": ("float32",), "batches": (1,), "cycles": (1, 1)}
    (result,) = bench.bench_forward(hidden_size=64, seq_len=4, pairs=5, gradient=True, device="cpu", **options)  # type: ignore[arg-type]
    assert (result.seconds, result.plain_seconds, result.speed, result.low, result.high) == (2.0, 3.0, 1.5, 1.5, 1.5)
    assert "with backward" in str(result)


def test_device_is_checked() -> None:
    with pytest.raises(DeviceError):
        next(bench.bench_forward(device="abacus"))
