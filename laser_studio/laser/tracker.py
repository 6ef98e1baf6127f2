"""The tracker of one site: observes activations, keeps one orthonormal basis current, and carries out the LASER rule.

The rule itself is in `rule`, the matrix work in `linalg`, what is reported in `event`. A tracker knows nothing of
models or cycles: its caller says what it sees (`observe`) and when a window ends (`refresh`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from laser_studio.errors import LaserStudioError
from laser_studio.laser import rule
from laser_studio.laser.event import HeldWindow, Sums, TrackerEvent
from laser_studio.laser.linalg import (
    directions_outside,
    leading_directions,
    private_generator,
    shares_lower_bound,
    steady_signs,
    stirred_probe,
)
from laser_studio.laser.policy import LaserPolicy
from laser_studio.laser.rule import Standing, State, Verdict


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The whole state of a tracker, by reference: its tensors are replaced at every update, never changed in place.

    basis: Q (D, k); probe: (D, g) directions outside Q that look for growth, None where it cannot grow; sketch:
    (D, k + g), Σ XᵀX[Q P] of the open window, None before its first observation; held: the window's activations with
    a flag each that says whether they are finite, None where none are held; rank_asked: the policy's rank was changed.
    """

    dim: int
    policy: LaserPolicy
    standing: Standing = field(default_factory=Standing)
    window: int = 0
    basis: Tensor | None = None
    probe: Tensor | None = None
    sketch: Tensor | None = None
    sums: Sums | None = None
    held: tuple[tuple[Tensor, Tensor], ...] | None = ()
    rank_asked: bool = False

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
       probe columns P outside Q ride along (Σ XᵀXP): growth needs directions that XᵀXQ can never show.
    3. `refresh` measures F = Σ‖Z‖² / Σ‖X‖² and lets the rule decide: keep, Q ← orth(Y) (Householder QR, columns
       ordered by energy); grow, Q ← [orth(Y), leading directions of the residual of Σ XᵀXP]; reset, Q ← the leading right
       singular vectors of the window, as few as reach ε.

    An observation costs 4·N·D·(k + g) flops and never waits for the device; a refresh O(D(k + g)²), and one SVD at a
    reset. Activations are held (`holds_window`) only in the first window and where the next miss would reset.
    Under `measure="functional"` the rule judges what `refresh` is handed, and energy in a window without it. How a basis not
    yet tried would do is not known then: a reset goes to `growth` more directions than there were (at most `max_rank`), a
    site that misses on at the largest rank after its reset is saturated, and nothing is released.
    With `refresh="step"` every observation closes its window. Activations so small or large that their squares leave
    fp32's range (below about 1e-19 or above about 1e17) count as nothing or as not finite.

    Source: LASER, arXiv 2604.17224 (warm-started power iteration, fidelity threshold, growth, reset by SVD).

    Parameters: dim, the width D of the activations; name, what events call the site (it also seeds the probes, with
    `policy.seed`); device, where activations must be (default: where the first are); keep_windows, hold every window's
    activations until its refresh, so that `best_fidelity`, `best_angles` and the exact spectrum can always be read (an
    attribute too: set later, it acts from the next window on).

    Raises `PolicyError` for a policy that does not fit the width, `LaserStudioError` for activations that do not fit the tracker.
    """

    def __init__(
        self, dim: int, policy: LaserPolicy, *, name: str = "", device: torch.device | str | None = None, keep_windows: bool = False
    ) -> None:
        if not isinstance(dim, int) or dim < 1:
            raise LaserStudioError(f"a tracker needs a width of at least 1, got {dim!r:.80}")
        policy.max_rank_for(dim)
        self.dim, self.name, self.keep_windows = dim, name, keep_windows
        self.device = None if device is None else torch.device(device)
        self._state = Snapshot(dim, policy)

    @property
    def policy(self) -> LaserPolicy:
        """The settings in force."""
        return self._state.policy

    @property
    def basis(self) -> Tensor | None:
        """Q (D, k) fp32 with orthonormal columns, by falling energy; None before the first window has closed."""
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
        return self._state.held is not None

    def set_policy(self, policy: LaserPolicy) -> None:
        """Use other settings from the next refresh on; a new rank is gone to there. Any change ends saturation and rest."""
        policy.max_rank_for(self.dim)
        old = self._state
        if policy == old.policy:
            return
        asked = old.rank_asked or policy.rank_for(self.dim) != old.policy.rank_for(self.dim)
        self._state = replace(old, policy=policy, standing=old.standing.refreshed(), rank_asked=asked and old.basis is not None)
        if old.sums is None:  # nothing seen yet: the window can still open under the new settings
            self._state = replace(self._state, held=self._first_hold(self._state))

    def snapshot(self) -> Snapshot:
        """The state now, policy included; cheap, and good for any number of `restore`s."""
        return self._state

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from `snapshot`, bit for bit as after it was taken."""
        if snapshot.dim != self.dim:
            raise LaserStudioError(f"the snapshot is of a site of width {snapshot.dim}, this one has width {self.dim}")
        self._state = snapshot

    def encode(self, x: Tensor) -> Tensor:
        """Z = XQ, (N, k) fp32, of activations (…, D) with the basis in force."""
        rows = self._rows(x)
        with _exact(self.device):
            return rows.float() @ self._started()

    def decode(self, z: Tensor) -> Tensor:
        """ZQᵀ, (N, D) fp32, of coefficients (N, k)."""
        basis = self._started()
        if z.shape[-1] != basis.shape[1]:
            raise LaserStudioError(f"coefficients of width {z.shape[-1]} do not belong to the basis in force, of rank {basis.shape[1]}")
        with _exact(self.device):
            return z.detach().float() @ basis.T

    def observe(self, x: Tensor) -> TrackerEvent:
        """Take activations (…, D), any float dtype, into the open window; with `refresh="step"` also close it.

        The event has the coefficients Z = XQ with the basis in force. Activations that are not all finite are left out.
        """
        started = perf_counter()
        rows = self._rows(x)
        with _exact(self.device):
            before, rows = self._state, rows.float()
            seen, stored, sketch = self._project(rows, before)
            self._state = self._accumulate(before, x, rows, seen, sketch)
            exact = self._state.held[-1][0] if before.basis is None and self._state.held else None
            if self.policy.refresh == "step" and seen.finite:
                return replace(self._close(started), stored=stored, exact=exact)
        news = "first window kept exact" if before.basis is None else ""
        return self._event(before, started, closes=False, sums=seen, stored=stored, exact=exact, news=news)

    def refresh(self, functional: float | None = None) -> TrackerEvent:
        """Close the open window: measure its fidelity and keep, grow or reset the basis. Harmless where nothing was observed.

        functional: the window's functional fidelity, for `measure="functional"`; clamped to [0, 1], 0 where it is not a number.
        """
        started = perf_counter()
        if functional is not None:
            functional = min(max(functional, 0.0), 1.0) if functional == functional else 0.0
        with _exact(self.device):
            return self._close(started, functional)

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
        elif x.device.type != self.device.type or self.device.index not in (None, x.device.index):
            raise LaserStudioError(f"{where} lives on {self.device}, got activations on {x.device}: make a tracker per device")
        return x.detach().reshape(-1, self.dim)

    @staticmethod
    def _project(rows: Tensor, state: Snapshot) -> tuple[Sums, Tensor | None, Tensor | None]:
        """The sums of one observation, its coefficients, and its part of the sketch (the latter two None in the first window)."""
        total = _energy(rows)
        stored = sketch = None
        if state.basis is not None:
            wide = rows @ _test_columns(state)  # (N, k + g)
            sketch = rows.T @ wide  # (D, k + g)
            stored = wide[:, : state.rank].contiguous()  # what a caller keeps must not keep the probe's columns alive
        kept = total if stored is None else _energy(stored)
        count = torch.full_like(total, rows.shape[0])
        return Sums(torch.stack((kept, total, count)), rows.sum(0)), stored, sketch

    @staticmethod
    def _accumulate(state: Snapshot, x: Tensor, rows: Tensor, seen: Sums, sketch: Tensor | None) -> Snapshot:
        # Whether x is finite is decided on the device: asking here would make every observation wait for it.
        finite = seen.scalars[1].isfinite()
        scalars, row_sum = (state.sums.scalars, state.sums.row_sum) if state.sums else (None, None)
        sums = Sums(_add(finite, scalars, seen.scalars), _add(finite, row_sum, seen.row_sum))
        held = state.held
        if held is not None:
            shared = rows.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
            held = (*held, (rows.clone() if shared else rows, finite))  # the host module may go on to change x in place
        return replace(state, sums=sums, held=held, sketch=None if sketch is None else _add(finite, state.sketch, sketch))

    # Closing a window

    def _close(self, started: float, functional: float | None = None) -> TrackerEvent:
        before = self._state
        if before.sums is None or before.sums.values[2] == 0:
            more = {"news": "nothing observed", "new_basis": before.basis, "functional": functional}
            return self._event(before, started, closes=True, sums=_NOTHING, **more)
        held = None if before.held is None else HeldWindow([rows for rows, finite in before.held if finite])
        if before.basis is None:
            assert held is not None  # the first window is always held
            return self._start(before, started, before.sums, held, functional)
        return self._update(before, started, before.sums, before.basis, held, functional)

    def _start(self, before: Snapshot, started: float, sums: Sums, held: HeldWindow, functional: float | None) -> TrackerEvent:
        directions, _ = held.singular
        basis = self._filled(directions, self.policy.rank_for(self.dim), before.window)
        standing = Standing()
        self._open(before, standing, steady_signs(basis, None), self._next(directions, basis.shape[1]))
        return self._closing_event(before, started, sums, Verdict("keep", "basis started by SVD", standing), held, None, functional)

    def _update(
        self, before: Snapshot, started: float, sums: Sums, basis: Tensor, held: HeldWindow | None, functional: float | None
    ) -> TrackerEvent:
        policy, rank, max_rank = self.policy, before.rank, self.policy.max_rank_for(self.dim)
        _, total, _ = sums.values
        assert before.sketch is not None
        directions, shares, residual = basis, None, before.sketch[:, rank:]
        if total > 0:
            directions, shares = leading_directions(before.sketch[:, :rank], basis, total)
            directions = steady_signs(directions, basis)

        asked = policy.rank_for(self.dim) if before.rank_asked else min(rank, max_rank)
        if before.rank_asked or asked < rank:
            cause = f"rank set to {asked}" if before.rank_asked else f"rank cut to max_rank {asked}"
            verdict = Verdict("grow" if asked > rank else "keep", cause, Standing())
            new = self._filled(directions, asked, before.window, residual)
        else:
            given = functional if policy.measure == "functional" else None
            fidelity = given if given is not None else sums.centred_fidelity(basis) if policy.measure == "centred" else sums.fidelity
            verdict = rule.judge(before.standing, policy, fidelity=fidelity, rank=rank, max_rank=max_rank, held=held is not None)
            new = directions
            if verdict.action == "reset":
                assert held is not None  # the rule resets only where they are held
                goal = min(rank + policy.growth, max_rank) if given is not None else None
                verdict, new, residual = self._reset(before, verdict.standing, sums, held, max_rank, goal)
                new = steady_signs(new, basis)
            elif verdict.action == "grow":
                new = self._filled(directions, min(rank + policy.growth, max_rank), before.window, residual)
            elif given is not None:
                if verdict.exhausted:
                    verdict = rule.saturate(verdict.standing, best=given, rank=rank, action="keep")
            elif shares is not None:
                verdict, new = self._settle(verdict, sums, directions, shares, max_rank)
        self._open(before, verdict.standing, new, residual)
        return self._closing_event(before, started, sums, verdict, held, shares, functional)

    def _reset(
        self, before: Snapshot, standing: Standing, sums: Sums, held: HeldWindow, max_rank: int, goal: int | None
    ) -> tuple[Verdict, Tensor, Tensor]:
        """The smallest SVD basis that reaches ε, else the one at `max_rank` (or the one of rank `goal`); with the directions after it."""
        directions, shares = held.singular
        if goal is not None:
            verdict = rule.after_reset(standing, self.policy, reached=True, best=1.0, rank=goal)
            return verdict, self._filled(directions, goal, before.window), self._next(directions, goal)
        reach = self._measured(shares, directions, sums)
        rank, best = self._needed(reach, self.policy.min_fidelity), float(reach[min(max_rank, len(reach)) - 1])
        reached = rank <= max_rank
        rank = min(rank, max_rank)
        verdict = rule.after_reset(standing, self.policy, reached=reached, best=best, rank=rank)
        return verdict, directions[:, :rank], self._next(directions, rank)

    def _settle(self, verdict: Verdict, sums: Sums, directions: Tensor, shares: Tensor, max_rank: int) -> tuple[Verdict, Tensor]:
        """What may still follow a "keep": saturation where even the new basis misses ε, or the release of directions not needed."""
        policy, rank = self.policy, directions.shape[1]
        reach = self._measured(shares, directions, sums)
        if verdict.exhausted and not rule.reaches(float(reach[-1]), policy):
            return rule.saturate(verdict.standing, best=float(reach[-1]), rank=rank, action="keep"), directions
        if not policy.release or verdict.standing.misses or verdict.standing.saturated:
            return verdict, directions
        needed = self._needed(reach, policy.min_fidelity + (1 - policy.min_fidelity) / 2)
        standing, smaller = rule.release(verdict.standing, policy, needed=needed, rank=rank, least=policy.rank_for(self.dim))
        cause = verdict.cause if smaller == rank else f"released {rank - smaller} directions not needed for {policy.patience} windows"
        return replace(verdict, standing=standing, cause=cause), directions[:, :smaller].contiguous()

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

    def _next(self, directions: Tensor, rank: int) -> Tensor:
        """The singular directions that growth would add to the first `rank`."""
        return directions[:, rank : rank + self.policy.growth]

    @staticmethod
    def _needed(reach: Tensor, fidelity: float) -> int:
        """The fewest directions that reach `fidelity`; one more than there are where none do."""
        return int((reach < fidelity - rule.ROUNDING).sum()) + 1

    def _filled(self, directions: Tensor, rank: int, window: int, candidates: Tensor | None = None) -> Tensor:
        """The first `rank` of `directions`, made up to that number by the leading ones of `candidates` and then random ones."""
        missing = rank - directions.shape[1]
        if missing <= 0:
            return directions[:, :rank].contiguous()
        generator = private_generator(self.policy.seed, self.name, window, "growth")
        extra = directions_outside(directions, directions[:, :0] if candidates is None else candidates, missing, generator)
        return torch.cat((directions, steady_signs(extra, None)), dim=1)

    def _open(self, before: Snapshot, standing: Standing, basis: Tensor, residual: Tensor) -> None:
        """Begin the next window with `basis`; its probe starts from the leading part of `residual` outside it."""
        policy, window = self.policy, before.window + 1
        width = min(policy.growth, policy.max_rank_for(self.dim) - basis.shape[1])
        probe = None
        if width > 0:
            generator = private_generator(policy.seed, self.name, window, "probe")
            probe = stirred_probe(basis, residual, width, generator)
        state = Snapshot(self.dim, policy, standing, window, basis, probe)
        self._state = replace(state, held=self._first_hold(state))

    def _first_hold(self, state: Snapshot) -> tuple[()] | None:
        hold = self.keep_windows or state.basis is None or state.standing.may_reset(state.policy)
        return () if hold else None

    # Reporting

    def _closing_event(
        self,
        before: Snapshot,
        started: float,
        sums: Sums,
        verdict: Verdict,
        held: HeldWindow | None,
        shares: Tensor | None,
        functional: float | None,
    ) -> TrackerEvent:
        new, total = self._state.basis, sums.values[1]
        assert new is not None
        if total <= 0:
            held, after, spectrum = None, (lambda: 1.0), None
        elif held is not None:
            after, spectrum = partial(held.fidelity, new), partial(_spectrum_of, held)
        else:
            assert before.sketch is not None and shares is not None
            after, spectrum = partial(shares_lower_bound, before.sketch, _test_columns(before), new, total), partial(torch.clone, shares)
        return self._event(
            before,
            started,
            closes=True,
            sums=sums,
            news=verdict.cause,
            action=verdict.action,
            new_basis=new,
            after=after,
            window_spectrum=spectrum,
            held=held,
            functional=functional,
        )

    def _event(self, before: Snapshot, started: float, *, closes: bool, sums: Sums, **more: object) -> TrackerEvent:
        now = self._state
        return TrackerEvent(
            site=self.name,
            window=before.window,
            closes=closes,
            rank=now.rank,
            previous_rank=before.rank,
            state=now.state,
            misses=now.standing.misses,
            basis=before.basis,
            sums=sums,
            seconds=perf_counter() - started,
            **{"action": "keep", **more},  # type: ignore[arg-type]
        )

    def _started(self) -> Tensor:
        if self._state.basis is None:
            raise LaserStudioError("the tracker has no basis before its first window has closed: observe, then refresh")
        return self._state.basis


_NOTHING = Sums(torch.zeros(3), torch.zeros(1))


@contextmanager
def _exact(device: torch.device | None) -> Iterator[None]:
    """Plain fp32 tensors, whatever mode the caller is in: no gradient, no autocast, and usable after inference_mode."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type if device else "cpu", enabled=False):
        yield


def _energy(x: Tensor) -> Tensor:
    return x.square().sum()  # pairwise summation: `dot` and `norm` are off by 1e-5 here, enough to miss ε = 1


def _add(finite: Tensor, old: Tensor | None, new: Tensor) -> Tensor:
    """old + new where `finite`, else old; a missing old is zero."""
    return torch.where(finite, new, 0.0) if old is None else torch.where(finite, old + new, old)


def _test_columns(state: Snapshot) -> Tensor:
    assert state.basis is not None
    return state.basis if state.probe is None else torch.cat((state.basis, state.probe), dim=1)


def _spectrum_of(held: HeldWindow) -> Tensor:
    return held.singular[1]
