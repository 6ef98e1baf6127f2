"""Checkpoints from the Hub, against a stand-in server on this machine; nothing here leaves it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from laser_studio.errors import CheckpointError, HubError
from laser_studio.hub import HubCheckpoint, HubReference, Progress, fetch, is_reference, look_up, parse, transfer
from laser_studio.studio import launch
from laser_studio.trm import load_checkpoint, save_checkpoint
from tests.hub.server import COMMIT, OLDER, Hub, checksum, serve
from tests.trm.helpers import small_model, write_official


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """owner/name with one checkpoint at two commits, served; caches and logins of the user are out of reach."""
    file = write_official(tmp_path / "made", small_model())
    old = write_official(tmp_path / "older", small_model(seed=2), step=3)
    files = {
        COMMIT: {"step_7": file.read_bytes(), "all_config.yaml": (file.parent / "all_config.yaml").read_bytes(), "README.md": b"# hello"},
        OLDER: {"step_3": old.read_bytes(), "all_config.yaml": (old.parent / "all_config.yaml").read_bytes()},
    }
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve(files) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        yield served


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def refused(reference: str, cache: Path) -> str:
    with pytest.raises(HubError) as caught:
        fetch(look_up(reference, cache=cache), cache=cache)
    message = str(caught.value)
    assert str(cache) not in message and "\x1b" not in message and "\n" not in message and "http://127" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nobody is shown what lies below
    return message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://owner/name", ("owner/name", "", "")),
        ("hf://owner/name@main", ("owner/name", "", "main")),
        ("hf://owner/name/step_100", ("owner/name", "step_100", "")),
        ("hf://Some-1/na.me_2/deep/er/model.ckpt@refs/pr/1", ("Some-1/na.me_2", "deep/er/model.ckpt", "refs/pr/1")),
        (f"hf://owner/name/step_1@{COMMIT}", ("owner/name", "step_1", COMMIT)),
    ],
)
def test_references(text: str, parts: tuple[str, str, str]) -> None:
    assert parse(text) == HubReference(*parts)
    assert str(parse(text)) == text
    assert parse(Path(text)) == HubReference(*parts)  # which has lost a slash
    assert is_reference(text) and is_reference(Path(text)) and not is_reference("owner/name")


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "hf://owner", "hf://owner/", "hf:///name", "hf://../name", "hf://owner/..", "hf://owner/name/../../x", "hf://owner/name//x",
        "hf://owner/name/", "hf://owner/na me", "hf://owner/name/a\\b", "hf://owner/name/\x1b[31m", "hf://owner/name@", "hf://owner/name@../x",
        "hf://owner/name@-rf", "hf://owner/name@a b", "hf://o--w/name", "hf://owner/" + "n" * 100, "hf://owner/name/" + "x" * 300,
        "hf://owner/name/<img onerror>", "hf://owner/name/x?download", "https://huggingface.co/owner/name", "hf://.git/name",
    ],
)  # fmt: skip
def test_bad_references(text: str, cache: Path) -> None:
    message = refused(text, cache)
    assert "cannot be looked up" in message and "write hf://owner/name" in message
    assert len(message) < 300


def test_what_there_is_and_what_it_weighs_before_anything_is_fetched(hub: Hub, cache: Path) -> None:
    found = look_up("hf://owner/name", cache=cache)
    assert found.commit == COMMIT and found.weights.name == "step_7" and [one.name for one in found.companions] == ["all_config.yaml"]
    size = sum(len(hub.files[COMMIT][name]) for name in ("step_7", "all_config.yaml"))
    assert found.missing_bytes == size
    assert found.pinned == f"hf://owner/name/step_7@{COMMIT}" and found.pinned in str(found) and "to download" in str(found)
    assert not any("resolve" in request for request in hub.requests)
    assert look_up(found.pinned, cache=cache).weights == found.weights


def test_fetched_and_kept(hub: Hub, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = fetch(look_up("hf://owner/name", cache=cache), cache=cache, on_progress=lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == hub.files[COMMIT]["step_7"]
    assert (file.parent / "all_config.yaml").read_bytes() == hub.files[COMMIT]["all_config.yaml"]
    total = sum(len(hub.files[COMMIT][name]) for name in ("step_7", "all_config.yaml"))
    assert seen[0] == (0, total) and seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    again = look_up("hf://owner/name", cache=cache)
    assert again.missing_bytes == 0 and "in the cache" in str(again)
    sent = hub.sent_bytes
    assert fetch(again, cache=cache) == file
    assert hub.sent_bytes == sent
    assert not list(cache.rglob("*.part"))


def test_a_revision_is_what_it_was(hub: Hub, cache: Path) -> None:
    older = look_up("hf://owner/name@old", cache=cache)
    assert older.commit == OLDER and older.weights.name == "step_3"
    pinned = look_up(f"hf://owner/name@{OLDER}", cache=cache)
    assert fetch(pinned, cache=cache).read_bytes() == hub.files[OLDER]["step_3"]


def test_a_broken_connection_goes_on_where_it_was(hub: Hub, cache: Path) -> None:
    hub.cut_after, hub.cuts = 20_000, 1
    file = fetch(look_up("hf://owner/name", cache=cache), cache=cache)
    size = len(hub.files[COMMIT]["step_7"])
    assert file.read_bytes() == hub.files[COMMIT]["step_7"] and size > 40_000
    assert hub.requests[f"GET /owner/name/resolve/{COMMIT}/step_7"] == 2


def test_a_download_that_was_given_up_goes_on_next_time(hub: Hub, cache: Path) -> None:
    class GivenUp(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 20_000:
            raise GivenUp

    content = hub.files[COMMIT]["step_7"] = hub.files[COMMIT]["step_7"] + os.urandom(25 << 20)  # more than one chunk of a download
    found = look_up("hf://owner/name", cache=cache)
    with pytest.raises(GivenUp):
        fetch(found, cache=cache, on_progress=stop)
    (part,) = cache.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(content)
    got: list[int] = []
    file = fetch(look_up("hf://owner/name", cache=cache), cache=cache, on_progress=lambda done, total: got.append(done))
    assert file.read_bytes() == content and not list(cache.rglob("*.part"))
    assert min(done for done in got if done > 10_000) > have  # nothing was fetched twice


def test_offline(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fetch(look_up("hf://owner/name", cache=cache), cache=cache)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    found = look_up("hf://owner/name", cache=cache)
    assert found.offline and found.commit == COMMIT and fetch(found, cache=cache) == file
    message = refused("hf://owner/other", cache)
    assert message.startswith("the Hub cannot be reached, and owner/other is not in the cache: check the connection")


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "is not on the Hub, or it is private"),
        (404, {"X-Error-Code": "RepoNotFound"}, "owner/name is not on the Hub: check how it is spelled"),
        (403, {"X-Error-Code": "GatedRepo"}, "given only to those who accepted its terms"),
        (403, {}, "may not be read with this login"),
        (429, {"Retry-After": "120"}, "the Hub refuses further requests for now (too many, 429): try again in 120 seconds"),
        (429, {"Retry-After": "<script>"}, "try again in some minutes"),
        (503, {}, "the Hub could not answer for owner/name (status 503): try again later"),
    ],
)
def test_refusals(hub: Hub, cache: Path, status: int, headers: dict[str, str], message: str) -> None:
    hub.status, hub.headers = status, headers
    assert message in refused("hf://owner/name", cache)


def test_unknown_repository_revision_and_file(hub: Hub, cache: Path) -> None:
    assert "owner/other is not on the Hub, or it is private" in refused("hf://owner/other", cache)
    assert "owner/name has no revision 'nightly': give a branch, a tag or a commit" in refused("hf://owner/name@nightly", cache)
    assert "owner/name has no file step_8: it has step_7, all_config.yaml, README.md" in refused("hf://owner/name/step_8", cache)


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [
        (["README.md"], "hf://owner/name", "holds no weights that are known by their name"),
        (["a/step_1", "b/step_1"], "hf://owner/name", "has several files that may be meant: name one"),
        (["a.pt", "b.pt"], "hf://owner/name", "it has a.pt, b.pt"),
        (["../../x.pt", "/etc/y.pt", "a\\b.pt"], "hf://owner/name", "holds no weights"),
    ],
)
def test_repositories_without_one_answer(hub: Hub, cache: Path, names: list[str], reference: str, message: str) -> None:
    hub.files[COMMIT] = dict.fromkeys(names, b"x")
    assert message in refused(reference, cache)


@pytest.mark.parametrize(
    ("names", "reference", "chosen"),
    [
        (["step_7", "step_12", "all_config.yaml"], "hf://owner/name", "step_12"),
        (["step_7", "step_12"], "hf://owner/name/step_7", "step_7"),
        (["checkpoint", "all_config.yaml"], "hf://owner/name", "checkpoint"),
        (["model.ckpt", "README.md"], "hf://owner/name", "model.ckpt"),
        (["run/step_3", "run/step_4", "notes.txt"], "hf://owner/name", "run/step_4"),
        (["a/step_3", "b/step_4"], "hf://owner/name/a", "a/step_3"),
        (["model.safetensors", "config.json", "step_9"], "hf://owner/name", "model.safetensors"),
    ],
)
def test_the_file_that_is_meant(hub: Hub, cache: Path, names: list[str], reference: str, chosen: str) -> None:
    hub.files[COMMIT] = dict.fromkeys(names, b"x")
    assert look_up(reference, cache=cache).weights.name == chosen


def test_no_room(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert "and the disk of the cache has 1.0 MB left: make room" in refused("hf://owner/name", cache)
    assert not list(cache.rglob("*.part"))


def test_the_disk_fills_up_meanwhile(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer._Counted, "write", full)
    assert refused("hf://owner/name", cache).startswith("the disk is full, owner/name could not be stored: make room")
    assert not list(cache.rglob("*.part"))


def test_what_arrives_damaged_never_counts(hub: Hub, cache: Path) -> None:
    hub.damage = True
    assert "step_7 of owner/name arrived damaged, its checksum is wrong: try again" in refused("hf://owner/name", cache)
    assert not list(cache.rglob("*.part"))
    hub.damage = False
    assert fetch(look_up("hf://owner/name", cache=cache), cache=cache).read_bytes() == hub.files[COMMIT]["step_7"]


def test_too_large(hub: Hub, cache: Path) -> None:
    with pytest.raises(HubError, match=r"step_7 of owner/name has .* more than the 1.0 kB taken here"):
        look_up("hf://owner/name", cache=cache, max_bytes=1_000)


def test_a_visitor_does_not_use_the_login_of_the_host(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(look_up("hf://owner/name", cache=cache, login=False), cache=cache, login=False)
    assert hub.authorised and not any(hub.authorised)
    look_up("hf://owner/name@old", cache=cache)
    assert hub.authorised[-1] == "Bearer hf_secret"


def test_the_stand_in_names_files_as_the_hub_does() -> None:
    # git hash-object of the same bytes
    assert checksum(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert issubclass(HubError, CheckpointError)


def test_a_model_of_the_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    told: list[str] = []
    progress: list[int] = []

    @contextmanager
    def on_fetch(found: HubCheckpoint) -> Iterator[Progress]:
        told.append(str(found))
        assert not cache.exists() or not list(cache.rglob("step_7"))  # nothing is fetched before its size is told
        yield lambda done, total: progress.append(done)

    model = load_checkpoint("hf://owner/name", device="cpu", on_fetch=on_fetch)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in small_model().state_dict().items())
    assert model.details["hub"] == f"hf://owner/name/step_7@{COMMIT}" and model.details["hub"] in told[0] and len(progress) > 2
    again = load_checkpoint(Path(model.details["hub"]), device="cpu")
    assert again.details["hub"] == model.details["hub"]


def test_the_command_line_shows_size_commit_and_progress(hub: Hub, tmp_path: Path, repository: Path) -> None:
    """As it is started: with the address of the Hub and the place of its cache in the environment."""
    save_checkpoint(small_model(vocab_size=8, seq_len=36), tmp_path / "own")
    hub.files[COMMIT] = {file.name: file.read_bytes() for file in (tmp_path / "own").iterdir()}
    surroundings = {**os.environ, "PYTHONPATH": str(repository), "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [
        sys.executable,
        "-m",
        "laser_studio",
        "evaluate",
        "hf://owner/name",
        "--task",
        "sudoku-6x6",
        "--puzzles",
        "2",
        "--device",
        "cpu",
    ]
    ended = subprocess.run(command, cwd=repository, env=surroundings, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert f"hf://owner/name/model.safetensors@{COMMIT} (" in ended.stderr and "to download" in ended.stderr and "100%" in ended.stderr
    assert "held-out puzzles" in ended.stdout
    unknown = subprocess.run(
        [*command[:4], "hf://owner/name@nightly"], cwd=repository, env=surroundings, capture_output=True, text=True, timeout=120
    )
    assert unknown.returncode == 2 and unknown.stderr.startswith("error: owner/name has no revision 'nightly'")
    assert len(unknown.stderr.splitlines()) == 1


def test_the_app_fetches_before_it_serves(hub: Hub) -> None:
    with pytest.raises(HubError, match="owner/other is not on the Hub, or it is private"):
        launch(["hf://owner/other"])
