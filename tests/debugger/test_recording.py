"""Recordings: what is written is read back bit for bit, also while it grows; whatever else lies in a file is refused in a sentence."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from laser_studio.debugger import Bookmark, Frame, WatchedRun, watch
from laser_studio.debugger.recording import Header, RecordingWriter, _plain
from laser_studio.errors import ExpressionError, PolicyError, RecordingError
from laser_studio.laser import LaserPolicy


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.inner(x)) + x
        return self.head(x)


POLICY = LaserPolicy(rank=2, min_fidelity=0.95, growth=1, patience=2, sites={"head": {"rank": "50%"}})


def recorded(path: Path, forwards: int = 4) -> list[Frame]:
    model = Loop()
    with watch(model, path, policy=POLICY) as watcher:
        for _ in range(forwards):
            watcher.note("loss", model(torch.randn(5, 12)).square().mean())
    watcher.note("late", 1.0)  # nothing is taken any more
    return list(watcher.frames)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def whole(frame: Frame) -> Any:
    """Everything in a frame, its times too, which comparison leaves out."""
    return json.dumps(_plain(frame))


def test_frames_notes_and_spectra_are_read_back_as_they_were(path: Path) -> None:
    model = Loop()
    with watch(model, path, policy=POLICY, every=3) as watcher:
        for _ in range(5):
            watcher.note("loss", model(torch.randn(5, 12)).square().mean())
        watcher.note("rate", float("inf"))
    run = WatchedRun(path)
    assert list(run.frames) == list(watcher.frames) and len(run.frames) == 16
    assert list(map(whole, run.frames)) == list(map(whole, watcher.frames))
    assert {event.kind for frame in run.frames for event in frame.events} >= {"started", "grew"}
    assert run.notes == watcher.notes and run.notes["rate"] == [(15, None)]
    for site in watcher.sites:
        assert run.spectra(site, 0, 99) == watcher.spectra(site, 0, 99)
    assert run.sites == watcher.sites == {"inner": 12, "head": 12}
    assert run.policy == POLICY and run.header.every == 3
    assert (run.header.module, run.header.parameters, run.header.device, run.header.dtype) == ("Loop", 195, "cpu", "float32")
    assert run.ended == "closed"


@settings(max_examples=25)
@given(value=st.floats(allow_nan=False, allow_infinity=False), share=st.floats(0, 1), whole_number=st.integers(0, 2**63 - 1))
def test_every_number_survives(tmp_path_factory: pytest.TempPathFactory, value: float, share: float, whole_number: int) -> None:
    path = tmp_path_factory.mktemp("numbers") / "run.jsonl"
    frame = recorded(path)[5]
    site = replace(frame.sites["inner"], fidelity=share, centred=value, angles=(value, share))
    frame = replace(frame, index=0, residual=value, sites={"inner": site}, seconds=share, peak=whole_number, latent=(value,) * 4)
    writer = RecordingWriter(path, WatchedRun(path).header, max_bytes=1 << 20)
    writer.frame(frame, {"inner": (share,)})
    writer.abandon()
    read = WatchedRun(path).frame
    assert read == frame and whole(read) == whole(frame)


def test_a_run_is_read_on_while_it_grows(path: Path) -> None:
    model = Loop()
    watcher = watch(model, path, policy=POLICY)
    run = WatchedRun(path)
    assert (run.head, run.frame.index, run.finished, run.ended) == (0, 0, False, "")
    assert run.step().index == 0  # nothing yet
    model(torch.randn(5, 12))
    assert run.step().index == 1 and (run.head, run.finished) == (3, False)
    assert run.refresh() == 0
    model(torch.randn(5, 12))
    assert run.refresh() == 3 and (run.seek(99).index, run.finished) == (6, False)
    watcher.close()
    run.refresh()
    assert (run.finished, run.step().index) == (True, 6)
    assert (run.back().index, run.finished) == (5, False)
    assert run.restart().index == 0 and run.seek(4).index == 4 and run.length == run.head == 6
    with pytest.raises(PolicyError, match="recorded in another process"):
        run.set_policy(LaserPolicy())


def test_bookmarks_and_watches_are_kept(path: Path) -> None:
    model = Loop()
    with watch(model, path, policy=POLICY) as watcher:
        watcher.follow("min fidelity(in*)", "inner")
        model(torch.randn(5, 12))
        watcher.bookmark(note="one forward")
        model(torch.randn(5, 12))
        watcher.bookmark("second")
        assert watcher.follow("residual > 1").name == "residual > 1"
        with pytest.raises(ExpressionError):
            watcher.follow("fidelity(nowhere)")
    watcher.bookmark("late")  # nothing is written any more
    run = WatchedRun(path)
    assert list(run.bookmarks) == [Bookmark(3, "m1", "one forward"), Bookmark(6, "second")]
    assert run.watches.to_list() == watcher.watches.to_list() and len(run.watches) == 2
    curves = run.watches.curves(run.frames, 0, len(run.frames))
    assert curves["inner"] == [frame.sites["inner"].fidelity if frame.sites else None for frame in run.frames]
    assert curves["residual > 1"] == [float(frame.residual > 1) for frame in run.frames]


def test_a_recordings_bookmarks_leave_alone_what_was_added_meanwhile(path: Path) -> None:
    model = Loop()
    watcher = watch(model, path, policy=POLICY)
    run = WatchedRun(path)
    run.bookmarks.add(0, "m1", "my own")
    run.watches.add("residual", "r")
    model(torch.randn(5, 12))
    watcher.bookmark(note="another m1")
    watcher.bookmark(note="m2")
    watcher.follow("rank", "r")
    watcher.follow("rank", "rank")
    watcher.close()
    run.refresh()
    assert [(mark.name, mark.note) for mark in run.bookmarks] == [("m1", "my own"), ("m2", "m2")]
    assert [(watch.name, watch.expression) for watch in run.watches] == [("r", "residual"), ("rank", "rank")]
    assert run.ended == "closed"


def test_a_recording_of_before_has_none(path: Path) -> None:
    recorded(path)
    assert b"bookmark" not in path.read_bytes() and b'"watch"' not in path.read_bytes()
    run = WatchedRun(path)
    assert len(run.bookmarks) == len(run.watches) == 0


@pytest.mark.parametrize(
    "line",
    [
        {"bookmark": {"step": 99, "name": "a", "note": ""}},
        {"bookmark": {"step": -1, "name": "a", "note": ""}},
        {"bookmark": {"step": 1, "name": "", "note": ""}},
        {"bookmark": {"step": 1, "name": "a"}},
        {"bookmark": {"step": 1, "name": "a\nb", "note": ""}},
        {"bookmark": {"step": 1, "name": "a", "note": "x" * 301}},
        {"bookmark": 3},
        {"bookmark": {"step": 1, "name": "a", "note": ""}, "more": 1},
        {"watch": {"expression": "fidelity(nowhere)", "name": "a"}},
        {"watch": {"expression": "__import__('os')", "name": "a"}},
        {"watch": {"expression": "cell(1, 1)", "name": "a"}},
        {"watch": {"expression": "residual", "name": ""}},
        {"watch": {"expression": "residual", "name": "a", "colour": "red"}},
        {"watch": {"expression": "(" * 500, "name": "a"}},
    ],
)
def test_a_bookmark_or_watch_that_cannot_be_is_refused(path: Path, line: Any) -> None:
    recorded(path)
    with path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
    with pytest.raises(RecordingError, match=r"line \d+: (bookmark|watch|more|'more')") as failure:
        WatchedRun(path)
    assert "\n" not in str(failure.value)


def test_no_recording_has_endless_bookmarks(path: Path) -> None:
    recorded(path)
    with path.open("ab") as file:
        for n in range(65):
            file.write(json.dumps({"bookmark": {"step": 1, "name": f"a{n}", "note": ""}}).encode() + b"\n")
    with pytest.raises(RecordingError, match="one too many"):
        WatchedRun(path)


def stopped(run: WatchedRun) -> list[str]:
    return [hit.name for hit in run.stopped_by]


def test_a_recording_stops_at_breakpoints_and_moves_by_forwards(path: Path) -> None:
    frames = recorded(path, forwards=4)
    run = WatchedRun(path)
    forward = [frame.index for frame in frames if frame.ends_supervision]
    assert forward == [3, 6, 9, 12]
    assert [run.seek(run.end_after("supervision")).index for _ in range(5)] == [3, 6, 9, 12, 12]
    assert [run.seek(run.end_before("cycle")).index for _ in range(5)] == [9, 6, 3, 0, 0]
    assert (run.end_after("net"), run.way_out()) == (1, 3)
    run.breakpoints.add("index % 4 == 0", name="fours")
    stops: list[tuple[str, int]] = []
    for _ in range(12):
        run.step()
        stops += [(hit.name, hit.step) for hit in run.stopped_by]
    assert stops == [("fours", 4), ("fours", 8), ("fours", 12)]
    run.step()
    assert stopped(run) == [] and run.breakpoints.counts == {"fours": 3}
    assert run.run_back("index == 2", breakpoints=True).index == 8 and stopped(run) == ["fours"]
    assert run.seek(3).index == 3 and stopped(run) == []
    run.restart()
    assert run.breakpoints.counts == {"fours": 0}


def test_a_line_that_is_not_whole_is_left_alone(path: Path) -> None:
    frames = recorded(path)
    text = path.read_bytes()
    last = text.rstrip(b"\n").rindex(b'\n{"frame"') + 1
    path.write_bytes(text[: last + 40])
    run = WatchedRun(path)
    assert list(run.frames) == frames[:-1] and run.refresh() == 0
    with path.open("ab") as file:
        file.write(text[last + 40 :])
    assert run.refresh() == 1 and list(run.frames) == frames and run.ended == "closed"


def test_reading_can_be_spread_over_time(path: Path) -> None:
    frames = recorded(path, forwards=20)
    run = WatchedRun(path, seconds=1e-9)  # a line at least
    assert len(run.frames) == 1
    calls = 0
    while not run.ended:
        run.refresh(1e-3)
        calls += 1
    assert list(run.frames) == frames and calls > 1


def test_what_a_killed_process_wrote_is_there(path: Path, repository: Path) -> None:
    program = f"""
import os, signal, torch, laser_studio
from torch import nn
model = nn.Linear(4, 4)
watcher = laser_studio.watch(model, {str(path)!r})
for _ in range(7):
    model(torch.ones(3, 4))
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=repository, timeout=120)
    assert result.returncode == -9
    run = WatchedRun(path)
    assert run.head == 7 and run.ended == ""


def test_a_script_that_simply_ends_has_ended_its_run(path: Path, repository: Path) -> None:
    program = f"import torch, laser_studio; m = torch.nn.Linear(4, 4); laser_studio.watch(m, {str(path)!r}); m(torch.ones(3, 4))"
    subprocess.run([sys.executable, "-c", program], cwd=repository, timeout=120, check=True)
    run = WatchedRun(path)
    assert run.head == 1 and run.ended


# What watching does where the file takes no more


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_ends_watching_and_not_what_is_watched(path: Path) -> None:
    model = Loop()
    watcher = watch(model, path)
    model(torch.randn(5, 12))
    assert watcher._writer is not None and watcher._writer._file is not None
    os.dup2(os.open("/dev/full", os.O_WRONLY), watcher._writer._file.fileno())
    with pytest.warns(RuntimeWarning, match=r"watching ended: .*run.jsonl cannot be written any more: No space left"):
        output = model(torch.ones(5, 12))
    assert torch.equal(output, Loop()(torch.ones(5, 12)))
    assert not watcher.attached and watcher.head == 4
    model(torch.ones(5, 12))
    watcher.close()
    assert watcher.head == 4 and WatchedRun(path).head == 3


def test_the_file_keeps_its_limit(path: Path) -> None:
    model = Loop()
    watcher = watch(model, path, max_bytes=20_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(10):
            model(torch.randn(5, 12))
            watcher.note("loss", 1.0)
    assert [re.search("watching ended: .* has reached 20,000 bytes", str(warning.message)) is not None for warning in caught] == [True]
    assert path.stat().st_size < 20_500
    run = WatchedRun(path)
    assert 0 < run.head < 30 and list(run.frames) == list(watcher.frames)[: run.head + 1] and "20,000 bytes" in run.ended


def test_an_older_recording_is_replaced_and_any_other_file_is_left(path: Path, tmp_path: Path) -> None:
    recorded(path)
    old = WatchedRun(path)
    recorded(path, forwards=2)
    assert WatchedRun(path).head == 6
    with pytest.raises(RecordingError, match="has been replaced by that of another run"):
        old.refresh()
    assert old.head == 12 and old.seek(12).index == 12 and old.finished and "replaced" in str(old.problem)
    other = tmp_path / "thesis.txt"
    other.write_text("years of work")
    with pytest.raises(RecordingError, match="is no recording: choose another path"):
        watch(Loop(), other)
    assert other.read_text() == "years of work"


# Broken and hostile files


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def rewritten(path: Path, line: int, change: Callable[[Any], Any]) -> None:
    records = lines_of(path)
    records[line] = change(records[line])
    text = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(text) + b"\n")


def put(*way: Any, value: Any) -> Callable[[Any], Any]:
    def change(record: Any) -> Any:
        place = record
        for name in way[:-1]:
            place = place[name]
        place[way[-1]] = value
        return record

    return change


def without(*way: Any) -> Callable[[Any], Any]:
    def change(record: Any) -> Any:
        place = record
        for name in way[:-1]:
            place = place[name]
        del place[way[-1]]
        return record

    return change


INNER = ("frame", "sites", "inner")
BROKEN: list[tuple[int, Callable[[Any], Any], str]] = [
    (0, put("format", value="other"), "line 1: does not start a recording"),
    (0, put("version", value=2), "line 1: is of version 2, this LASER Studio reads version 1"),
    (0, without("policy"), r"line 1: policy: is no set of tracker settings"),
    (0, put("policy", "rank", value=-3), r"line 1: policy: LaserPolicy: rank"),
    (0, put("policy", "nonsense", value=1), r"line 1: policy: "),
    (0, put("sites", value={}), "line 1: sites: names no site"),
    (0, put("sites", value={"a": 0}), r"line 1: sites\.a: a width"),
    (0, put("sites", value={"a": True}), r"line 1: sites\.a: holds true where a whole number is due"),
    (0, put("sites", value={"x" * 301: 3}), "line 1: sites: a name of 301 characters"),
    (0, put("sites", value={str(n): 3 for n in range(5000)}), "line 1: sites: holds an object where an object of at most 4096"),
    (0, put("every", value=0), "line 1: every: is below 1"),
    (0, lambda _: [], "line 1: holds a list of 0 where an object is due"),
    (0, lambda _: b"\xff\xfe", "line 1: is not UTF-8"),
    (0, lambda _: b"PK\x03\x04", "line 1: is not JSON"),
    (2, lambda _: b"{broken", r"line 3: is not JSON \(.* at character 1\)"),
    (2, lambda _: b"[" * 100_000, "line 3: nests too deeply"),
    (2, lambda _: b'{"frame":' + b"9" * 5000 + b"}", "line 3: is not JSON"),
    (2, lambda _: {}, "line 3: holds no frame, note, bookmark, watch or end"),
    (2, put("frame", "index", value=2), "line 3: frame.index: step 1 is due here, not 2"),
    (2, put("frame", "residual", value="1"), "line 3: frame.residual: holds text where a number is due"),
    (2, put("frame", "residual", value=None), "line 3: frame.residual: holds null where a number is due"),
    (2, put("frame", "residual", value=10**400), "line 3: frame.residual: holds a number of many digits where a finite number is due"),
    (2, put("frame", "s", value=1.0), "line 3: frame.s: holds 1.0 where a whole number is due"),
    (2, put("frame", "s", value=2**63), "line 3: frame.s: holds .* where a whole number is due"),
    (2, put("frame", "l", value="L"), 'line 3: frame.l: holds text where one of H is due|line 3: frame.l: holds text where a whole number'),
    (2, put("frame", "latent", value=[1.0]), "line 3: frame.latent: holds a list of 1 where a list of 4 is due"),
    (2, put("frame", "answer", value=[0] * 70_000), "line 3: frame.answer: holds a list of 70000 where a list of at most 65,536"),
    (2, put("frame", "secret", value=1), "line 3: frame: 'secret' is not known here"),
    (2, without("frame", "events"), "line 3: frame: events is missing"),
    (2, without("spectra"), "line 3: spectra is missing"),
    (2, put(*INNER, "action", value="explode"), "line 3: frame.sites.inner.action: holds text where one of keep, grow, reset is due"),
    (2, put(*INNER, "fidelity", value=1.5), "line 3: frame.sites.inner: rank or fidelity out of range"),
    (2, put(*INNER, "rank", value=13), "line 3: frame.sites.inner: rank or fidelity out of range"),
    (2, put(*INNER, "dim", value=13), "line 3: frame.sites.inner: no site of this name and width is in the first line"),
    (2, put(*INNER, "cause", value="x" * 2001), "line 3: frame.sites.inner.cause: holds text where a text of at most 2,000"),
    (2, put(*INNER, "history", value={"full_bytes": 1}), "line 3: frame.sites.inner.history: basis_bytes is missing"),
    (2, put("frame", "sites", "other", value=3), "line 3: frame.sites.other: holds 3 where an object is due"),
    (2, put("spectra", value={"other": [0.5]}), "line 3: spectra.other: is no spectrum"),
    (2, put("spectra", value={"inner": [0.5] * 65}), "line 3: spectra.inner: is no spectrum of at most 64"),
    (2, put("spectra", value={"inner": [-1.0]}), "line 3: spectra.inner: is no spectrum"),
    (5, put("step", value=99), "line 6: note: is noted at step 99, of 4 recorded"),
    (5, put("step", value=-1), "line 6: note: is noted at step -1"),
    (5, put("note", value=""), "line 6: note: has no name"),
    (5, put("value", value=[1]), "line 6: value: holds a list of 1 where"),
    (-1, put("end", value=3), "end: holds 3 where a text"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "change", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_named_with_its_cause(path: Path, line: int, change: Callable[[Any], Any], message: str) -> None:
    recorded(path)
    assert {"note", "step", "value"} == set(lines_of(path)[5])
    rewritten(path, line, change)
    with pytest.raises(RecordingError, match=message) as failure:
        WatchedRun(path)
    assert len(str(failure.value)) < 1_000 and "\n" not in str(failure.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(path: Path, number: str) -> None:
    recorded(path)
    rewritten(path, 2, lambda record: json.dumps(put("frame", "residual", value="@")(record)).replace('"@"', number).encode())
    with pytest.raises(RecordingError, match=r"line 3: (is not JSON|frame.residual)"):
        WatchedRun(path)


def test_what_was_read_before_a_broken_line_stays(path: Path) -> None:
    frames = recorded(path)
    text = path.read_bytes()
    run_part = text[: text.index(b'{"frame":{"index":6')]
    path.write_bytes(run_part)
    run = WatchedRun(path)
    with path.open("ab") as file:
        file.write(b"{}\n")
    for _ in range(2):
        with pytest.raises(RecordingError, match="holds no frame, note, bookmark, watch or end"):
            run.refresh()
    assert list(run.frames) == frames[:6] and run.seek(5).index == 5 and run.finished


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, cause in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory|is no file"),
        (pipe, "is no file"),
        (Path("/dev/zero"), "is no file"),
        (Path("nul\0byte"), "cannot be read"),
    ]:
        with pytest.raises(RecordingError, match=cause):
            WatchedRun(path)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(RecordingError, match="line 1: is not whole"):
        WatchedRun(empty)


def test_what_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(path)
    header = path.read_bytes().splitlines()[0] + b"\n"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(RecordingError, match="more than the 1,073,741,824 that are read"):
        WatchedRun(path)
    path.write_bytes(header + b" " * (9 << 20))
    with pytest.raises(RecordingError, match="line 2: is longer than 8,388,608 bytes"):
        WatchedRun(path)
    path.write_bytes(header)
    with pytest.raises(RecordingError, match="holds no step yet"):
        WatchedRun(path)
    recorded(path)
    monkeypatch.setattr("laser_studio.debugger.watched_run.MAX_NOTES", 2)
    with pytest.raises(RecordingError, match="one note too many"):
        WatchedRun(path)


def test_damage_anywhere_never_raises_anything_else(path: Path) -> None:
    recorded(path, forwards=2)
    text = path.read_bytes()
    dice = random.Random(0)
    outcomes: set[int | type[RecordingError]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            damaged = bytearray(text)
            for _ in range(dice.randint(1, 3)):
                place = dice.randrange(len(damaged))
                damaged[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
            path.write_bytes(damaged)
            try:
                outcomes.add(WatchedRun(path).head)
            except RecordingError as problem:
                outcomes.add(type(problem))
    assert RecordingError in outcomes and len(outcomes) > 1


def test_a_header_can_hold_every_policy(path: Path) -> None:
    policy = LaserPolicy(rank=7, max_rank=9, min_fidelity=0.123456789, measure="centred", release=True, seed=2**63 - 1)
    header = Header("r", "M", {"a": 9}, policy, None, 0, "", "")
    writer = RecordingWriter(path, header, max_bytes=1 << 20)
    writer.frame(recorded(path.with_name("other"))[0], {})
    writer.abandon()
    assert WatchedRun(path).header == header
