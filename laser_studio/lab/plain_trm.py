"""The arithmetic of the official TRM code, restated as plainly as possible: weights in, answers out, nothing shared with `trm.layers`.

It is what `TRM` is compared with, in tests (proven itself against recorded official outputs) and in speed
(`bench_forward`). So it works as the official code works, also where `TRM` does better: weights are cast at every call, q and
k are rotated one after the other, the injection is added anew for each recursion step. Source: arXiv 2510.04871 and its public code.
Only evaluation and the gradient of one supervision step are here; halting in training is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from laser_studio.trm import TRM, Carry, Outputs, TRMConfig
from laser_studio.trm.checkpoints import official_name


def plain_weights(model: TRM) -> dict[str, Tensor]:
    """The model's own tensors (not copies; parameters carry their gradients) under the official names, without prefix."""
    return {official_name(name): tensor for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


@dataclass
class PlainTRM:
    """`PlainTRM(weights, config, length)(carry, batch)` is one supervision step in evaluation mode, as `TRM` takes and gives it.

    weights: official names behind `inner.`, e.g. "L_level.layers.0.mlp.down_proj.weight" (out, in). length: tokens T of a puzzle.
    """

    weights: Mapping[str, Tensor]
    config: TRMConfig
    length: int

    def __post_init__(self) -> None:
        config = self.config
        self.dtype: torch.dtype = getattr(torch, config.forward_dtype)
        self.prefix = 0
        if config.puzzle_emb_ndim > 0:
            self.prefix = config.puzzle_emb_len if config.puzzle_emb_len > 0 else -(-config.puzzle_emb_ndim // config.hidden_size)
        self.turns: tuple[Tensor, Tensor] | None = None
        if config.pos_encodings == "rope" and not config.mlp_t:
            width = config.hidden_size // config.num_heads
            device = self.weights["H_init"].device
            exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
            angles = torch.arange(self.prefix + self.length, dtype=torch.float32, device=device).outer(1.0 / config.rope_theta**exponents)
            angles = torch.cat([angles, angles], -1)  # (P + T, head_dim): feature i and i + head_dim / 2 share an angle
            self.turns = angles.cos(), angles.sin()

    def __call__(self, carry: Carry, batch: Mapping[str, Tensor]) -> tuple[Carry, Outputs]:
        config, halted = self.config, carry.halted
        z_H = torch.where(halted[:, None, None], self.weights["H_init"], carry.z_H)
        z_L = torch.where(halted[:, None, None], self.weights["L_init"], carry.z_L)
        steps = torch.where(halted, 0, carry.steps)
        data = {key: torch.where(halted.view(-1, *[1] * (old.ndim - 1)), batch[key], old) for key, old in carry.current_data.items()}

        x = self.embed(data["inputs"], data["puzzle_identifiers"])
        grad = torch.is_grad_enabled()
        for cycle in range(config.H_cycles):
            with torch.set_grad_enabled(grad and cycle == config.H_cycles - 1):
                for _ in range(config.L_cycles):
                    z_L = self.net(z_L, z_H + x)
                z_H = self.net(z_H, z_L)

        logits = self.linear("lm_head", z_H)[:, self.prefix :]
        q = self.linear("q_head", z_H[:, 0]).float()
        steps = steps + 1
        done = Carry(z_H.detach(), z_L.detach(), steps, steps >= config.halt_max_steps, data)
        return done, Outputs(logits, q[..., 0], q[..., 1])

    def embed(self, inputs: Tensor, puzzle_identifiers: Tensor) -> Tensor:  # (B, T), (B,) -> (B, P + T, D)
        width = self.config.hidden_size
        x = self.cast("embed_tokens.embedding_weight")[inputs.long()]
        if self.config.puzzle_emb_ndim > 0:
            rows = self.weights["puzzle_emb.weights"][puzzle_identifiers.long()].to(self.dtype)
            padded = F.pad(rows, (0, self.prefix * width - rows.shape[1]))
            x = torch.cat([padded.reshape(-1, self.prefix, width), x], 1)
        if self.config.pos_encodings == "learned":
            x = 0.707106781 * (x + self.cast("embed_pos.embedding_weight"))
        return width**0.5 * x

    def net(self, z: Tensor, injection: Tensor) -> Tensor:  # (B, P + T, D) twice -> (B, P + T, D)
        h = z + injection
        for block in range(self.config.L_layers):
            name = f"L_level.layers.{block}"
            if self.config.mlp_t:
                h = h.transpose(1, 2)
                h = self.norm(h + self.swiglu(f"{name}.mlp_t", h)).transpose(1, 2)
            else:
                h = self.norm(h + self.attention(f"{name}.self_attn", h))
            h = self.norm(h + self.swiglu(f"{name}.mlp", h))
        return h

    def attention(self, name: str, h: Tensor) -> Tensor:
        batch, length, width = h.shape
        heads = self.config.num_heads
        q, k, v = self.linear(f"{name}.qkv_proj", h).view(batch, length, 3, heads, width // heads).unbind(2)
        if self.turns is not None:
            q, k = self.rotate(q), self.rotate(k)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.linear(f"{name}.o_proj", mixed.transpose(1, 2).reshape(batch, length, width))

    def rotate(self, q: Tensor) -> Tensor:  # (B, T, heads, head_dim)
        assert self.turns is not None
        cos, sin = (turn[:, None, :] for turn in self.turns)
        wide, half = q.float(), q.shape[-1] // 2
        swapped = torch.cat([-wide[..., half:], wide[..., :half]], -1)
        return (wide * cos + swapped * sin).to(q.dtype)

    def swiglu(self, name: str, h: Tensor) -> Tensor:
        gate, up = self.linear(f"{name}.gate_up_proj", h).chunk(2, -1)
        return self.linear(f"{name}.down_proj", F.silu(gate) * up)

    def norm(self, h: Tensor) -> Tensor:
        wide = h.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)).to(h.dtype)

    def linear(self, name: str, h: Tensor) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        return F.linear(h, self.weights[f"{name}.weight"].to(h.dtype), None if bias is None else bias.to(h.dtype))

    def cast(self, name: str) -> Tensor:
        return self.weights[name].to(self.dtype)
