"""`Frame`: the one immutable record of a recursion step that screen, recording, report and link all read.

Everything in it is plain Python, so a frame can be compared, kept and sent; wall times do not take part in comparison,
because they are the only thing two runs of the same computation may differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from laser_studio.laser.ledger import LedgerLine

EventKind = Literal[
    "started", "turned", "miss", "grew", "reset", "saturated", "policy", "changed", "solved", "unsolved", "halt", "not finite", "budget"
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth stopping for. `before` and `after` are fidelities of the site's window where they apply."""

    step: int
    kind: EventKind
    text: str
    site: str | None = None
    before: float | None = None
    after: float | None = None
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SiteFrame:
    """One site at one recursion step.

    fidelity: share of the energy of this step's input that the stored coefficients keep (1.0 where it is kept exact);
    window_fidelity: the same over the window that this step closed, which the rule judged (None between refreshes);
    rank: of the basis after this step, 0 before the first one; angles: principal angles in degrees between the basis
    before and after, largest first, only where this step refreshed or turned it; retained: the share of energy that all stored
    activations of the site still keep, after their coefficients were carried over to newer bases; carried: how many stored
    steps were.

    centred: `fidelity` with the mean row removed. Only when asked (`Measures`): functional, exp(−KL) of the output had this site
    alone read its compressed activations over the H cycle that ends here, and flips, the open cells whose answer changes then;
    gradient: cosine of the site's exact weight gradient and the one from Z over that cycle; best: energy share of the closed
    window's best basis of the rank in force; best_angles: degrees between the new basis and that window's best of its rank.
    """

    fidelity: float
    centred: float
    window_fidelity: float | None
    rank: int
    dim: int
    action: Literal["keep", "grow", "reset"]
    cause: str
    state: str
    misses: int
    angles: tuple[float, ...] | None
    history: LedgerLine
    training: LedgerLine
    retained: float
    versions: int
    break_even: int | None
    carried: int = 0
    functional: float | None = None
    flips: int | None = None
    gradient: float | None = None
    best: float | None = None
    best_angles: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The state of a run after recursion step `index`; index 0 is the state before any recursion.

    Address (s, h, l) counts from 1, l is "H" for the z_H update; (0, 0, 0) for index 0. answer: cell values decoded from
    the logits of z_H; confidence: probability of each under the model's own stablemax, in [0, 1]; changed: indices of
    cells that differ from the frame before; wrong: indices of wrong cells, None where that cannot be known; q_halt: the
    logit; residual: ‖z_t − z_{t−1}‖ of the state this step updated (Frobenius norm). history: bytes time travel really
    keeps; training: bytes of the tracked linear inputs one training step would keep with these bases; training_all: the
    same over everything autograd saves; break_even: first step with a net saving; resets: since step 0.

    latent: where z_H and z_L lie, (x, y) each: their mean over the cells, in the plane of the output head's two leading right
    singular vectors, which the weights fix; step_full, step_stored: bytes of this step's activations at full width and as
    stored; batch: puzzles run together, of which the one shown is the first; batch_solved: how many are solved; batch_right:
    share of right cells over all. functional, kl (nats per open cell), flips, gradient: as in `SiteFrame`, with every site
    compressed at once. allocated, peak: bytes of the CUDA allocator, None elsewhere; not compared.
    """

    index: int
    s: int
    h: int
    l: int | Literal["H"]  # noqa: E741 - the name of the L cycle in the paper
    answer: tuple[int, ...]
    confidence: tuple[float, ...]
    changed: tuple[int, ...]
    wrong: tuple[int, ...] | None
    right: int
    total: int
    solved: bool | None
    q_halt: float
    halt_probability: float
    residual: float
    sites: Mapping[str, SiteFrame]
    history: LedgerLine
    training: LedgerLine
    training_all: LedgerLine
    break_even: int | None
    resets: int
    events: tuple[Event, ...]
    ends_supervision: bool = False
    finite: bool = True
    latent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    step_full: int = 0
    step_stored: int = 0
    batch: int = 1
    batch_solved: int = 0
    batch_right: float = 0.0
    functional: float | None = None
    kl: float | None = None
    flips: int | None = None
    gradient: float | None = None
    allocated: int | None = field(default=None, compare=False)
    peak: int | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)
    tracker_seconds: float = field(default=0.0, compare=False)

    @property
    def mean_fidelity(self) -> float | None:
        """Mean of the sites' fidelities at this step; None at step 0."""
        return sum(site.fidelity for site in self.sites.values()) / len(self.sites) if self.sites else None

    def to_json(self) -> dict[str, Any]:
        """The frame as JSON-ready values; savings and the mean fidelity are included."""

        def ledger(line: LedgerLine) -> dict[str, Any]:
            return {"full": line.full_bytes, "stored": line.stored_bytes, "basis": line.basis_bytes, "saving": line.saving}

        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "mean_fidelity": self.mean_fidelity,
            "history": ledger(self.history),
            "training": ledger(self.training),
            "training_all": ledger(self.training_all),
            "events": [asdict(event) for event in self.events],
            "sites": {
                name: {**asdict(site), "history": ledger(site.history), "training": ledger(site.training)}
                for name, site in self.sites.items()
            },
        }

    def to_row(self) -> dict[str, Any]:
        """What curves and the timeline need of this frame, for pages that skipped it."""
        return {
            "index": self.index,
            "changed": len(self.changed),
            "q_halt": self.q_halt,
            "halt_probability": self.halt_probability,
            "residual": self.residual,
            "saving": self.history.saving,
            "kept": self.history.stored_bytes + self.history.basis_bytes,
            "full": self.history.full_bytes,
            "latent": self.latent,
            "functional": self.functional,
            "kl": self.kl,
            "flips": self.flips,
            "gradient": self.gradient,
            "batch_solved": self.batch_solved,
            "batch_right": self.batch_right,
            "right": self.right,
            "events": [asdict(event) for event in self.events],
            "sites": {
                name: [
                    site.fidelity,
                    site.rank,
                    site.action,
                    site.angles[0] if site.angles else None,
                    site.centred,
                    site.functional,
                    site.best,
                ]
                for name, site in self.sites.items()
            },
        }


_PLAIN = (
    "index", "s", "h", "l", "answer", "confidence", "changed", "wrong", "right", "total", "solved", "q_halt", "halt_probability",
    "residual", "break_even", "resets", "ends_supervision", "finite", "latent", "step_full", "step_stored", "batch", "batch_solved",
    "batch_right", "functional", "kl", "flips", "gradient", "allocated", "peak", "seconds", "tracker_seconds",
)  # fmt: skip
