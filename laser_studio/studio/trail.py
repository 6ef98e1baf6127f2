"""What replies need from all frames up to the step shown, kept up to date frame by frame: a reply costs no more at step 10,000."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser_studio.debugger import Frame

_Topic = tuple[str, str]  # what a step tells, and of which site; "" of all together


class Trail:
    """Follows a run's frames. Whoever drops recorded frames calls `cut`, and `follow` takes in what is new.

    Of each topic it holds the steps that tell of it, four bytes a step, and finds the newest up to the step shown.
    """

    def __init__(self) -> None:
        self._tracker = array("d")  # seconds up to and with each step
        self._total = array("d")
        self._events = array("i")  # how many up to and with each step
        self._told: dict[_Topic, array[int]] = {}
        self._answers: dict[_Topic, tuple[int, Any]] = {}  # what was read last of a topic, and at which step

    def __len__(self) -> int:
        return len(self._total)

    def cut(self, length: int) -> None:
        """Forget the frames from index `length` on."""
        del self._tracker[length:], self._total[length:], self._events[length:]
        for steps in self._told.values():
            del steps[bisect_right(steps, length - 1) :]
        self._answers.clear()

    def follow(self, frames: Sequence[Frame]) -> None:
        """Take in the frames that were recorded since."""
        for index in range(len(self), len(frames)):
            frame = frames[index]
            self._tracker.append(frame.tracker_seconds + (self._tracker[-1] if index else 0.0))
            self._total.append(frame.seconds + (self._total[-1] if index else 0.0))
            self._events.append(len(frame.events) + (self._events[-1] if index else 0))
            for topic in _topics(frame):
                self._told.setdefault(topic, array("i")).append(index)

    @property
    def events(self) -> int:
        """Events of all frames."""
        return self._events[-1]

    def cost(self, cursor: int) -> float | None:
        """The tracker's time over the bare model's, up to a step; None where no time has passed."""
        tracker, total = self._tracker[cursor], self._total[cursor]
        return tracker / (total - tracker) if total > tracker else None

    def last_update(self, cursor: int) -> int | None:
        """The step that last updated z_H, up to a step. Only such updates can change the answer."""
        return self._newest(("update", ""), cursor)

    def turns(self, kind: str, frames: Sequence[Frame], cursor: int) -> dict[str, dict[str, Any]]:
        """Per site the newest principal angles up to a step, in degrees, largest first; `kind`: angles, or best_angles."""
        return self._by_site(
            kind, frames, cursor, lambda frame, site: {"angles": [round(angle, 3) for angle in getattr(frame.sites[site], kind)]}
        )

    def causes(self, frames: Sequence[Frame], cursor: int) -> dict[str, dict[str, Any]]:
        """Per site the text of its newest event up to a step."""
        return self._by_site(
            "event", frames, cursor, lambda frame, site: {"text": next(e.text for e in reversed(frame.events) if e.site == site)}
        )

    def gaps(self, frames: Sequence[Frame], cursor: int) -> dict[str, dict[str, Any]]:
        """Per site, of the newest window compared with its best basis: the share of energy that one keeps, and that was kept."""
        return self._by_site(
            "gap", frames, cursor, lambda frame, site: {"best": frame.sites[site].best, "window": frame.sites[site].window_fidelity}
        )

    def measured(self, frames: Sequence[Frame], cursor: int) -> dict[str, dict[str, Any] | None]:
        """The newest figures that are measured at the ends of cycles only, up to a step."""

        def functional(frame: Frame, _: str) -> dict[str, Any]:
            sites = {name: site.functional for name, site in frame.sites.items()}
            return {"functional": frame.functional, "flips": frame.flips, "kl": frame.kl, "sites": sites}

        return {
            "functional": self._read(("functional", ""), frames, cursor, functional),
            "gradient": self._read(("gradient", ""), frames, cursor, lambda frame, _: {"gradient": frame.gradient}),
        }

    def _by_site(
        self, what: str, frames: Sequence[Frame], cursor: int, read: Callable[[Frame, str], dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        found = {topic[1]: self._read(topic, frames, cursor, read) for topic in self._told if topic[0] == what}
        return {site: answer for site, answer in found.items() if answer is not None}

    def _read(
        self, topic: _Topic, frames: Sequence[Frame], cursor: int, read: Callable[[Frame, str], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """What the newest step of a topic tells, read anew only where that step is another one: old frames lie packed."""
        step = self._newest(topic, cursor)
        if step is None:
            return None
        if topic not in self._answers or self._answers[topic][0] != step:
            self._answers[topic] = (step, {"step": step, **read(frames[step], topic[1])})
        answer: dict[str, Any] = self._answers[topic][1]
        return answer

    def _newest(self, topic: _Topic, cursor: int) -> int | None:
        steps = self._told.get(topic)
        place = bisect_right(steps, cursor) if steps else 0
        return steps[place - 1] if steps and place else None


def _topics(frame: Frame) -> Iterator[_Topic]:
    """What a frame tells of, each once."""
    if frame.l == "H":
        yield "update", ""
    for what in ("functional", "gradient"):
        if getattr(frame, what) is not None:
            yield what, ""
    for name in {event.site: None for event in frame.events if event.site is not None}:
        yield "event", name
    for name, site in frame.sites.items():
        for kind in ("angles", "best_angles"):
            if getattr(site, kind) is not None:
                yield kind, name
        if site.best is not None and site.window_fidelity is not None:
            yield "gap", name
