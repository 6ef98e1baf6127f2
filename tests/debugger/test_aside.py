"""What is put aside comes back as it was, from any thread, for as long as anybody holds it, and also where no file can be written."""

from __future__ import annotations

import gc
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser_studio.debugger.aside import Spool
from laser_studio.debugger.spectra import CHUNK, LIVE, Spectra


@given(st.lists(st.binary(max_size=300), max_size=20), st.randoms(use_true_random=False))
def test_it_comes_back_in_any_order(pieces: list[bytes], random: object) -> None:
    spool = Spool()
    put = [(spool.put(piece), piece) for piece in pieces]
    random.shuffle(put)  # type: ignore[attr-defined]
    assert all(aside.read() == piece and aside.size == len(piece) and not aside.in_memory for aside, piece in put)


def test_several_threads_read_and_write_at_once() -> None:
    spool = Spool()

    def work(number: int) -> bool:
        piece = bytes([number]) * (1_000 + number)
        asides = [spool.put(piece) for _ in range(20)]
        return all(aside.read() == piece for aside in asides)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_what_cannot_be_written_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    aside = Spool().put(b"kept")
    assert aside.read() == b"kept" and aside.in_memory == 4


def test_a_disk_that_fills_up_half_way_keeps_what_there_is() -> None:
    spool = Spool()
    first = spool.put(b"first")

    class Filling:
        """Takes two bytes and no more."""

        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            return self.file.write(data[:2])  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    spool._file, whole = Filling(spool._file), spool._file  # type: ignore[assignment]
    second = spool.put(b"second")
    spool._file = whole
    third = spool.put(b"third")
    assert [one.read() for one in (first, second, third)] == [b"first", b"second", b"third"]
    assert second.in_memory == 6 and not third.in_memory


def test_the_file_lives_as_long_as_a_piece_of_it() -> None:
    spool = Spool()
    aside, file = spool.put(b"still there"), spool._file
    del spool
    gc.collect()
    assert aside.read() == b"still there" and file is not None and not file.closed
    del aside
    gc.collect()
    assert file.closed


def test_a_copy_of_spectra_reads_what_the_first_put_aside() -> None:
    first = Spectra()
    for step in range(LIVE + 3 * CHUNK):
        first.add("a", step, (1 / (1 + step % 7),))
    rows = first.read("a", 0, LIVE + 3 * CHUNK)
    twin = first.copy(2 * CHUNK + 5)
    first.cut(10)
    first.add("a", 10, (0.5,))
    assert twin.read("a", 0, LIVE + 3 * CHUNK) == [*rows[: 2 * CHUNK + 5], *[None] * (LIVE + CHUNK - 5)]
    assert first.read("a", 0, 12) == [*rows[:10], (0.5,), None]
    for step in range(2 * CHUNK + 5, LIVE + 3 * CHUNK):
        twin.add("a", step, (1 / (1 + step % 7),))
    del first
    gc.collect()
    assert twin.read("a", 0, LIVE + 3 * CHUNK) == rows
