"""A transformer over ids: the class of a text, or the next token at every position."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.attention import INITIAL_STD, Rotary, blocks, rotary_angles
from distill_platform.models.pooling import masked_mean

POOLING = ("mean", "first")
POSITIONS = ("learned", "rotary")


def transformer(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    kind: str,
    num_ids: int,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    mlp_factor: float = 4.0,
    dropout: float = 0.0,
    positions: Literal["learned", "rotary"] = "rotary",
    pooling: Literal["mean", "first"] = "mean",
    tied: bool = False,
) -> nn.Module:
    """Ids `[B, T]` and their mask. Of text: every position sees all others, then the mean over them (or the first one)
    and a linear layer, `[B, C]`. Of tokens: a position sees those before it, `[B, T, V]`, what comes next.

    tied: the output layer has the embedding's weights (Press & Wolf 2017, arXiv:1608.05859); of tokens alone.
    """
    if positions not in POSITIONS or pooling not in POOLING:
        raise ModelError(
            f"transformer got positions {positions!r} and pooling {pooling!r}, wanted positions "
            f"{' or '.join(POSITIONS)}, pooling {' or '.join(POOLING)}"
        )
    if positions == "rotary" and width // max(heads, 1) % 2:
        raise ModelError(f"width {width} over {heads} heads is odd; rotary positions want an even width of each head")
    if tied and kind != "tokens":
        raise ModelError(f"transformer: tied is for tokens, where the output's classes are the ids; got {kind} inputs")
    return Transformer(
        blocks(width, depth, heads, mlp_factor, dropout),
        (input_shape[0], num_ids, num_classes, width, heads),
        dropout=dropout,
        learned=positions == "learned",
        pooling=None if kind == "tokens" else pooling,
        tied=tied,
    )


class Transformer(nn.Module):
    """Ids `[B, T]` and their mask -> `[B, C]`, or `[B, T, V]` where nothing is pooled."""

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        stack: nn.ModuleList,
        sizes: tuple[int, int, int, int, int],
        dropout: float,
        learned: bool,
        pooling: str | None,
        tied: bool,
    ) -> None:
        super().__init__()
        length, num_ids, num_classes, width, heads = sizes
        self.pooling = pooling
        self.embedding = nn.Embedding(num_ids, width)
        self.positions = nn.Embedding(length, width) if learned else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = stack
        self.norm = nn.LayerNorm(width)
        self.head = None if tied else nn.Linear(width, num_classes)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=INITIAL_STD)
        else:
            for name, angles in zip(("cosine", "sine"), rotary_angles(length, width // heads), strict=True):
                self.register_buffer(name, angles, persistent=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        num_positions = ids.shape[1]
        values = self.embedding(ids)
        rotary: Rotary | None = None
        if self.positions is not None:
            values = values + self.positions.weight[:num_positions]
        else:
            rotary = self.cosine[:num_positions], self.sine[:num_positions]
        values = self.dropout(values)
        causal = self.pooling is None
        keys = None if causal else _visible(mask)  # padding comes last: who sees none that is later sees none of it
        for block in self.blocks:
            values = block(values, keys, causal, rotary)
        values = self.norm(values)
        if self.pooling is not None:
            values = values[:, 0] if self.pooling == "first" else masked_mean(values, mask)
        if self.head is None:
            return F.linear(values, self.embedding.weight[1:])  # id 0 is padding, which nothing predicts
        logits: Tensor = self.head(values)
        return logits


def _visible(mask: Tensor) -> Tensor:
    """The positions that may be looked at; the first one always, so that an empty text gives no NaN."""
    keys = mask.clone()
    keys[:, 0] = True
    return keys
