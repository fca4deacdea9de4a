"""Batches in an order that is a function of (seed, epoch) alone, so that any position can be returned to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from torch import Tensor

from distill_platform.data.examples import Examples
from distill_platform.data.mixing import MixedLabels, show_with_pairs
from distill_platform.data.order import GlobalOrder, Order, Reader, Window, in_batches
from distill_platform.data.views import Views, view_of_epoch


@dataclass(frozen=True)
class Batch:
    """`index` `[B]`: rows of the split; `view` `[B]`: which view of each; inputs `[B, *shape]` raw; labels int64 `[B]`,
    of tokens `[B, T]`.

    subgroups: `[B]`, of each example, -1 for none; None of data without.
    mixed: the labels of what is mixed in; None if the views do not mix.
    """

    index: Tensor
    view: Tensor
    inputs: Tensor
    labels: Tensor
    mixed: MixedLabels | None = None
    subgroups: Tensor | None = None


@dataclass(frozen=True)
class Loader:
    """Shuffled, augmented batches of one split. A last batch of one example is left out: batch norm cannot take it.

    readers: told, when a window begins, what is read for it and for the next one.
    """

    examples: Examples
    views: Views
    batch_size: int
    seed: int
    order: Order = field(default_factory=GlobalOrder)
    readers: tuple[Reader, ...] = ()

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.examples), self.batch_size)
        return full + (rest > 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        windows = self.order.windows(len(self.examples), self.seed, epoch, start * self.batch_size)
        begun: Window | None = None
        for window, index in islice(in_batches(windows, self.batch_size, start), self.num_batches - start):
            if window is not begun:
                begun = window
                for reader in self.readers:
                    reader.prefetch(window.reads)
            yield self._batch(index, view_of_epoch(self.examples.keys.index_select(0, index), epoch, self.views))

    def _batch(self, index: Tensor, view: Tensor) -> Batch:
        inputs, pairs = show_with_pairs(self.examples, index, view, self.views)
        labels = self.examples.labels
        mixed = MixedLabels(labels.index_select(0, pairs.partner), pairs.weight) if self.views.mixes else None
        subgroups = self.examples.subgroups
        of_batch = subgroups.index_select(0, index) if subgroups is not None else None
        return Batch(index, view, inputs, labels.index_select(0, index).long(), mixed, of_batch)
