"""`Kept`: what going back in time holds right now, and what the byte budget took; for the screen, links and scripts."""

from __future__ import annotations

from dataclasses import dataclass

from laser_studio.debugger.history import History


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes are those really held, each storage once; coefficients, bases and keyframes add up to `total`.

    activations_from: the first step whose activations can still be read; keyframes: the steps they stand at (the start needs none);
    thinned: keyframes that had to go so far; longest_replay: steps to compute again, at most, to restore any recorded step;
    said: what the budget took last, in one sentence, "" where it never took anything.
    """

    budget_bytes: int
    coefficient_bytes: int
    basis_bytes: int
    keyframe_bytes: int
    activations_from: int
    keyframes: tuple[int, ...]
    thinned: int
    longest_replay: int
    said: str

    @property
    def total(self) -> int:
        """All bytes held under the budget."""
        return self.coefficient_bytes + self.basis_bytes + self.keyframe_bytes


def kept_by(history: History, head: int) -> Kept:
    """What a history holds of a run whose newest step is `head`."""
    beside, ledger = history.keyframe_line, history.ledger
    return Kept(
        budget_bytes=history.budget_bytes,
        coefficient_bytes=ledger.stored_bytes - beside.stored_bytes,
        basis_bytes=ledger.basis_bytes - beside.basis_bytes,
        keyframe_bytes=beside.stored_bytes + beside.basis_bytes,
        activations_from=max(1, history.dropped_before),
        keyframes=tuple(step for step in history.keyframes.steps if step <= head),
        thinned=history.keyframes.thinned,
        longest_replay=history.keyframes.longest_replay(head),
        said=history.said,
    )
