"""Bookmarks: named places in a run's time, each with a note. A step may have several, and need not be recorded yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from laser_studio.errors import BookmarkError

MAX_BOOKMARKS = 64
MAX_NAME = 60
MAX_NOTE = 300
MAX_STEP = 1_000_000


@dataclass(frozen=True)
class Bookmark:
    """A place to come back to. step: index of a frame; name: given by `Bookmarks.add` where left empty; note: one line.

    Raises `BookmarkError`.
    """

    step: int
    name: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, int) or not 0 <= self.step <= MAX_STEP:
            raise BookmarkError(f"the step of a bookmark is a whole number from 0 to {MAX_STEP:,}")
        for key, most in (("name", MAX_NAME), ("note", MAX_NOTE)):
            text = getattr(self, key)
            if not isinstance(text, str) or len(text) > most or not text.isprintable():
                raise BookmarkError(f"the {key} of a bookmark is text of at most {most} printable characters")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Bookmark:
        """The bookmark a dictionary describes. Unknown settings are refused."""
        if not isinstance(data, Mapping):
            raise BookmarkError("a bookmark is described by a dictionary")
        known = [item.name for item in fields(cls)]
        if unknown := [str(key)[:40] for key in data if key not in known]:
            raise BookmarkError(f"a bookmark has no {unknown[0]!r}: known are {', '.join(known)}")
        if "step" not in data:
            raise BookmarkError("a bookmark needs a step")
        return cls(**data)


class Bookmarks:
    """The bookmarks of one run, by step, those of one step in the order they were added.

    >>> marks = Bookmarks()
    >>> marks.add(12, note="the first box is right").name
    'm1'
    >>> marks.at(12)
    (Bookmark(step=12, name='m1', note='the first box is right'),)
    """

    def __init__(self) -> None:
        self._kept: dict[str, Bookmark] = {}
        self._given = 0  # names given so far; a name never means another bookmark later

    def __iter__(self) -> Iterator[Bookmark]:
        return iter(sorted(self._kept.values(), key=lambda bookmark: bookmark.step))

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __getitem__(self, name: str) -> Bookmark:
        if name not in self._kept:
            raise BookmarkError(f"there is no bookmark {str(name)[:MAX_NAME]!r}: there are {', '.join(self._kept) or 'none'}")
        return self._kept[name]

    def at(self, step: int) -> tuple[Bookmark, ...]:
        """Those of a step."""
        return tuple(bookmark for bookmark in self if bookmark.step == step)

    def add(self, bookmark: Bookmark | int, name: str = "", note: str = "") -> Bookmark:
        """Keep a bookmark, or make one at a step; returns it with its name. Raises `BookmarkError`, also for too many."""
        if isinstance(bookmark, Bookmark):
            if name or note:
                raise BookmarkError("a bookmark that is made already has its own name and note")
        else:
            bookmark = Bookmark(bookmark, name, note)
        if len(self) >= MAX_BOOKMARKS:
            raise BookmarkError(f"a run has at most {MAX_BOOKMARKS} bookmarks: remove one first")
        if bookmark.name in self._kept:
            raise BookmarkError(f"there is a bookmark {bookmark.name!r} already: choose another name or remove that one")
        given, name = self._given, bookmark.name
        while not name or name in self._kept:
            given += 1
            name = f"m{given}"
        self._given = given
        self._kept[name] = replace(bookmark, name=name)
        return self._kept[name]

    def change(self, name: str, *, to: str | None = None, note: str | None = None) -> Bookmark:
        """Give one another name, another note, or both; returns it. Raises `BookmarkError`, and changes nothing then."""
        old = self[name]
        new = replace(old, name=old.name if to is None else to, note=old.note if note is None else note)
        if not new.name or (new.name != name and new.name in self._kept):
            raise BookmarkError(f"there is a bookmark {new.name!r} already" if new.name else "a bookmark needs a name")
        self._kept = {new.name if key == name else key: new if key == name else kept for key, kept in self._kept.items()}
        return new

    def remove(self, name: str) -> Bookmark:
        """Take one away; returns it. Raises `BookmarkError` for an unknown name."""
        removed = self[name]
        del self._kept[name]
        return removed

    def clear(self) -> None:
        """Take all away."""
        self._kept.clear()

    def to_list(self) -> list[dict[str, Any]]:
        """All of them as JSON-ready values, by step."""
        return [bookmark.to_dict() for bookmark in self]

    def load(self, described: object) -> None:
        """Take these in place of those there are; all, or, where one cannot be used, none. Raises as `add`."""
        if not isinstance(described, Iterable) or isinstance(described, str | bytes | Mapping):
            raise BookmarkError("bookmarks are a list of dictionaries")
        fresh = Bookmarks()
        fresh._given = self._given
        for item in described:
            fresh.add(Bookmark.from_dict(item))
        self._kept, self._given = fresh._kept, fresh._given
