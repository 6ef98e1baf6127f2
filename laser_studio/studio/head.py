"""What stands in the page's head from the first byte: the style sheet, the theme and the title picture's colours.

Gradio adds a `head` of one's own only when its program has started; until then the page would flash up unstyled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

_MARK = b"<head>"


class HeadMiddleware:
    """ASGI middleware that puts `html` at the start of the head of the pages at `paths`, relative to the app's root."""

    def __init__(self, app: App, html: str, paths: Sequence[str] = ("",)) -> None:
        self.app = app
        self.html = html.encode()
        self.paths = tuple(f"/{path.strip('/')}".rstrip("/") for path in paths)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass everything on; only whole HTML pages are changed."""
        if scope["type"] != "http" or not self._is_ours(scope):
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                if not self._is_page(message):
                    await send(message)
                return
            if start is None or not self._is_page(start) or message["type"] != "http.response.body":
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(_MARK, _MARK + self.html, 1)
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, hold)

    def _is_ours(self, scope: Message) -> bool:
        path, root = scope.get("path", "").rstrip("/"), scope.get("root_path", "").rstrip("/")
        return path in self.paths or path.removeprefix(root) in self.paths

    @staticmethod
    def _is_page(start: Message) -> bool:
        headers = {name.lower(): value for name, value in start["headers"]}
        return headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers
