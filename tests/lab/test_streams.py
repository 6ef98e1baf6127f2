"""The streams: known truth is the truth, the same seed gives the same stream, and a recorded one is what the layers were given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from laser_studio.errors import LaserStudioError
from laser_studio.lab.streams import load_streams, record_streams, recorded_streams, save_streams, seeded_streams
from laser_studio.puzzles import load_puzzles
from laser_studio.trm import TRM, TRMConfig

STREAMS = {stream.name: stream for stream in seeded_streams(dim=32, rank=6, rows=20, windows=6)}


@pytest.mark.parametrize("name", STREAMS)
def test_the_stated_best_is_that_of_an_svd_and_the_stream_the_same_every_time(name: str) -> None:
    state = torch.get_rng_state()
    first, again = list(STREAMS[name].windows()), list(STREAMS[name].windows())
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 6
    for one, two in zip(first, again, strict=True):
        assert len(one.observations) == 5 and torch.equal(one.rows, two.rows)
        energies = torch.linalg.svdvals(one.rows.double()).square()
        torch.testing.assert_close(one.best, energies.cumsum(0) / energies.sum(), rtol=0, atol=1e-5)
        assert one.best_fidelity(99) == pytest.approx(1)
    assert [window.swapped for window in first].count(True) == (name in ("abrupt swap", "ill-conditioned", "orthogonal trap"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(LaserStudioError, match="4·rank"):
        seeded_streams(dim=32, rank=9)


def small_model() -> TRM:
    settings = {"vocab_size": 8, "seq_len": 36, "hidden_size": 16, "num_heads": 2, "H_cycles": 2, "L_cycles": 2, "halt_max_steps": 2}
    return TRM(TRMConfig(**settings, forward_dtype="float32"), seed=0).eval()  # type: ignore[arg-type]


def test_recorded_streams_are_what_the_layers_were_given(tmp_path: Path) -> None:
    model, puzzles = small_model(), load_puzzles("sudoku-6x6")[:2]
    runs = list(record_streams(model, puzzles))
    assert [name for name, _ in runs] == [puzzle.name for puzzle in puzzles]
    assert all(not layer._forward_pre_hooks for layer in model.net.modules())
    site = "layers.0.self_attn.qkv_proj"
    recorded = runs[0][1][site]
    assert recorded.shape[0] == 2 * 2 * 3  # supervision steps × H cycles × (L cycles + 1)
    assert not torch.equal(recorded, runs[1][1][site])

    path = tmp_path / "streams.safetensors"
    assert save_streams(runs, path, cycle=3) == 2
    loaded = {stream.name: stream for stream in load_streams(path)}
    direct = {stream.name: stream for stream in recorded_streams(runs, cycle=3)}
    assert set(loaded) == set(direct)
    stream = loaded[f"{puzzles[0].name} {site}"]
    assert stream.ranks == (4, 2)
    windows = list(stream.windows())
    assert len(windows) == 4
    assert torch.equal(torch.cat([window.rows for window in windows]), recorded.flatten(0, 1))


@pytest.mark.parametrize("content", [b"", b"not a tensor file at all"], ids=["empty", "text"])
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(LaserStudioError, match=r"x\.safetensors"):
        load_streams(path)
    with pytest.raises(LaserStudioError, match=r"gone"):
        load_streams(tmp_path / "gone")
