"""Two sessions at one step, side by side: answers, distributions, subspaces, halting, and where they first part.

Everything is computed from recorded frames and exact states (`Session.state`), so neither session is moved. They may be branches,
other models of the same task, other puzzles of the same shape, or other policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from laser_studio.debugger.frames import Frame
from laser_studio.debugger.session import Session
from laser_studio.errors import ComparisonError
from laser_studio.laser.linalg import principal_angles
from laser_studio.puzzles import get_domain
from laser_studio.trm.stablemax import log_stablemax


@dataclass(frozen=True, slots=True)
class Angles:
    """Principal angles between the spans of two bases, in degrees: the largest of the min(k, k′) and their mean."""

    largest: float
    mean: float


@dataclass(frozen=True, slots=True)
class SiteComparison:
    """One site of both runs. fidelity: of this step's input in a and in b; difference: b − a; ranks in force after the step; angles:
    None where one of the two has no basis yet, or their widths differ. What a run lacks is None."""

    a: float | None
    b: float | None
    difference: float | None
    rank_a: int
    rank_b: int
    angles: Angles | None


@dataclass(frozen=True, slots=True)
class Halting:
    """The halting logit of both, and whether the model would stop there."""

    a: float
    b: float

    @property
    def stops(self) -> tuple[bool, bool]:
        return self.a > 0, self.b > 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs after step `index` each.

    cells: indices of those whose answers differ; kl: of b's output from a's, KL(a ‖ b) under the models' own stablemax, in nats per
    cell that neither puzzle fixes; None where the two vocabularies differ.
    """

    index: int
    cells: tuple[int, ...]
    sites: Mapping[str, SiteComparison]
    kl: float | None
    halting: Halting


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first steps at which two runs differ, None where they do not up to `checked`.

    model: in what the model computes: answer and confidence, halting, residual or the place of its states; answer: in the answer;
    tracker: in what the trackers tell.
    """

    model: int | None = None
    answer: int | None = None
    tracker: int | None = None
    checked: int = -1


class AngleMemo:
    """The angles found last at each site: bases turn once per window, so neighbouring steps mostly have the same. Holds those bases."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Tensor, Tensor, Angles]] = {}

    def angles(self, site: str, mine: Tensor, theirs: Tensor) -> Angles:
        """Between two bases (D, k) and (D, k′)."""
        known = self._found.get(site)
        if known is None or known[0] is not mine or known[1] is not theirs:
            found = principal_angles(mine, theirs)
            known = self._found[site] = mine, theirs, Angles(float(found.max()), float(found.mean()))
        return known[2]


def compare(a: Session, b: Session, index: int, *, memo: AngleMemo | None = None) -> Comparison:
    """Both runs after step `index`; `memo`: of the comparison before, where there are many.

    Raises `ComparisonError` where they cannot be compared, IndexError for a step one has not recorded.
    """
    check_comparable(a, b)
    one, other = a.state(index), b.state(index)
    bases = ({name: snapshot.basis for name, snapshot in state.trackers.items()} for state in (one, other))
    mine, theirs = bases
    memo = memo or AngleMemo()
    names = [*a.sites, *(name for name in b.sites if name not in a.sites)]
    return Comparison(
        index=index,
        cells=_differing(one.frame, other.frame),
        sites={name: _site(name, one.frame, other.frame, mine.get(name), theirs.get(name), memo) for name in names},
        kl=kl_of(a, b, one.z_H, other.z_H),
        halting=Halting(one.frame.q_halt, other.frame.q_halt),
    )


def output_kl(a: Session, b: Session, index: int) -> float | None:
    """`Comparison.kl` alone. The answer's state changes at the end of H cycles only (and where a state is set by hand)."""
    check_comparable(a, b)
    return kl_of(a, b, a.state(index).z_H, b.state(index).z_H)


def first_divergence(a: Session, b: Session, known: Divergence | None = None) -> Divergence:
    """Where two runs first differ, over the steps both have recorded. `known`: what was found before, to go on from there."""
    check_comparable(a, b)
    known = known or Divergence()
    model, answer, tracker = known.model, known.answer, known.tracker
    last = min(a.head, b.head)
    for index in range(known.checked + 1, last + 1):
        if model is not None and answer is not None and tracker is not None:
            break
        one, other = a.frames[index], b.frames[index]
        if one is other:
            continue
        if model is None and _computed(one) != _computed(other):
            model = index
        if answer is None and one.answer != other.answer:
            answer = index
        if tracker is None and one.sites != other.sites:
            tracker = index
    return Divergence(model, answer, tracker, last)


def check_comparable(a: Session, b: Session) -> None:
    """Raise `ComparisonError` where two runs cannot be laid beside each other."""
    if (a.puzzle.domain, a.puzzle.shape) != (b.puzzle.domain, b.puzzle.shape):
        sizes = [f"{session.puzzle.height}×{session.puzzle.width} {session.puzzle.domain}" for session in (a, b)]
        raise ComparisonError(f"a {sizes[0]} and a {sizes[1]} have no cells in common: compare runs of one task and size")


def _computed(frame: Frame) -> tuple[object, ...]:
    return frame.answer, frame.confidence, frame.q_halt, frame.residual, frame.latent, frame.finite


def _differing(one: Frame, other: Frame) -> tuple[int, ...]:
    return tuple(cell for cell, (a, b) in enumerate(zip(one.answer, other.answer, strict=True)) if a != b)


def _site(name: str, one: Frame, other: Frame, mine: Tensor | None, theirs: Tensor | None, memo: AngleMemo) -> SiteComparison:
    fidelities = [None if (site := frame.sites.get(name)) is None else site.fidelity for frame in (one, other)]
    a, b = fidelities
    angles = None
    if mine is not None and theirs is not None and len(mine) == len(theirs) and mine.shape[1] and theirs.shape[1]:
        angles = Angles(0.0, 0.0) if mine is theirs else memo.angles(name, mine, theirs)
    return SiteComparison(
        a=a,
        b=b,
        difference=None if a is None or b is None else b - a,
        rank_a=0 if mine is None else mine.shape[1],
        rank_b=0 if theirs is None else theirs.shape[1],
        angles=angles,
    )


@torch.no_grad()
def kl_of(a: Session, b: Session, mine: Tensor, theirs: Tensor) -> float | None:
    """`Comparison.kl` of a's state z_H (B, P + T, D) and b's."""
    if a.model.config.vocab_size != b.model.config.vocab_size:
        return None
    domain = get_domain(a.puzzle.domain)
    open_cells = [not one and not other for one, other in zip(domain.given(a.puzzle), domain.given(b.puzzle), strict=True)]
    if not any(open_cells):
        return 0.0
    if torch.equal(mine, theirs) and a.model is b.model:
        return 0.0
    log_p, log_q = (
        log_stablemax(session.model.read_out(z_H[:1]).logits[0].cpu())[torch.tensor(open_cells)]
        for session, z_H in ((a, mine), (b, theirs))
    )
    return max(0.0, float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))
