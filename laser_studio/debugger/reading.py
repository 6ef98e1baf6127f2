"""What a state z_H says: the decoded answer, how sure it is, whether it is right, and whether the model would stop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Comparison, Puzzle, get_domain
from laser_studio.trm import TRM
from laser_studio.trm.stablemax import log_stablemax


@dataclass(frozen=True, slots=True)
class Reading:
    """answer: cell values; confidence: probability of each under stablemax; q_halt: the logit; verdict: how the answer compares."""

    answer: tuple[int, ...]
    confidence: tuple[float, ...]
    q_halt: float
    verdict: Comparison

    @property
    def wrong(self) -> tuple[int, ...]:
        """Indices of wrong cells."""
        return tuple(cell for cell, is_wrong in enumerate(self.verdict.wrong) if is_wrong)

    def changed_from(self, other: Reading) -> tuple[int, ...]:
        """Indices of cells whose value differs."""
        return tuple(cell for cell, (new, old) in enumerate(zip(self.answer, other.answer, strict=True)) if new != old)


class Reader:
    """Reads states of `model` as answers to `puzzle`; raises `PuzzleError` where the puzzle does not fit the model."""

    def __init__(self, model: TRM, puzzle: Puzzle) -> None:
        self.model, self.puzzle, self.domain = model, puzzle, get_domain(puzzle.domain)
        ids, config, shape = self.domain.encode(puzzle), model.config, f"{puzzle.height}×{puzzle.width}"
        if config.seq_len is not None and len(ids) != config.seq_len:
            raise PuzzleError(
                f"a {shape} {puzzle.domain} has {len(ids)} cells, this model takes {config.seq_len}: choose a puzzle of its size"
            )
        if self.domain.vocab_size(puzzle) > config.vocab_size:
            most = self.domain.vocab_size(puzzle) - 1
            raise PuzzleError(f"a {shape} {puzzle.domain} needs tokens up to {most}, this model knows 0 to {config.vocab_size - 1}")
        device = model.H_init.device
        inputs = torch.as_tensor(ids, dtype=torch.long, device=device)[None]
        self.batch = {"inputs": inputs, "puzzle_identifiers": torch.zeros(1, dtype=torch.long, device=device)}

    @torch.no_grad()
    def read(self, z_H: Tensor) -> Reading:
        """z_H (1, P + T, D) as an answer."""
        outputs = self.model.read_out(z_H)
        confidence, ids = log_stablemax(outputs.logits[0]).exp().max(-1)
        answer = self.domain.decode(ids.cpu().numpy(), shape=self.puzzle.shape)
        return Reading(answer, tuple(confidence.tolist()), float(outputs.q_halt_logits[0]), self.domain.compare(self.puzzle, answer))
