"""Models that pages bring: sent files and where they may lie, questions and answers, what is kept and what is gone."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laser_studio.studio.bringing import MAX_WAITING, Bringing, _reference
from laser_studio.studio.catalogue import Catalogue, ModelEntry
from laser_studio.studio.channel import Channel
from laser_studio.trm.checkpoints.needs import read_answers
from tests.hub.server import COMMIT, Hub, serve
from tests.trm.helpers import small_model, write_official

HEADS = {"num_heads": "2", "puzzle_emb_len": "2"}
OFFICIAL = Path(__file__).parent.parent / "data" / "conformance" / "mlp_t"


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def bringing(catalogue: Catalogue, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bringing:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    return Bringing(catalogue, uploads=uploads)


def sent(uploads: Path, *files: Path) -> list[str]:
    """The server's part: each file in a folder of its own."""
    found = []
    for number, file in enumerate(files):
        (uploads / str(number)).mkdir(exist_ok=True)
        found.append(str(shutil.copy(file, uploads / str(number) / file.name)))
    return found


def kept(bringing: Bringing) -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()]


def ask(bringing: Bringing, name: str, **values: Any) -> dict[str, Any]:
    return Channel(bringing.catalogue, bringing=bringing).bring({"name": name, **values})


def test_a_sent_model_is_offered_and_its_file_gone(bringing: Bringing, uploads: Path, small_checkpoint: Path) -> None:
    paths = sent(uploads, small_checkpoint / "model.safetensors", small_checkpoint / "config.json")
    found = ask(bringing, "sent", paths=paths)
    assert found["name"] == "model.safetensors" and found["facts"]["width"] == 32
    channel = Channel(bringing.catalogue, bringing=bringing)
    opened = channel.open({"query": "?model=model.safetensors"})
    assert opened["model"]["name"] == "model.safetensors" and opened["notices"] == []
    assert channel.advance({"run": opened["run"], "at": 0, "steps": 1})["frame"]["index"] == 1
    channel.registry.close_all()
    assert not kept(bringing) and not [path for path in uploads.rglob("*") if path.is_file()]
    again = ask(bringing, "sent", paths=sent(uploads, small_checkpoint / "model.safetensors", small_checkpoint / "config.json"))
    assert again["name"] == "model.safetensors (2)"


def test_what_a_file_does_not_tell_is_asked_for(bringing: Bringing, uploads: Path) -> None:
    weights = next(OFFICIAL.glob("step_*"))
    asked = ask(bringing, "sent", paths=sent(uploads, weights))
    needs = {need["name"]: need for need in asked["needs"]}
    assert {"H_cycles", "L_cycles"} <= set(needs) and all(need["why"] for need in asked["needs"])
    assert len(kept(bringing)) == 1
    wrong = ask(bringing, "answer", token=asked["token"], assume=dict.fromkeys(needs, "0"))
    assert wrong["problem"] and "Traceback" not in wrong["problem"]
    assert "not kept" in ask(bringing, "answer", token=asked["token"], assume={})["error"]  # a token is good once
    proposals = {name: str(need["proposed"]) for name, need in needs.items()}
    answered = ask(bringing, "answer", token=wrong["token"], assume=proposals)
    assert answered.get("name") or answered.get("problem") or answered.get("error")
    if "name" in answered:
        assert not kept(bringing)


def test_only_the_servers_own_uploads_are_opened(bringing: Bringing, uploads: Path, tmp_path: Path, small_checkpoint: Path) -> None:
    outside = shutil.copy(small_checkpoint / "model.safetensors", tmp_path / "secret.safetensors")
    link = uploads / "link"
    link.symlink_to(outside)
    for path in (str(outside), str(link), str(uploads / ".." / "secret.safetensors"), str(uploads), "/etc/passwd", "nowhere", "~/.ssh/id"):
        assert "not there any more" in ask(bringing, "sent", paths=[path])["error"]
    assert Path(outside).is_file() and not kept(bringing)
    closed = Bringing(bringing.catalogue)
    assert "not there any more" in ask(closed, "sent", paths=sent(uploads, Path(outside)))["error"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "sent", "paths": []}, "send one file"),
        ({"name": "sent", "paths": ["a"] * 6}, "send one file"),
        ({"name": "sent", "paths": ["a\0b"]}, "send one file"),
        ({"name": "look", "reference": " "}, "such as hf://owner/name"),
        ({"name": "look", "reference": "hf://../../etc"}, "cannot be looked up"),
        ({"name": "fetch", "pinned": "/etc/passwd"}, "look the model up first"),
        ({"name": "answer", "token": "x", "assume": {"a": [1]}}, "answers"),
        ({"name": "follow", "job": "7"}, "not known any more"),
        ({"name": "burn"}, "not one the studio knows"),
        (None, "not one the studio knows"),
    ],
)
def test_requests_are_checked(bringing: Bringing, values: Any, message: str) -> None:
    assert message in Channel(bringing.catalogue, bringing=bringing).bring(values)["error"]


def test_bad_files_are_refused_and_leave_nothing(bringing: Bringing, uploads: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    page = tmp_path / "model.pt"
    page.write_text("<!DOCTYPE html><title>404</title>")
    assert "web page" in ask(bringing, "sent", paths=sent(uploads, page))["error"]
    assert "one file of weights" in ask(bringing, "sent", paths=sent(uploads, small_checkpoint / "config.json"))["error"]
    both = sent(uploads, page, small_checkpoint / "model.safetensors")
    assert "one file of weights" in ask(bringing, "sent", paths=both)["error"]
    hostile = tmp_path / "<img src=x onerror=alert(1)>.safetensors"
    hostile.write_bytes(b"no model at all")
    problem = ask(bringing, "sent", paths=sent(uploads, hostile))["error"]
    assert str(tmp_path) not in problem and "onerror" in problem  # the page writes it as text, never as HTML
    assert not kept(bringing) and not [path for path in uploads.rglob("*") if path.is_file()]
    assert list(bringing.catalogue.entries) == ["small", "again"]


def test_files_that_wait_are_bounded(bringing: Bringing, uploads: Path) -> None:
    weights = next(OFFICIAL.glob("step_*"))
    for _ in range(MAX_WAITING + 2):
        ask(bringing, "sent", paths=sent(uploads, weights))
    assert len(kept(bringing)) == MAX_WAITING
    bringing.close()
    assert not kept(bringing)


def test_references_as_people_write_them() -> None:
    for text in ("owner/name", " hf://owner/name ", "https://huggingface.co/owner/name", "https://www.huggingface.co/owner/name"):
        assert _reference(text) == "hf://owner/name"
    assert _reference("https://huggingface.co/owner/name/blob/main/a/step_5") == "hf://owner/name/a/step_5@main"
    assert _reference("https://huggingface.co/owner/name/resolve/abc/x?download=true") == "hf://owner/name/x@abc"
    assert _reference("https://huggingface.co/owner/name/tree/main") == "hf://owner/name@main"


def test_answers_become_values() -> None:
    given = {"3": 3, " 2.5 ": 2.5, "yes": True, "False": False, "rope": "rope", "inf": "inf"}
    assert {text: read_answers({"x": text})["x"] for text in given} == given
    assert read_answers({"task": "00576224", "H_cycles": "3"}) == {"task": "00576224", "H_cycles": 3}


def test_a_file_may_ask_twice_and_a_task_of_digits_stays_a_name(
    bringing: Bringing, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laser_studio.trm.checkpoints.payload.LARGE_BYTES", 2_000)  # the table of puzzles is too large to be read whole
    sizes = {"vocab_size": 12, "hidden_size": 16, "num_heads": 2, "puzzle_emb_ndim": 16, "puzzle_emb_len": 2}
    weights = write_official(tmp_path / "arc", small_model(**sizes, num_puzzle_identifiers=400, seq_len=None))
    (weights.parent / "all_config.yaml").unlink()
    (tmp_path / "arc" / "identifiers.json").write_text(json.dumps(["<blank>", "007bbfb7", "00576224"]))
    told = ask(bringing, "sent", paths=sent(uploads, weights, weights.parent / "identifiers.json"))
    while "needs" in told and [need["name"] for need in told["needs"]] != ["task"]:
        told = ask(bringing, "answer", token=told["token"], assume={need["name"]: str(need["proposed"]) for need in told["needs"]} | HEADS)
    assert told["needs"][0]["choices"] == ["007bbfb7", "00576224"]
    wrong = ask(bringing, "answer", token=told["token"], assume={"task": "ffffffff"})
    assert "no task ffffffff" in wrong["problem"]
    found = ask(bringing, "answer", token=wrong["token"], assume={"task": "00576224"})
    model = bringing.catalogue.load(found["name"])
    assert model.details["tasks"] == ["00576224"] and model.details["puzzle_identifiers"] == [2]
    assert not kept(bringing)


@pytest.fixture
def hub(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """owner/name with the small model, served on this machine; the user's cache and login are out of reach."""
    files = {name: (small_checkpoint / name).read_bytes() for name in ("model.safetensors", "config.json")}
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve({COMMIT: files}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        yield served


def followed(bringing: Bringing, job: str, **values: Any) -> dict[str, Any]:
    until = time.monotonic() + 60
    while (told := ask(bringing, "follow", job=job, **values))["state"] == "running" and time.monotonic() < until:
        time.sleep(0.02)
    return told


def test_a_model_of_the_hub_is_looked_up_fetched_and_offered(bringing: Bringing, hub: Hub) -> None:
    found = ask(bringing, "look", reference="https://huggingface.co/owner/name")
    assert found["file"] == "model.safetensors" and found["beside"] == ["config.json"] and found["commit"] == COMMIT
    assert found["missing"] and found["pinned"] == f"hf://owner/name/model.safetensors@{COMMIT}"
    told = followed(bringing, ask(bringing, "fetch", pinned=found["pinned"])["job"])
    assert told["state"] == "done" and told["done"] == told["total"] > 0 and told["result"]["name"] == "owner/name"
    assert told["result"]["facts"]["from"] == found["pinned"]
    assert bringing.catalogue.offers("owner/name")
    assert ask(bringing, "look", reference="owner/name")["missing"] == ""  # the cache has it now


def test_a_download_is_stopped_and_fails_in_words(bringing: Bringing, hub: Hub) -> None:
    assert "owner/other is not on the Hub" in ask(bringing, "look", reference="hf://owner/other")["error"]
    pinned = ask(bringing, "look", reference="hf://owner/name")["pinned"]
    hub.status = 429
    told = followed(bringing, ask(bringing, "fetch", pinned=pinned)["job"])
    assert told["state"] == "error" and told["problem"] and "Traceback" not in told["problem"]
    hub.status = 0
    told = followed(bringing, ask(bringing, "fetch", pinned=pinned)["job"], stop=True)
    assert told["state"] in ("stopped", "done")  # the file is small: it may have come before the stop


def test_a_model_named_at_the_start_asks_on_the_page(catalogue: Catalogue, uploads: Path) -> None:
    weights = next(OFFICIAL.glob("step_*"))
    alone = shutil.copy(weights, uploads / "step_100")  # without its configuration
    catalogue.entries["official"] = ModelEntry("official", Path(alone), "official")
    catalogue._shelves["official"] = type(catalogue._shelves["small"])()
    channel = Channel(catalogue)
    asked = channel.open({"query": "?model=official"})
    assert "H_cycles" in asked["error"] and {"H_cycles", "L_cycles"} <= {need["name"] for need in asked["needs"]}
    assume = {need["name"]: str(need["proposed"]) for need in asked["needs"]}
    found = channel.bring({"name": "answer", "token": asked["token"], "assume": assume})
    assert found["name"] == "step_100" and Path(alone).is_file()
    assert channel.open({"query": "?model=step_100"})["model"]["name"] == "step_100"
    channel.registry.close_all()
