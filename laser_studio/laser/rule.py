"""The LASER rule as a pure state machine: what a window's fidelity does to a site. No tensors here; `tracker` carries it out.

A window with F ≥ ε keeps the rank. One below is a miss and grows it. `patience` misses in a row reset the basis, then
the site rests: no further reset for `patience` windows. A site whose ε is out of reach at the largest rank is
saturated: it goes on tracking, but neither grows nor resets until something changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from laser_studio.laser.policy import LaserPolicy

Action = Literal["keep", "grow", "reset"]
State = Literal["warming", "tracking", "resting", "saturated"]

ROUNDING = 1e-6  # of an fp32 fidelity: without it ε = 1 could never be met, not even by a complete basis
SATURATED_DRIFT = 0.02  # a saturated site wakes when its fidelity moves by more: its optimum has changed


@dataclass(frozen=True)
class Standing:
    """Where a site stands with the rule between two windows.

    misses: in a row; rest: windows left without a reset; saturated, and the fidelity it settled at (None until its first
    window); spare: windows in a row that needed fewer directions than there are, and the most that any of them needed.
    """

    misses: int = 0
    rest: int = 0
    saturated: bool = False
    settled_at: float | None = None
    spare: int = 0
    spare_need: int = 0

    @property
    def state(self) -> State:
        """The state as shown; "warming" is the tracker's to say."""
        return "saturated" if self.saturated else "resting" if self.rest else "tracking"

    def may_reset(self, policy: LaserPolicy) -> bool:
        """Whether a miss of the window now open would reset the basis, so that its activations must be held."""
        return not self.saturated and self.rest == 0 and self.misses + 1 >= policy.patience

    def refreshed(self) -> Standing:
        """The standing after a change of policy: saturation and rest end, what was counted against the old one is forgotten."""
        return Standing()


@dataclass(frozen=True)
class Verdict:
    """What to do at the end of a window; `exhausted`: ε was missed `patience` times, nothing can grow and nothing may reset."""

    action: Action
    cause: str
    standing: Standing
    exhausted: bool = False


def reaches(fidelity: float, policy: LaserPolicy) -> bool:
    """F ≥ ε, to fp32 rounding."""
    return fidelity >= policy.min_fidelity - ROUNDING


def falls(fidelity: float, reference: float, policy: LaserPolicy) -> bool:
    """Whether an observation keeps so much less than the last window did that waiting for the window's end would waste its other steps."""
    return fidelity < reference - policy.turn


def judge(standing: Standing, policy: LaserPolicy, *, fidelity: float, rank: int, max_rank: int, held: bool) -> Verdict:
    """The rule on one window: fidelity F ∈ [0, 1] as `policy.measure` has it, the rank in force, whether X is at hand for a reset."""
    resting = standing.rest > 0
    after = replace(standing, rest=standing.rest - 1) if resting else standing
    if reaches(fidelity, policy):
        if after.misses or after.saturated:
            after = replace(after, misses=0, saturated=False, settled_at=None)
        return Verdict("keep", "resting after a reset" if resting else "F ≥ ε", after)
    if after.saturated:
        if after.settled_at is None or abs(fidelity - after.settled_at) <= SATURATED_DRIFT:
            settled = fidelity if after.settled_at is None else after.settled_at
            return Verdict("keep", f"saturated: F {fidelity:.2f} at rank {rank}", replace(after, settled_at=settled))
        after = replace(after, saturated=False, settled_at=None, misses=0)
    after = replace(after, misses=after.misses + 1, spare=0, spare_need=0)
    count = f"miss {after.misses} of {policy.patience}" if after.misses <= policy.patience else f"miss {after.misses}"
    rest = ", resting after a reset" if resting else ""
    if after.misses >= policy.patience and not resting and held:
        return Verdict("reset", "", replace(after, misses=0))
    if rank < max_rank:
        return Verdict("grow", f"{count}: grew by {min(policy.growth, max_rank - rank)}{rest}", after)
    exhausted = resting and after.misses >= policy.patience
    return Verdict("keep", f"{count}: rank {rank} is the largest allowed{rest}", after, exhausted)


def after_reset(standing: Standing, policy: LaserPolicy, *, reached: bool, best: float, rank: int) -> Verdict:
    """The outcome of a reset: at rest where the new basis reaches ε, else saturated."""
    if not reached:
        return saturate(standing, best=best, rank=rank, action="reset")
    misses = "a miss" if policy.patience == 1 else f"{policy.patience} misses"
    return Verdict("reset", f"reset by SVD after {misses}", replace(standing, rest=policy.patience))


def saturate(standing: Standing, *, best: float, rank: int, action: Action) -> Verdict:
    """ε is out of reach at the largest rank; `best` is the fidelity within reach there."""
    cause = f"saturated: best F {best:.2f} at rank {rank}"
    return Verdict(action, cause, replace(standing, misses=0, rest=0, saturated=True, settled_at=None))


def release(standing: Standing, policy: LaserPolicy, *, needed: int, rank: int, least: int) -> tuple[Standing, int]:
    """Count windows that need fewer directions than `rank`; after `patience` of them the rank to shrink to (else `rank`)."""
    if not policy.release or max(needed, least) >= rank:
        return replace(standing, spare=0, spare_need=0), rank
    standing = replace(standing, spare=standing.spare + 1, spare_need=max(standing.spare_need, needed))
    if standing.spare < policy.patience:
        return standing, rank
    return replace(standing, spare=0, spare_need=0), max(standing.spare_need, least)
