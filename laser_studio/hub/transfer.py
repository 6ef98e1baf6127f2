"""Bringing the files: with progress, from where an earlier attempt broke off, compared with the Hub's checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_studio.errors import HubError
from laser_studio.hub.failures import in_words
from laser_studio.hub.found import HubCheckpoint, HubFile, look_up, megabytes
from laser_studio.hub.places import endpoint, storage
from laser_studio.hub.reference import HubReference, parse
from laser_studio.untrusted.faults import shown

if TYPE_CHECKING:
    from huggingface_hub.file_download import HfFileMetadata

Progress = Callable[[int, int], None]  # (bytes done, bytes of all)
OnFetch = Callable[[HubCheckpoint], AbstractContextManager[Progress]]
"""Told what was found before anything is fetched; gives what is told the progress, from first byte to last or to a failure."""

_TIMEOUT_SECS = 10.0
_SPARE_BYTES = 64 << 20  # left free on the disk


def obtain(reference: str | Path, on_fetch: OnFetch | None = None) -> tuple[Path, HubCheckpoint]:
    """The file of weights that a reference stands for, fetched where it is not in the cache, and what it is. Raises `HubError`."""
    found = look_up(parse(reference))
    with on_fetch(found) if on_fetch is not None else nullcontext(None) as progress:
        return fetch(found, on_progress=progress), found


def fetch(found: HubCheckpoint, *, on_progress: Progress | None = None, cache: Path | None = None, login: bool = True) -> Path:
    """The file of weights on this disk, what belongs to it beside it.

    What is in the cache is not fetched again. A download that breaks off leaves what it has, and the next one goes on from there; a
    finished one is compared with the Hub's checksum before it counts. on_progress is called with bytes done and bytes of all. Raises
    `HubError`.
    """
    report = on_progress or (lambda done, total: None)
    total = sum(file.size for file in found.files)
    done = 0
    report(done, total)
    with in_words(found.reference):
        from huggingface_hub import hf_hub_download

        _make_room(found, cache)
        for file in found.files:
            if not file.cached:
                before = done
                _bring(found, file, cache, login, lambda got, base=before: report(base + got, total))  # type: ignore[misc]
            path = hf_hub_download(
                found.reference.repository, file.name, revision=found.commit, cache_dir=cache, endpoint=endpoint(),
                token=None if login else False, tqdm_class=_silent_bar(),
            )  # fmt: skip
            done += file.size
            report(done, total)
    return Path(path)


def _make_room(found: HubCheckpoint, cache: Path | None) -> None:
    place = storage(found.reference, cache)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if found.missing_bytes and free < found.missing_bytes + _SPARE_BYTES:
        raise HubError(
            f"{shown(str(found.reference))} needs {megabytes(found.missing_bytes)}, and the disk of the cache has {megabytes(free)} left: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _bring(found: HubCheckpoint, file: HubFile, cache: Path | None, login: bool, report: Callable[[int], None]) -> None:
    """Fetch one file to the place in the cache where huggingface_hub looks for it, going on where an earlier attempt broke off."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(found.reference.repository, file.name, revision=found.commit, endpoint=endpoint())
    told = get_hf_file_metadata(url, token=None if login else False, timeout=_TIMEOUT_SECS, endpoint=endpoint())
    etag = told.etag or ""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) or told.size != file.size:
        raise HubError(f"{shown(file.name)} of {found.reference.repository} is described in two ways by the Hub: try again later")
    blob = storage(found.reference, cache) / "blobs" / etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{etag}.laser.part")
    with WeakFileLock(blob.with_name(f"{etag}.laser.lock")):
        if blob.is_file():  # fetched meanwhile by another process, or for another commit
            return
        try:
            with part.open("ab") as stream:
                have = stream.tell()
                if have > file.size:
                    stream.truncate(0)
                    have = 0
                counted = _Counted(stream, have, file.size, report)
                http_get(
                    told.location, counted, resume_size=have, expected_size=file.size,  # type: ignore[arg-type]
                    headers=_headers(url, told, build_hf_headers(token=None if login else False)), tqdm_class=_silent_bar(),
                )  # fmt: skip
            _verify(part, etag, file, found.reference)
            os.replace(part, blob)
        except OSError as failure:
            if failure.errno == errno.ENOSPC:  # the disk is needed by others; there is nothing to go on from
                part.unlink(missing_ok=True)
            raise
        finally:
            if part.is_file() and not part.stat().st_size:
                part.unlink()


def _headers(url: str, told: HfFileMetadata, headers: dict[str, str]) -> dict[str, str]:
    """The login goes to the Hub alone: a file may be stored elsewhere."""
    from urllib.parse import urlsplit

    if urlsplit(told.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)
    return headers


class _Counted:
    """The file a download is written to: says how much it has, and takes no more than was announced."""

    def __init__(self, stream: Any, have: int, most: int, report: Callable[[int], None]) -> None:
        self._stream, self._have, self._most, self._report = stream, have, most, report

    def write(self, chunk: bytes) -> int:
        if self._have + len(chunk) > self._most:
            raise HubError("the Hub sends more than it announced: try again later")
        self._stream.write(chunk)
        self._have += len(chunk)
        self._report(self._have)
        return len(chunk)

    def tell(self) -> int:
        return self._have

    def seek(self, place: int, whence: int = 0) -> int:
        self._have = self._stream.seek(place, whence)
        return self._have

    def truncate(self, size: int | None = None) -> int:
        self._stream.flush()
        self._stream.truncate(self._have if size is None else size)
        return self._have


def _silent_bar() -> Any:
    """A bar that shows nothing: progress is told by whoever asked for it."""
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **{**options, "disable": True})

    return Silent


def _verify(part: Path, etag: str, file: HubFile, where: HubReference) -> None:
    """Compare with the Hub's checksum: SHA-256 of large files, git's SHA-1 of small ones."""
    sha = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with part.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha.update(chunk)
    if sha.hexdigest() != etag:
        part.unlink()
        raise HubError(f"{shown(file.name)} of {where.repository} arrived damaged, its checksum is wrong: try again")
