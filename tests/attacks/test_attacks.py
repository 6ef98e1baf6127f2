"""Every attack on every way in: a file, the Hub, an upload, the command line. One plain message, nothing runs, the session goes on."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from laser_studio.cli import main
from laser_studio.errors import CheckpointError
from laser_studio.hub import HubReference
from laser_studio.trm import load_checkpoint, save_checkpoint
from laser_studio.untrusted.upload import accept_upload
from tests.attacks.table import ATTACKS, OWN, WEIGHTS, Attack
from tests.hub.server import COMMIT, Hub, serve
from tests.trm.helpers import small_model, write_official

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns about the kinds of tensors that are attacks here
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name} {attack.file}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each format with nothing wrong."""
    folder = tmp_path_factory.mktemp("sound")
    write_official(folder / WEIGHTS, small_model())
    save_checkpoint(small_model(), folder / OWN)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """The same, for one test to spoil."""
    return shutil.copytree(sound, tmp_path, dirs_exist_ok=True)


def made(attack: Attack, folder: Path) -> tuple[Path, Path]:
    """(the attack's file beside a sound configuration, what would be there if a payload had run)"""
    file, proof = folder / attack.file / attack.file, folder / "it ran"
    attack.make(file, proof)
    return file, proof


def plain(message: str, *hidden: Path) -> str:
    """The message, once it is fit for a user: one line, printable, not long, with no path and no advice to switch safety off."""
    assert message.isprintable() and len(message) < 700
    assert not any(str(path) in message for path in hidden) and "Traceback" not in message and "weights_only" not in message
    return message


@each
def test_a_file(attack: Attack, folder: Path) -> None:
    file, proof = made(attack, folder)
    begin = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(file, device="cpu")
    assert attack.answer in plain(str(caught.value), folder)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not proof.exists()
    assert time.process_time() - begin < 2  # of this process; the child has its own limits


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.works], ids=lambda attack: attack.name)
def test_the_payloads_are_real(attack: Attack, folder: Path) -> None:
    """Where they are let, they run: so a test that they did not has something to find."""
    file, proof = made(attack, folder)
    try:
        if attack.name in ("payload raw", "payload text pickle"):
            pickle.loads(file.read_bytes())
        else:
            torch.load(file, weights_only=False)
    except Exception:  # some then stumble over what the payload returned
        assert proof.exists()
    assert proof.exists()


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN_PATH", str(folder / "no token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    with serve({COMMIT: {}}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        yield served


@each
def test_the_hub(attack: Attack, folder: Path, hub: Hub) -> None:
    file, proof = made(attack, folder)
    hub.files[COMMIT] = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(HubReference("owner/name", attack.file)), device="cpu")
    assert attack.answer in plain(str(caught.value), folder)
    assert not proof.exists()


@each
def test_an_upload(attack: Attack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder / "uploads"))
    (folder / "uploads").mkdir()
    file, proof = made(attack, folder)
    beside = {path.name: path for path in file.parent.iterdir() if path != file}
    with pytest.raises(CheckpointError) as caught, accept_upload(file, name=attack.file, beside=beside) as upload:
        load_checkpoint(upload.file, device="cpu")
    assert attack.answer in plain(str(caught.value), folder)
    assert not proof.exists()
    assert not list((folder / "uploads").iterdir())


@each
def test_the_command_line(attack: Attack, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file, proof = made(attack, folder)
    monkeypatch.setattr(sys, "argv", ["laser-studio", "evaluate", str(file), "--task", "sudoku-6x6", "--puzzles", "1", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert ended.value.code == 2 and not printed.out
    assert line.startswith("error: ") and attack.answer in plain(line, folder)
    assert not proof.exists()


def test_the_command_line_as_it_is_started(folder: Path, repository: Path) -> None:
    file, proof = made(ATTACKS[0], folder)
    command = [sys.executable, "-m", "laser_studio", "evaluate", str(file)]
    ended = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(repository)}
    )
    assert ended.returncode == 2 and not ended.stdout and not proof.exists()
    assert plain(ended.stderr.strip(), folder).startswith("error: step_7 holds a Python object (posix.mkdir) besides tensors")


def test_the_session_goes_on(folder: Path) -> None:
    """After each attack on a file the same process still opens a sound one, and holds nothing more open."""
    sound = load_checkpoint(folder / WEIGHTS, device="cpu").state_dict()
    kept = folder / "kept"
    kept.mkdir()
    (folder / WEIGHTS / WEIGHTS).replace(kept / WEIGHTS)
    (kept / "all_config.yaml").write_bytes((folder / WEIGHTS / "all_config.yaml").read_bytes())
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for attack in ATTACKS[::6]:
        file, _ = made(attack, folder)
        with pytest.raises(CheckpointError):
            load_checkpoint(file, device="cpu")
    after = load_checkpoint(kept, device="cpu").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in sound.items())
    assert not before or len(os.listdir("/proc/self/fd")) <= before


def test_the_documented_answers(repository: Path) -> None:
    """docs/safety.md shows every attack, in a row with its answer (scripts/tabulate_attacks.py writes them)."""
    rows = [line for line in (repository / "docs/safety.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for attack in ATTACKS:
        (row,) = [row for row in rows if attack.name in row.split(" | ")[0].removeprefix("| ").split("; ")]
        assert attack.answer in row.replace("&lt;", "<")
