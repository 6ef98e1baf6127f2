"""plotly.min.js, served from the installed `plotly` package: for the large view of a plot, and only once somebody opens one.

The file is public and says nothing of a run, so it is served without a login, as Gradio serves its own scripts. Nothing is
read at the start: the first request reads and compresses it, in a thread, and later ones get the same bytes.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser_studio.studio.head import App, Message, Receive, Send

ROUTE = "/studio/plotly.min.js"
# Behind the page's own address, so a later version of the package is asked for by its tag after a week at the latest.
_CACHE = b"public, max-age=604800"
_TYPE = b"text/javascript; charset=utf-8"


def installed_plotly() -> Path | None:
    """plotly.min.js of the installed package, found without importing it; None where it is missing."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return path if path.is_file() else None


class PlotlyMiddleware:
    """ASGI middleware that answers `ROUTE` and passes everything else on. `path`: of the file, None: the installed one."""

    def __init__(self, app: App, path: Path | None = None) -> None:
        self.app = app
        self.path = path
        self._packing = asyncio.Lock()
        self._packed = b""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD of the one route."""
        if scope["type"] != "http" or scope.get("path", "") not in (ROUTE, scope.get("root_path", "").rstrip("/") + ROUTE):
            await self.app(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, {b"allow": b"GET, HEAD"})
        elif self._file is None:
            await _answer(
                send, 404, {b"content-type": b"text/plain", b"cache-control": b"no-store"}, b"the plotly package is not installed"
            )
        else:
            await self._serve(self._file, scope, send)

    @cached_property
    def _file(self) -> Path | None:
        return self.path if self.path is not None else installed_plotly()

    async def _serve(self, path: Path, scope: Message, send: Send) -> None:
        asked = {name.lower(): value for name, value in scope["headers"]}
        small = _takes_gzip(asked.get(b"accept-encoding", b"").decode("latin-1"))
        about = path.stat()
        tag = f'"{about.st_size:x}-{about.st_mtime_ns:x}{"-gzip" if small else ""}"'.encode()
        headers = {b"etag": tag, b"cache-control": _CACHE, b"vary": b"Accept-Encoding"}
        if tag in asked.get(b"if-none-match", b""):
            await _answer(send, 304, headers)
            return
        body = await (self._compressed(path) if small else asyncio.to_thread(path.read_bytes))
        headers |= {b"content-type": _TYPE, b"x-content-type-options": b"nosniff"} | ({b"content-encoding": b"gzip"} if small else {})
        await _answer(send, 200, headers, body, only_head=scope["method"] == "HEAD")

    async def _compressed(self, path: Path) -> bytes:
        async with self._packing:  # two who ask at once do not compress twice
            if not self._packed:
                self._packed = await asyncio.to_thread(lambda: gzip.compress(path.read_bytes(), 6, mtime=0))
        return self._packed


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for part in accepted.lower().split(","):
        name, _, quality = part.replace(" ", "").partition(";q=")
        if name in ("gzip", "*"):
            return quality.strip("0.") != "" or not quality
    return False


async def _answer(send: Any, status: int, headers: dict[bytes, bytes], body: bytes = b"", *, only_head: bool = False) -> None:
    if status != 304:
        headers = {**headers, b"content-length": str(len(body)).encode()}
    await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": b"" if only_head else body})
