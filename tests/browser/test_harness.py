"""The watch and the studio process themselves: a check that cannot fail would guard nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.harness import PageWatch, StudioError, StudioProcess

QUIET_APP = """
import argparse, http.server
parser = argparse.ArgumentParser()
for flag in ("--host", "--port", "--device", "--checkpoint"):
    parser.add_argument(flag)
flags = parser.parse_args()
print("checkpoint", flags.checkpoint)
http.server.HTTPServer((flags.host, int(flags.port)), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`site(script)` serves a page with that script and returns its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def serve(script: str) -> str:
        text = f"<!doctype html><link rel='icon' href='data:,'><p id='done'></p><script type='module'>{script}</script>"
        (tmp_path / "index.html").write_text(text)
        return f"http://127.0.0.1:{server.server_port}/index.html"

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.error('lost a frame')", "console: lost a frame"),
        ("throw new Error('no such panel')", "uncaught: no such panel"),
        ("await fetch('http://example.invalid/font.woff2').catch(() => {})", "other host: http://example.invalid/font.woff2"),
        ("new WebSocket('ws://example.invalid/live')", "other host: ws://example.invalid/live"),
        ("await fetch('/absent.css')", "console: Failed to load resource"),
    ],
)
def test_watch_reports_what_a_page_must_not_do(browser: Browser, site: Callable[[str], str], script: str, problem: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    watch = PageWatch(page)
    page.goto(site(script))
    page.wait_for_timeout(200)
    context.close()
    assert any(found.startswith(problem) for found in watch.problems), watch.problems
    with pytest.raises(AssertionError, match="must not"):
        watch.check()


def test_well_behaved_page_passes(page: Page, site: Callable[[str], str]) -> None:
    page.goto(site("await fetch('/index.html'); console.log('drawn'); document.querySelector('#done').textContent = 'done'"))
    page.wait_for_function("document.querySelector('#done').textContent === 'done'")
    assert page.viewport_size == {"width": 1280, "height": 800}


def test_studio_process_starts_answers_and_ends(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(QUIET_APP)
    studio = StudioProcess(tmp_path, tmp_path / "log", "--checkpoint", "some/folder")
    with studio:
        assert f":{studio.port}" in studio.url
        assert "checkpoint some/folder" in studio.output()
    with pytest.raises(ProcessLookupError):
        os.kill(studio.pid, 0)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('no such checkpoint'); sys.exit(3)", r"(?s)exit code 3.*no such checkpoint"),
        ("import time; print('still loading'); time.sleep(60)", r"(?s)did not answer.*still loading"),
    ],
)
def test_studio_that_does_not_start_says_what_it_printed(tmp_path: Path, program: str, message: str) -> None:
    (tmp_path / "app.py").write_text(program)
    studio = StudioProcess(tmp_path, tmp_path / "log")
    with pytest.raises(StudioError, match=message):
        studio.start(timeout_seconds=2.0)
