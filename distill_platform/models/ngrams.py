"""A bag of hashed n-grams: the smallest text classifier that is any good. Joulin et al. 2017, arXiv:1607.01759."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill_platform.errors import ModelError

MULTIPLIER, PRIME = 1_000_003, 2**31 - 1
"""Of the polynomial hash; with ids and sums below 2^31 nothing leaves 64 bits."""


def ngrams(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    kind: str,
    num_ids: int,
    sizes: Sequence[int] = (1, 2, 3, 4),
    buckets: int = 8192,
    width: int = 32,
    dropout: float = 0.0,
) -> nn.Module:
    """The mean of the embeddings of all runs of `sizes` ids, hashed into `buckets`, and a linear layer.

    Ids `[B, T]` and their mask -> `[B, C]`. Its size is buckets * width, whatever the length.
    """
    if kind != "text":
        raise ModelError(f"ngrams knows no order of what it counts, so it takes text to classify; got {kind} inputs")
    if not sizes or min(sizes) < 1 or buckets < 1:
        raise ModelError(f"ngrams got sizes {list(sizes)} and {buckets} buckets, wanted positive whole numbers")
    return _NGrams(tuple(sizes), buckets, width, num_classes, dropout)


class _NGrams(nn.Module):
    def __init__(self, sizes: tuple[int, ...], buckets: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.sizes, self.buckets = sizes, buckets
        self.embedding = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found = torch.cat([hashed_ngrams(ids, mask, size, self.buckets) for size in self.sizes], dim=1)
        logits: Tensor = self.head(self.dropout(self.embedding(found)))
        return logits


def hashed_ngrams(ids: Tensor, mask: Tensor, size: int, buckets: int) -> Tensor:
    """The bucket, 1 to `buckets`, of each run of `size` ids: `[B, T - size + 1]`; 0 where a run holds padding."""
    num_runs = max(ids.shape[1] - size + 1, 0)
    total = torch.full_like(ids[:, :num_runs], size)
    for place in range(size):
        total = (total * MULTIPLIER + ids[:, place : place + num_runs]) % PRIME
    return torch.where(mask[:, size - 1 :], total % buckets + 1, 0)
