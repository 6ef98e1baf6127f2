"""Recorded frames come back as they were put in, however old, and take little memory."""

from __future__ import annotations

import pytest

from laser_studio.debugger import Session
from laser_studio.debugger.frame_store import CHUNK, LIVE, FrameStore
from laser_studio.debugger.spectra import CHUNK as CHUNKED
from laser_studio.debugger.spectra import LIVE as LIVE_SPECTRA
from laser_studio.debugger.spectra import LONGEST, Spectra
from laser_studio.laser import LaserPolicy
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM

STEPS = LIVE + 3 * CHUNK + 5


@pytest.fixture(scope="module")
def frames() -> list:
    from laser_studio.puzzles import get_domain
    from tests.debugger.conftest import tiny_model

    session = Session(tiny_model(), get_domain("sudoku").generate(3, size=4, difficulty="easy"), policy=LaserPolicy(rank=4), beyond=True)
    made = []
    for _ in range(STEPS):
        made.append(session.step())
    return made


def test_old_frames_equal_what_was_put_in(frames: list) -> None:
    store = FrameStore(frames)
    assert store.packed_bytes > 0 and len(store) == STEPS
    assert list(store) == frames
    assert store[3:70] == frames[3:70] and store[-1] is frames[-1] and store[::100] == frames[::100]
    with pytest.raises(IndexError):
        store[STEPS]


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 7, STEPS - 3, STEPS])
def test_a_cut_store_goes_on_from_there(frames: list, length: int) -> None:
    store = FrameStore(frames)
    store.cut(length)
    assert list(store) == frames[:length]
    for frame in frames[length:]:
        store.append(frame)
    assert list(store) == frames


def test_packed_frames_are_small(frames: list) -> None:
    store = FrameStore(frames)
    assert store.packed_bytes / (len(store) - len(store._live)) < 2_000  # 10,000 steps: under 20 MB


def test_spectra_read_any_span_and_forget_the_oldest(model: TRM, puzzle: Puzzle) -> None:
    session = Session(model, puzzle, policy=LaserPolicy(rank=4, min_fidelity=0.0))
    session.seek(10)
    name = "layers.1.mlp.down_proj"
    rows = session.spectra(name, 0, 99)
    assert len(rows) == 11 and rows[:4] == [None] * 4  # no basis before the first window of three has closed
    for step in range(4, 11):
        row = rows[step]
        assert row is not None and len(row) == 4 and list(row) == sorted(row, reverse=True)
        assert sum(row) == pytest.approx(session.frames[step].sites[name].fidelity, abs=3e-3)
    assert session.spectra(name, 5, 7) == rows[5:7] and session.spectra("nothing", 0, 3) == [None] * 3

    spectra = Spectra()
    for step in range(1, LONGEST + 11):
        spectra.add("a", step, (1.0 / step,))
    assert spectra.read("a", 0, 12) == [None] * 11 + [(float(f"{1 / 11:.3g}"),)]
    spectra.cut(LONGEST)
    assert spectra.read("a", LONGEST - 1, LONGEST + 1) == [(float(f"{1 / (LONGEST - 1):.3g}"),), None]


def test_spectra_of_a_very_long_run_are_the_newest_and_take_no_more_room() -> None:
    spectra, given = Spectra(), {}
    for step in range(3, 3 * LONGEST):
        if step % 5:  # a site that is not seen at every step
            given[step] = tuple(round(0.9 / (1 + place + step % 11), 3) for place in range(step % 7))
            spectra.add("a", step, given[step])
        if step == 2 * LONGEST:
            spectra.cut(step - 900)
            given = {one: shares for one, shares in given.items() if one < step - 900}
    newest = dict(list(given.items())[-LONGEST:])
    for start, stop in ((0, 3 * LONGEST), (2 * LONGEST - 950, 2 * LONGEST - 850), (3 * LONGEST - 20, 3 * LONGEST + 20)):
        assert spectra.read("a", start, stop) == [newest.get(step) for step in range(start, stop)]
    column = spectra._columns["a"]
    assert LONGEST <= len(column) < LONGEST + CHUNKED and len(column.live) < LIVE_SPECTRA + CHUNKED  # the rest is put aside
    held = [*(chunk.rows() for chunk in column.chunks), column.live]
    assert sum(len(rows.steps) for rows in held) < 1.1 * LONGEST and sum(len(rows.values) for rows in held) < 1.1 * 6 * LONGEST
