"""Evaluate a model on held-out puzzles of each difficulty, and again with compressed activations: the figures of a `Report`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from laser_studio.device import device_in_words
from laser_studio.errors import ReportError
from laser_studio.lab.report import Arm, Bin, Failure, Group, Halting, Report
from laser_studio.laser import LaserPolicy
from laser_studio.laser.reconstruct import ReconstructedSites
from laser_studio.puzzles import DIFFICULTIES, Difficulty, Puzzle, domain_names, get_domain
from laser_studio.puzzles.generated import MAX_SEED, generated_id
from laser_studio.trm import TRM

BINS = 10
BATCH = 50
RANKS = ("75%", "50%", "25%")


@dataclass(frozen=True)
class _Answers:
    """Of one batch, per supervision step: exact (S, B) bool, cell (S, B) share of right cells, halt (S, B) sigmoid(q_halt).

    last: (B, T) tokens of the last answer.
    """

    exact: Tensor
    cell: Tensor
    halt: Tensor
    last: Tensor


@dataclass
class _Tally:
    """One arm's sums over the batches of one difficulty."""

    answers: list[_Answers] = field(default_factory=list)
    changed: int = 0

    def joined(self, name: str) -> Tensor:
        """One figure of all batches, (S, N)."""
        return torch.cat([getattr(answers, name) for answers in self.answers], dim=1)


def examine(
    model: TRM,
    domain: str,
    size: int,
    *,
    each: int = 100,
    ranks: Sequence[str] = RANKS,
    difficulties: Sequence[Difficulty] = DIFFICULTIES,
    first_seed: int = 1,
    command: str = "",
    on_progress: Callable[[int, int], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Report | None:
    """Run `each` held-out puzzles of every difficulty to the trained depth: with exact activations, then with each of `ranks`.

    domain, size: the kind of puzzle and its side, such as "sudoku", 6. ranks: as in `LaserPolicy`; a basis starts from each batch's
    first H cycle, which is read exactly, and is refreshed after each further one at this rank. on_progress: told runs done and runs
    in all, a run being one puzzle in one arm. Returns None where `should_stop` ended it. Raises `ReportError` or `PolicyError`.
    """
    if domain not in domain_names() or not get_domain(domain).generated_sizes:
        raise ReportError(f"no report can be made of {domain} tasks: measure the model with `python -m laser_studio evaluate CHECKPOINT`")
    if each < 1 or first_seed < 0 or first_seed + each - 1 > MAX_SEED:
        raise ReportError(f"puzzles of each difficulty: 1 or more, seeds from 0 to {MAX_SEED:,}")
    if len(set(ranks)) != len(ranks):
        raise ReportError("each rank once")
    # No fidelity is a miss: a reset at the same rank would be an SVD of a whole batch's window, and gain next to nothing.
    policies = [LaserPolicy(rank=rank, max_rank=rank, min_fidelity=0) for rank in ranks]
    groups = [Group(difficulty, each, first_seed) for difficulty in difficulties]
    tallies = [[_Tally() for _ in groups] for _ in range(1 + len(ranks))]
    energies: list[list[float]] = [[] for _ in tallies]
    failures: list[Failure] = []
    done, total = 0, each * len(groups) * (1 + len(ranks))
    was_training = model.training
    model.eval()
    try:
        for place, group in enumerate(groups):
            for ids, puzzles in _batches(domain, size, group):
                inputs, labels = _tokens(domain, puzzles)
                exact: _Answers | None = None
                for arm, policy in enumerate((None, *policies)):
                    if should_stop is not None and should_stop():
                        return None
                    answers = _answer(model, inputs, labels, policy, energies[arm])
                    tally = tallies[arm][place]
                    tally.answers.append(answers)
                    if exact is None:
                        exact = answers
                        failures += _failures(ids, group, answers, labels)
                    else:
                        tally.changed += int((answers.last != exact.last).any(-1).sum())
                    done += len(ids)
                    if on_progress is not None:
                        on_progress(done, total)
    finally:
        model.train(was_training)
    plain = tallies[0]
    return Report(
        task=f"{domain}-{size}x{size}",
        supervision_steps=model.config.halt_max_steps,
        groups=tuple(groups),
        arms=tuple(_arm(rank, tally, groups, energy) for rank, tally, energy in zip(("", *ranks), tallies, energies, strict=True)),
        halting=_halting(torch.cat([t.joined("halt") for t in plain], 1), torch.cat([t.joined("exact") for t in plain], 1)),
        solved_at=tuple(_solved_at(tally.joined("exact")) for tally in plain),
        failures=tuple(failures),
        measured=datetime.date.today().isoformat(),
        device=device_in_words(model.H_init.device),
        command=command,
    )


def _batches(domain: str, size: int, group: Group) -> Iterator[tuple[list[str], list[Puzzle]]]:
    kind = get_domain(domain)
    for start in range(0, group.puzzles, BATCH):
        seeds = range(group.first_seed + start, group.first_seed + min(start + BATCH, group.puzzles))
        ids = [generated_id(group.difficulty, seed) for seed in seeds]
        yield ids, [kind.generate(seed, size=size, difficulty=group.difficulty, split="held-out") for seed in seeds]


def _tokens(domain: str, puzzles: Sequence[Puzzle]) -> tuple[Tensor, Tensor]:  # (B, T) twice
    kind = get_domain(domain)
    solutions = [kind.encode_solution(puzzle) for puzzle in puzzles]
    return (
        torch.stack([torch.from_numpy(kind.encode(puzzle)) for puzzle in puzzles]),
        torch.stack([torch.from_numpy(solution) for solution in solutions if solution is not None]),
    )


@torch.no_grad()
def _answer(model: TRM, inputs: Tensor, labels: Tensor, policy: LaserPolicy | None, energies: list[float]) -> _Answers:
    """All supervision steps of one batch; with a policy on reconstructed activations, refreshed after every H cycle."""
    device = model.H_init.device
    batch = {"inputs": inputs.to(device), "puzzle_identifiers": torch.zeros(len(inputs), dtype=torch.long, device=device)}
    carry = model.initial_carry(batch)
    exact, cell, halt = [], [], []
    last = inputs
    windows = 0
    with nullcontext() if policy is None else ReconstructedSites(model.net, policy) as sites:
        for _ in range(model.config.halt_max_steps):
            for step in model.recurse(carry, batch):
                if sites is not None and step.ends_cycle:
                    events = sites.refresh()
                    windows += 1
                    if windows > 1:
                        energies.append(fmean(event.fidelity for event in events.values()))
            assert step.carry is not None and step.outputs is not None
            carry = step.carry
            last = step.outputs.logits.argmax(-1).cpu()
            right = last == labels
            exact.append(right.all(-1))
            cell.append(right.double().mean(-1))
            halt.append(step.outputs.q_halt_logits.double().sigmoid().cpu())
    return _Answers(torch.stack(exact), torch.stack(cell), torch.stack(halt), last)


def _failures(ids: Sequence[str], group: Group, answers: _Answers, labels: Tensor) -> list[Failure]:
    wrong = (answers.last != labels).sum(-1).tolist()
    return [
        Failure(name, group.difficulty, wrong[place], round(float(answers.halt[-1, place]), 4), bool(answers.exact[:, place].any()))
        for place, name in enumerate(ids)
        if not answers.exact[-1, place]
    ]


def _arm(rank: str, tallies: Sequence[_Tally], groups: Sequence[Group], energies: Sequence[float]) -> Arm:
    def curves(name: str) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(round(share, 6) for share in tally.joined(name).double().mean(1).tolist()) for tally in tallies)

    changed = tuple(tally.changed / group.puzzles for tally, group in zip(tallies, groups, strict=True))
    return Arm(rank, curves("exact"), curves("cell"), changed, round(fmean(energies), 6) if energies else None)


def _halting(halt: Tensor, exact: Tensor) -> Halting:  # (S, N) twice
    """Calibration over all answers, and what stopping at the first q_halt > 0 would give."""
    flat, right = halt.flatten(), exact.flatten()
    place = (flat * BINS).long().clamp(max=BINS - 1)
    bins = []
    for index in range(BINS):
        inside = place == index
        count = int(inside.sum())
        predicted, share = (float(figure[inside].double().mean()) if count else 0.0 for figure in (flat, right))
        bins.append(Bin(index / BINS, (index + 1) / BINS, count, round(predicted, 6), round(share, 6)))
    error = sum(one.count * abs(one.predicted - one.right) for one in bins) / max(1, len(flat))
    stops = halt > 0.5
    stops[-1] = True
    first = stops.int().argmax(0)  # (N,)
    return Halting(tuple(bins), round(error, 6), float((first + 1).double().mean()), float(exact.gather(0, first[None]).double().mean()))


def _solved_at(exact: Tensor) -> tuple[int, ...]:  # (S, N)
    """Puzzles by the first supervision step from which the answer stays right; those that end wrong last."""
    steps = len(exact)
    stays = exact.flip(0).int().cumprod(0).sum(0)  # (N,): right answers in a row at the end
    return (*(int((stays == steps - step).sum()) for step in range(steps)), int((stays == 0).sum()))
