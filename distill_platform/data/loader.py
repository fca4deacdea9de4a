"""Batches in an order that is a function of (seed, epoch) alone, so that any position can be returned to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_platform.data.examples import Examples
from distill_platform.data.mixing import MixedLabels, show_with_pairs
from distill_platform.data.views import Views, view_of_epoch


@dataclass(frozen=True)
class Batch:
    """`index` `[B]`: rows of the split; `view` `[B]`: which view of each; inputs `[B, *shape]` raw; labels `[B]`.

    mixed: the labels of what is mixed in; None if the views do not mix.
    """

    index: Tensor
    view: Tensor
    inputs: Tensor
    labels: Tensor
    mixed: MixedLabels | None = None


@dataclass(frozen=True)
class Loader:
    """Shuffled, augmented batches of one split. A last batch of one example is left out: batch norm cannot take it."""

    examples: Examples
    views: Views
    batch_size: int
    seed: int

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.examples), self.batch_size)
        return full + (rest > 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        generator = torch.Generator().manual_seed(step_seed(self.seed, "order", epoch))
        order = torch.randperm(len(self.examples), generator=generator)
        for number in range(start, self.num_batches):
            index = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(index, view_of_epoch(self.examples.keys.index_select(0, index), epoch, self.views))

    def _batch(self, index: Tensor, view: Tensor) -> Batch:
        inputs, pairs = show_with_pairs(self.examples, index, view, self.views)
        labels = self.examples.labels
        mixed = MixedLabels(labels.index_select(0, pairs.partner), pairs.weight) if self.views.mixes else None
        return Batch(index, view, inputs, labels.index_select(0, index), mixed)


def step_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed of 63 bits for one purpose at one position, unrelated to that of any other."""
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
