"""Starting: flags, ports, messages. The running server is the browser tests' business."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from laser_studio.studio.registry import StudioError
from laser_studio.studio.server import choose_port


@pytest.fixture(scope="module")
def app(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("app_under_test", repository / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flags_have_defaults_and_values(app: ModuleType) -> None:
    assert vars(app.parse_flags([])) | {"host": "127.0.0.1"} == {
        "checkpoint": [], "watch": [], "puzzles": [], "runs": None, "device": "auto", "host": "127.0.0.1", "port": None, "share": False,
        "auth": None,
    }  # fmt: skip
    flags = app.parse_flags(
        ["--checkpoint", "a", "--checkpoint", "b", "--port", "8000", "--auth", "ada:se:cret", "--share", "--device", "cpu"]
    )
    assert (flags.checkpoint, flags.port, flags.auth, flags.share, flags.device) == (["a", "b"], 8000, ("ada", "se:cret"), True, "cpu")


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--port", "x"], ["--port", "70000"], ["--auth", "ada"], ["--auth", ":x"], ["--nonsense"]]
)
def test_bad_flags_are_answered_in_words(app: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.parse_flags(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudioError, match=f"port {port}.*--port"):
            choose_port("127.0.0.1", port)


def test_a_strange_host_is_named() -> None:
    with pytest.raises(StudioError, match="not an address"):
        choose_port("no.such.host.invalid", 8000)


def test_a_free_port_is_found() -> None:
    assert 7860 <= choose_port("127.0.0.1", None) < 7900


def test_help_and_wrong_paths_are_answered_without_loading_anything_heavy(repository: Path) -> None:
    program = (
        "import sys, app\n"
        "try:\n    app.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'gradio', 'plotly') if name in sys.modules])"
    )
    for arguments, words in ((["--help"], "--checkpoint"), (["--checkpoint", "no/such/folder"], "no such file")):
        result = subprocess.run([sys.executable, "-c", program, *arguments], cwd=repository, capture_output=True, text=True, timeout=120)
        assert words in result.stdout + result.stderr
        assert result.stdout.rstrip().endswith("[]"), result.stdout + result.stderr
