"""Runs of all open pages, under a count, a byte cap and an idle limit. No Gradio and no torch here.

A page knows its run by an unguessable id and nothing else. A run is closed when its page says so, a while after its page has
left without coming back, when it has been idle for too long, or when newer runs need its place; a page that still has it is
then told to reload. One sweeper thread lives only while runs do.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from laser_studio.errors import LaserStudioError


class StudioError(LaserStudioError):
    """Something the studio cannot do for a page; `expired` tells the page that its run is gone."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class Closable(Protocol):
    """What a registry holds."""

    @property
    def nbytes(self) -> int: ...

    def close(self) -> None: ...


Item = TypeVar("Item", bound=Closable)


@dataclass
class Entry(Generic[Item]):
    """One run and the lock under which it is used."""

    id: str
    item: Item
    used: float
    leaves: float | None = None  # when it is closed, unless it is used before
    lock: threading.RLock = field(default_factory=threading.RLock)
    closed: bool = False


class Registry(Generic[Item]):
    """At most `capacity` runs holding at most `max_bytes` together; idle for `idle_seconds` means closed.

    A newcomer takes the place of a run whose page has left, else of the one that has been idle longest, but of none that was
    used within `grace_seconds`.
    """

    def __init__(
        self,
        *,
        capacity: int = 32,
        max_bytes: int = 2 << 30,
        idle_seconds: float = 1_800.0,
        grace_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity, self.max_bytes = capacity, max_bytes
        self.idle_seconds, self.grace_seconds = idle_seconds, grace_seconds
        self._clock = clock
        self._entries: dict[str, Entry[Item]] = {}
        self._guard = threading.Lock()
        self._wake = threading.Condition(self._guard)
        self._sweeper: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, item: Item) -> str:
        """Take in a run; returns its id. Raises `StudioError` where every place is in use, and closes the item then."""
        with self._guard:
            leaving = self._surplus(1)
            if len(self._entries) - len(leaving) >= self.capacity:
                full = True
            else:
                full = False
                entry = Entry(secrets.token_urlsafe(24), item, self._clock())
                self._entries[entry.id] = entry
                for old in leaving:
                    del self._entries[old.id]
                self._watch()
        if full:
            item.close()
            raise StudioError(f"all {self.capacity} places are in use: close another page of the studio, or try again in a minute")
        for old in leaving:
            _close(old)
        return entry.id

    def get(self, run: object) -> Entry[Item]:
        """The entry of a run, marked as used. Raises `StudioError` (expired) for any id that is not of an open run."""
        with self._guard:
            entry = self._entries.get(run) if isinstance(run, str) and len(run) <= 64 else None
            if entry is None:
                raise StudioError("this session has expired: reload the page", expired=True)
            entry.used, entry.leaves = self._clock(), None
            return entry

    def leave(self, run: object, seconds: float) -> None:
        """Close a run in so many seconds, unless it is used again; an id that is not of an open run does nothing."""
        with self._guard:
            entry = self._entries.get(run) if isinstance(run, str) else None
            if entry is not None:
                entry.leaves = self._clock() + seconds
                self._wake.notify_all()

    def close(self, run: object) -> None:
        """Close a run; an id that is not of an open run does nothing."""
        with self._guard:
            entry = self._entries.pop(run, None) if isinstance(run, str) else None
            self._wake.notify_all()
        if entry is not None:
            _close(entry)

    def close_all(self) -> None:
        """Close every run."""
        for run in list(self._entries):
            self.close(run)

    def sweep(self) -> int:
        """Close what was left or has been idle too long, and the idlest while all together hold too many bytes; returns how many."""
        with self._guard:
            leaving = self._surplus(0)
            for entry in leaving:
                del self._entries[entry.id]
        for entry in leaving:
            _close(entry)
        return len(leaving)

    def _surplus(self, room: int) -> list[Entry[Item]]:
        """Entries to close so that `room` more fit, those that were left and then the idlest first. The guard is held."""
        now = self._clock()
        by_age = sorted(self._entries.values(), key=lambda entry: (entry.leaves is None, entry.used))
        over = [now - entry.used > self.idle_seconds or (entry.leaves is not None and now >= entry.leaves) for entry in by_age]
        leaving = [entry for entry, ends in zip(by_age, over, strict=True) if ends]
        staying = [entry for entry, ends in zip(by_age, over, strict=True) if not ends]
        held = sum(entry.item.nbytes for entry in staying)
        while staying and (len(staying) + room > self.capacity or held > self.max_bytes):
            oldest = staying[0]
            if oldest.leaves is None and now - oldest.used < self.grace_seconds:
                break
            held -= oldest.item.nbytes
            leaving.append(staying.pop(0))
        return leaving

    def _watch(self) -> None:
        if self._sweeper is None:
            self._sweeper = threading.Thread(target=self._sweep_while_used, name="studio-sweeper", daemon=True)
            self._sweeper.start()

    def _sweep_while_used(self) -> None:
        while True:
            with self._guard:
                self._wake.wait(timeout=self._rest())
                if not self._entries:
                    self._sweeper = None
                    return
            self.sweep()

    def _rest(self) -> float:
        """Seconds until there may be something to close. The guard is held."""
        left = [entry.leaves for entry in self._entries.values() if entry.leaves is not None]
        usual = min(30.0, self.idle_seconds / 4)
        return min(usual, max(0.01, min(left) - self._clock())) if left else usual


def _close(entry: Entry[Item]) -> None:
    # Under the run's own lock: a step that is being computed ends first.
    with entry.lock:
        entry.closed = True
        entry.item.close()
