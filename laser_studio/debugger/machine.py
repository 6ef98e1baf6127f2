"""One live run: the model's recursion, the tracker beside it and the history behind it, advanced one net application at a time.

`Machine` only goes forward and holds all mutable state of a run; `Session` adds the cursor, going back and policies over
time. Two machines built alike and advanced alike yield equal frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from laser_studio.debugger.frames import Event, EventKind, Frame, SiteFrame
from laser_studio.debugger.history import History
from laser_studio.debugger.replica import share_weights
from laser_studio.errors import PuzzleError
from laser_studio.laser import LaserPolicy, SiteTap, TrackerEvent, find_sites
from laser_studio.laser.ledger import EMPTY, LedgerLine, SavedBytes, saved_for_backward
from laser_studio.puzzles import Puzzle, get_domain
from laser_studio.trm import TRM, RecursionStep
from laser_studio.trm.stablemax import log_stablemax

DEFAULT_TRAINING_BATCH = 64  # puzzles; for checkpoints that do not say what they were trained with


class Machine:
    """A run of `model` on `puzzle`; `advance` gives the next frame. The model's own modules are not touched."""

    def __init__(self, model: TRM, puzzle: Puzzle, policy: LaserPolicy, *, history_bytes: int, training: SavedBytes | None = None) -> None:
        self.puzzle, self.domain = puzzle, get_domain(puzzle.domain)
        self.model = share_weights(model).eval()
        self.batch = _batch(self.model, puzzle)
        self.tap = SiteTap(self.model.net, policy)
        self.tap.attach()
        self.policy = policy
        self.history = History(history_bytes)
        self.sites = {name: module.in_features for name, module in find_sites(self.model.net).items()}
        self.training_batch = int(getattr(model, "details", {}).get("batch_size", DEFAULT_TRAINING_BATCH))
        self.saved = training if training is not None else self._measure_saved()
        self._carry = self.model.initial_carry(self.batch)
        self._steps: Iterator[RecursionStep] = iter(())
        self._z = {"H": self._carry.z_H, "L": self._carry.z_L}
        self._rows = self._carry.z_H.shape[0] * self._carry.z_H.shape[1]
        self._resets = 0
        self._break_even: int | None = None
        self._site_break_even: dict[str, int] = {}
        with torch.no_grad():
            answer, confidence, q_halt = self._read_out(self._carry.z_H)
        self.frame = self._judged(0, (0, 0, 0), answer, confidence, (), q_halt, 0.0, {}, ())

    def set_policy(self, policy: LaserPolicy) -> None:
        """The tracker's settings from the next step on."""
        self.policy = policy
        self.tap.set_policy(policy)

    def close(self) -> None:
        """Remove all hooks and drop what is held."""
        self.tap.detach()
        self._steps = iter(())
        self.history = History(self.history.budget_bytes)

    @torch.no_grad()
    def advance(self) -> Frame:
        """One net application; returns its frame, which becomes `self.frame`."""
        started = time.perf_counter()
        step = self._next_step()
        observed = self.tap.take()
        due = (step.ends_cycle and self.policy.refresh == "cycle") or (step.carry is not None and self.policy.refresh == "supervision")
        closed = self.tap.refresh() if due else {name: event for name, event in observed.items() if event.closes}
        index, previous = self.frame.index + 1, self.frame
        events: list[Event] = []
        sites = {name: self._site_frame(index, name, event, closed.get(name), events) for name, event in observed.items()}
        if note := self.history.hold_budget():
            events.append(Event(index, "budget", f"history full: {note}"))
        if step.ends_cycle:
            answer, confidence, q_halt = self._read_out(step.z_H)
        else:  # z_H rests during the L cycles, so what is read from it does as well
            answer, confidence, q_halt = previous.answer, previous.confidence, previous.q_halt
        changed = tuple(i for i, (new, old) in enumerate(zip(answer, previous.answer, strict=True)) if new != old)
        kind = "H" if step.ends_cycle else "L"
        state = step.z_H if step.ends_cycle else step.z_L
        residual = float((state - self._z[kind]).float().norm())
        self._z[kind] = state
        tracker = sum(event.seconds for event in (*observed.values(), *(closed.values() if due else ())))
        self.frame = self._judged(
            index, (step.s, step.h, step.l), answer, confidence, changed, q_halt, residual, sites, tuple(events),
            ends_supervision=step.carry is not None, finite=bool(torch.isfinite(state).all()), tracker_seconds=tracker, started=started,
        )  # fmt: skip
        return self.frame

    def _next_step(self) -> RecursionStep:
        step = next(self._steps, None)
        if step is None:
            self._steps = self.model.recurse(self._carry, self.batch)
            step = next(self._steps)
        if step.carry is not None:
            # Past the trained depth the run goes on from its states; only a fresh session restarts them.
            self._carry = step.carry.going_on()
        return step

    def _read_out(self, z_H: torch.Tensor) -> tuple[tuple[int, ...], tuple[float, ...], float]:
        outputs = self.model.read_out(z_H)
        confidence, ids = log_stablemax(outputs.logits[0]).exp().max(-1)
        answer = self.domain.decode(ids.cpu().numpy(), shape=(self.puzzle.height, self.puzzle.width))
        return answer, tuple(confidence.tolist()), float(outputs.q_halt_logits[0])

    def _site_frame(self, index: int, name: str, event: TrackerEvent, closing: TrackerEvent | None, events: list[Event]) -> SiteFrame:
        dim = self.sites[name]
        site = self.history.site(name, dim, self.policy.for_site(name).min_fidelity)
        if event.coefficients is not None and event.basis is not None:
            site.add(index, event.coefficients, event.basis, event.energy)
        elif event.kept_exact is not None:
            site.add_exact(index, event.kept_exact)
        last = closing or event
        if closing is not None:
            if closing.new_basis is not None:
                site.rebase(closing.new_basis)
            if (what := _kind(closing)) is not None:
                seconds = closing.seconds if what in ("reset", "started") else None
                events.append(Event(index, what, closing.cause, name, closing.fidelity, closing.fidelity_after, seconds))
            self._resets += closing.action == "reset"
        ledger = site.ledger
        if ledger.saving > 0:
            self._site_break_even.setdefault(name, index)
        return SiteFrame(
            fidelity=event.fidelity,
            window_fidelity=closing.fidelity if closing is not None else None,
            rank=last.rank,
            dim=dim,
            action=last.action,
            cause=last.cause,
            state=last.state,
            misses=last.misses,
            angles=tuple(closing.angles) if closing is not None and closing.angles is not None else None,
            history=ledger,
            training=self._training_line(dim, last.rank),
            retained=site.retained,
            versions=site.versions,
            break_even=self._site_break_even.get(name),
        )

    def _training_line(self, dim: int, rank: int) -> LedgerLine:
        """One site's linear inputs in one training step: the last H cycle's applications at the training batch."""
        rows = self._rows * self.training_batch * (self.model.config.L_cycles + 1)
        size = self.model.forward_dtype.itemsize
        width = rank or dim  # before the first basis everything is kept in full
        return LedgerLine(rows * dim * size, rows * width * size, dim * rank * 4)

    def _training_all(self, sites: dict[str, SiteFrame]) -> LedgerLine:
        """All bytes one training step saves for backward, with Z in place of the linear inputs that would really be freed."""
        times = self.training_batch * (self.model.config.L_cycles + 1)
        full = self.saved.total * times
        freed = sum(self.saved.by_site[name] * times for name, site in sites.items() if site.rank)
        added = sum(site.training.stored_bytes for site in sites.values() if site.rank)
        return LedgerLine(full, full - freed + added, sum(site.training.basis_bytes for site in sites.values()))

    def _measure_saved(self) -> SavedBytes:
        """What autograd keeps of one net application on one puzzle, measured on the model itself."""
        carry = self.model.initial_carry(self.batch)
        shape = carry.z_H.shape
        states = [torch.zeros(shape, dtype=carry.z_H.dtype, device=carry.z_H.device) for _ in range(2)]
        self.tap.detach()  # a measurement is no recursion step
        weights = [p for p in self.model.parameters() if p.requires_grad]
        try:
            for state in states:
                state.requires_grad_()
            rope = self.model.rope(shape[1], carry.z_H.device)
            return saved_for_backward(
                lambda: self.model.net(states[0], states[1], rope),
                find_sites(self.model.net),
                (*weights, *self.model.buffers(), *(rope or ())),
            )
        finally:
            self.tap.attach()

    def _judged(
        self, index: int, address: tuple, answer: tuple[int, ...], confidence: tuple[float, ...], changed: tuple[int, ...],
        q_halt: float, residual: float, sites: dict[str, SiteFrame], events: tuple[Event, ...], *,
        ends_supervision: bool = False, finite: bool = True, tracker_seconds: float = 0.0, started: float | None = None,
    ) -> Frame:  # fmt: skip
        """The frame with everything that follows from its parts: comparison, ledgers, counts."""
        verdict = self.domain.compare(self.puzzle, answer)
        before: Frame | None = getattr(self, "frame", None)
        more: list[Event] = []
        if changed:
            more.append(Event(index, "changed", f"{len(changed)} cell{'s' * (len(changed) > 1)} changed"))
        if before is not None and bool(verdict.solved) != bool(before.solved):
            more.append(Event(index, "solved", "puzzle solved") if verdict.solved else Event(index, "unsolved", "solution lost"))
        if before is not None and q_halt > 0 >= before.q_halt:
            more.append(Event(index, "halt", f"the model would stop: q_halt {q_halt:.2f}"))
        if not finite:
            more.append(Event(index, "not finite", f"activations are not finite at step {index}: the run ends here"))
        history = self.history.ledger
        if history.saving > 0 and self._break_even is None:
            self._break_even = index
        return Frame(
            index=index,
            s=address[0],
            h=address[1],
            l=address[2],
            answer=answer,
            confidence=confidence,
            changed=changed,
            wrong=tuple(i for i, is_wrong in enumerate(verdict.wrong) if is_wrong),
            right=verdict.right,
            total=verdict.total,
            solved=verdict.solved,
            q_halt=q_halt,
            halt_probability=float(torch.tensor(q_halt).sigmoid()),
            residual=residual,
            sites=sites,
            history=history,
            training=sum((site.training for site in sites.values()), EMPTY),
            training_all=self._training_all(sites),
            break_even=self._break_even,
            resets=self._resets,
            events=(*events, *more),
            ends_supervision=ends_supervision,
            finite=finite,
            seconds=time.perf_counter() - started if started is not None else 0.0,
            tracker_seconds=tracker_seconds,
        )


def _kind(closing: TrackerEvent) -> EventKind | None:
    """What a closed window is reported as; None where nothing happened."""
    if closing.action == "reset":
        return "reset"
    if closing.action == "grow":
        return "policy" if closing.cause.startswith("rank set") else "grew"
    if closing.cause.startswith("basis started"):
        return "started"
    if closing.cause.startswith("saturated"):
        return "saturated"
    if closing.cause.startswith("rank set"):
        return "policy"
    return "miss" if closing.misses else None


def _batch(model: TRM, puzzle: Puzzle) -> dict[str, torch.Tensor]:
    """The puzzle as a batch of one on the model's device; raises `PuzzleError` where it does not fit the model."""
    ids = get_domain(puzzle.domain).encode(puzzle)
    config, shape = model.config, f"{puzzle.height}×{puzzle.width}"
    if config.seq_len is not None and len(ids) != config.seq_len:
        raise PuzzleError(f"a {shape} {puzzle.domain} has {len(ids)} cells, this model takes {config.seq_len}: choose a puzzle of its size")
    if ids.min() < 0 or ids.max() >= config.vocab_size:
        raise PuzzleError(f"a {shape} {puzzle.domain} needs token {int(ids.max())}, this model knows 0 to {config.vocab_size - 1}")
    device = model.H_init.device
    inputs = torch.as_tensor(ids, dtype=torch.long, device=device)[None]
    return {"inputs": inputs, "puzzle_identifiers": torch.zeros(1, dtype=torch.long, device=device)}
