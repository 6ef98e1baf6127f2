"""Where a cell reads from in one net application: attention weights, or the mixer's row; exact, and with activations compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from laser_studio.debugger.net_application import NetApplication
from laser_studio.debugger.session import Session
from laser_studio.errors import InspectionError
from laser_studio.trm.layers import Attention, Block, CosSin


@dataclass(frozen=True, eq=False)
class Reads:
    """weights: (heads, P + T) fp32, each row sums to 1 (all 0 where nothing is read); total: (heads,), what the rows summed to before."""

    weights: Tensor
    total: Tensor

    @property
    def mean(self) -> Tensor:
        """Over the heads, (P + T,)."""
        return self.weights.mean(0)


@dataclass(frozen=True, eq=False)
class Mixing:
    """Where the token of one cell reads from, in one layer of the net application that led to frame `index`.

    kind "attention": softmax(qkᵀ/√d) of the query token, per head, q and k after RoPE, as the model computes it (here in fp32). kind
    "mixer": one row for all channels, |∂yᵢ/∂xⱼ| of y = SwiGLU(x) over the sequence axis at the real activations, mean over the
    channels, divided by its sum (`total`); the residual x, which each token also keeps of itself, is not in it.

    compressed: the same, had every site of this application that has a basis read XQQᵀ in place of X, from the same exact states; None
    before the first basis. prefix: tokens in front of the cells.
    """

    kind: Literal["attention", "mixer"]
    index: int
    layer: int
    cell: int
    prefix: int
    exact: Reads
    compressed: Reads | None

    @property
    def difference(self) -> Tensor | None:
        """Compressed minus exact, (heads, P + T)."""
        return None if self.compressed is None else self.compressed.weights - self.exact.weights

    @property
    def moved(self) -> Tensor | None:
        """The share of the weight that lies elsewhere once compressed, (heads,): half the sum of absolute differences, in [0, 1]."""
        return None if self.difference is None else self.difference.abs().sum(1) / 2


def mixing(session: Session, cell: int, index: int, layer: int = 0) -> Mixing:
    """Where a cell (counted row by row from 0) reads from. Raises `InspectionError` for a cell, layer or step there is not."""
    application = NetApplication(session, index)
    cells, layers = len(session.puzzle.cells), application.net.layers
    if not 0 <= cell < cells:
        raise InspectionError(f"there is no cell {cell}: this board has {cells}, counted row by row from 0")
    if not 0 <= layer < len(layers):
        raise InspectionError(f"there is no layer {layer}: this net has {len(layers)}, counted from 0")
    block, prefix = layers[layer], session.model.config.prefix_len
    if not isinstance(block, Block):
        raise InspectionError("where cells read from is known for attention and mixers of the official kind alone, not for this net")
    exact = _reads(application, block, prefix + cell)
    compressed = None
    if application.bases:
        with application.compressed():
            compressed = _reads(application, block, prefix + cell)
    if not all(reads.weights.isfinite().all() for reads in (exact, compressed) if reads is not None):
        raise InspectionError(f"the activations are not finite at step {index}: look at an earlier step")
    return Mixing("mixer" if block.is_mixer else "attention", index, layer, cell, prefix, exact, compressed)


def _reads(application: NetApplication, block: Block, token: int) -> Reads:
    if block.is_mixer:
        return _normalised(mixer_row(block.mlp_t, application.inputs(block.mlp_t)[0], token)[None])
    x = application.inputs(block.self_attn)
    with torch.no_grad():
        return _normalised(attention_rows(block.self_attn, x, application.rope, token))


def attention_rows(attention: Attention, x: Tensor, rope: CosSin | None, token: int) -> Tensor:
    """(heads, P + T) fp32: the weights with which a token attends, of the attention's input x (1, P + T, D)."""
    q, k, _ = attention.heads(attention.qkv_proj(x), rope)  # (1, heads, P + T, head_dim)
    scores = (q[0, :, token, None].float() @ k[0].float().mT)[:, 0] * attention.head_dim**-0.5
    return scores.softmax(-1)


def mixer_row(mixer: nn.Module, x: Tensor, token: int) -> Tensor:
    """(P + T,) fp32: mean over the channels of |∂yᵢ/∂xⱼ|, y = mixer(x), of its input x (D, P + T); i is `token`.

    Channels do not mix in here, so the gradient of Σ over channels of yᵢ holds each channel's own row of derivatives.
    """
    with torch.inference_mode(False), torch.enable_grad():
        wide = x.detach().float().clone().requires_grad_()
        (rows,) = torch.autograd.grad(mixer(wide[None])[0, :, token].sum(), wide)
    return rows.abs().mean(0)


def _normalised(rows: Tensor) -> Reads:
    total = rows.sum(1)
    return Reads((rows / total.clamp(min=torch.finfo(rows.dtype).tiny)[:, None]).cpu(), total.cpu())
