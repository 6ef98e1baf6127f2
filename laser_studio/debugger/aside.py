"""Bytes that are seldom read again, put aside in a file without a name, so that a long run does not grow in memory by what it records.

The file is this process's alone and gone with it, or with the last that was put into it. Where no file can be written (a full disk,
a system without room for such files) everything stays in memory.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class Aside:
    """Some bytes put aside: where they lie, or themselves."""

    size: int
    _at: int | bytes
    _spool: Spool

    def read(self) -> bytes:
        """The bytes. Raises OSError where the file cannot be read, which is the system's fault."""
        return self._at if isinstance(self._at, bytes) else self._spool.read(self._at, self.size)

    @property
    def in_memory(self) -> int:
        """Bytes that they take in memory."""
        return self.size if isinstance(self._at, bytes) else 0


class Spool:
    """A growing file, made at first need. May be used by several threads."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Aside:
        """Put bytes aside."""
        with self._lock, suppress(OSError):
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as somebody may read
                weakref.finalize(self, self._file.close)
            start = self._file.seek(self._end)
            if self._file.write(data) == len(data):  # less: the disk is full
                self._end += len(data)
                return Aside(len(data), start, self)
        return Aside(len(data), data, self)

    def read(self, start: int, size: int) -> bytes:
        """Bytes that lie there."""
        with self._lock:
            assert self._file is not None
            self._file.seek(start)
            data = self._file.read(size)
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes could be read again")
        return data
