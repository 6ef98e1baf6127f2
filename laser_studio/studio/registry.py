"""Runs of all open pages, under a count, a byte cap and an idle limit. No Gradio and no torch here.

A page knows its run by an unguessable id and nothing else. Branches of a run have ids of their own and share its place, its lock
and its fate. A run is closed when its page says so, a while after its page has left without coming back, when it has been idle for
too long, or when newer runs need its place; a page that still has it is then told to reload. One sweeper thread lives only while
runs do.
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
    """One run and the lock under which it is used. `place`: id of the run whose place it shares, its own where it has one."""

    id: str
    item: Item
    used: float
    place: str
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
        return len(self._places())

    def add(self, item: Item) -> str:
        """Take in a run; returns its id. Raises `StudioError` where every place is in use, and closes the item then."""
        with self._guard:
            leaving = self._surplus(1)
            if len(self._places()) - len(leaving) >= self.capacity:
                full = True
            else:
                full = False
                new = secrets.token_urlsafe(24)
                self._entries[new] = Entry(new, item, self._clock(), new)
                gone = [one for old in leaving for one in self._take(old.id)]
                self._watch()
        if full:
            item.close()
            raise StudioError(f"all {self.capacity} places are in use: close another page of the studio, or try again in a minute")
        for old in gone:
            _close(old)
        return new

    def join(self, run: str, item: Item) -> str:
        """Take in another run in the place of `run`: used, left and closed with it, under the same lock; returns its id.

        Raises `StudioError` (expired) where `run` is gone, and closes the item then.
        """
        with self._guard:
            host = self._entries.get(run)
            if host is not None:
                new = secrets.token_urlsafe(24)
                self._entries[new] = Entry(new, item, host.used, host.place, lock=host.lock)
        if host is None:
            item.close()
            raise StudioError("this session has expired: reload the page", expired=True)
        return new

    def part(self, run: str) -> None:
        """Close a run that shares another's place, alone; of any other id nothing happens."""
        with self._guard:
            entry = self._entries.get(run)
            if entry is None or entry.place == run:
                return
            del self._entries[run]
        _close(entry)

    def together(self, run: object, other: object) -> bool:
        """Whether two open runs share a place."""
        with self._guard:
            places = [self._entries[one].place if isinstance(one, str) and one in self._entries else None for one in (run, other)]
        return places[0] is not None and places[0] == places[1]

    def get(self, run: object) -> Entry[Item]:
        """The entry of a run, marked as used. Raises `StudioError` (expired) for any id that is not of an open run."""
        with self._guard:
            entry = self._entries.get(run) if isinstance(run, str) and len(run) <= 64 else None
            if entry is None:
                raise StudioError("this session has expired: reload the page", expired=True)
            place = self._entries[entry.place]
            place.used, place.leaves = self._clock(), None
            return entry

    def leave(self, run: object, seconds: float) -> None:
        """Close a run in so many seconds, unless it is used again; an id that is not of an open run does nothing."""
        with self._guard:
            entry = self._entries.get(run) if isinstance(run, str) else None
            if entry is not None:
                self._entries[entry.place].leaves = self._clock() + seconds
                self._wake.notify_all()

    def close(self, run: object) -> None:
        """Close a run and all that share its place; an id that is not of an open run does nothing."""
        with self._guard:
            entry = self._entries.get(run) if isinstance(run, str) else None
            gone = self._take(entry.place) if entry is not None else []
            self._wake.notify_all()
        for one in gone:
            _close(one)

    def close_all(self) -> None:
        """Close every run."""
        for run in list(self._entries):
            self.close(run)

    def sweep(self) -> int:
        """Close what was left or has been idle too long, and the idlest while all together hold too many bytes; returns how many."""
        with self._guard:
            leaving = self._surplus(0)
            gone = [one for entry in leaving for one in self._take(entry.id)]
        for entry in gone:
            _close(entry)
        return len(leaving)

    def _places(self) -> list[Entry[Item]]:
        return [entry for entry in self._entries.values() if entry.place == entry.id]

    def _take(self, place: str) -> list[Entry[Item]]:
        """Remove all entries of a place, its own first. The guard is held."""
        gone = sorted((entry for entry in self._entries.values() if entry.place == place), key=lambda entry: entry.id != place)
        for entry in gone:
            del self._entries[entry.id]
        return gone

    def _surplus(self, room: int) -> list[Entry[Item]]:
        """Places to close so that `room` more fit, those that were left and then the idlest first. The guard is held."""
        now = self._clock()
        by_age = sorted(self._places(), key=lambda entry: (entry.leaves is None, entry.used))
        over = [now - entry.used > self.idle_seconds or (entry.leaves is not None and now >= entry.leaves) for entry in by_age]
        leaving = [entry for entry, ends in zip(by_age, over, strict=True) if ends]
        staying = [entry for entry, ends in zip(by_age, over, strict=True) if not ends]
        holds = dict.fromkeys((entry.id for entry in staying), 0)
        for entry in self._entries.values():
            if entry.place in holds:
                holds[entry.place] += entry.item.nbytes
        held = sum(holds.values())
        while staying and (len(staying) + room > self.capacity or held > self.max_bytes):
            oldest = staying[0]
            if oldest.leaves is None and now - oldest.used < self.grace_seconds:
                break
            held -= holds[oldest.id]
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
