"""The tracker's benchmark: every method on every stream, measured with the basis from before, and timings with their ratios."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from laser_studio.assets import asset_path
from laser_studio.cli import app
from laser_studio.lab import bench_tracker as bench
from laser_studio.lab.rivals import ARMS
from laser_studio.lab.streams import Stream, measured, record_streams, recorded_streams, seeded_streams
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import load_checkpoint


def test_every_method_on_every_stream() -> None:
    before = torch.get_rng_state()
    streams = seeded_streams(dim=32, rank=6, rows=20, windows=12)
    results = list(bench.measure_quality(streams))
    assert [(result.group, result.arm) for result in results] == list(itertools.product([stream.group for stream in streams], ARMS))
    for result in results:
        assert 0 <= result.worst <= result.mean <= 1 + 1e-5
        assert len(result.swaps) == (3 if result.group in ("abrupt swap", "ill-conditioned", "orthogonal trap") else 0)
    assert torch.equal(torch.get_rng_state(), before)
    found = {(result.group, result.arm): result for result in results}
    assert found["abrupt swap", "SVD"].swaps == pytest.approx((1, 1, 1), abs=1e-4)  # exact from one window on
    assert found["flat spectrum", "first SVD, fixed"].mean == pytest.approx(1, abs=1e-4)  # any basis holds as much as any other


def test_a_method_is_measured_with_the_basis_from_before_the_window() -> None:
    """A basis that always spans just what it was last shown keeps nothing of the next axis."""

    class Last:
        def __init__(self, rows: Tensor, rank: int) -> None:
            self.update(rows)

        def update(self, rows: Tensor) -> None:
            self.basis = rows[:1].T

    axes = [torch.eye(4)[i : i + 1] for i in (0, 1, 1, 2)]
    stream = Stream("axes", "axes", (1,), lambda: iter([measured([axis]) for axis in axes]))
    (result,) = bench.measure_quality([stream], {"last": Last})
    assert (result.mean, result.settled, result.worst) == pytest.approx((1 / 3, 1 / 2, 0))


def test_ratios_are_over_the_first_side(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])

    def takes(seconds: float) -> None:
        clock[0] += seconds

    one, two = bench.compare({"one": lambda: takes(2.0), "two": lambda: takes(5.0)}, 3, torch.device("cpu"))
    assert (one.seconds, one.ratio, two.seconds, two.ratio, two.low, two.high) == (2.0, 1.0, 5.0, 2.5, 2.5, 2.5)
    assert "2.50×" in str(two)


def test_short_sides_run_several_times_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now, runs = 0.0, []

    def takes(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds
        runs.append(name)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    short, long = bench.compare(
        {"short": lambda: takes("short", 2.0), "long": lambda: takes("long", 30.0)}, 2, torch.device("cpu"), least=10.0
    )
    assert (short.seconds, long.seconds, long.ratio) == (2.0, 30.0, 15.0)
    assert runs.count("short") == 1 + 2 * 5 and runs.count("long") == 1 + 2


def test_the_command_prints_its_tables() -> None:
    small = ["--repeats", "1", "--rows", "40", "--dim", "64", "--rank", "8", "--l-cycles", "1", "--batch", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, ["bench", "tracker", *small], catch_exceptions=False)
    assert result.exit_code == 0
    for row in (
        "long drift",
        "one update, N 40, D 64, k 8",
        "svd_lowrank(q=k)",
        "… and angles to the basis before",
        "with all sites tracked",
    ):
        assert row in result.output


def test_on_the_demo_the_tracker_keeps_what_an_svd_of_the_window_before_keeps() -> None:
    """Recorded from the bundled model. The stream itself moves on between windows: no method that knows only the past does better."""
    model = load_checkpoint(asset_path("checkpoints", "sudoku-6x6"), device="cpu")
    runs = list(record_streams(model, load_puzzles("sudoku-6x6")[:1]))
    narrow = [(name, {site: x for site, x in sites.items() if x.shape[-1] == model.config.hidden_size}) for name, sites in runs]
    arms = {name: ARMS[name] for name in ("tracker", "SVD")}
    quarter, fresh, eighth, fresh_eighth = bench.measure_quality(recorded_streams(narrow, cycle=model.config.L_cycles + 1), arms)
    assert (quarter.rank, eighth.rank, quarter.streams) == ("25.0%", "12.5%", 6)
    assert quarter.settled > 0.99 and quarter.mean > 0.98
    assert eighth.settled > 0.98
    assert fresh.mean - quarter.mean < 0.002
    assert fresh_eighth.mean - eighth.mean < 0.003
