"""What a state z_H says: the decoded answer, how sure it is, whether it is right, and whether the model would stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laser_studio.errors import PuzzleError
from laser_studio.puzzles import Comparison, Puzzle, get_domain
from laser_studio.trm import TRM
from laser_studio.trm.stablemax import log_stablemax


@dataclass(frozen=True, slots=True)
class Reading:
    """What the state of the puzzle shown says, and how the whole batch stands.

    answer: cell values; confidence: probability of each under stablemax; q_halt: the logit; verdict: how the answer compares;
    solved: puzzles of the batch that are; right: share of right cells among those to fill in, over the batch. probabilities: (T, vocab)
    fp64 on the model's device, of every token in every cell.
    """

    answer: tuple[int, ...]
    confidence: tuple[float, ...]
    q_halt: float
    verdict: Comparison
    solved: int
    right: float
    probabilities: Tensor = field(compare=False, repr=False)

    @property
    def wrong(self) -> tuple[int, ...]:
        """Indices of wrong cells."""
        return tuple(cell for cell, is_wrong in enumerate(self.verdict.wrong) if is_wrong)

    def changed_from(self, other: Reading) -> tuple[int, ...]:
        """Indices of cells whose value differs."""
        return tuple(cell for cell, (new, old) in enumerate(zip(self.answer, other.answer, strict=True)) if new != old)


class Reader:
    """Reads states of `model` as answers to `puzzles`, the first of which is the one shown.

    Raises `PuzzleError` where a puzzle does not fit the model, or they are not all of one kind and shape.
    """

    def __init__(self, model: TRM, puzzles: Sequence[Puzzle]) -> None:
        self.model, self.puzzles, self.puzzle = model, tuple(puzzles), puzzles[0]
        self.domain = get_domain(self.puzzle.domain)
        ids = np.stack([self._tokens(puzzle) for puzzle in self.puzzles])
        device = model.H_init.device
        inputs = torch.as_tensor(ids, dtype=torch.long, device=device)
        self.batch = {"inputs": inputs, "puzzle_identifiers": torch.zeros(len(ids), dtype=torch.long, device=device)}
        _, _, plane = torch.linalg.svd(model.lm_head.weight.detach().float().cpu(), full_matrices=False)
        plane = plane[:2] * torch.where(plane[:2].sum(1, keepdim=True) < 0, -1.0, 1.0)  # a sign of its own, the same everywhere
        self._plane = plane.T.contiguous().to(device)  # (D, 2)

    def _tokens(self, puzzle: Puzzle) -> NDArray[np.int64]:
        config, shape = self.model.config, f"{puzzle.height}×{puzzle.width}"
        if (puzzle.domain, puzzle.shape) != (self.puzzle.domain, self.puzzle.shape):
            raise PuzzleError(
                f"a batch holds puzzles of one kind and size: a {shape} {puzzle.domain} does not go with the "
                f"{self.puzzle.height}×{self.puzzle.width} {self.puzzle.domain} shown"
            )
        ids = self.domain.encode(puzzle)
        if config.seq_len is not None and len(ids) != config.seq_len:
            raise PuzzleError(
                f"a {shape} {puzzle.domain} has {len(ids)} cells, this model takes {config.seq_len}: choose a puzzle of its size"
            )
        if self.domain.vocab_size(puzzle) > config.vocab_size:
            most = self.domain.vocab_size(puzzle) - 1
            raise PuzzleError(f"a {shape} {puzzle.domain} needs tokens up to {most}, this model knows 0 to {config.vocab_size - 1}")
        return ids

    @torch.no_grad()
    def read(self, z_H: Tensor) -> Reading:
        """z_H (B, P + T, D) as answers."""
        outputs = self.model.read_out(z_H)
        probabilities = log_stablemax(outputs.logits[0]).exp()
        confidence, ids = probabilities.max(-1)
        best = outputs.logits.argmax(-1).cpu().numpy() if len(self.puzzles) > 1 else ids.cpu().numpy()[None]
        best[0] = ids.cpu().numpy()  # the one shown: cell values and confidences from the same reading
        answers = [self.domain.decode(row, shape=self.puzzle.shape) for row in best]
        verdicts = [self.domain.compare(puzzle, answer) for puzzle, answer in zip(self.puzzles, answers, strict=True)]
        return Reading(
            answer=answers[0],
            confidence=tuple(confidence.tolist()),
            q_halt=float(outputs.q_halt_logits[0]),
            verdict=verdicts[0],
            solved=sum(verdict.solved is True for verdict in verdicts),
            right=sum(verdict.right for verdict in verdicts) / max(1, sum(verdict.total for verdict in verdicts)),
            probabilities=probabilities,
        )

    def place(self, state: Tensor) -> tuple[float, float]:
        """Where a state (B, P + T, D) of the puzzle shown lies in the plane: the mean over its cells."""
        x, y = (state[0, self.model.config.prefix_len :].float().mean(0) @ self._plane).tolist()
        return x, y

    def cells(self, state: Tensor, before: Tensor) -> Tensor:
        """(T, 4) fp32 of a state (B, P + T, D) of the puzzle shown, and the one before its update.

        Each cell's norm, where it lies in the plane (x, y), and how far it moved, as a share of its norm.
        """
        now, rested = (each[0, self.model.config.prefix_len :].float() for each in (state, before))
        norm = now.norm(dim=1, keepdim=True)
        moved = (now - rested).norm(dim=1, keepdim=True) / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        return torch.cat((norm, now @ self._plane, moved), dim=1)

    def labels(self, answer: tuple[int, ...]) -> Tensor:
        """(T,) token ids of the shown puzzle's solution, or of `answer` where none is known."""
        ids = self.domain.encode_solution(self.puzzle)
        values = ids if ids is not None else np.maximum(np.asarray(answer) + 1, 0)
        return torch.as_tensor(values, dtype=torch.long, device=self.model.H_init.device)
