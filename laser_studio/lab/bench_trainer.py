"""How fast one optimiser step is, beside a plain one around the official arithmetic: same weights, same puzzles, same halting.

`python -m laser_studio bench trainer` prints the table; nothing else calls this. A step is all of it: drawing and turning the
puzzles, the supervision step, loss, backward, both optimisers and the weight average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laser_studio.device import device_in_words, resolve_device
from laser_studio.lab.bench_tracker import Timing, compare
from laser_studio.lab.data import PuzzleSet
from laser_studio.lab.losses import supervision_loss
from laser_studio.lab.optim import SignSGD
from laser_studio.lab.plain_trm import PlainTRM, plain_weights
from laser_studio.lab.tasks import get_task
from laser_studio.lab.train import Stage, Trainer, TrainSettings
from laser_studio.trm import TRM, Carry, Outputs, TRMConfig

PLAIN = "plain, as the official code"


@dataclass(frozen=True)
class TrainerTiming:
    """One case and its sides; the first side is the plain step, the reference of the ratios."""

    variant: str
    dtype: str
    batch: int
    hidden_size: int
    seq_len: int
    repeats: int
    device: str
    sides: tuple[Timing, ...]

    def __str__(self) -> str:
        shape = f"batch {self.batch}, D {self.hidden_size}, T {self.seq_len}"
        head = f"{self.variant} {self.dtype}, {shape}, {self.repeats} repeats, {self.device}"
        return "\n".join([head, *(f"  {side}" for side in self.sides)])


def bench_trainer(
    *,
    variants: Iterable[str] = ("attention", "mixer"),
    dtypes: Iterable[str] = ("float32", "bfloat16"),
    task: str = "sudoku-9x9",
    batch: int = 8,
    hidden_size: int = 512,
    cycles: tuple[int, int] = (3, 6),
    repeats: int = 7,
    compiled: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> Iterator[TrainerTiming]:
    """Time whole optimiser steps of every combination; yields each as it is ready.

    cycles: H_cycles, L_cycles. compiled: adds both sides with their net compiled. The global random state stays untouched.
    """
    where, chosen = resolve_device(device), get_task(task)
    data = chosen.puzzles(2 * batch, seed, "train")
    for variant in variants:
        for dtype in dtypes:
            config = TRMConfig(
                vocab_size=chosen.vocab_size,
                seq_len=chosen.seq_len,
                num_puzzle_identifiers=chosen.identifiers(),
                hidden_size=hidden_size,
                num_heads=max(1, hidden_size // 64),
                H_cycles=cycles[0],
                L_cycles=cycles[1],
                mlp_t=variant == "mixer",
                puzzle_emb_ndim=hidden_size,
                forward_dtype=dtype,  # type: ignore[arg-type]  # checked by TRMConfig
            )
            settings = TrainSettings(batch_size=batch, lr=1e-4, warmup=2_000, weight_decay=1.0, seed=seed)
            sides: dict[str, Callable[[], object]] = {}
            for suffix, fast in (("", False), (", compiled", True))[: 1 + compiled]:
                sides[PLAIN + suffix] = PlainTrainer(config, replace(settings, compile=fast), data, where).advance
                sides["this trainer" + suffix] = Trainer(config, replace(settings, compile=fast), [Stage(0, data)], where).advance
            timings = compare(sides, repeats, where, seed)
            yield TrainerTiming(variant, dtype, batch, hidden_size, chosen.seq_len, repeats, device_in_words(where), tuple(timings))


class PlainTrainer:
    """The same optimiser step written as one would first write it: weights cast at every call, torch's own choice of AdamW, an
    average kept parameter by parameter."""

    def __init__(self, config: TRMConfig, settings: TrainSettings, data: PuzzleSet, device: torch.device) -> None:
        self.settings, self.data, self.device, self.config = settings, data, device, config
        self.model = TRM(config, seed=settings.seed).to(device).train()
        assert config.seq_len is not None
        self.plain = PlainTRM(plain_weights(self.model), config, config.seq_len)
        if settings.compile:
            self.plain.net = torch.compile(self.plain.net)  # type: ignore[method-assign]
        named = dict(self.model.named_parameters())
        embedding = [named.pop("embedding.puzzles")]
        self.adam = torch.optim.AdamW(
            named.values(), lr=settings.lr, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay
        )
        self.sign = SignSGD(embedding, settings.puzzle_emb_lr, settings.weight_decay)
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.sampling = torch.Generator().manual_seed(settings.seed + 2)
        self.exploration = torch.Generator(device).manual_seed(settings.seed + 1)
        self.carry: Carry | None = None

    def advance(self) -> float:
        """One optimiser step; returns its loss."""
        batch = self.data.sample(self.settings.batch_size, self.sampling, augment=self.settings.augment)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        carry, outputs = self.plain(self.carry or self.model.initial_carry(batch), batch)
        loss = supervision_loss(outputs, carry.current_data["labels"])
        loss.total.backward()
        for optimiser in (self.adam, self.sign):
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.average[name].mul_(self.settings.ema).add_(value, alpha=1 - self.settings.ema)
            self.carry = replace(carry, halted=self._halted(carry, outputs))
        return float(loss.total.detach())

    def _halted(self, carry: Carry, outputs: Outputs) -> Tensor:
        wants = carry.halted | (outputs.q_halt_logits > 0)
        shape, device = wants.shape, wants.device
        explores = torch.rand(shape, generator=self.exploration, device=device) < self.config.halt_exploration_prob
        least = torch.randint(2, self.config.halt_max_steps + 1, shape, generator=self.exploration, device=device)
        return wants & (carry.steps >= explores * least)
