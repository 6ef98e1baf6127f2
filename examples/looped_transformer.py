"""A plain looped transformer, trained on a toy task while LASER Studio watches it.

One block with shared weights is applied six times to a sequence of digits; the task is to give, at every place, the largest digit
so far. Nothing in the model knows of LASER Studio: `train` watches it from outside.

    python examples/looped_transformer.py --record runs/looped.jsonl
    python app.py --watch runs/looped.jsonl          # in another terminal, while it trains or later
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import laser_studio

DIGITS, LENGTH, WIDTH, HEADS, LOOPS, BATCH = 10, 12, 64, 4, 6, 32


class Block(nn.Module):
    """Attention that looks back, then an MLP; (B, T, D) to (B, T, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class LoopedTransformer(nn.Module):
    """The same block again and again; digits (B, T) to logits (B, T, DIGITS)."""

    def __init__(self) -> None:
        super().__init__()
        self.digits = nn.Embedding(DIGITS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.block = Block()
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, DIGITS)

    def forward(self, digits: Tensor) -> Tensor:
        start = self.digits(digits) + self.places.weight
        x = start
        for _ in range(LOOPS):
            x = self.block(x + start)
        return self.head(self.norm(x))


def train(steps: int, *, record: Path | None = None, watched: bool = True, seed: int = 0) -> tuple[LoopedTransformer, list[float]]:
    """The trained model, and the loss at each step. Watched or not, recorded or not, the weights are the same to the last bit."""
    torch.manual_seed(seed)
    model = LoopedTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    with laser_studio.watch(model, record) if watched else nullcontext() as watcher:
        for _ in range(steps):
            digits = torch.randint(DIGITS, (BATCH, LENGTH))
            logits = model(digits)
            loss = F.cross_entropy(logits.flatten(0, 1), digits.cummax(1).values.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if watcher is not None:
                watcher.note("loss", losses[-1])
    return model, losses


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a looped transformer under laser_studio.watch.")
    parser.add_argument("--record", type=Path, default=Path("runs/looped.jsonl"), metavar="PATH", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps; default %(default)s")
    flags = parser.parse_args()
    _, losses = train(flags.steps, record=flags.record)
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses)} steps; see it: python app.py --watch {flags.record}")


if __name__ == "__main__":
    main()
