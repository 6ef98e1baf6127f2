"""What a run on the page must be able to do. A debugging session can; so may anything else that has frames to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from laser_studio.debugger import Bookmarks, Breakpoints, Frame, Hit, Measures, Watches
    from laser_studio.debugger.stepping import Size
    from laser_studio.laser import LaserPolicy


class LiveSession(Protocol):
    """A cursor over recorded frames that may grow; `laser_studio.debugger.Session` says what each part means.

    What cannot be done (other settings for a run that was only recorded, say) raises a `LaserStudioError` that says so.
    """

    beyond: bool
    history_bytes: int
    breakpoints: Breakpoints
    watches: Watches
    bookmarks: Bookmarks
    stopped_by: tuple[Hit, ...]

    @property
    def epoch(self) -> int: ...

    @property
    def frame(self) -> Frame: ...

    @property
    def frames(self) -> Sequence[Frame]: ...

    @property
    def head(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def sites(self) -> Mapping[str, int]: ...

    @property
    def finished(self) -> bool: ...

    def step(self) -> Frame: ...

    def back(self) -> Frame: ...

    def restart(self) -> Frame: ...

    def seek(self, index: int) -> Frame: ...

    def end_after(self, size: Size) -> int: ...

    def end_before(self, size: Size) -> int: ...

    def way_out(self) -> int: ...

    def run_back(self, *, breakpoints: bool = False, max_steps: int | None = None) -> Frame: ...

    def set_policy(self, policy: LaserPolicy) -> None: ...

    def set_measures(self, measures: Measures) -> None: ...

    def spectra(self, site: str, start: int, stop: int) -> Sequence[Sequence[float] | None]: ...

    def close(self) -> None: ...


class Subject(Protocol):
    """What a run is about: how links name it, what the page tells of it, and how to do the same in Python."""

    @property
    def model(self) -> str | None: ...

    @property
    def puzzle_id(self) -> str | None: ...

    def about(self) -> dict[str, Any]:
        """The parts of an opening reply that say what is run: model, puzzle, puzzles, generates."""
        ...

    def script(self) -> tuple[list[str], list[str]]:
        """Lines of Python, imports and others, that define `model`, `puzzle` and `companions`. Raises `StudioError` where none can."""
        ...
