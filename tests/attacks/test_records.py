"""What lies beside weights, or is read without any: configurations, lists of tasks, recordings, reports. Each fault is one message."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laser_studio.debugger import WatchedRun
from laser_studio.debugger.training_ledger import DEFAULT_BATCH, TrainingLedger
from laser_studio.errors import CheckpointError, LaserStudioError, RecordingError, ReportError
from laser_studio.files import MAX_YAML_BYTES, read_yaml
from laser_studio.lab.report import load_report
from laser_studio.laser.ledger import SavedBytes
from laser_studio.trm import load_checkpoint, save_checkpoint
from tests.attacks.pickles import Payload
from tests.debugger.test_recording import put, recorded, rewritten
from tests.trm.helpers import small_model, write_official


def refused(kind: type[LaserStudioError], work: Callable[[], object], *hidden: Path) -> str:
    begin = time.process_time()
    with pytest.raises(kind) as caught:
        work()
    message = str(caught.value)
    assert time.process_time() - begin < 5
    assert message.isprintable() and len(message) < 1_000 and "Traceback" not in message
    assert not any(str(path) in message for path in hidden)
    return message


ANSI = "\x1b[31mred\x1b[0m\nline"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def arch(**changes: str) -> str:
    values = {"name": "trm", "H_cycles": "2", "L_cycles": "2", "hidden_size": "32", "num_heads": "4", "expansion": "4"}
    values |= {"pos_encodings": "rope", "halt_max_steps": "3", **changes}
    return f"arch: {{{', '.join(f'{name}: {value}' for name, value in values.items())}}}\n"


YAML: list[tuple[str, str, str]] = [
    ("aliases that unfold", BOMB + "arch: *i\n", "unfolds to more than 10,000 values"),
    ("a name that unfolds", BOMB + "arch: {name: *i}\n", "unfolds to more than 10,000 values"),
    ("a list that holds itself", "arch: &a [*a]\n", "unfolds to more than 10,000 values"),
    ("merge keys", "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\narch: {<<: [*b, *b]}\n", "is not plain YAML"),
    ("a Python object", "arch: !!python/object/apply:os.mkdir ['{proof}']\n", "is not plain YAML"),
    ("a Python name", "arch: !!python/name:os.system\n", "is not plain YAML"),
    ("deep nesting", "arch: " + "[" * 10_000, "is not plain YAML"),
    ("deep nesting, closed", "arch: " + "{a: " * 2_000 + "1" + "}" * 2_000, "is not plain YAML"),
    ("too long", "arch: {}\n" + "#" * MAX_YAML_BYTES, "is larger than 32 KiB"),
    ("many digits", "arch: {H_cycles: " + "9" * 5_000 + "}\n", "is not plain YAML"),
    ("not text", "arch: \x00\x01", "is not plain YAML"),
    ("references left open", "arch: {name: trm, H_cycles: '${arch.cycles}'}\n", "holds unresolved references"),
    ("escape codes", f"arch: {json.dumps({'name': ANSI})}\n", "names the architecture"),
    ("cycles without end", arch(H_cycles="1000000000"), "H_cycles"),
    ("cycles below zero", arch(H_cycles="-1"), "H_cycles"),
    ("heads that do not divide", arch(num_heads="5"), "num_heads 5"),
    ("no number", arch(L_cycles=".nan"), "L_cycles"),
    ("more than any number", arch(expansion=".inf"), "expansion"),
    ("a list for a number", arch(num_heads="[4, 4]"), "num_heads"),
    ("steps without end", arch(halt_max_steps="9" * 18), "halt_max_steps"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in YAML], ids=[case[0] for case in YAML])
def test_all_config_yaml(tmp_path: Path, text: str, message: str) -> None:
    file = write_official(tmp_path / "official", small_model())
    (file.parent / "all_config.yaml").write_text(text.replace("{proof}", str(tmp_path / "it ran")))
    assert message in refused(CheckpointError, lambda: load_checkpoint(file, device="cpu"), tmp_path)
    assert not (tmp_path / "it ran").exists()


def test_aliases_in_reason_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: *a\nc: *a\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}


JSON: list[tuple[str, Callable[[dict[str, Any]], str], str]] = [
    ("deep nesting", lambda _: "[" * 100_000, "is not JSON"),
    ("too long", lambda _: " " * 300_000, "is larger than 256 KiB"),
    ("a list", lambda _: "[]", "is not a JSON object"),
    ("many digits", lambda record: json.dumps(record | {"version": 7}).replace('"version": 7', '"version": ' + "7" * 5_000), "is not JSON"),
    ("escape codes as version", lambda record: json.dumps(record | {"version": ANSI}), "is of format version"),
    ("cycles without end", lambda record: changed(record, H_cycles=10**9), "H_cycles"),
    ("layers without end", lambda record: changed(record, L_layers=10**9), "L_layers"),
    ("not a number", lambda record: changed(record, expansion=float("nan")), "expansion"),
    ("width without end", lambda record: changed(record, hidden_size=2**40), "hidden_size"),
    ("a field with escape codes", lambda record: changed(record, **{ANSI: 1}), "config.json"),
    ("a dict for a number", lambda record: changed(record, num_heads={"a": [1] * 1_000}), "num_heads"),
]


def changed(record: dict[str, Any], **values: Any) -> str:
    return json.dumps(record | {"architecture": record["architecture"] | values})


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in JSON], ids=[case[0] for case in JSON])
def test_config_json(tmp_path: Path, change: Callable[[dict[str, Any]], str], message: str) -> None:
    save_checkpoint(small_model(), tmp_path / "own")
    file = tmp_path / "own/config.json"
    file.write_text(change(json.loads(file.read_text())))
    assert message in refused(CheckpointError, lambda: load_checkpoint(tmp_path / "own", device="cpu"), tmp_path)


def test_details_are_made_fit_to_show(tmp_path: Path) -> None:
    """They are anything a stranger likes, and are shown on pages and in terminals."""
    save_checkpoint(small_model(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"details": {"note": ANSI, "list": [{ANSI: "\ud800"}], "café": "☕\ttab"}}))
    details = load_checkpoint(tmp_path, device="cpu").details
    assert details["note"] == "?[31mred?[0m\nline" and details["list"] == [{"?[31mred?[0m\nline": "?"}] and details["café"] == "☕\ttab"


@pytest.mark.parametrize("told", ["many", [1], {}, None, True, -1, 0, 10**30, 1.5, 32])
def test_a_batch_size_that_is_none(told: Any) -> None:
    """A file may say anything; the debugger's ledger counts with it."""
    model = small_model()
    model.details["batch_size"] = told
    assert TrainingLedger(model, SavedBytes(0, {})).batch == (32 if told == 32 else DEFAULT_BATCH)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"seq_len": 1e999}', '{"seq_len": true}', '{"seq_len": -4}', "[81]", " " * 300_000, "\x00"]
)
def test_dataset_json(tmp_path: Path, text: str) -> None:
    file = write_official(tmp_path / "official", small_model())
    (file.parent / "dataset.json").write_text(text)
    assert "dataset.json" in refused(CheckpointError, lambda: load_checkpoint(file, device="cpu"), tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[1, 2]", "\x00", '["a", null]', json.dumps([ANSI]), '["\\ud800"]', json.dumps(["x" * 301])]
)
def test_identifiers_json(tmp_path: Path, text: str) -> None:
    file = write_official(tmp_path / "official", small_model())
    (file.parent / "identifiers.json").write_text(text)
    assert "identifiers.json" in refused(CheckpointError, lambda: load_checkpoint(file, device="cpu", task="x"), tmp_path)


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    recorded(tmp_path / "run.jsonl", forwards=2)
    return tmp_path / "run.jsonl"


LINES: list[tuple[str, int, Callable[[Any], Any], str]] = [
    ("a site with escape codes", 0, put("sites", ANSI, value=0), "a width lies between"),
    ("half of a pair as name", 0, put("module", value="\ud800"), "is not UTF-8 text"),
    ("half of a pair in a note", 4, lambda record: {"note": "\udfff", "step": 0, "value": 1.0}, "is not UTF-8 text"),
    ("a field with escape codes", 2, put("frame", ANSI, value=1), "is not known here"),
    ("a cause of escape codes", 2, put("frame", "sites", "inner", "action", value=ANSI), "is due"),
    ("an index without end", 2, put("frame", "index", value=2**62), "is due here"),
]


@pytest.mark.parametrize(("line", "change", "message"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_recordings(recording: Path, line: int, change: Callable[[Any], Any], message: str) -> None:
    rewritten(recording, line, change)
    assert message in refused(RecordingError, lambda: WatchedRun(recording))


@pytest.mark.parametrize(
    "content",
    [b"", b"\n" * 1_000, b"<!DOCTYPE html>\n", b"PK\x03\x04\n", b"{}\n", b"null\n", b"\x00" * 4096 + b"\n", b"[" * 1_000_000 + b"\n"],
    ids=["empty", "lines", "page", "zip", "nothing", "null", "zeros", "deep"],
)
def test_what_is_no_recording(recording: Path, content: bytes) -> None:
    recording.write_bytes(content)
    assert "line 1" in refused(RecordingError, lambda: WatchedRun(recording))


def test_a_pickle_called_recording_never_runs(recording: Path, tmp_path: Path) -> None:
    recording.write_bytes(pickle.dumps(Payload(tmp_path / "it ran")) + b"\n")
    refused(RecordingError, lambda: WatchedRun(recording))
    assert not (tmp_path / "it ran").exists()


# --- reports --------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path: Path, repository: Path) -> Path:
    file = tmp_path / "evaluation.json"
    file.write_bytes((repository / "assets/checkpoints/sudoku-6x6/evaluation.json").read_bytes())
    assert load_report(file).arms
    return file


REPORTS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("a share above one", put("arms", 0, "exact", 0, 0, value=1e300), "shares outside 0 to 1"),
    ("a share below zero", put("halting", "error", value=-3.0), "shares outside 0 to 1"),
    ("a count beyond reason", put("groups", 0, "puzzles", value=10**30), "counts beyond reason"),
    ("a count below zero", put("groups", 0, "puzzles", value=-5), "counts beyond reason"),
    ("steps without end", put("supervision_steps", value=10**18), "counts beyond reason"),
    ("escape codes", put("task", value=ANSI), "counts beyond reason"),
    ("a task of megabytes", put("task", value="x" * 1_000_000), "counts beyond reason"),
    ("too few steps", put("supervision_steps", value=1), "contradicts itself"),
    ("no arms", put("arms", value=[]), "contradicts itself"),
    ("a strange field", put("secret", value=1), "is no evaluation report of this version"),
    ("a dict for a curve", put("arms", 0, "exact", value={}), "is no evaluation report of this version"),
    ("half of a pair", put("task", value="\ud800"), "is no evaluation report of this version|counts beyond reason"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in REPORTS], ids=[case[0] for case in REPORTS])
def test_reports(report: Path, tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    report.write_text(json.dumps(change(json.loads(report.read_text()))))
    found = refused(ReportError, lambda: load_report(report), tmp_path)
    assert any(part in found for part in message.split("|"))


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 1_000_000, b"NaN", b"\xff\xfe", b"{", b"9" * 5_000, b" " * (5 << 20), b"<html>"],
    ids=["empty", "deep", "NaN", "no text", "half", "digits", "large", "page"],
)
def test_what_is_no_report(report: Path, tmp_path: Path, content: bytes) -> None:
    report.write_bytes(content)
    refused(ReportError, lambda: load_report(report), tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_reports_with_numbers_that_are_not_finite(report: Path, tmp_path: Path, number: str) -> None:
    record = put("halting", "error", value="@")(json.loads(report.read_text()))
    report.write_text(json.dumps(record).replace('"@"', number))
    refused(ReportError, lambda: load_report(report), tmp_path)
