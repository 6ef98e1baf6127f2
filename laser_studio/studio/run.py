"""`Run`: a live session with what its page knows it by, and the settings that were in force over its steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from laser_studio.studio.controls import OPTIONS, RunOptions, TrackerView, changed, changed_options
from laser_studio.studio.links import MAX_CHANGES, MAX_QUERY, MAX_STEP, View, write_query
from laser_studio.studio.live import LiveSession, Subject
from laser_studio.studio.registry import StudioError
from laser_studio.studio.trail import Trail

if TYPE_CHECKING:
    from laser_studio.debugger import Frame
    from laser_studio.studio.requests import PageRequest

EPOCHS_REMEMBERED = 64  # a page that missed more changes gets all rows anew
MOST_BEYOND = 100_000  # steps a run may go on past the trained depth: a packed frame takes about 1 kB, and they add up
LONGEST_LINK = MAX_QUERY - 200  # leaves room for what the page adds to its own address


class RunPart(Protocol):
    """What a run has beside its session, such as its branches."""

    def more(self, run: Run, request: PageRequest) -> dict[str, Any]:
        """What each reply tells of it, by name."""
        ...

    def close(self) -> None:
        """Free what it holds; the run is closed."""
        ...


@dataclass
class Run:
    """A session on a page. `settings`: step -> settings in force for the steps after it; `measured`: the same of the options."""

    session: LiveSession
    subject: Subject
    settings: dict[int, TrackerView]
    options: RunOptions = field(default_factory=RunOptions)
    pending: dict[int, TrackerView] = field(default_factory=dict)  # changes a link asks for at steps not reached yet
    voided: dict[int, int] = field(default_factory=dict)  # epoch -> first step that was dropped when it began
    trail: Trail = field(default_factory=Trail)
    measured: dict[int, RunOptions] = field(default_factory=dict)
    parts: list[RunPart] = field(default_factory=list)
    remade: set[int] = field(default_factory=set)  # steps after which all was computed anew, by a replay with the options of then

    def __post_init__(self) -> None:
        self.measured = self.measured or {0: self.options}
        self.trail.follow(self.session.frames)

    @property
    def nbytes(self) -> int:
        """Bytes the session holds for time travel."""
        newest = self.session.frames[-1].history
        return newest.stored_bytes + newest.basis_bytes

    @property
    def tracker(self) -> TrackerView:
        """The settings in force for the next step."""
        cursor = self.session.frame.index
        return self.settings[max(step for step in self.settings if step <= cursor)]

    @property
    def farthest(self) -> int:
        """The last step a run past the trained depth may have."""
        return min(self.session.length + MOST_BEYOND, MAX_STEP)

    @property
    def last_step(self) -> int:
        """The step at which this run ends whatever is asked."""
        return self.farthest if self.options.beyond else min(self.session.length, MAX_STEP)

    @property
    def finished(self) -> bool:
        """True where no further step is possible."""
        session = self.session
        return session.finished or (session.frame.index == session.head >= self.last_step)

    @property
    def problem(self) -> str | None:
        """Why the run cannot go on, where that is not its plain end."""
        frame = self.session.frame
        if not frame.finite:
            return f"not finite at step {frame.index}: the run ends here"
        if self.options.beyond and self.finished:
            return f"{frame.index:,} steps are the most one run may have: restart it"
        return None

    @property
    def state(self) -> str:
        """How the page tells the run stands: paused, done or error."""
        return "error" if not self.session.frame.finite else "done" if self.finished else "paused"

    def settings_json(self) -> dict[str, Any]:
        """The settings in force for the next step, as the page's controls hold them."""
        return self.tracker.to_json()

    def row(self, frame: Frame) -> dict[str, Any]:
        """What the page's curves need of a frame."""
        return frame.to_row()

    def link(self) -> str:
        """The query string that opens this view."""
        return write_query(self.view())

    def more(self, request: PageRequest) -> dict[str, Any]:
        """What beside the frame each reply tells, by name: each part's own."""
        return {name: value for part in self.parts for name, value in part.more(self, request).items()}

    def close(self) -> None:
        for part in self.parts:
            part.close()
        self.session.close()

    def show(self, at: int) -> None:
        """Put the cursor where the page has it."""
        if self.session.frame.index != at:
            self.session.seek(min(at, self.session.head))

    def change(self, changes: dict[str, Any]) -> None:
        """Other settings, options or both, by name. Raises `StudioError`, and changes nothing then."""
        options = {name: value for name, value in changes.items() if name in OPTIONS}
        settings = {name: value for name, value in changes.items() if name not in OPTIONS}
        if isinstance(sites := settings.get("sites"), dict):
            unknown = [str(name)[:80] for name in sites if name not in self.session.sites]
            if unknown:
                raise StudioError(f"no site is called {', '.join(unknown[:3])}")
        new_options = changed_options(self.options, options)
        self.tune(changed(self.tracker, settings))
        self.choose(new_options)

    def tune(self, tracker: TrackerView) -> None:
        """Use other settings from the step shown on; later changes of the recorded future are forgotten."""
        cursor = self.session.frame.index
        if tracker == self.tracker:
            return
        settings = {step: old for step, old in self.settings.items() if step < cursor} | {cursor: tracker}
        if len(settings) > MAX_CHANGES + 1 or len(write_query(self._view(settings))) > LONGEST_LINK:
            raise StudioError("more changes of settings than a link to this run can hold: restart it")
        epoch = self.session.epoch
        self.session.set_policy(tracker.policy())
        if self.session.epoch != epoch:
            self.voided[self.session.epoch] = cursor + 1
            self.voided.pop(self.session.epoch - EPOCHS_REMEMBERED, None)
            self.trail.cut(cursor + 1)
            self.measured = {step: old for step, old in self.measured.items() if step < cursor} | {cursor: self.options}
            self.remade = {step for step in self.remade if step < cursor} | {cursor}
        self.settings = settings
        self.pending = {}

    def choose(self, options: RunOptions) -> None:
        """Other options, for steps that are computed from now on."""
        if options == self.options:
            return
        if options.measures() != self.options.measures():
            self.session.set_measures(options.measures())
        self.session.beyond = options.beyond
        self.options = options
        self.measured[self.session.head] = options

    def measured_for(self, at: int) -> dict[int, RunOptions]:
        """The options that led to step `at`, by the step they were in force after; 0 is always among them."""
        # Of a window that a replay went through, all is known: also what was seen before the step the replay was for.
        first = max((step for step in self.remade if step < at), default=0)
        return {0: self.measured[first]} | {step: options for step, options in self.measured.items() if first < step < at}

    def step(self) -> None:
        """One step, after what a link asks to be changed before it."""
        session = self.session
        due = self.pending.pop(session.frame.index, None)
        if due is not None:
            later = self.pending
            self.tune(due)
            self.pending = later
        session.step()

    def view(self) -> View:
        """What a link to the step shown says."""
        return self._view(self.settings)

    def _view(self, settings: dict[int, TrackerView]) -> View:
        cursor = self.session.frame.index
        changes = tuple((step, tracker) for step, tracker in sorted(settings.items()) if 0 < step <= cursor)
        options = self.options
        if cursor > self.session.length:  # also where the switch has been turned off since
            options = replace(options, beyond=True)
        return View(self.subject.model, self.subject.puzzle_id, settings[0], changes, cursor, options)

    def valid_before(self, epoch: int) -> int:
        """Rows of steps before this one that a page got in `epoch` are still true."""
        if epoch == self.session.epoch:
            return self.session.head + 1
        later = range(epoch + 1, self.session.epoch + 1)
        return min((self.voided.get(one, 0) for one in later), default=0) if len(later) <= EPOCHS_REMEMBERED else 0
