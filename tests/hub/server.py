"""A stand-in for the Hugging Face Hub on this machine: the few endpoints huggingface_hub uses, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT, OLDER = "c0ffee" + "0" * 34, "0dd" + "0" * 37
LARGE = 10_000  # bytes from which a file counts as a large one, known by its SHA-256


def checksum(content: bytes) -> str:
    """What the Hub calls a file: SHA-256 of a large one, git's SHA-1 of a small one."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """What the stand-in serves, and how it fails.

    files: {commit: {name: content}} of owner/name. status: answer everything with it; headers go with that. cut_after: break the
    connection after so many bytes of a file, as often as `cuts` says. damage: serve every large file with a bit flipped.
    """

    files: dict[str, dict[str, bytes]]
    endpoint: str = ""
    refs: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "old": OLDER})
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int = 0
    cuts: int = 0
    damage: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    authorised: list[str | None] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests[f"{self.command} {path}"] += 1
        hub.authorised.append(self.headers.get("authorization"))
        if hub.status:
            return self._send(hub.status, b"{}", hub.headers, body)
        if path.startswith("/api/models/owner/name"):
            revision = path.removeprefix("/api/models/owner/name").removeprefix("/revision/") or "main"
            return self._describe(revision, body)
        if path.startswith("/owner/name/resolve/"):
            revision, _, name = path.removeprefix("/owner/name/resolve/").partition("/")
            return self._file(revision, name, body)
        return self._send(401, b"{}", {}, body)  # what the Hub says of a repository that is not there

    def _describe(self, revision: str, body: bool) -> None:
        commit = self.hub.refs.get(revision, revision)
        files = self.hub.files.get(commit)
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        record = {"id": "owner/name", "modelId": "owner/name", "sha": commit, "siblings": siblings, "tags": [], "downloads": 0}
        return self._send(200, json.dumps(record).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, revision: str, name: str, body: bool) -> None:
        commit = self.hub.refs.get(revision, revision)
        content = self.hub.files.get(commit, {}).get(name)
        if content is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, body)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{checksum(content)}"', "Accept-Ranges": "bytes"}
        if self.hub.damage and len(content) >= LARGE:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-") or 0)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206 if start else 200, content[start:], headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if self.hub.cuts and self.hub.cut_after and len(content) > self.hub.cut_after:
            self.hub.cuts -= 1
            content = content[: self.hub.cut_after]
            self.close_connection = True
        self.wfile.write(content)
        self.hub.sent_bytes += len(content)


@contextmanager
def serve(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """The stand-in at `hub.endpoint` while the block runs."""
    hub = Hub(files)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
