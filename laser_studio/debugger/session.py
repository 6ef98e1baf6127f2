"""`Session`: step, go back, seek, run until something happens. The cursor over a live run, and policies over time.

Recorded frames are never recomputed to be shown. Going back moves the cursor; stepping forward again shows the recorded
future as long as nothing was changed. A changed policy drops that future, and the live state is rebuilt from the nearest
keyframe by deterministic replay under the policies that were in force. `restore` gives the exact state of any step the same
way, beside the live run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from laser_studio.debugger.bookmarks import Bookmarks
from laser_studio.debugger.breakpoints import UNTIL, Breakpoints, Hit
from laser_studio.debugger.expressions import Expression, Scope
from laser_studio.debugger.frame_store import FrameStore
from laser_studio.debugger.frames import Frame
from laser_studio.debugger.kept import Kept, kept_by
from laser_studio.debugger.keyframes import TravelSettings
from laser_studio.debugger.machine import Machine
from laser_studio.debugger.measures import Measures
from laser_studio.debugger.replay import Replay, Restored, SiteVisit, restored
from laser_studio.debugger.spectra import Shares, Spectra
from laser_studio.debugger.state_trail import StateTrail
from laser_studio.debugger.stepper import Before, Stepper
from laser_studio.debugger.stepping import EVENT, Size, last_stop, length_of, next_end, previous_end, way_out
from laser_studio.debugger.watches import Watches
from laser_studio.errors import PuzzleError
from laser_studio.laser import LaserPolicy
from laser_studio.laser.ledger import SavedBytes
from laser_studio.puzzles import Puzzle
from laser_studio.trm import TRM

MOST_PUZZLES = 64  # run together in one batch

Condition = Callable[[Frame], bool]

NAMED_CONDITIONS = ("reset", "grew", "miss", "saturated", "answer_changed", "solved", "halt", "cycle", "supervision")
"""The plainest conditions of `Session.run(until=…)`: words of the language that stand for themselves."""


class Session:
    """A debugging session of one model on one puzzle.

    >>> session = Session(model, puzzle, policy=LaserPolicy(rank="25%"), seed=0)     # doctest: +SKIP
    >>> session.step().sites["layers.0.mlp.down_proj"].fidelity                      # doctest: +SKIP
    1.0
    >>> session.run(until="solved").index                                            # doctest: +SKIP
    30

    The model is shared read-only: any number of sessions may use it. A session itself belongs to one thread at a time.
    `seed` replaces the policy's seed, so the same seed gives the same frames. `history_bytes` bounds what is kept of the
    activations and the keyframes, which lie about `keyframe_steps` apart (`TravelSettings`).
    `beyond` lets the run go on past `halt_max_steps`; it may be set at any time. `companions` are puzzles of the same
    kind and shape that run along in one batch: the picture follows `puzzle`, trackers and statistics see all. `measures` are
    figures computed beside the run. Raises `PuzzleError` where a puzzle does not fit.

    `breakpoints` are consulted at every frame that `step` and `run` come to; `stopped_by` tells which of them were hit at the frame
    where the last of these calls ended, the run's own condition among them. `watches` are figures to follow over the recorded frames,
    `bookmarks` places to come back to; neither changes anything of the run.
    """

    def __init__(
        self,
        model: TRM,
        puzzle: Puzzle,
        *,
        policy: LaserPolicy | None = None,
        seed: int | None = None,
        history_bytes: int = 256 << 20,
        keyframe_steps: int = 30,
        beyond: bool = False,
        companions: Sequence[Puzzle] = (),
        measures: Measures | None = None,
    ) -> None:
        if len(companions) >= MOST_PUZZLES:
            raise PuzzleError(f"a batch of {len(companions) + 1} puzzles is too large: at most {MOST_PUZZLES} run together")
        self.model, self.puzzle, self.beyond = model, puzzle, beyond
        self.companions = tuple(companions)
        self.measures = measures or Measures()
        self.epoch = 0
        self._seed = seed
        self._travel = TravelSettings(history_bytes=history_bytes, keyframe_steps=keyframe_steps)
        self._policies = {0: self._seeded(policy or LaserPolicy())}  # step -> policy in force for the steps after it
        self._measures = {0: self.measures}  # the same for what is measured
        self._saved: SavedBytes | None = None
        self._machine = self._fresh_machine()
        self._replay = Replay(self._fresh_stepper, self._in_force)
        self._saved = self._machine.training.saved
        self._frames = FrameStore([self._machine.frame])
        self._spectra = Spectra()
        self.trail = StateTrail()
        self._cursor = 0
        self.breakpoints = Breakpoints(Scope(tuple(self._machine.sites), puzzle.shape))
        self.stopped_by: tuple[Hit, ...] = ()
        self.watches = Watches(self.breakpoints.scope)
        self.bookmarks = Bookmarks()

    @property
    def frame(self) -> Frame:
        """The frame at the cursor."""
        return self._frames[self._cursor]

    @property
    def frames(self) -> Sequence[Frame]:
        """All recorded frames; `frames[t].index == t`."""
        return self._frames

    @property
    def head(self) -> int:
        """Index of the newest recorded frame."""
        return len(self._frames) - 1

    @property
    def length(self) -> int:
        """Steps of a run to the trained depth: halt_max_steps × net applications per supervision step."""
        return self.model.config.halt_max_steps * self.model.config.steps_per_supervision

    @property
    def batch(self) -> int:
        """How many puzzles run together."""
        return 1 + len(self.companions)

    @property
    def sites(self) -> dict[str, int]:
        """Width D of each tracked site, in order of application."""
        return dict(self._machine.sites)

    @property
    def scope(self) -> Scope:
        """What expressions may name: the run's sites and cells."""
        return self.breakpoints.scope

    @property
    def policy(self) -> LaserPolicy:
        """The policy in force for the next step."""
        return self._in_force(self._cursor)[0]

    @property
    def finished(self) -> bool:
        """True where no further step is possible: the trained depth is reached, or the activations are not finite."""
        frame = self.frame
        return not frame.finite or (frame.index >= self.length and not self.beyond and self._cursor == self.head)

    @property
    def dropped_before(self) -> int:
        """Activations of steps before this one had to go to keep the byte budget."""
        return self._machine.history.dropped_before

    @property
    def history_bytes(self) -> int:
        """The byte budget of activations and keyframes; setting it acts at once. Raises `PolicyError` outside its range."""
        return self._travel.history_bytes

    @history_bytes.setter
    def history_bytes(self, budget: int) -> None:
        self._travel = replace(self._travel, history_bytes=budget)
        self._machine.history.budget_bytes = budget
        self._machine.history.hold_budget()

    @property
    def kept(self) -> Kept:
        """What is held for going back, what had to go, and how far a replay may have to reach."""
        return kept_by(self._machine.history, self.head)

    def step(self, size: Size = "net") -> Frame:
        """On to the next net application, or to the next end of an H cycle or a supervision step; at the end of the run the last one again.

        No breakpoint stops it; those that were hit on the way are in `stopped_by`. Raises ValueError for another size.
        """
        return self._on_to(self.end_after(size))

    def back(self, size: Size = "net") -> Frame:
        """Back to the frame before, or to the last end of an H cycle or a supervision step; at the start the first one again."""
        self._cursor = self.end_before(size)
        self.stopped_by = ()
        return self.frame

    def out(self) -> Frame:
        """On to the end of the H cycle under way; from the end of one, to the end of the supervision step."""
        return self._on_to(self.way_out())

    def end_after(self, size: Size) -> int:
        """Where a step of that size from here ends, be it recorded yet or not. Raises ValueError for another size."""
        return next_end(self._cursor, length_of(size, self.model.config))

    def end_before(self, size: Size) -> int:
        """Where a step back of that size from here ends."""
        return previous_end(self._cursor, length_of(size, self.model.config))

    def way_out(self) -> int:
        """Where `out` goes."""
        return way_out(self._cursor, self.model.config)

    def run_back(
        self, until: Condition | str | Expression | None = None, *, breakpoints: bool = False, max_steps: int | None = None
    ) -> Frame:
        """Back to the last recorded frame before this one where the condition holds, or to the start. Nothing is computed.

        until: as for `run`; None: a reset, a growth, or a change of the answer. breakpoints: whether to stop also where one of them
        holds; their hits are not counted. max_steps: to look at so many frames at most. `stopped_by` says what it was. Raises
        `ExpressionError`.
        """
        until = EVENT if until is None else until
        asked = self.breakpoints if breakpoints else None
        said = "" if callable(until) else str(until)
        self._cursor, self.stopped_by = last_stop(self._frames, self._cursor, self._condition(until), said, asked, max_steps)
        return self.frame

    def restore(self, index: int) -> Restored:
        """Seek, and the exact state there, to go on from: states, trackers and all, bit for bit those of the first time.

        From the nearest keyframe by replay, beside the live run, whose head and activations stay. Stops at the ends of time.
        """
        frame = self.seek(index)
        if self._machine.frame.index == frame.index:
            return restored(self._machine.stepper, frame, 0)
        stepper, steps = self._replay.to(frame.index, self._machine.history.keyframes.nearest(frame.index))
        return restored(stepper, frame, steps)

    def inside(self, index: int) -> tuple[SiteVisit, ...]:
        """Every site within the net application that led to frame `index`, in order, with its exact inputs and outputs; none for frame 0.

        Computed again from the nearest keyframe, so it is exact where `activations` is compressed or dropped. Moves nothing.
        Raises IndexError for a step that is not recorded.
        """
        if not 0 <= index <= self.head:
            raise IndexError(f"step {index} is not recorded: the newest is {self.head}, seek there first")
        return self._replay.inside(index, self._machine.history.keyframes.nearest(index - 1)) if index else ()

    def before(self, index: int) -> Before:
        """What net application `index` found: exact states, and the bases its inputs were stored with; free of charge for the newest.

        Elsewhere from the nearest keyframe by replay. Moves nothing. Raises IndexError for a step that is not recorded, and for 0,
        where nothing has been applied.
        """
        if not 1 <= index <= self.head:
            raise IndexError(f"net application {index} is not recorded: 1 to {self.head} are")
        live = self._machine.stepper
        if live.index == index and live.before is not None:
            return live.before
        return self._replay.before(index, self._machine.history.keyframes.nearest(index - 1))

    def embedded(self) -> Tensor:
        """The puzzle shown as the net reads it, x (1, P + T, D)."""
        return self._machine.stepper.embedded()

    def restart(self) -> Frame:
        """Back to the state before any recursion. What was recorded stays and is shown again as long as nothing is changed.

        Breakpoints count from nothing again.
        """
        self._cursor = 0
        self.stopped_by = ()
        self.breakpoints.reset_counts()
        return self.frame

    def seek(self, index: int) -> Frame:
        """The frame of that index, computing what is not recorded yet; stops at the ends of time, and at no breakpoint."""
        self.stopped_by = ()
        self._cursor = max(0, min(index, self.head))
        while self._cursor < index and self._forward():
            pass
        return self.frame

    def run(self, until: Condition | str | Expression | None = None, *, max_steps: int | None = None) -> Frame:
        """Step until the condition holds for a new frame, a breakpoint is hit, the end of the run, or `max_steps`.

        until: an expression such as "reset | fidelity < 0.9 | answer_changed" (docs/breakpoints.md), or a callable on frames; None
        runs on. `stopped_by` says what it was: empty after the end or `max_steps`. With `beyond`, a condition, an enabled
        breakpoint or `max_steps` is needed. Raises `ExpressionError`, before any step, for what cannot be understood.
        """
        holds = self._condition(until)
        if self.beyond and holds is None and max_steps is None and not self.breakpoints.can_stop:
            raise ValueError("a run past the trained depth has no end of its own: give `until` or `max_steps`")
        self.stopped_by = ()
        steps = 0
        while not self.stopped_by and not self.finished and (max_steps is None or steps < max_steps):
            before = self.frame
            frame = self.step()
            steps += 1
            if holds is not None and holds(frame, before):
                self.stopped_by = (Hit(UNTIL, "" if callable(until) else str(until), frame.index), *self.stopped_by)
        return self.frame

    def evaluate(self, expression: str | Expression, index: int | None = None) -> float | None:
        """What an expression says of a recorded frame, by default the one at the cursor: a number, None for nothing; of a condition 1 or 0.

        Raises `ExpressionError` where it cannot be understood, IndexError for a frame that is not recorded.
        """
        index = self._cursor if index is None else index
        if not 0 <= index <= self.head:
            raise IndexError(f"there is no frame {index}: 0 to {self.head} are recorded")
        bound = _expression(expression).bind(self.scope)
        return bound.value(self._frames[index], self._frames[index - 1] if index else None)

    def set_policy(self, policy: LaserPolicy) -> None:
        """Use other tracker settings from the next step on; a recorded future that they would change is dropped."""
        policy = self._seeded(policy)
        if policy == self.policy:
            return
        dropped, opened = self._cursor < self.head, self._cursor
        if dropped:
            self._frames.cut(self._cursor + 1)
            self._spectra.cut(self._cursor + 1)
            self.trail.cut(self._cursor + 1)
            self._replay.close()
            self.epoch += 1
            if self.policy.refresh != "step":  # a window that is replayed is measured whole
                opened -= opened % length_of(self.policy.refresh, self.model.config)
        self._policies = {step: old for step, old in self._policies.items() if step < self._cursor}
        self._policies[self._cursor] = policy
        self._measures = {step: old for step, old in self._measures.items() if step < opened} | {opened: self.measures}

    def set_measures(self, measures: Measures) -> None:
        """Compute other figures beside the run, on steps computed from now on; what is recorded stays."""
        self.measures = self._measures[self.head] = measures

    def spectra(self, site: str, start: int, stop: int) -> list[Shares | None]:
        """Energy shares of a site's coefficients, descending, at most 64, per recorded step in [start, stop); None where there are none."""
        return self._spectra.read(site, start, min(stop, self.head + 1))

    def activations(self, index: int, site: str) -> tuple[Tensor, float] | None:
        """A site's input at a recorded step, read back as ZQᵀ (N, D), and the share of its energy kept; None where it was dropped."""
        if self._machine.frame.index > self.head:  # it ran into a future that has been dropped since
            self._catch_up()
        history = self._machine.history.sites.get(site)
        return history.read(index) if history is not None else None

    def close(self) -> None:
        """Free what the session holds; frames stay readable."""
        self._machine.close()
        self._replay.close()

    def _on_to(self, index: int) -> Frame:
        """Up to that frame or the end of the run, past breakpoints that count."""
        hits: list[Hit] = []
        while self._cursor < index:
            before = self.frame
            if not self._forward():
                break
            hits += self.breakpoints.consult(self.frame, before)
        self.stopped_by = tuple(hits)
        return self.frame

    def _forward(self) -> bool:
        """One frame on, without breakpoints; False at the end of the run."""
        if self._cursor == self.head:
            if self.finished:
                return False
            self._compute()
        self._cursor += 1
        return True

    def _compute(self) -> None:
        """One new frame at the head, where the cursor is."""
        self._catch_up()
        self._machine.stepper.settle(*self._in_force(self._cursor))
        self._frames.append(self._machine.advance())
        if self._machine.digest is not None:
            self.trail.add(self._cursor + 1, self._machine.digest)
        for name, shares in self._machine.spectra.items():
            self._spectra.add(name, self._cursor + 1, shares)

    def _in_force(self, index: int) -> tuple[LaserPolicy, Measures]:
        """Settings and figures of the steps after `index`."""
        policy, measures = (max(step for step in times if step <= index) for times in (self._policies, self._measures))
        return self._policies[policy], self._measures[measures]

    def _seeded(self, policy: LaserPolicy) -> LaserPolicy:
        return policy if self._seed is None else replace(policy, seed=self._seed)

    def _fresh_machine(self) -> Machine:
        return Machine(self.model, (self.puzzle, *self.companions), self._policies[0], travel=self._travel, saved=self._saved)

    def _fresh_stepper(self) -> Stepper:
        return Stepper(self.model, (self.puzzle, *self.companions), self._policies[0])

    def _condition(self, until: Condition | str | Expression | None) -> Callable[[Frame, Frame | None], bool] | None:
        if until is None:
            return None
        if callable(until):
            return lambda frame, before: until(frame)
        return _expression(until).require_condition().bind(self.scope).holds

    def _catch_up(self) -> None:
        """Bring the live state to the cursor where it is past it, under the policies that were in force on the way."""
        if self._machine.frame.index > self._cursor:
            keyframe = self._machine.history.keyframes.nearest(self._cursor)
            if keyframe is None:
                self._machine.close()
                self._machine = self._fresh_machine()
            else:
                self._machine.rewind(keyframe, self._frames[keyframe.index])
        while (here := self._machine.frame.index) < self._cursor:
            self._machine.stepper.settle(*self._in_force(here))
            self._machine.advance()


def _expression(text: str | Expression) -> Expression:
    return text if isinstance(text, Expression) else Expression(text)
