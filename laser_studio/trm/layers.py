"""The layers of a TRM block: post-norm attention or sequence mixer, then SwiGLU. Pure arithmetic, no recursion here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laser_studio import kernels
from laser_studio.errors import CompressionError
from laser_studio.trm import pullbacks
from laser_studio.trm.config import TRMConfig
from laser_studio.trm.pullbacks import CosSin


def trunc_normal_(tensor: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    """Fill in place with a normal truncated at two of its own deviations, rescaled so that the result has deviation `std`."""
    # A unit normal cut at ±2 has deviation 0.8796; dividing restores the one asked for, as the official (JAX) initialiser does.
    nn.init.trunc_normal_(tensor, std=1.0, a=-2.0, b=2.0, generator=generator)
    return tensor.mul_(std / 0.87962566103423978)


class CastLinear(nn.Linear):
    """Bias-free (by default) linear layer whose weight follows the input's dtype.

    Inside `hold_casts` the cast is made once and reused by every recursion step: casting per call would cost time
    and, in training, save one copy of each weight per call for backward.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self._casts: dict[torch.dtype, Tensor] | None = None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Truncated LeCun normal weight, zero bias."""
        with torch.no_grad():
            trunc_normal_(self.weight, self.in_features**-0.5, generator)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:  # (…, in) -> (…, out)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight_as(x.dtype), bias)

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weight in `dtype`, with its gradient where gradients are on: the held cast where there is one."""
        if self.weight.dtype == dtype:
            return self.weight
        casts = self._casts  # read once: another thread's recursion over the same shared model may drop them any moment
        if casts is None or dtype not in casts:
            return self.weight.to(dtype)
        # A cast made without gradient must not serve the cycle that carries it.
        return casts[dtype] if torch.is_grad_enabled() else casts[dtype].detach()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_casts": None}  # casts may be part of a graph, which cannot be copied or pickled


def hold_casts(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast each weight to `dtype` now, in the gradient mode in force, for all calls until `drop_casts`."""
    for child in module.modules():
        if isinstance(child, CastLinear) and child.weight.dtype != dtype:
            child._casts = {dtype: child.weight.to(dtype)}


def held_casts(module: nn.Module) -> Iterator[Tensor]:
    """The casts that `hold_casts` made and `drop_casts` has not yet dropped."""
    for child in module.modules():
        if isinstance(child, CastLinear):
            yield from (child._casts or {}).values()


def drop_casts(module: nn.Module) -> None:
    """Forget the casts of `hold_casts`; weights are cast at each call again."""
    for child in module.modules():
        if isinstance(child, CastLinear):
            child._casts = None


def sum_into(fresh: Tensor, other: Tensor) -> Tensor:
    """fresh + other. Without gradient the sum takes fresh's memory: a new block as large as the activations costs more than the sum.

    `fresh` must be the caller's own, used by nobody else.
    """
    return fresh + other if torch.is_grad_enabled() else fresh.add_(other)


def product_into(fresh: Tensor, other: Tensor) -> Tensor:
    """fresh · other, under the same rule as `sum_into`."""
    return fresh * other if torch.is_grad_enabled() else fresh.mul_(other)


def rms_norm(fresh: Tensor, eps: float) -> Tensor:
    """Weightless RMS norm over the last axis, computed in fp32, returned in the dtype given; under the same rule as `sum_into`."""
    wide = fresh.float()
    return product_into(wide, torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(fresh.dtype)


def rope_table(
    length: int, head_dim: int, theta: float, device: torch.device, *, columns: int = 0, prefix: int = 0, leading: bool = False
) -> CosSin:
    """cos and sign-carrying sin, each (length, 1, head_dim) in fp32, for rotate-half RoPE: x·cos + swap_halves(x)·sin.

    columns: of a board read row by row, where half the pairs turn by a token's row and half by its column; the `prefix` tokens in
    front stand on a row of their own above the board. 0: all pairs turn by the place in the sequence. leading: rows and columns both
    use the faster half of the frequencies, and the prefix turns by place alone, as nano-trm does it.
    """
    place = torch.arange(length, dtype=torch.float32, device=device)
    if columns:
        cell = place - prefix
        above = cell < 0
        row, column = torch.where(above, -1.0, cell.div(columns, rounding_mode="floor")), torch.where(above, place, cell.remainder(columns))
        if leading:
            frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
            fast = frequency[: head_dim // 4]
            board = torch.cat((torch.outer(row, fast), torch.outer(column, fast)), dim=-1)
            angle = torch.where(above[:, None], torch.outer(place, frequency), board)[:, None, :]
        else:
            frequency = theta ** -(torch.arange(0, head_dim, 4, dtype=torch.float32, device=device) / head_dim)
            angle = torch.cat((torch.outer(row, frequency), torch.outer(column, frequency)), dim=-1)[:, None, :]
    else:
        frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
        angle = torch.outer(place, frequency)[:, None, :]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def apply_rope(x: Tensor, table: CosSin) -> Tensor:
    """Rotate x (…, T, heads, head_dim) by position: rotate-half pairs feature i with i + head_dim / 2. In fp32, returned in x's dtype."""
    cos, sin = table
    wide = x.float()
    left, right = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((right, left), dim=-1) * sin).to(x.dtype)  # not fused: rounds as the official code does


class Attention(nn.Module):
    """Full (non-causal) multi-head attention with fused q, k, v and optional RoPE."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv_proj = CastLinear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = CastLinear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rope: CosSin | None) -> Tensor:  # (B, T, D) -> (B, T, D)
        return self.o_proj(self.mix(self.qkv_proj(x), rope))

    def mix(self, qkv: Tensor, rope: CosSin | None) -> Tensor:  # (B, T, 3D) -> (B, T, D)
        """What lies between the two projections."""
        batch, length, width = qkv.shape
        mixed = F.scaled_dot_product_attention(*self.heads(qkv, rope))  # (B, heads, T, head_dim)
        return mixed.transpose(1, 2).reshape(batch, length, width // 3)

    def pulled(self, qkv: Tensor, rope: CosSin | None) -> pullbacks.Pulled | None:
        """`mix` with its derivative, None where autograd finds it faster."""
        if pullbacks.is_short(qkv):
            return pullbacks.attention(qkv, self.num_heads, rope)
        return pullbacks.fused_attention(qkv, self.num_heads, rope) if kernels.usable(qkv) else None

    def heads(self, qkv: Tensor, rope: CosSin | None) -> tuple[Tensor, Tensor, Tensor]:  # (B, T, 3D) -> 3 × (B, heads, T, head_dim)
        """What is attended with: q and k, turned by their positions, and v."""
        batch, length, _ = qkv.shape
        q, k, v = qkv.view(batch, length, 3 * self.num_heads, self.head_dim).chunk(3, dim=2)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def inner_width(features: int, expansion: float) -> int:
    """Features between the two projections of a SwiGLU: two thirds of the expansion, rounded up to a multiple of 256."""
    return -(-round(expansion * features * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) with the inner width rounded up to a multiple of 256."""

    def __init__(self, features: int, expansion: float) -> None:
        super().__init__()
        inner = inner_width(features, expansion)
        self.gate_up_proj = CastLinear(features, 2 * inner)
        self.down_proj = CastLinear(inner, features)

    def forward(self, x: Tensor) -> Tensor:  # (…, features) -> (…, features)
        return self.down_proj(self.gated(self.gate_up_proj(x)))

    @staticmethod
    def gated(gate_up: Tensor) -> Tensor:  # (…, 2·inner) -> (…, inner)
        """What lies between the two projections."""
        gate, up = gate_up.chunk(2, dim=-1)
        return product_into(F.silu(gate), up)


@dataclass(frozen=True)
class ResidualStage:
    """Half a block, as x ↦ rms_norm(x + last(between(first(x)))) over the last axis, or over the sequence axis with `across`.

    Both layers are without bias; `between` has no weights. What compresses activations reads blocks in this form. vjp: of h, between(h)
    and what takes the gradient there to that at h, see `pullbacks`; None where autograd is to find it.
    """

    first: CastLinear
    between: Callable[[Tensor], Tensor]
    last: CastLinear
    eps: float
    across: bool = False
    vjp: Callable[[Tensor], pullbacks.Pulled | None] = lambda h: None


class Block(nn.Module):
    """One post-norm block: tokens are mixed by attention (or, with `mlp_t`, by a SwiGLU over the sequence), then features by a SwiGLU.

    The norm behind a mixer runs over the sequence, as in the official code, or (`mixer_norm`) over the features.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        if config.mlp_t:
            assert config.seq_len is not None  # TRMConfig refuses a mixer without it
            self.mlp_t = SwiGLU(config.seq_len + config.prefix_len, config.expansion)
        else:
            self.self_attn = Attention(config)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)
        self.is_mixer = config.mlp_t
        self.norms_features = config.mixer_norm == "features"

    def forward(self, x: Tensor, rope: CosSin | None) -> Tensor:  # (B, T, D) -> (B, T, D)
        if self.is_mixer:
            across = x.transpose(1, 2)  # (B, D, T): the norm too runs over the sequence here, as in the official code
            mixed = self.mlp_t(across.contiguous())  # as it lies, the product would copy its weight, once for every sample
            if self.norms_features:
                x = rms_norm(x + mixed.transpose(1, 2), self.eps)
            else:
                # A new tensor on purpose: it takes the layout of `across`, so that turned back it lies as the next product wants it.
                fresh = across + mixed
                x = rms_norm(fresh, self.eps).transpose(1, 2)
        else:
            x = rms_norm(sum_into(self.self_attn(x, rope), x), self.eps)
        return rms_norm(sum_into(self.mlp(x), x), self.eps)

    def stages(self, rope: CosSin | None) -> tuple[ResidualStage, ResidualStage]:
        """The block as two stages; applied in turn they give what `forward` gives."""
        if self.is_mixer and self.norms_features:
            raise CompressionError('a mixer that norms over features cannot be rebuilt as residual stages: use mode="linear"')
        if self.is_mixer:
            mixing = ResidualStage(self.mlp_t.gate_up_proj, self.mlp_t.gated, self.mlp_t.down_proj, self.eps, True, pullbacks.swiglu)
        else:
            attention = self.self_attn
            mix, pulled = partial(attention.mix, rope=rope), partial(attention.pulled, rope=rope)
            mixing = ResidualStage(attention.qkv_proj, mix, attention.o_proj, self.eps, vjp=pulled)
        return mixing, ResidualStage(self.mlp.gate_up_proj, self.mlp.gated, self.mlp.down_proj, self.eps, vjp=pullbacks.swiglu)


WITHIN_BLOCKS = "*.mlp.gate_up_proj"  # names of the places within blocks: what their SwiGLU reads, which the first half makes for little


class ReasoningNet(nn.Module):
    """A net that recursion applies again and again: add the injection, if there is one, then run the blocks."""

    def __init__(self, config: TRMConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(layers))

    def forward(self, z: Tensor, injection: Tensor | None, rope: CosSin | None) -> Tensor:  # (B, T, D), (B, T, D) -> (B, T, D)
        x = z if injection is None else z + injection
        for layer in self.layers:
            x = layer(x, rope)
        return x

    def residual_stages(self, z: Tensor, injection: Tensor | None, rope: CosSin | None) -> tuple[tuple[Tensor, ...], list[ResidualStage]]:
        """The same as `forward`: what is added up before the first stage, and the stages of all blocks."""
        blocks = cast(Iterable[Block], self.layers)
        return (z,) if injection is None else (z, injection), [stage for block in blocks for stage in block.stages(rope)]


class PreNormMixer(nn.Module):
    """One block of lucidrains' MLPMixer1D: x + mix(norm(x)) over the tokens, then over the features; layer norm, GELU, biases.

    Its token mixer is a convolution of width 1 over the tokens there, which is a linear layer over them.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        assert config.seq_len is not None  # TRMConfig refuses a mixer without it
        length, width = config.seq_len + config.prefix_len, config.hidden_size
        self.token_norm = nn.LayerNorm(width, bias=False)
        self.token_in = CastLinear(length, config.token_width, bias=True)
        self.token_out = CastLinear(config.token_width, length, bias=True)
        self.feature_norm = nn.LayerNorm(width, bias=False)
        self.feature_in = CastLinear(width, config.feature_width, bias=True)
        self.feature_out = CastLinear(config.feature_width, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        across = _layer_norm(x, self.token_norm).transpose(1, 2).contiguous()  # (B, D, T), in rows as in `Block`
        x = self.token_out(F.gelu(self.token_in(across))).transpose(1, 2) + x
        return self.feature_out(F.gelu(self.feature_in(_layer_norm(x, self.feature_norm)))) + x


class PreNormNet(nn.Module):
    """lucidrains' net: the sum of what it is given through pre-norm mixers and a last norm."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PreNormMixer(config) for _ in range(config.L_layers))
        self.norm = nn.LayerNorm(config.hidden_size, bias=False)

    def forward(self, z: Tensor, injection: Tensor | None, rope: CosSin | None) -> Tensor:  # (B, T, D), (B, T, D) -> (B, T, D)
        x = z if injection is None else z + injection
        for layer in self.layers:
            x = layer(x)
        return _layer_norm(x, self.norm)


def _layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), None, norm.eps)


class TwoNets(nn.Module):
    """The two nets of an HRM, each with sites of its own; the recursion applies one at a time."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.H_level = ReasoningNet(config, config.H_layers)
        self.L_level = ReasoningNet(config, config.L_layers)


Net = ReasoningNet | PreNormNet | TwoNets


def make_net(config: TRMConfig) -> Net:
    """The net, or nets, of a variant."""
    if config.variant == "hrm":
        return TwoNets(config)
    return PreNormNet(config) if config.variant == "lucidrains" else ReasoningNet(config, config.L_layers)
