"""Blocks of self-attention, for sequences and for the patches of an image.

Pre-norm: Xiong et al. 2020, arXiv:2002.04745. Rotary positions: Su et al. 2021, arXiv:2104.09864, section 3.4.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines `[T, D]` of every position's angles; D is the width of a head."""

INITIAL_STD = 0.02
"""Radford et al. 2019, as for what leaves a block: divided by the square root of the number of residual additions."""


class Attention(nn.MultiheadAttention):
    """Self-attention `[B, T, H]` -> the same and, if asked for (`need_weights`), the weights `[B, heads, T, T]`.

    Parameters are torch's, and so is the way to ask for weights, so whoever listens to one listens to the other.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout, batch_first=True)

    def forward(  # type: ignore[override]
        self,
        values: Tensor,
        keys: Tensor | None = None,
        causal: bool = False,
        rotary: Rotary | None = None,
        need_weights: bool = False,
        average_attn_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """keys: `[B, T]`, which positions may be looked at. causal: none that comes later."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for part in F.linear(values, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        )
        if rotary is not None:
            query, key = _rotated(query, rotary), _rotated(key, rotary)
        dropout = self.dropout if self.training else 0.0
        allowed = keys[:, None, None] if keys is not None else None
        weights = None
        if need_weights:
            weights = _weights(query, key, allowed, causal)
            attended = F.dropout(weights, dropout) @ value
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            attended = F.scaled_dot_product_attention(query, key, value, allowed, dropout, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), weights


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to what goes in: `[B, T, H]` -> `[B, T, H]`."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float, num_additions: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        wider, narrower = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)
        self.mlp = nn.Sequential(wider, nn.GELU(), narrower)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.attention.in_proj_weight, wider.weight):
            nn.init.normal_(weight, std=INITIAL_STD)
        for weight in (self.attention.out_proj.weight, narrower.weight):
            nn.init.normal_(weight, std=INITIAL_STD / math.sqrt(num_additions))

    def forward(
        self, values: Tensor, keys: Tensor | None = None, causal: bool = False, rotary: Rotary | None = None
    ) -> Tensor:
        attended, _ = self.attention(self.attention_norm(values), keys, causal, rotary)
        values = values + self.dropout(attended)
        added: Tensor = self.dropout(self.mlp(self.mlp_norm(values)))
        return values + added


def blocks(width: int, depth: int, heads: int, mlp_factor: float, dropout: float) -> nn.ModuleList:
    """A stack of blocks. Raises ModelError for a width that the heads do not divide."""
    if depth < 1 or heads < 1 or width < 1 or width % heads:
        raise ModelError(f"width {width}, heads {heads}, depth {depth}: wanted a width that is a multiple of the heads")
    mlp_width = max(1, round(mlp_factor * width))
    return nn.ModuleList(Block(width, heads, mlp_width, dropout, 2 * depth) for _ in range(depth))


def rotary_angles(num_positions: int, head_width: int) -> Rotary:
    """Cosines and sines `[num_positions, head_width]`: angle t * 10000^(-2i / head_width) for both values of pair i.

    Su et al. 2021, arXiv:2104.09864, equations 15 and 34; pairs are (i, i + head_width / 2).
    """
    exponent = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
    angle = torch.arange(num_positions, dtype=torch.float32)[:, None] * 10_000.0**-exponent
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _rotated(values: Tensor, rotary: Rotary) -> Tensor:
    cosine, sine = (part.to(values.dtype) for part in rotary)
    first, second = values.chunk(2, dim=-1)
    return values * cosine + torch.cat([-second, first], dim=-1) * sine


def _weights(query: Tensor, key: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    """Vaswani et al. 2017, arXiv:1706.03762, equation 1."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1)
