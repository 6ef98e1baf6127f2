"""plotly.min.js from the studio's own server: that file and no other, packed where the browser takes it, read only when asked for."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from laser_studio.studio.plotly_file import ROUTE, PlotlyMiddleware, installed_plotly

BODY = b"window.Plotly = {};\n" * 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plotly.min.js"
    path.write_bytes(BODY)
    return path


def served(file: Path | None) -> PlotlyMiddleware:
    """The middleware before an app that answers 418 to all it gets."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"passed on"})

    return PlotlyMiddleware(app, file)


async def ask(
    app: PlotlyMiddleware, path: str = ROUTE, *, method: str = "GET", root: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "root_path": root, "headers": names}, receive, send)
    about = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], about, b"".join(message.get("body", b"") for message in sent[1:])


def get(app: PlotlyMiddleware, path: str = ROUTE, **options: Any) -> tuple[int, dict[str, str], bytes]:
    return asyncio.run(ask(app, path, **options))


@pytest.mark.parametrize(("path", "root"), [(ROUTE, ""), (ROUTE, "/proxy"), ("/proxy" + ROUTE, "/proxy"), ("/proxy" + ROUTE, "/proxy/")])
def test_the_file_as_it_is_for_who_does_not_unpack(file: Path, path: str, root: str) -> None:
    status, headers, body = get(served(file), path, root=root)
    assert (status, body) == (200, BODY)
    assert headers["content-type"].startswith("text/javascript") and headers["content-length"] == str(len(BODY))
    assert "content-encoding" not in headers and "Accept-Encoding" in headers["vary"]
    assert int(headers["cache-control"].rpartition("max-age=")[2]) >= 86_400


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip", "gzip, deflate, br, zstd", "GZIP;q=0.5", "*"])
def test_packed_for_who_does(file: Path, accepted: str) -> None:
    status, headers, body = get(served(file), accept_encoding=accepted)
    assert status == 200 and headers["content-encoding"] == "gzip" and headers["content-length"] == str(len(body))
    assert len(body) < len(BODY) / 4 and gzip.decompress(body) == BODY


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "deflate, gzip; q=0.000"])
def test_never_packed_against_the_wish(file: Path, accepted: str) -> None:
    _, headers, body = get(served(file), accept_encoding=accepted)
    assert "content-encoding" not in headers and body == BODY


def test_two_at_once_pack_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda data, *level, **options: packed.append(len(data)) or compress(data, *level, **options))  # type: ignore[func-returns-value]
    app = served(file)

    async def both() -> None:
        await asyncio.gather(*(ask(app, accept_encoding="gzip") for _ in range(3)))

    asyncio.run(both())
    assert packed == [len(BODY)]


def test_an_unchanged_file_is_not_sent_again(file: Path) -> None:
    app = served(file)
    tags = {}
    for accepted in ("gzip", "identity"):
        _, headers, _ = get(app, accept_encoding=accepted)
        tags[accepted] = headers["etag"]
        status, _, body = get(app, accept_encoding=accepted, if_none_match=headers["etag"])
        assert (status, body) == (304, b"")
    assert tags["gzip"] != tags["identity"]  # other bytes, other tag
    file.write_bytes(BODY + b"// newer")
    status, _, body = get(served(file), if_none_match=tags["identity"])
    assert status == 200 and body.endswith(b"// newer")


def test_head_tells_without_sending_and_nothing_can_be_posted(file: Path) -> None:
    status, headers, body = get(served(file), method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(BODY)), b"")
    assert get(served(file), method="POST")[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/", "/studio", "/studio/", "/studio/plotly.js", "/studio/../studio/plotly.min.js", "/studio/plotly.min.js/x",
        "//studio/plotly.min.js", "/studio/plotly.min.js.map", "/x/studio/plotly.min.js", "/studio/widgetbundle.js",
    ],
)  # fmt: skip
def test_every_other_path_is_somebody_elses(file: Path, path: str) -> None:
    assert get(served(file), path) == (418, {}, b"passed on")


def test_a_missing_package_is_answered_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laser_studio.studio.plotly_file.installed_plotly", lambda: None)
    status, headers, body = get(served(None))
    assert status == 404 and headers["cache-control"] == "no-store" and b"plotly" in body


def test_the_installed_file_is_plotly_and_is_found_without_importing_it() -> None:
    path = installed_plotly()
    assert path is not None and path.name == "plotly.min.js" and b"plotly.js v" in path.read_bytes()[:200]
    body = get(served(None), accept_encoding="gzip")[2]
    assert gzip.decompress(body) == path.read_bytes() and len(body) < 2_000_000
