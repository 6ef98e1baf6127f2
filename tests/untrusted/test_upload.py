"""What a visitor hands over, and under which name."""

from __future__ import annotations

import errno
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from laser_studio.errors import CheckpointError
from laser_studio.trm import load_checkpoint, save_checkpoint
from laser_studio.untrusted.upload import accept_upload, harmless
from tests.trm.helpers import small_model, write_official

NAMES = [
    ("step_100", "step_100"),
    ("../../x", "x"),
    ("..\\..\\x.pt", "x.pt"),
    ("/etc/passwd", "passwd"),
    ("..", "checkpoint"),
    ("", "checkpoint"),
    (".bashrc", "bashrc"),
    ("<img onerror=alert(1)>", "img_onerror_alert_1_"),
    ("x" * 300, "x" * 60),
    ("y" * 300 + "." + "z" * 300, "y" * 60 + "." + "z" * 12),
    ("new\nline\x1b[31m.pt", "new_line_31m.pt"),
    ("café ☕.safetensors", "caf_.safetensors"),
    ("config.json", "checkpoint"),
    ("nul\x00byte", "nul_byte"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where uploads are kept in this test; nothing may stay there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("name", "kept"), NAMES)
def test_names(place: Path, tmp_path: Path, name: str, kept: str) -> None:
    """Only what is harmless of a name is kept, and the file opens under it."""
    assert harmless(name) == (kept if name else "checkpoint")
    if kept.endswith(".safetensors"):
        return
    file = write_official(tmp_path / "made", small_model())
    with accept_upload(file, name=name, beside={"all_config.yaml": file.parent / "all_config.yaml"}) as taken:
        assert taken.file.parent == taken.folder and taken.folder.parent == place
        assert taken.file.name == (kept if name else file.name)
        assert stat.S_IMODE(taken.folder.stat().st_mode) == 0o700
        model = load_checkpoint(taken.file, device="cpu")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in small_model().state_dict().items())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "_"), NAMES)
def test_names_in_messages(place: Path, tmp_path: Path, name: str, _: str) -> None:
    (tmp_path / "uploaded").write_bytes(b"<html>")
    with pytest.raises(CheckpointError) as caught:
        accept_upload(tmp_path / "uploaded", name=name)
    message = str(caught.value)
    assert "is a web page, not a checkpoint" in message and message.isprintable() and len(message) < 300
    assert "../" not in message and str(tmp_path) not in message


def test_our_own_format(place: Path, tmp_path: Path) -> None:
    save_checkpoint(small_model(), tmp_path / "own")
    with accept_upload(
        tmp_path / "own/model.safetensors", name="my model.safetensors", beside={"config.json": tmp_path / "own/config.json"}
    ) as taken:
        assert taken.file.name == "my_model.safetensors"
        assert load_checkpoint(taken.file, device="cpu").config == small_model().config


def test_too_large(place: Path, tmp_path: Path) -> None:
    file = write_official(tmp_path / "made", small_model())
    with pytest.raises(CheckpointError, match="step_7 is larger than the 0 MB taken here: run the studio on your own machine"):
        accept_upload(file, size_limit=file.stat().st_size - 1)
    accept_upload(file, size_limit=file.stat().st_size).close()


def test_strange_companions(place: Path, tmp_path: Path) -> None:
    file = write_official(tmp_path / "made", small_model())
    for name in ("../all_config.yaml", "evil.py", "all_config.yaml\x00"):
        with pytest.raises(CheckpointError, match="is no file a checkpoint comes with"):
            accept_upload(file, beside={name: file})


def test_the_disk_fills_up(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_official(tmp_path / "made", small_model())
    whole = Path.open

    def full(self: Path, mode: str = "r", *given: Any, **options: Any) -> Any:
        if "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, mode, *given, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"^step_7 could not be stored: the disk is full: try again later$"):
        accept_upload(file)
