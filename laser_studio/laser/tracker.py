"""The tracker of one site: observes activations, keeps one orthonormal basis current, and carries out the LASER rule.

The rule itself is in `rule`, the matrix work in `linalg`, what is reported in `event`. A tracker knows nothing of
models or cycles: its caller says what it sees (`observe`) and when a window ends (`refresh`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from time import perf_counter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from laser_studio.errors import LaserStudioError
from laser_studio.laser import rule
from laser_studio.laser.event import HeldGram, HeldWindow, Seen, Sketched, Sums, TrackerEvent, Window, energy, free_to_read, on_host
from laser_studio.laser.linalg import directions_outside, ones, orthonormalised, private_generator, steady_signs, turned
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.rule import Standing, State, Verdict

STRIDE = 7919  # prime: whatever the number of its observations, every window begins at another place in the order of drawn rows
ROWS_PER_DIRECTION = 4  # drawn from each observation, per direction of growth
MOST_PARTS = 64  # observations of one window that are remembered singly


class Part(NamedTuple):
    """One observation of the open window, or several finite ones as one.

    total: ‖X‖², its value where that is free to read, else a scalar on the device; rows: N; row_sum: (D,); sample: rows drawn from X
    with the number that each stands for, where the basis may grow; held: X itself, where it is held.
    """

    total: Tensor | float
    rows: int
    row_sum: Tensor
    sample: tuple[tuple[Tensor, float], ...]
    held: tuple[Tensor, ...]


class Open(NamedTuple):
    """The open window. sketch: Σ QᵀXᵀX (k, D) over its finite observations, None before the first and where there is no Q.

    offset: Σ‖Z‖² − tr QᵀY, a scalar: not zero once the basis has turned within the window, None before. gram: Σ XᵀX (D, D) over its
    finite observations, where that is what is held of them.
    """

    sketch: Tensor | None = None
    parts: tuple[Part, ...] = ()
    offset: Tensor | None = None
    gram: Tensor | None = None


EMPTY = Open()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The whole state of a tracker, by reference: its tensors are replaced at every update, never changed in place.

    basis: Q (D, k); open: what the open window has seen; holds: whether its activations are held; rank_asked: the
    policy's rank was changed; reference: the fidelity of the last window, of the start basis on its own window at first.
    """

    dim: int
    policy: LaserPolicy
    standing: Standing = field(default_factory=Standing)
    window: int = 0
    basis: Tensor | None = None
    holds: bool = True
    rank_asked: bool = False
    open: Open = EMPTY
    reference: float = 0.0

    @property
    def rank(self) -> int:
        return 0 if self.basis is None else self.basis.shape[1]

    @property
    def state(self) -> State:
        return "warming" if self.basis is None else self.standing.state


class SubspaceTracker:
    """One orthonormal basis Q (D, k), kept current by warm-started subspace iteration and watched by its fidelity.

    >>> tracker = SubspaceTracker(64, LaserPolicy(rank=4))
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) @ torch.eye(4, 64)
    >>> tracker.observe(x).cause, tracker.refresh().cause
    ('first window kept exact', 'basis started by SVD')
    >>> event = tracker.observe(x)
    >>> event.coefficients.shape, round(event.fidelity, 3), tracker.refresh().action
    (torch.Size([100, 4]), 1.0, 'keep')

    1. The first window is kept exact; its SVD starts the basis at the policy's rank.
    2. `observe`: Z = XQ is what a caller stores in place of X; the same product feeds the sketch Y = Σ XᵀXQ. A few
       rows of X, drawn at random, are kept until the window closes: growth needs directions that XᵀXQ can never show.
    3. `refresh` measures F = Σ‖Z‖² / Σ‖X‖² and lets the rule decide: keep, Q ← orth(Y) (Householder QR, R's diagonal
       positive); grow, Q ← [orth(Y), leading directions of the drawn rows outside it]; reset, Q ← the leading right singular
       vectors of the window, as few as reach ε. A Q that spans the whole space has nowhere to turn and stays as it is.

    Orthogonal iteration turns the columns of Q towards the singular directions in their order, so energy falls from column
    to column once a stream is steady, and before that only about. Where order matters (growth, release, a rank cut) they are
    rotated first (Rayleigh–Ritz), and what is read from an event is sorted.

    An observation costs 4·N·D·k flops and never waits for a GPU (but once in 64 of one window); a refresh waits once and costs
    O(Dk²), and one SVD at a reset. Activations are held (`holds_window`) only in the first window and where the next miss
    would reset.
    Under `measure="functional"` the rule judges what `refresh` is handed, and energy in a window without it. How a basis not
    yet tried would do is not known then: a reset goes to `growth` more directions than there were (at most `max_rank`), a
    site that misses on at the largest rank after its reset is saturated, and nothing is released.
    With `refresh="step"` every observation closes its window. A caller that reads the fidelity of each observation may ask for a
    `turn` of the basis within the window where it falls off. Activations so small or large that their squares leave
    fp32's range (below about 1e-19 or above about 1e17) count as nothing or as not finite.

    Source: LASER, arXiv 2604.17224 (warm-started power iteration, fidelity threshold, growth, reset by SVD).

    Parameters: dim, the width D of the activations; name, what events call the site (it also seeds the drawn rows, with
    `policy.seed`); device, where activations must be (default: where the first are); keep_windows, hold every window's
    activations until its refresh, so that `best_fidelity`, `best_angles` and the exact spectrum can always be read (an
    attribute too: set later, it acts from the next window on); hold, what a window is held as: its "rows" X, or their Gram matrix
    XᵀX (D, D) in fp32, which costs N·D² flops but no memory that grows with the window.

    Raises `PolicyError` for a policy that does not fit the width, `LaserStudioError` for activations that do not fit the tracker.
    """

    def __init__(
        self,
        dim: int,
        policy: LaserPolicy,
        *,
        name: str = "",
        device: torch.device | str | None = None,
        keep_windows: bool = False,
        hold: Literal["rows", "gram"] = "rows",
    ) -> None:
        if not isinstance(dim, int) or dim < 1:
            raise LaserStudioError(f"a tracker needs a width of at least 1, got {dim!r:.80}")
        policy.max_rank_for(dim)
        self.dim, self.name, self.keep_windows, self._hold = dim, name, keep_windows, hold
        self.expected = 1
        self.share = 0, 1  # which of how many processes this is, each of which observes its part of the rows
        self.device = None if device is None else torch.device(device)
        self._orders: dict[tuple[int, int, int], list[Tensor]] = {}
        self._state, self._open = Snapshot(dim, policy), EMPTY
        self.restore(self._state)

    @property
    def policy(self) -> LaserPolicy:
        """The settings in force."""
        return self._state.policy

    @property
    def basis(self) -> Tensor | None:
        """Q (D, k) fp32 with orthonormal columns, about by falling energy; None before the first window has closed."""
        return self._state.basis

    @property
    def rank(self) -> int:
        """Columns of the basis; 0 before the first window has closed."""
        return self._state.rank

    @property
    def state(self) -> State:
        """Where the site stands with the rule: "warming", "tracking", "resting" or "saturated"."""
        return self._state.state

    @property
    def holds_window(self) -> bool:
        """Whether the open window's activations are being held (the first window, and where a reset is possible at its end)."""
        return self._state.holds

    @property
    def steady(self) -> bool:
        """Whether the window, if it reaches ε, will only turn the basis, and nothing of it must be held for that."""
        state = self._state
        if state.basis is None or state.holds or state.rank_asked or self._open is not EMPTY or state.rank == self.dim:
            return False
        policy = state.policy
        plain = policy.measure == "energy" and policy.refresh != "step" and not policy.release
        return plain and state.standing == _CALM and self.share == (0, 1) and state.rank <= policy.max_rank_for(self.dim)

    @property
    def bookkeeping_bytes(self) -> int:
        """Bytes of what the open window keeps beside the basis: its sketch, sums, drawn rows, and X or XᵀX where it is held."""
        sketch, parts, _, gram = self._open
        rows = [rows for part in parts for rows, _ in part.sample] + [rows for part in parts for rows in part.held]
        kept = [sketch, gram, *rows, *(part.row_sum for part in parts)]
        return sum(each.nbytes for each in kept if each is not None)

    def expect(self, observations: int) -> None:
        """From the next window on, draw as many rows from all of so many observations as otherwise from one."""
        self.expected = max(1, observations)

    def set_policy(self, policy: LaserPolicy) -> None:
        """Use other settings from the next refresh on; a new rank is gone to there. Any change ends saturation and rest."""
        policy.max_rank_for(self.dim)
        old = self.snapshot()
        if policy == old.policy:
            return
        asked = old.rank_asked or policy.rank_for(self.dim) != old.policy.rank_for(self.dim)
        new = replace(old, policy=policy, standing=old.standing.refreshed(), rank_asked=asked and old.basis is not None)
        if not old.open.parts:  # nothing seen yet: the window can still open under the new settings
            new = replace(new, holds=self._holds(policy, new.standing, new.basis))
        self.restore(new)

    def keep(self, windows: bool) -> None:
        """Set `keep_windows`; a window that has seen nothing yet still opens under it."""
        self.keep_windows = windows
        now = self.snapshot()
        if not now.open.parts:
            self.restore(replace(now, holds=self._holds(now.policy, now.standing, now.basis)))

    def snapshot(self) -> Snapshot:
        """The state now, policy included; cheap, and good for any number of `restore`s."""
        if self._state.open is not self._open:
            self._state = replace(self._state, open=self._open)
        return self._state

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from `snapshot`, bit for bit as after it was taken."""
        if snapshot.dim != self.dim:
            raise LaserStudioError(f"the snapshot is of a site of width {snapshot.dim}, this one has width {self.dim}")
        self._state, self._open = snapshot, snapshot.open
        policy = snapshot.policy
        may_grow = policy.min_fidelity > rule.ROUNDING and snapshot.rank < policy.max_rank_for(self.dim)
        self._draws = -(-ROWS_PER_DIRECTION * policy.growth // self.expected) if may_grow or snapshot.rank_asked else 0

    def twin(self) -> SubspaceTracker:
        """Another tracker of the same site, settings and state, its own from now on."""
        twin = SubspaceTracker(self.dim, self.policy, name=self.name, device=self.device, keep_windows=self.keep_windows, hold=self._hold)
        twin.expected, twin.share, twin._orders = self.expected, self.share, self._orders
        twin.restore(self.snapshot())
        return twin

    def report(self, seen: Seen) -> TrackerEvent:
        """The event of an observation whose sums and coefficients were made elsewhere; the window does not get it."""
        return self._event(self._state, perf_counter(), closes=False, sums=seen, stored=seen.stored, news="")

    def close_turned(self, window: Window, sketch: Tensor, basis: Tensor, started: float) -> TrackerEvent:
        """Close a window of a `steady` tracker, worked on elsewhere, that reached ε: its sums, sketch QᵀXᵀX (k, D), and orth(XᵀXQ)."""
        part = Part(window.values[1], window.values[2], window.row_sum, (), ())
        self._open = Open(sketch, (part,))
        return self._close(started, (window, [part]), basis, None, {})

    def encode(self, x: Tensor) -> Tensor:
        """Z = XQ, (N, k) fp32, of activations (…, D) with the basis in force."""
        rows = self._rows(x)
        with plain_fp32(self.device):
            return rows.float() @ self._started()

    def decode(self, z: Tensor) -> Tensor:
        """ZQᵀ, (N, D) fp32, of coefficients (N, k)."""
        basis = self._started()
        if z.shape[-1] != basis.shape[1]:
            raise LaserStudioError(f"coefficients of width {z.shape[-1]} do not belong to the basis in force, of rank {basis.shape[1]}")
        with plain_fp32(self.device):
            return z.detach().float() @ basis.T

    def observe(self, x: Tensor, coefficients: Tensor | None = None) -> TrackerEvent:
        """Take activations (…, D), any float dtype, into the open window; with `refresh="step"` also close it.

        coefficients: XQ (N, k) fp32 with the basis in force, where the caller has it already; read only where there is one. The event
        has them too, Z. Activations that are not all finite are left out.
        """
        started = perf_counter()
        rows = self._rows(x)
        with in_plain_fp32(rows.device):
            return self._observe(x, rows, coefficients, started)

    def refresh(self, functional: float | None = None) -> TrackerEvent:
        """Close the open window: measure its fidelity and keep, grow or reset the basis. Harmless where nothing was observed.

        functional: the window's functional fidelity, for `measure="functional"`; clamped to [0, 1], 0 where it is not a number.
        """
        return refresh_together([self], [functional])[0]

    def turn(self, event: TrackerEvent) -> TrackerEvent | None:
        """Turn the basis within the open window, where its newest observation `event` kept far less than the last window did.

        Q ← orth(Y) of what the window has shown so far, at the same rank and unjudged: the stream has jumped, and the window's
        other steps need not wait for its end. The sketch is carried over (Y ← Y QᵀQ′, what of it lies in the old basis), so the
        refresh still sees the whole window, and its fidelity is that of what was stored with either basis. None where nothing is
        done: no fall by more than `policy.turn`, no basis yet, or a rule that reads the centred fidelity, which needs one basis
        per window. Waits for the device, to read the event.
        """
        started = perf_counter()
        before = self.snapshot()
        sketch, basis, policy = before.open.sketch, before.basis, self.policy
        if basis is None or sketch is None or event.basis is not basis or basis.shape[1] == self.dim:
            return None
        if policy.measure == "centred" or policy.refresh == "step":
            return None
        if not event.sums.finite or event.energy <= 0 or not rule.falls(event.fidelity, before.reference, policy):
            return None
        with plain_fp32(self.device):
            new = orthonormalised([turned(sketch.t(), basis, event.energy)])[0]
            carried = (new.t() @ basis) @ sketch  # (k, D)
            offset = (basis.t() * sketch).sum() - (new.t() * carried).sum()
            if before.open.offset is not None:
                offset = offset + before.open.offset
        self.restore(replace(before, basis=new, open=before.open._replace(sketch=carried, offset=offset)))
        cause = f"turned early: F was {before.reference:.3f}"
        return self._event(before, started, closes=False, sums=event.sums, news=cause, new_basis=new)

    # Observing

    def _rows(self, x: Tensor) -> Tensor:
        where = f"tracker {self.name!r}" if self.name else "tracker"
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise LaserStudioError(f"{where} observes float tensors, got {kind}: convert the activations first")
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise LaserStudioError(f"{where} needs activations whose last axis is {self.dim}, got shape {tuple(x.shape)}")
        if self.device is None:
            self.device = x.device
        elif x.device != self.device and (x.device.type != self.device.type or self.device.index not in (None, x.device.index)):
            raise LaserStudioError(f"{where} lives on {self.device}, got activations on {x.device}: make a tracker per device")
        if x.requires_grad:
            x = x.detach()
        return x if x.ndim == 2 else x.reshape(-1, self.dim)

    def _observe(self, x: Tensor, rows: Tensor, coefficients: Tensor | None, started: float) -> TrackerEvent:
        state, opened = self._state, self._open
        basis, sketch, gram = state.basis, opened.sketch, opened.gram
        if rows.dtype != torch.float32:
            rows = rows.float()
        total: Tensor | float = (squares := energy(rows))
        if free_to_read(squares):  # elsewhere a look would wait for the device
            total = squares.item()
            if not total < math.inf:
                return self._event(state, started, closes=False, sums=Seen(total, rows[:0].sum(0), rows.shape[0], None))
        stored = exact = None
        if basis is not None:
            stored = torch.mm(rows, basis) if coefficients is None else coefficients  # (N, k)
            more = torch.mm(stored.t(), rows) if sketch is None else torch.addmm(sketch, stored.t(), rows)  # (k, D)
            sketch = more if isinstance(total, float) else torch.where(total < math.inf, more, 0.0 if sketch is None else sketch)
        held: tuple[Tensor, ...] = ()
        if state.holds and self._hold == "gram":
            more = torch.mm(rows.t(), rows) if gram is None else torch.addmm(gram, rows.t(), rows)  # (D, D)
            gram = more if isinstance(total, float) else torch.where(total < math.inf, more, 0.0 if gram is None else gram)
        elif state.holds:
            shared = rows.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
            held = (rows.clone() if shared else rows,)  # the host module may go on to change x in place
            exact = held[0] if basis is None else None
        count = rows.shape[0]
        seen = Seen(total, torch.mv(rows.t(), ones(count, rows.device)), count, stored)  # faster than a sum where the rows are many
        parts = (*opened.parts, Part(total, count, seen.row_sum, self._sample(rows), held))
        self._open = Open(sketch, parts if len(parts) < MOST_PARTS else _gathered(parts), opened.offset, gram)
        if state.policy.refresh == "step" and (isinstance(total, float) or total.item() < math.inf):
            return _closed([self], [None], started, stored=stored, exact=exact)[0]
        news = "first window kept exact" if basis is None else ""
        return self._event(state, started, closes=False, sums=seen, stored=stored, exact=exact, news=news)

    def _sample(self, rows: Tensor) -> tuple[tuple[Tensor, float], ...]:
        """Rows of this observation for growth, each with the number it stands for: in turn by a random order, so that all get theirs."""
        (own, processes), count = self.share, rows.shape[0]
        if not self._draws or not count:
            return ()
        order = self._orders.get(key := (self.policy.seed, count, self._draws))
        if order is None:
            generator = private_generator(self.policy.seed, self.name, "rows", count * processes)
            order = self._orders[key] = list(torch.randperm(count * processes, generator=generator).to(rows.device).split(self._draws))
        chosen = order[(self._state.window * STRIDE + len(self._open.parts)) % len(order)]
        weight = count * processes / chosen.shape[0]
        if processes == 1:
            return ((rows.index_select(0, chosen), weight),)
        here = chosen - own * count  # rows of other processes stay zero until all are added up
        mine = (here >= 0) & (here < count)
        return ((rows.index_select(0, here.clamp(0, count - 1)) * mine[:, None], weight),)

    # Closing a window

    def _figures(self) -> list[Tensor | float]:
        """‖X‖² of each part and, last, Σ‖Z‖² where there is a basis; empty where nothing was observed."""
        sketch, parts, offset, _ = self._open
        figures = [part.total for part in parts]
        basis = self._state.basis
        if parts and basis is not None:
            assert sketch is not None
            kept = (basis.t() * sketch).sum()  # tr QᵀXᵀXQ
            figures.append(kept if offset is None else kept + offset)
        return figures

    def _measured_window(self, figures: list[float]) -> tuple[Window, list[Part]] | None:
        """The sums of the open window from the values of `_figures`, and its finite parts; None where there are none."""
        parts, totals, rows = [], [], 0
        for part, total in zip(self._open.parts, figures, strict=False):
            if total < math.inf:
                parts.append(part)
                totals.append(total)
                rows += part.rows
        total = math.fsum(totals)
        if rows == 0 or not total < LARGEST:
            return None
        return Window((total if self._state.basis is None else figures[-1], total, rows), [part.row_sum for part in parts]), parts

    def _turned(self, sums: Sums) -> Tensor | None:
        """What the QR of an ordinary refresh is taken of; None where there is no basis yet, no energy, or nowhere left to turn."""
        basis, sketch, total = self._state.basis, self._open.sketch, sums.values[1]
        if basis is None or sketch is None or total <= 0 or basis.shape[1] == self.dim:
            return None
        return turned(sketch.t(), basis, total)

    def _close(
        self,
        started: float,
        window: tuple[Window, list[Part]] | None,
        directions: Tensor | None,
        functional: float | None,
        more: dict[str, object],
    ) -> TrackerEvent:
        before, opened = self._state, self._open
        if window is None:
            if opened.parts:  # of what was not finite nothing stays
                self.restore(replace(before, open=EMPTY, holds=self._holds(before.policy, before.standing, before.basis)))
            more = {"news": "nothing observed", "new_basis": before.basis, "functional": functional, **more}
            return self._event(before, started, closes=True, sums=_NOTHING, **more)
        sums, parts = window
        held: HeldWindow | HeldGram | None = None
        if before.holds:
            held = HeldWindow([rows for part in parts for rows in part.held]) if opened.gram is None else HeldGram(opened.gram)
        if before.basis is None:
            assert held is not None  # the first window is always held
            return self._start(before, started, sums, held, functional, more)
        sketched = None
        if sums.values[1] > 0:
            assert opened.sketch is not None
            sketched = Sketched(opened.sketch.t(), before.basis, sums.values[1], [one for part in parts for one in part.sample])
        return self._update(before, started, sums, before.basis, directions, held, sketched, functional, more)

    def _start(
        self, before: Snapshot, started: float, sums: Sums, held: HeldWindow | HeldGram, functional: float | None, more: dict[str, object]
    ) -> TrackerEvent:
        directions, _ = held.singular
        basis = self._filled(directions, self.policy.rank_for(self.dim), before.window)
        verdict = Verdict("keep", "basis started by SVD", Standing())
        self._begin(before, verdict.standing, steady_signs(basis, None), float(held.singular[1][: basis.shape[1]].sum()))
        return self._closing_event(before, started, sums, verdict, held, None, functional, 0, more)

    def _update(
        self,
        before: Snapshot,
        started: float,
        sums: Sums,
        basis: Tensor,
        directions: Tensor | None,
        held: HeldWindow | HeldGram | None,
        sketched: Sketched | None,
        functional: float | None,
        more: dict[str, object],
    ) -> TrackerEvent:
        policy, rank, max_rank = self.policy, before.rank, self.policy.max_rank_for(self.dim)
        new = basis if directions is None else directions
        asked = policy.rank_for(self.dim) if before.rank_asked else min(rank, max_rank)
        if before.rank_asked or asked < rank:
            cause = f"rank set to {asked}" if before.rank_asked else f"rank cut to max_rank {asked}"
            verdict = Verdict("grow" if asked > rank else "keep", cause, Standing())
            new = self._filled(self._ordered(basis, sketched), asked, before.window, sketched)
        else:
            given = functional if policy.measure == "functional" else None
            fidelity = given if given is not None else sums.centred_fidelity(basis) if policy.measure == "centred" else sums.fidelity
            verdict = rule.judge(before.standing, policy, fidelity=fidelity, rank=rank, max_rank=max_rank, held=held is not None)
            if verdict.action == "reset":
                assert held is not None  # the rule resets only where they are held
                goal = min(rank + policy.growth, max_rank) if given is not None else None
                verdict, new = self._reset(before, verdict.standing, sums, held, max_rank, goal)
                new = steady_signs(new, basis)
            elif verdict.action == "grow":
                new = self._filled(self._ordered(basis, sketched), min(rank + policy.growth, max_rank), before.window, sketched)
            elif given is not None:
                if verdict.exhausted:
                    verdict = rule.saturate(verdict.standing, best=given, rank=rank, action="keep")
            elif sketched is not None and (verdict.exhausted or policy.release):
                verdict, new = self._settle(verdict, sums, new, self._ordered(basis, sketched), sketched.leading[1])
        self._begin(before, verdict.standing, new, sums.fidelity)
        grown = max(new.shape[1] - rank, 0) if verdict.action == "grow" else 0
        return self._closing_event(before, started, sums, verdict, held, sketched, functional, grown, more)

    @staticmethod
    def _ordered(basis: Tensor, sketched: Sketched | None) -> Tensor:
        """The iterated basis with its columns by falling energy; the one in force where the window had none."""
        return basis if sketched is None else steady_signs(sketched.leading[0], basis)

    def _reset(
        self, before: Snapshot, standing: Standing, sums: Sums, held: HeldWindow | HeldGram, max_rank: int, goal: int | None
    ) -> tuple[Verdict, Tensor]:
        """The smallest SVD basis that reaches ε, else the one at `max_rank`; or the one of rank `goal`."""
        directions, shares = held.singular
        if goal is not None:
            verdict = rule.after_reset(standing, self.policy, reached=True, best=1.0, rank=goal)
            return verdict, self._filled(directions, goal, before.window)
        reach = self._measured(shares, directions, sums)
        rank, best = self._needed(reach, self.policy.min_fidelity), float(reach[min(max_rank, len(reach)) - 1])
        reached = rank <= max_rank
        rank = min(rank, max_rank)
        verdict = rule.after_reset(standing, self.policy, reached=reached, best=best, rank=rank)
        return verdict, directions[:, :rank]

    def _settle(self, verdict: Verdict, sums: Sums, new: Tensor, ordered: Tensor, shares: Tensor) -> tuple[Verdict, Tensor]:
        """What may still follow a "keep": saturation where even the `new` basis misses ε, or the release of directions not needed."""
        policy, rank = self.policy, new.shape[1]
        reach = self._measured(shares, ordered, sums)
        if verdict.exhausted and not rule.reaches(float(reach[-1]), policy):
            return rule.saturate(verdict.standing, best=float(reach[-1]), rank=rank, action="keep"), new
        if not policy.release or verdict.standing.misses or verdict.standing.saturated:
            return verdict, new
        needed = self._needed(reach, policy.min_fidelity + (1 - policy.min_fidelity) / 2)
        standing, smaller = rule.release(verdict.standing, policy, needed=needed, rank=rank, least=policy.rank_for(self.dim))
        cause = verdict.cause if smaller == rank else f"released {rank - smaller} directions not needed for {policy.patience} windows"
        return replace(verdict, standing=standing, cause=cause), new if smaller == rank else ordered[:, :smaller].contiguous()

    def _measured(self, shares: Tensor, directions: Tensor, sums: Sums) -> Tensor:
        """Fidelity, as the policy measures it, within reach of the first 1, 2, … `directions`, given their `shares` of the energy; fp64."""
        _, total, rows = sums.values
        if self.policy.measure == "centred":
            along_mean = (sums.row_sum @ directions).double().cpu().square() / rows
            left = total - float(sums.row_sum.double().cpu().square().sum()) / rows
            if left <= rule.ROUNDING * total:
                return torch.ones_like(shares)
            shares = (shares * total - along_mean).clamp(min=0) / left
        return shares.cumsum(0).clamp(max=1)

    @staticmethod
    def _needed(reach: Tensor, fidelity: float) -> int:
        """The fewest directions that reach `fidelity`; one more than there are where none do."""
        return int((reach < fidelity - rule.ROUNDING).sum()) + 1

    def _filled(self, directions: Tensor, rank: int, window: int, sketched: Sketched | None = None) -> Tensor:
        """The first `rank` of `directions`, made up to that number by the leading ones of the drawn rows and then random ones."""
        missing = rank - directions.shape[1]
        if missing <= 0:
            return directions[:, :rank].contiguous()
        generator = private_generator(self.policy.seed, self.name, window, "growth")
        drawn = None if sketched is None else sketched.outside
        extra = directions_outside(directions, directions[:, :0] if drawn is None else drawn.T, missing, generator)
        return torch.cat((directions, steady_signs(extra, None)), dim=1)

    def _begin(self, before: Snapshot, standing: Standing, basis: Tensor, reference: float) -> None:
        """Open the next window with `basis`."""
        policy = before.policy
        holds = self._holds(policy, standing, basis)
        self.restore(Snapshot(self.dim, policy, standing, before.window + 1, basis, holds, reference=reference))

    def _holds(self, policy: LaserPolicy, standing: Standing, basis: Tensor | None) -> bool:
        return self.keep_windows or basis is None or standing.may_reset(policy)

    # Reporting

    def _closing_event(
        self,
        before: Snapshot,
        started: float,
        sums: Sums,
        verdict: Verdict,
        held: HeldWindow | HeldGram | None,
        sketched: Sketched | None,
        functional: float | None,
        grown: int,
        more: dict[str, object],
    ) -> TrackerEvent:
        return self._event(
            before,
            started,
            closes=True,
            sums=sums,
            news=verdict.cause,
            action=verdict.action,
            new_basis=self._state.basis,
            held=held if sums.values[1] > 0 else None,
            sketched=sketched if held is None else None,
            functional=functional,
            grown=grown,
            **more,
        )

    def _event(self, before: Snapshot, started: float, *, closes: bool, sums: Sums, **more: object) -> TrackerEvent:
        now = self._state
        fields = {
            "site": self.name,
            "window": before.window,
            "closes": closes,
            "rank": now.rank,
            "previous_rank": before.rank,
            "action": "keep",
            "state": now.state,
            "misses": now.standing.misses,
            "basis": before.basis,
            "sums": sums,
            **more,
            "seconds": perf_counter() - started,
        }
        return TrackerEvent.of(fields)

    def _started(self) -> Tensor:
        if self._state.basis is None:
            raise LaserStudioError("the tracker has no basis before its first window has closed: observe, then refresh")
        return self._state.basis


def refresh_together(trackers: Sequence[SubspaceTracker], functional: Sequence[float | None]) -> list[TrackerEvent]:
    """`refresh` of several trackers: their figures are read from the device at once, and equal QRs go together where that is cheaper."""
    started = perf_counter()
    with in_plain_fp32(trackers[0].device if trackers else None):
        return _closed(trackers, functional, started)


def _closed(trackers: Sequence[SubspaceTracker], functional: Sequence[float | None], started: float, **more: object) -> list[TrackerEvent]:
    """What `refresh_together` does, in the caller's mode. started: when the work began; more: fields of the events."""
    figures = [tracker._figures() for tracker in trackers]
    values = iter(on_host([each for several in figures for each in several]))
    windows = [tracker._measured_window(list(islice(values, len(own)))) for tracker, own in zip(trackers, figures, strict=True)]
    matrices = [None if window is None else tracker._turned(window[0]) for tracker, window in zip(trackers, windows, strict=True)]
    bases = iter(orthonormalised([matrix for matrix in matrices if matrix is not None]))
    shared = (perf_counter() - started) / max(len(trackers), 1)
    events = []
    for tracker, window, matrix, value in zip(trackers, windows, matrices, functional, strict=True):
        if value is not None:
            value = min(max(value, 0.0), 1.0) if value == value else 0.0
        directions = None if matrix is None else next(bases)
        events.append(tracker._close(perf_counter() - shared, window, directions, value, more))
    return events


LARGEST = torch.finfo(torch.float32).max
_CALM = Standing()
_NOTHING = Window((0.0, 0.0, 0), [torch.zeros(1)])


def _plain(device: torch.device) -> bool:
    """Whether what is computed from tensors without gradient is plain fp32, in the mode the caller is in."""
    return not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled(_kind(device))


@lru_cache(maxsize=16)
def _kind(device: torch.device) -> str:
    return device.type  # a string that torch prints anew each time, which takes as long as a small product


def in_plain_fp32(device: torch.device | None) -> AbstractContextManager[None]:
    """`plain_fp32` where the caller's mode makes it needed."""
    return nullcontext() if device is not None and _plain(device) else plain_fp32(device)


@contextmanager
def plain_fp32(device: torch.device | None) -> Iterator[None]:
    """Plain fp32 tensors, whatever mode the caller is in: no gradient, no autocast, and usable after inference_mode."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type if device else "cpu", enabled=False):
        yield


def _gathered(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The finite ones of many parts as one, with half of the drawn rows; waits for the device."""
    totals = on_host([part.total for part in parts])
    parts = [part for part, total in zip(parts, totals, strict=True) if total < math.inf]
    if not parts:
        return ()
    sample = [one for part in parts for one in part.sample]
    return (
        Part(
            total=math.fsum(total for total in totals if total < math.inf),
            rows=sum(part.rows for part in parts),
            row_sum=torch.stack([part.row_sum for part in parts]).sum(0),
            sample=tuple((rows, 2 * weight) for rows, weight in sample[::2]),
            held=tuple(rows for part in parts for rows in part.held),
        ),
    )
