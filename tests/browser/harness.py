"""What browser tests stand on: a studio started as a user would start it, and a watch over what its pages do.

No fixtures here; `conftest` makes them from these parts, and the scripts that take screenshots or time the page may use them too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request, WebSocket

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# Quiet at start, and unable to reach any other host: a page that tries shows up as a failed request, not as traffic.
CHROMIUM_ARGS = (
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


class StudioError(RuntimeError):
    """The studio did not start; the message ends with what it printed."""


class StudioProcess:
    """`python app.py` in a process of its own, on a free port, printing into a file.

    >>> with StudioProcess(repository, log) as studio:
    ...     page.goto(studio.url)
    """

    def __init__(self, repository: Path, log: Path, *flags: str, device: str = "cpu") -> None:
        self.repository, self.log, self.flags, self.device = repository, log, flags, device
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the studio, e.g. to read its memory use."""
        assert self._process is not None, "not started"
        return self._process.pid

    def output(self, last: int = 8_000) -> str:
        """The last characters the studio printed."""
        return self.log.read_text(errors="replace")[-last:] if self.log.exists() else ""

    def start(self, timeout_seconds: float = 90.0) -> None:
        """Start and wait until the page answers; raises `StudioError` where it ends or stays silent."""
        command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(self.port), "--device", self.device, *self.flags]
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=self.repository,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that children it may start end with it
            )
        try:
            self._wait(timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def _wait(self, timeout_seconds: float) -> None:
        assert self._process is not None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment knows no loopback
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            if (code := self._process.poll()) is not None:
                raise StudioError(f"app.py ended with exit code {code} before the page answered. It printed:\n{self.output()}")
            try:
                with opener.open(self.url, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.1)
        raise StudioError(f"app.py did not answer at {self.url} within {timeout_seconds:.0f} s. It printed:\n{self.output()}")

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End the studio and what it started; harmless when it has ended."""
        if self._process is None:
            return
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, ending)
            except ProcessLookupError:
                break
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                continue
            break
        self._process.wait(timeout_seconds)

    def __enter__(self) -> StudioProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PageWatch:
    """Collects what a page must never do: console errors, uncaught exceptions, requests to another host."""

    def __init__(self, page: Page) -> None:
        self.problems: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("request", self._request)
        page.on("websocket", self._websocket)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        self._address(request.url)

    def _websocket(self, socket: WebSocket) -> None:
        self._address(socket.url)

    def _address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOCAL_HOSTS:
            self.problems.append(f"other host: {url}")

    def check(self) -> None:
        """Fail with everything collected so far."""
        assert not self.problems, "the page did what it must not:\n" + "\n".join(self.problems)
