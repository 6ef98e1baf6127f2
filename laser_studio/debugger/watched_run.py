"""`WatchedRun`: a recording seen through a cursor in time, also while the watched process goes on writing it.

It answers as a `Session` does, so that the same screen shows both; but nothing can be computed here, only read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from laser_studio.debugger.bookmarks import MAX_BOOKMARKS, Bookmarks
from laser_studio.debugger.breakpoints import Breakpoints, Hit
from laser_studio.debugger.expressions import Expression, Scope
from laser_studio.debugger.frame_store import FrameStore
from laser_studio.debugger.frames import Frame
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.recording import (
    MAX_CURVES,
    MAX_FILE,
    MAX_LINE,
    MAX_NOTES,
    BookmarkLine,
    EndLine,
    FrameLine,
    LineError,
    NoteLine,
    WatchLine,
    read_header,
    read_line,
)
from laser_studio.debugger.spectra import Shares, Spectra
from laser_studio.debugger.stepping import EVENT, Size, last_stop
from laser_studio.debugger.watches import MAX_WATCHES, Watches
from laser_studio.errors import BookmarkError, PolicyError, RecordingError, WatchError
from laser_studio.laser import LaserPolicy

T = TypeVar("T")

SETTINGS_ARE_FIXED = "this run was recorded in another process: settings are those of the recording"


class WatchedRun:
    """The recording at `path`, read up to what was there when it was opened; `refresh` reads on.

    Raises `RecordingError` for a file that is no recording or holds no frame yet. A file that turns out to be broken, or is
    replaced, later raises it from `refresh` and `step`; what was read before stays.

    Breakpoints are consulted where `step` reads on, as in a session; bookmarks and watches of the recording stand beside those added here,
    which are not written to the file.

    Attributes: header; notes, the noted curves by name as (step, value), and note_log, all of them in order; ended, why the watched
    run ended ("" while it goes on); epoch, always 0: what was read is never taken back.
    """

    epoch = 0

    def __init__(self, path: str | os.PathLike[str], *, seconds: float | None = None) -> None:
        self.path = Path(path)
        self.notes: dict[str, list[tuple[int, float | None]]] = {}
        self.note_log: list[tuple[str, int, float | None]] = []
        self.beyond = False
        self.ended = ""
        self._frames = FrameStore()
        self._spectra = Spectra()
        self._cursor = 0
        self._offset = self._lines = 0
        self._problem: RecordingError | None = None
        self._first = b""
        self._told = {BookmarkLine: 0, WatchLine: 0}  # lines of a kind that were read
        self.stopped_by: tuple[Hit, ...] = ()
        self.bookmarks = Bookmarks()
        with self._opened() as file:
            self._first = file.readline(MAX_LINE + 1)
            if not self._first.endswith(b"\n"):
                raise self._error("is not whole: this is no recording, or its run has only just started", line=1)
            self.header = self._checked(lambda: read_header(self._first))
            self._offset = len(self._first)
        scope = Scope(tuple(self.header.sites))
        self.breakpoints, self.watches = Breakpoints(scope), Watches(scope)
        self.refresh(seconds)
        if not len(self._frames):
            raise RecordingError(f"{self.path}: holds no step yet: start the run that writes it first")

    # What a session answers, too

    @property
    def frame(self) -> Frame:
        """The frame at the cursor."""
        return self._frames[self._cursor]

    @property
    def frames(self) -> Sequence[Frame]:
        """All frames read; `frames[t].index == t`."""
        return self._frames

    @property
    def head(self) -> int:
        """Index of the newest frame read."""
        return len(self._frames) - 1

    @property
    def length(self) -> int:
        """Steps recorded so far."""
        return self.head

    @property
    def sites(self) -> dict[str, int]:
        """Width D of each site."""
        return dict(self.header.sites)

    @property
    def policy(self) -> LaserPolicy:
        """The settings the run was recorded with."""
        return self.header.policy

    @property
    def finished(self) -> bool:
        """Whether no further step will come: the run has ended, or its file cannot be read any further."""
        return self._cursor == self.head and (bool(self.ended) or self._problem is not None)

    @property
    def problem(self) -> str | None:
        """Why the file cannot be read any further."""
        return str(self._problem) if self._problem is not None else None

    def step(self) -> Frame:
        """The next frame, read from the file where need be; the same again where there is none yet."""
        if self._cursor == self.head:
            self.refresh()
        self.stopped_by = ()
        if self._cursor < self.head:
            before = self.frame
            self._cursor += 1
            self.stopped_by = self.breakpoints.consult(self.frame, before)
        return self.frame

    def back(self) -> Frame:
        """The frame before; at the start the first one again."""
        return self.seek(self._cursor - 1)

    def restart(self) -> Frame:
        """The first frame. Breakpoints count from nothing again."""
        self.breakpoints.reset_counts()
        return self.seek(0)

    def seek(self, index: int) -> Frame:
        """The frame of that index, or the nearest there is."""
        self.stopped_by = ()
        self._cursor = max(0, min(index, self.head))
        return self.frame

    def end_after(self, size: Size) -> int:
        """The next recorded step that ends a window ("cycle") or a forward ("supervision"); where there is none yet, the newest."""
        for index in range(self._cursor + 1, self.head):
            if self._ends(index, size):
                return index
        return self.head

    def end_before(self, size: Size) -> int:
        """The last step before this one that ends a window or a forward; 0 where there is none."""
        return next((index for index in range(self._cursor - 1, 0, -1) if self._ends(index, size)), 0)

    def way_out(self) -> int:
        """The end of the forward under way, or of the next one."""
        return self.end_after("supervision")

    def run_back(self, until: str | Expression | None = None, *, breakpoints: bool = False, max_steps: int | None = None) -> Frame:
        """Back to the last frame where a condition or a breakpoint holds, as in a session."""
        until = EVENT if until is None else until
        holds = Expression(str(until)).require_condition().bind(self.watches.scope).holds
        asked = self.breakpoints if breakpoints else None
        self._cursor, self.stopped_by = last_stop(self._frames, self._cursor, holds, str(until), asked, max_steps)
        return self.frame

    def _ends(self, index: int, size: Size) -> bool:
        """Whether a step ends what it is part of; `index` is not the newest."""
        frame, after = self._frames[index], self._frames[index + 1]
        return size == "net" or frame.s != after.s or (size == "cycle" and frame.h != after.h)

    def spectra(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """Energy shares of a site's coefficients, descending, at most 64, per step in [start, stop); None where there are none."""
        return self._spectra.read(site, start, min(stop, len(self._frames)))

    def set_policy(self, policy: LaserPolicy) -> None:
        """Raises `PolicyError`: what has been recorded cannot be tuned."""
        raise PolicyError(SETTINGS_ARE_FIXED)

    def set_measures(self, measures: Measures) -> None:
        """Raises `PolicyError`, for the same reason."""
        raise PolicyError(SETTINGS_ARE_FIXED)

    @property
    def history_bytes(self) -> int:
        """None: the activations were with the process that was watched. Setting it raises `PolicyError`."""
        return 0

    @history_bytes.setter
    def history_bytes(self, budget: int) -> None:
        raise PolicyError(SETTINGS_ARE_FIXED)

    def close(self) -> None:
        """Nothing is held open."""

    # Reading on

    def refresh(self, seconds: float | None = None) -> int:
        """Read what was added to the file, for `seconds` at most; returns how many steps that were.

        Raises `RecordingError` where the file is broken, gone or replaced; from then on at every call.
        """
        if self._problem is not None:
            raise self._problem
        before, until = len(self._frames), None if seconds is None else time.perf_counter() + seconds
        try:
            with self._opened() as file:
                file.seek(self._offset)
                while True:
                    line = file.readline(MAX_LINE + 1)
                    if not line.endswith(b"\n"):
                        if len(line) > MAX_LINE:
                            raise self._error(f"is longer than {MAX_LINE:,} bytes", line=self._lines + 1)
                        break  # the end, a line that is being written, or one that a crash has cut off
                    self._take(line)
                    self._offset += len(line)
                    if until is not None and time.perf_counter() >= until:
                        break
        except RecordingError as problem:
            self._problem = problem
            raise
        return len(self._frames) - before

    def _take(self, line: bytes) -> None:
        entry = self._checked(lambda: read_line(line, self.header, len(self._frames)))
        if isinstance(entry, FrameLine):
            self._frames.append(entry.frame)
            self.ended = ""
            for name, shares in entry.spectra.items():
                self._spectra.add(name, entry.frame.index, shares)
        elif isinstance(entry, NoteLine):
            if len(self.note_log) >= MAX_NOTES or (entry.note not in self.notes and len(self.notes) >= MAX_CURVES):
                raise self._error(f"is one note too many: at most {MAX_NOTES:,} under {MAX_CURVES} names are read", line=self._lines)
            self.notes.setdefault(entry.note, []).append((entry.step, entry.value))
            self.note_log.append((entry.note, entry.step, entry.value))
        elif isinstance(entry, EndLine):
            self.ended = entry.end or "ended"
        else:
            self._mark(entry)

    def _mark(self, entry: BookmarkLine | WatchLine) -> None:
        """Take a bookmark or watch of the recording; one that finds no room or its name taken, by what was added here, is left out."""
        self._told[type(entry)] += 1
        most = MAX_BOOKMARKS if isinstance(entry, BookmarkLine) else MAX_WATCHES
        if self._told[type(entry)] > most:
            raise self._error(f"is one too many: at most {MAX_BOOKMARKS} bookmarks and {MAX_WATCHES} watches are read", line=self._lines)
        with suppress(BookmarkError, WatchError):
            if isinstance(entry, BookmarkLine):
                self.bookmarks.add(entry.bookmark)
            else:
                self.watches.add(entry.watch)

    def _checked(self, read: Callable[[], T]) -> T:
        self._lines += 1
        try:
            return read()
        except LineError as problem:
            raise self._error(str(problem), line=self._lines) from None

    def _error(self, cause: str, *, line: int) -> RecordingError:
        return RecordingError(f"{self.path}, line {line}: {cause}")

    def _opened(self) -> BinaryIO:
        """The file, where it still is the one it was."""
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe of that name must not hold us up
        try:
            file = os.fdopen(os.open(self.path, flags), "rb")
            found = os.fstat(file.fileno())
        except (OSError, ValueError) as failure:
            raise RecordingError(f"{self.path}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from None
        cause = ""
        if not stat.S_ISREG(found.st_mode):
            cause = "is no file: name a recording that laser_studio.watch wrote"
        elif found.st_size > MAX_FILE:
            cause = f"holds {found.st_size:,} bytes, more than the {MAX_FILE:,} that are read"
        elif found.st_size < self._offset or file.read(len(self._first)) != self._first:
            cause = "has been replaced by that of another run: reload the page, or open it anew"
        if cause:
            file.close()
            raise RecordingError(f"{self.path}: {cause}")
        return file
