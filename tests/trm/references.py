"""The arithmetic of TRM's relatives, written down once more and as simply as possible: what the models that load them are compared with.

Nothing of `laser_studio` is used. Weights go by their names in the files of each program, behind `inner.`; everything is fp32. Sources,
read and restated: sapientinc/HRM (models/hrm/hrm_act_v1.py), SamsungSAILMontreal/TinyRecursiveModels (models/recursive_reasoning/),
olivkoch/nano-trm (src/nn/models/trm.py, src/nn/modules/trm_block.py), lucidrains/tiny-recursive-model (trm.py, mlp_mixer_1d.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def rms(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def swiglu(w: Weights, at: str, x: Tensor) -> Tensor:
    both = x @ w[f"{at}.gate_up_proj.weight"].T
    half = both.shape[-1] // 2
    gate = both[..., :half]
    return (gate * torch.sigmoid(gate) * both[..., half:]) @ w[f"{at}.down_proj.weight"].T


def turns_by_place(places: int, width: int, base: float = 10_000.0) -> Tensor:
    """(places, width / 2) angles."""
    return torch.arange(places, dtype=torch.float32)[:, None] * base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)


def turns_by_row_and_column(prefix: int, side: int, width: int, base: float = 10_000.0) -> Tensor:
    """nano-trm's: prefix tokens by place, cells half by their row and half by their column, at the same speeds."""
    speeds = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    rows = [place * speeds for place in range(prefix)]
    for cell in range(side * side):
        fast = speeds[: width // 4]
        rows.append(torch.cat([(cell // side) * fast, (cell % side) * fast]))
    return torch.stack(rows)


def turned(x: Tensor, angles: Tensor | None) -> Tensor:  # (B, heads, T, width)
    if angles is None:
        return x
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def attention(w: Weights, at: str, x: Tensor, heads: int, angles: Tensor | None) -> Tensor:
    batch, length, width = x.shape
    parts = (x @ w[f"{at}.qkv_proj.weight"].T).split(width, -1)
    q, k, v = (part.view(batch, length, heads, width // heads).transpose(1, 2) for part in parts)
    scores = turned(q, angles) @ turned(k, angles).transpose(-1, -2) / math.sqrt(width // heads)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width) @ w[f"{at}.o_proj.weight"].T


@dataclass
class Reference:
    """w: all weights; heads; prefix: tokens of the puzzle embedding; angles: (P + T, width / 2) or None; norm_across: of a mixer."""

    w: Weights
    heads: int
    prefix: int
    angles: Tensor | None
    norm_across: bool = True

    def net(self, level: str, x: Tensor) -> Tensor:
        block = 0
        while f"{level}.layers.{block}.mlp.down_proj.weight" in self.w:
            at = f"{level}.layers.{block}"
            if f"{at}.mlp_t.down_proj.weight" in self.w:
                mixed = swiglu(self.w, f"{at}.mlp_t", x.transpose(1, 2)).transpose(1, 2)
                x = rms((x + mixed).transpose(1, 2)).transpose(1, 2) if self.norm_across else rms(x + mixed)
            else:
                x = rms(x + attention(self.w, f"{at}.self_attn", x, self.heads, self.angles))
            x = rms(x + swiglu(self.w, f"{at}.mlp", x))
            block += 1
        assert block
        return x

    def embedded(
        self, tokens: Tensor, puzzles: Tensor, names: tuple[str, str] = ("embed_tokens.embedding_weight", "puzzle_emb.weights")
    ) -> Tensor:
        x = self.w[names[0]][tokens]
        width = x.shape[-1]
        if self.prefix:
            rows = self.w[names[1]][puzzles]
            rows = torch.cat([rows, rows.new_zeros(len(rows), self.prefix * width - rows.shape[1])], 1)
            x = torch.cat([rows.view(-1, self.prefix, width), x], 1)
        if "embed_pos.embedding_weight" in self.w:
            x = (x + self.w["embed_pos.embedding_weight"]) * 0.707106781
        return x * math.sqrt(width)

    def read(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the cells, and what the halting head says."""
        return (z @ self.w["lm_head.weight"].T)[:, self.prefix :], z[:, 0] @ self.w["q_head.weight"].T + self.w["q_head.bias"]


Step = Callable[[Reference, Any, Tensor, int, int], tuple[Any, Tensor]]


def hrm_step(reference: Reference, states: Any, x: Tensor, H_cycles: int, L_cycles: int) -> tuple[Any, Tensor]:
    """One supervision step: two nets; only the very last update of each is within the gradient."""
    z_H, z_L = states
    with torch.no_grad():
        for high in range(H_cycles):
            for low in range(L_cycles):
                if (high, low) != (H_cycles - 1, L_cycles - 1):
                    z_L = reference.net("L_level", z_L + (z_H + x))
            if high != H_cycles - 1:
                z_H = reference.net("H_level", z_H + z_L)
    z_L = reference.net("L_level", z_L + (z_H + x))
    z_H = reference.net("H_level", z_H + z_L)
    return (z_H.detach(), z_L.detach()), z_H


def singlez_step(reference: Reference, states: Any, x: Tensor, H_cycles: int, L_cycles: int) -> tuple[Any, Tensor]:
    """One state, updated with the puzzle L_cycles times and once without."""
    (z,) = states
    for high in range(H_cycles):
        with torch.set_grad_enabled(torch.is_grad_enabled() and high == H_cycles - 1):
            for _ in range(L_cycles):
                z = reference.net("L_level", z + x)
            z = reference.net("L_level", z)
    return (z.detach(),), z


def hier6_step(reference: Reference, states: Any, x: Tensor, H_cycles: int, L_cycles: int) -> tuple[Any, Tensor]:
    """Six low states; the l-th is replaced by what the net makes of the sum of all."""
    z_H, *low = states
    low = list(low)
    for high in range(H_cycles):
        with torch.set_grad_enabled(torch.is_grad_enabled() and high == H_cycles - 1):
            for place in range(L_cycles):
                low[place] = reference.net("L_level", sum(low[1:], low[0]) + (z_H + x))
            z_H = reference.net("L_level", z_H + sum(low[1:], low[0]))
    return (z_H.detach(), *(z.detach() for z in low)), z_H


def nano_step(reference: Reference, states: Any, x: Tensor, H_cycles: int, L_cycles: int) -> tuple[Any, Tensor]:
    """nano-trm: one net for both states."""
    z_H, z_L = states
    for high in range(H_cycles):
        with torch.set_grad_enabled(torch.is_grad_enabled() and high == H_cycles - 1):
            for _ in range(L_cycles):
                z_L = reference.net("lenet", z_L + (z_H + x))
            z_H = reference.net("lenet", z_H + z_L)
    return (z_H.detach(), z_L.detach()), z_H


def lucid_net(w: Weights, x: Tensor) -> Tensor:
    """An MLPMixer1D: its token mixers are convolutions, run as such here."""

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * scale

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    block = 0
    while (at := f"network.{block}") + ".0.norm.weight" in w:
        inner = torch.nn.functional.conv1d(norm(x, w[f"{at}.0.norm.weight"]), w[f"{at}.0.fn.0.weight"], w[f"{at}.0.fn.0.bias"])
        x = x + torch.nn.functional.conv1d(gelu(inner), w[f"{at}.0.fn.3.weight"], w[f"{at}.0.fn.3.bias"])
        inner = norm(x, w[f"{at}.1.norm.weight"]) @ w[f"{at}.1.fn.0.weight"].T + w[f"{at}.1.fn.0.bias"]
        x = x + gelu(inner) @ w[f"{at}.1.fn.3.weight"].T + w[f"{at}.1.fn.3.bias"]
        block += 1
    return norm(x, w[f"network.{block}.weight"])


def lucid_step(w: Weights, states: Any, x: Tensor, blocks: int, refinements: int) -> tuple[Any, Tensor, Tensor]:
    """One deep refinement; also the logits of the cells and the halting logit."""
    outputs, latents = states
    for _ in range(blocks):
        for _ in range(refinements):
            latents = lucid_net(w, outputs + latents + x)
        outputs = lucid_net(w, outputs + latents)
    registers = len(w["register_tokens"])
    return (outputs, latents), outputs[:, registers:] @ w["to_pred.weight"].T, outputs.mean(1) @ w["to_halt_pred.1.weight"][0]
