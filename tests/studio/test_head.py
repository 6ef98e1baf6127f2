"""The head of the page: put in once, in whole HTML pages at the root, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from laser_studio.studio.head import HeadMiddleware

PAGE = b"<html><head><title>x</title></head><body><head></body></html>"


def answer(scope: dict[str, Any], kind: bytes, *, chunks: int = 3, encoding: bytes | None = None) -> tuple[dict[bytes, bytes], bytes]:
    """What a browser gets from an app that answers PAGE in some chunks."""
    sent: list[dict[str, Any]] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        headers = [(b"Content-Type", kind), (b"content-length", str(len(PAGE)).encode())]
        await send(
            {"type": "http.response.start", "status": 200, "headers": headers + ([(b"content-encoding", encoding)] if encoding else [])}
        )
        size = -(-len(PAGE) // chunks)
        for number in range(chunks):
            part = PAGE[number * size : (number + 1) * size]
            await send({"type": "http.response.body", "body": part, "more_body": number < chunks - 1})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    asyncio.run(HeadMiddleware(app, "<style>é</style>")(scope, receive, send))
    assert sent[0]["type"] == "http.response.start"
    return {name.lower(): value for name, value in sent[0]["headers"]}, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("scope", [{"path": "/"}, {"path": ""}, {"path": "/studio/", "root_path": "/studio"}])
def test_the_page_gets_it_once_and_tells_its_length(scope: dict[str, Any], chunks: int) -> None:
    headers, body = answer({"type": "http", **scope}, b"text/html; charset=utf-8", chunks=chunks)
    assert body == PAGE.replace(b"<head>", "<head><style>é</style>".encode(), 1)
    assert headers[b"content-length"] == str(len(body)).encode()


@pytest.mark.parametrize(
    ("scope", "kind", "encoding"),
    [
        ({"path": "/config"}, b"text/html", None),
        ({"path": "/"}, b"application/json", None),
        ({"path": "/"}, b"text/html", b"br"),
    ],
)
def test_everything_else_passes_unchanged(scope: dict[str, Any], kind: bytes, encoding: bytes | None) -> None:
    headers, body = answer({"type": "http", **scope}, kind, encoding=encoding)
    assert body == PAGE and headers[b"content-length"] == str(len(PAGE)).encode()
