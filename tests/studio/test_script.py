"""The view as Python: the script runs as it stands and ends at the frame the page shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from laser_studio.debugger import Frame
from laser_studio.studio.catalogue import Catalogue, ModelEntry, find_models
from laser_studio.studio.channel import Channel
from tests.studio.test_channel import DOWN, LENGTH, known, opened, sought, tuned


def shown(channel: Channel, run: str) -> Frame:
    return channel.registry.get(run).item.session.frame


def script(channel: Channel, reply: dict[str, Any]) -> str:
    answer = channel.python({"run": reply["run"], "at": reply["frame"]["index"]})
    assert set(answer) == {"python"}, answer
    return answer["python"]


def executed(text: str, capsys: pytest.CaptureFixture[str]) -> Frame:
    names: dict[str, Any] = {}
    exec(compile(text, "view.py", "exec"), names)
    assert f"step {names['frame'].index}" in capsys.readouterr().out
    return names["frame"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "puzzle=generated:hard:7&refresh=step&measure=centred",
        "batch=3&best=1&gradient=1&min_fidelity=0.999",
        "puzzle=generated:easy:7&batch=2&functional=1&measure=functional",
    ],
)
def test_a_script_ends_at_the_frame_shown(channel: Channel, capsys: pytest.CaptureFixture[str], query: str) -> None:
    reply = sought(channel, opened(channel, query), 8)
    assert executed(script(channel, reply), capsys) == shown(channel, reply["run"])


def test_changes_over_time_are_in_it(channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
    reply = sought(channel, opened(channel, "rank=40%25&batch=2"), 7)
    reply = tuned(channel, sought(channel, reply, 3), rank=20, growth=2, sites={DOWN: {"rank": 50}}, functional=True)
    reply = tuned(channel, sought(channel, reply, 7), best=True, beyond=True)
    reply = tuned(channel, sought(channel, reply, LENGTH), sites={DOWN: {"enabled": False}}, functional=False)
    reply = sought(channel, reply, LENGTH + 4)
    text = script(channel, reply)
    assert text.count("set_policy(") == 2 and text.count("set_measures(") == 2 and "beyond=True" in text
    assert executed(text, capsys) == shown(channel, reply["run"])
    # Of an earlier step only what came before it.
    reply = sought(channel, reply, 5)
    early = script(channel, reply)
    assert early.count("set_policy(") == 1 and early.count("Measures(functional=True)") == 1
    assert executed(early, capsys) == shown(channel, reply["run"])


def test_it_runs_on_its_own(channel: Channel) -> None:
    reply = sought(channel, opened(channel), 2)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script(channel, reply)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    frame = reply["frame"]
    assert done.stdout.startswith(f"step 2: {frame['right']} of {frame['total']} open cells right")
    assert f"fidelity {frame['sites'][DOWN]['fidelity']:.5f}" in done.stdout


def test_a_path_is_the_users_own_and_stays_a_text(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / """it's "a\\n' model"""
    path.symlink_to(small_checkpoint)
    channel = Channel(Catalogue([ModelEntry("mine", path, "mine", ("sudoku", 4))], device="cpu"))
    reply = opened(channel)
    text = script(channel, reply)
    assert f"load_checkpoint({str(path)!r}, " in text
    assert executed(text, capsys) == shown(channel, reply["run"])
    channel.registry.close_all()


def test_a_shipped_model_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    channel = Channel(Catalogue(find_models(), device="cpu"))
    reply = sought(channel, opened(channel), 2)
    text = script(channel, reply)
    assert 'asset_path("checkpoints", ' in text and str(Path.cwd()) not in text
    assert executed(text, capsys) == shown(channel, reply["run"])
    channel.registry.close_all()


def test_lines_fit_a_screen_and_names_are_all_used(channel: Channel) -> None:
    text = script(channel, known_step(channel))
    for name in ("load_checkpoint", "Session", "LaserPolicy", "load_puzzles"):
        assert text.count(name) >= 2
    assert "Measures" not in text and "get_domain" not in text


def known_step(channel: Channel) -> dict[str, Any]:
    reply = opened(channel)
    return channel.advance({**known(reply, reply["run"]), "steps": 1}) | {"run": reply["run"]}


def test_steps_computed_anew_have_the_figures_asked_for_by_then(channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tuned(channel, sought(channel, opened(channel), 7), best=True)
    reply = tuned(channel, sought(channel, reply, 4), rank=60)
    reply = sought(channel, reply, 6)
    assert reply["frame"]["sites"][DOWN]["best"] is not None
    assert executed(script(channel, reply), capsys) == shown(channel, reply["run"])
