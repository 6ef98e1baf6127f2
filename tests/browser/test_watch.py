"""A watched run in the browser, opened while another process is still writing it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from torch import nn

from laser_studio.debugger import WatchedRun, watch
from tests.browser.studio_page import StudioPage

SITES = ["block.qkv", "block.out", "block.up", "block.down", "head"]

# Trains the example's model step by step, one forward for each line it is sent, and says when it is done.
WRITER = """
import sys, torch
from examples import looped_transformer as example
from laser_studio import watch
torch.manual_seed(0)
model = example.LoopedTransformer()
with watch(model, sys.argv[1]) as watcher:
    for line in sys.stdin:
        for _ in range(int(line)):
            digits = torch.randint(example.DIGITS, (4, example.LENGTH))
            watcher.note("loss", model(digits).square().mean())
            watcher.note("rate", 1 / (1 + watcher.head))
        print(watcher.head, flush=True)
"""


class Writer:
    """A process that writes a recording at `path`, forward by forward."""

    def __init__(self, path: Path, repository: Path) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def forwards(self, number: int) -> int:
        """Let it make so many forwards; the newest step then."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> None:
        """Let it finish."""
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path_factory.mktemp("watched") / "looped.jsonl", repository)
    assert writer.forwards(3) == 18
    yield writer
    writer.process.kill()
    writer.process.wait()


def test_a_recording_is_followed_while_it_grows(start_studio: Callable[..., str], open_page: Callable[..., Page], writer: Writer) -> None:
    url = start_studio("--watch", str(writer.path))
    studio = StudioPage.opened(open_page, url)
    page = studio.page
    expect(page.locator("#board-title")).to_have_text("Watched run")
    expect(page.locator("#watched-name")).to_have_text("LoopedTransformer")
    assert studio.text("board-step") == "step 0 / 18"
    for hidden in ("board", "puzzle", "difficulty", "new-puzzle", "tab-halting", "tab-latents", "batch", "copy-python"):
        expect(page.locator(f"#{hidden}")).to_be_hidden()

    studio.click("step")
    expect(page.locator("#status")).to_have_attribute("data-step", "1")
    recorded = WatchedRun(writer.path)
    for step in (1, 14):
        page.evaluate("step => document.getElementById('timeline').focus()", step)
        while studio.step < step:
            at = studio.step
            studio.click("step")
            expect(page.locator("#status")).to_have_attribute("data-step", str(at + 1))
        frame = recorded.frames[step]
        for name in SITES:
            lines = studio.site(name)
            if name in frame.sites:
                site = frame.sites[name]
                expected = "exact" if not site.rank else f"{int(site.fidelity * 1e4) / 1e4:.4f}"
                assert lines[1] == expected, (step, name)
        assert float(studio.status("saving")) == pytest.approx(frame.history.saving, abs=5e-5)
    loss = [value for at, value in recorded.notes["loss"] if at <= 14][-1]
    assert loss is not None
    row = page.locator(".note-row", has_text="loss")
    assert float(row.locator("b").inner_text()) == pytest.approx(loss, rel=1e-3)
    expect(page.locator("#address")).to_have_text("forward 3 · step 2")

    # Play goes to the newest step and waits there; what is written meanwhile is shown.
    studio.click("play")
    expect(page.locator("#status")).to_have_attribute("data-step", "18")
    assert studio.status("state") == "playing"
    curve = studio.picture("notes-plot")
    assert writer.forwards(2) == 30
    expect(page.locator("#status")).to_have_attribute("data-step", "30")
    assert studio.status("state") == "playing" and studio.text("board-step") == "step 30 / 30"
    studio.until_script("seen => document.getElementById('notes-plot').toDataURL() !== seen", curve)
    studio.click("pause")
    studio.click("back")
    expect(page.locator("#status")).to_have_attribute("data-step", "29")
    assert writer.forwards(4) == 54
    studio.click("watched-newest")
    expect(page.locator("#status")).to_have_attribute("data-step", "54")

    # Settings are seen and cannot be changed.
    assert "settings are those of the recording" in studio.text("rank-note")
    assert page.locator("#tracker").evaluate("node => node.inert") is True
    assert page.locator("#rank input[type=number]").input_value() == "25"

    writer.end()
    studio.click("play")
    expect(page.locator("#status")).to_have_attribute("data-state", "done")
    expect(page.locator("#watched-says")).to_contain_text("the run has ended")
    page.reload()
    page.wait_for_function("window.laserStudio?.ready === true")
    expect(page.locator("#status")).to_have_attribute("data-step", "54")


def test_models_and_recordings_stand_side_by_side(start_studio: Callable[..., str], open_page: Callable[..., Page], writer: Writer) -> None:
    studio = StudioPage.opened(open_page, start_studio("--watch", str(writer.path)))
    studio.choose("model", "sudoku-6x6")
    expect(studio.page.locator("#board .cell")).to_have_count(36)
    expect(studio.page.locator("#watched")).to_be_hidden()
    studio.click("step")
    expect(studio.page.locator("#status")).to_have_attribute("data-step", "1")
    assert studio.page.locator("#tracker").evaluate("node => node.inert") is False
    studio.choose("model", "looped")
    expect(studio.page.locator("#watched-name")).to_have_text("LoopedTransformer")


class Echo(nn.Module):
    """The least there is to watch: one layer, applied once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x)


def test_tables_of_a_long_recording_have_every_step_and_note(
    start_studio: Callable[..., str], open_page: Callable[..., Page], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, path, length = Echo(), tmp_path / "echo.jsonl", 5_200
    with watch(model, path) as watcher:
        for step in range(length):
            loss = model(torch.randn(3, 4)).square().mean()
            if step % 3 == 0:
                watcher.note("loss", loss)
    assert watcher.head == length
    studio = StudioPage.opened(open_page, start_studio("--watch", str(path)))
    page = studio.page
    studio.click("watched-newest")
    studio.at(length)
    studio.until_script(f"document.getElementById('timeline').ariaValueMax === '{length}' && window.laserStudio.held > 10000")
    page.locator("#deck .zoom-open").click()
    expect(page.locator("#zoom")).to_have_attribute("data-state", "ready", timeout=30_000)
    expect(page.locator("#zoom-about")).to_contain_text("lowest and highest of every 2 steps")
    with page.expect_download(timeout=120_000) as got:
        page.click("#zoom [data-act=csv]")
    rows = list(csv.DictReader(io.StringIO(Path(got.value.path()).read_text(encoding="utf-8"))))
    assert [int(row["step"]) for row in rows] == list(range(1, length + 1))
    assert {int(row["step"]): float(row["loss"]) for row in rows if row["loss"]} == dict(watcher.notes["loss"])
    assert [float(row["residual (Frobenius norm)"]) for row in rows] == [frame.residual for frame in watcher.frames[1:]]
    # Looking closely at old steps brings those steps, and their notes.
    page.evaluate("window.Plotly.relayout(document.querySelector('#zoom .chart'), { 'xaxis.range': [99.5, 200] })")
    studio.until_script(
        "document.querySelector('#zoom .chart').data[0].x.includes(101) && document.querySelector('#zoom .chart').data[0].x.includes(102)"
    )
    line = page.evaluate("(({ x, y }) => x.map((step, n) => [step, y[n]]))(document.querySelector('#zoom .chart').data[0])")
    assert {step: value for step, value in line if 100 <= step <= 200} == {
        step: dict(watcher.notes["loss"]).get(step) for step in range(100, 201)
    }


@pytest.mark.parametrize("size", [{"width": 390, "height": 844}, {"width": 1920, "height": 1080}])
def test_it_fits_other_screens(
    start_studio: Callable[..., str], open_page: Callable[..., Page], writer: Writer, size: dict[str, int], request: Any
) -> None:
    studio = StudioPage.opened(open_page, start_studio("--watch", str(writer.path)), viewport=size)
    assert studio.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = studio.page.locator("#notes-plot").bounding_box()
    assert box is not None and box["height"] >= 60 and box["width"] > 200
