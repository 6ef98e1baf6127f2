"""Files a visitor hands over: counted, copied into a private folder under a name of our own making, looked into, or refused whole."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from laser_studio.errors import CheckpointError
from laser_studio.untrusted.faults import shown
from laser_studio.untrusted.listing import LIMITS, Limits, list_tensors

MAX_UPLOAD = 512 << 20  # bytes of the weights
MAX_BESIDE = 64 << 20  # bytes of each file beside them; those who read them have narrower limits
BESIDE = ("all_config.yaml", "config.json", "dataset.json", "identifiers.json")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Upload:
    """An accepted upload: give `file` to `load_checkpoint`. As a context, or by `close`, its folder goes away again."""

    folder: Path
    file: Path

    def close(self) -> None:
        """Remove the folder; harmless where it is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def accept_upload(
    path: Path, *, name: str = "", beside: Mapping[str, Path] | None = None, size_limit: int = MAX_UPLOAD, limits: Limits = LIMITS
) -> Upload:
    """Take over a file of weights that was uploaded to `path`, with the configuration uploaded with it.

    name: what the visitor called the file; it is never a path, and only what is harmless of it is kept. beside: {one of `BESIDE`: where it
    was uploaded to}. size_limit: bytes of the weights. Raises `CheckpointError` for whatever `load_checkpoint` would not open, and
    leaves nothing behind.
    """
    called = shown(_last(name) or path.name)
    if strange := [key for key in beside or {} if key not in BESIDE]:
        raise CheckpointError(f"{shown(_last(strange[0]))} is no file a checkpoint comes with: give {', '.join(BESIDE)}, or none")
    folder = Path(tempfile.mkdtemp(prefix="laser-upload-"))  # readable by this user alone
    upload = Upload(folder, folder / harmless(name or path.name))
    try:
        _take(path, upload.file, size_limit, called)
        for key, place in (beside or {}).items():
            _take(place, folder / key, MAX_BESIDE, key)
        list_tensors(upload.file, name=called, limits=limits)
    except OSError as failure:
        upload.close()
        full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = "the disk is full: try again later" if full else failure.strerror or "unknown fault of the disk"
        raise CheckpointError(f"{called} could not be stored: {way_out}") from None
    except BaseException:
        upload.close()
        raise
    return upload


def harmless(name: str) -> str:
    """A file name made of what a visitor called a file: letters, digits, and `._-`; never empty, hidden, long or a way up."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", _last(name)).lstrip("._-")
    stem, dot, suffix = kept.rpartition(".")
    kept = f"{stem[:60]}.{suffix[:12]}" if dot else kept[:60]
    return "checkpoint" if not kept or kept in BESIDE else kept


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _take(source: Path, target: Path, most: int, called: str) -> None:
    """Copy, counting: a file may grow while it is copied."""
    done = 0
    with source.open("rb") as stream, target.open("xb") as copy:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            if done > most:
                raise CheckpointError(f"{called} is larger than the {most / 1e6:,.0f} MB taken here: run the studio on your own machine")
            copy.write(chunk)
