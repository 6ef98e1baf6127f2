"""Finding by gradients what a budget asks for: makes other compressions of the same model and tries them. The search is in `budget`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from laser_studio.errors import CompressionError
from laser_studio.laser.budget import MADE_AGAIN, Budget, Choice, Option, Run, choose, cosine_of
from laser_studio.laser.policy import ALL_OFF, LaserPolicy

if TYPE_CHECKING:
    from laser_studio.laser.compress import Compression

RANKS = ("50%", "25%", "12.5%")  # that are tried
TRIED = (Option(None, "int8"), Option(None, "int4"), *(Option(rank, "int8") for rank in RANKS))  # at every place


class Chooser:
    """One choice: the runs it is made on, and how another compression of the model is made.

    runs, checked: as in `Compression.choose`; another: a compression of the same model and mode under a policy and a budget. Raises
    `CompressionError` for too few runs.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: LaserPolicy,
        budget: Budget,
        another: Callable[[LaserPolicy, Budget | None], Compression],
        runs: Sequence[Run],
        checked: int | None,
    ) -> None:
        checked = max(1, len(runs) // 2) if checked is None else checked
        if checked < 1 or len(runs) <= checked:
            raise CompressionError(f"{checked} runs to measure on take at least one more to make the bases of: {len(runs)} are given")
        self.budget = budget
        self._model, self._policy, self._another = model, policy, another
        self._settling, self._checked = runs[:-checked], runs[-checked:]

    def choose(self, rounds: int) -> tuple[Choice, dict[str, Any]]:
        """What was chosen, and the state of a compression with it and with the bases it was measured with."""
        with _kept_gradients(self._model):
            settled = {rank: self._settled(rank, rounds) for rank in RANKS}

            def measure(run: int, options: Mapping[str, Option]) -> tuple[Tensor, int]:
                one = self._another(self._policy, self.budget)
                one.load_state_dict(_composed(options, settled))
                return self._gradient(one, self._checked[run]), one.ledger().total.all_saved_bytes

            exact = self._another(self._policy, self.budget)
            self._gradient(exact, self._checked[0])
            full = exact.ledger().total.all_full_bytes
            inner = exact.inner_places
            tried = {place: (*TRIED, MADE_AGAIN) if place in inner else TRIED for place in settled[RANKS[0]]["sites"]}
            choice = choose(self.budget, tried, measure, full=full, runs=len(self._checked), together=exact.shared_places)
        return choice, _composed(choice.options, settled)

    def cosine(self, state: Mapping[str, Any]) -> float:
        """Of the gradient of a compression in this state with that of nothing projected, mean over the runs to measure on."""
        with _kept_gradients(self._model):
            now, exact = self._another(self._policy, self.budget), self._another(self._policy, self.budget)
            now.load_state_dict(state)
            return fmean(cosine_of(self._gradient(now, run), self._gradient(exact, run)) for run in self._checked)

    def _settled(self, rank: str, rounds: int) -> dict[str, Any]:
        """The state after optimiser steps with every site at this rank."""
        one = self._another(replace(self._policy, rank=rank, max_rank=rank, min_fidelity=0, sites={}), None)
        for run in [*self._settling] * rounds:
            self._gradient(one, run)
            one.step()
        return one.state_dict()

    def _gradient(self, laser: Compression, run: Run) -> Tensor:
        """Of all parameters as one fp32 vector, zeros where there is none."""
        self._model.zero_grad(set_to_none=True)
        with laser:
            run()
        parameters = list(self._model.parameters())
        return torch.cat([(p.new_zeros(p.shape) if p.grad is None else p.grad).detach().float().flatten() for p in parameters])


def as_policy(base: LaserPolicy, options: Mapping[str, Option]) -> LaserPolicy:
    """The rule that holds what was chosen: nothing is projected but at places with a rank, which stays."""
    ranks = {place: {"enabled": True, "rank": one.rank, "max_rank": one.rank} for place, one in options.items() if one.rank is not None}
    return replace(base, min_fidelity=0, max_rank=None, sites={**ALL_OFF, **ranks})


def _composed(options: Mapping[str, Option], settled: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One state of those settled at different ranks: each place's from the one of its rank."""
    any_rank = next(iter(settled.values()))
    sites = {place: settled[option.rank]["sites"][place] for place, option in options.items() if option.rank is not None}
    return {**any_rank, "sites": sites, "chosen": {place: [option.rank, option.storage] for place, option in options.items()}}


@contextmanager
def _kept_gradients(model: nn.Module) -> Iterator[None]:
    before = [(p, p.grad) for p in model.parameters()]
    try:
        yield
    finally:
        for p, gradient in before:
            p.grad = gradient
