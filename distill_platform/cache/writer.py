"""One shard of a cache: the teacher's outputs for a range of examples, every view of each, keyed by (example, view)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.codecs import CODECS, Columns
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import CachedSplit
from distill_platform.data.columns import write_columns
from distill_platform.data.draws import U64, streams
from distill_platform.data.examples import Examples
from distill_platform.data.mixing import show_with_pairs
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch

ROWS_PER_SHARD = 65_536
DRAW_SEED = 0
"""Of codecs that draw: a row draws by its key and view alone."""
REPEATED = ("key", "view")
"""Columns that hold each value several times where examples have several views."""
LAYER = "layer."
"""Before a kept layer's name: its column."""


@dataclass(frozen=True)
class ShardRange:
    """Examples `[first, last)` of a split, each with `num_views` views; `name` is the payload file's."""

    split: str
    first: int
    last: int
    num_views: int

    @property
    def name(self) -> str:
        return f"shards/{self.split}-{self.first:010d}.parquet"

    @property
    def num_rows(self) -> int:
        return (self.last - self.first) * self.num_views

    @property
    def first_row(self) -> int:
        """The row of the split that is this shard's first."""
        return self.first * self.num_views

    def batches(self, batch_size: int) -> list[Tensor]:
        """Its rows, as numbers in the split, in order: example-major, then view."""
        return list(torch.arange(self.first_row, self.first_row + self.num_rows).split(batch_size))


def plan_shards(
    split: str, num_examples: int, num_views: int, rows_per_shard: int = ROWS_PER_SHARD
) -> list[ShardRange]:
    """A split cut into shards; the same cut whatever the number of workers."""
    step = max(1, rows_per_shard // num_views)
    return [
        ShardRange(split, first, min(first + step, num_examples), num_views) for first in range(0, num_examples, step)
    ]


def shard_ranges(split: str, cached: CachedSplit) -> list[ShardRange]:
    """The shards of a cache that is there."""
    firsts = [int(re.findall(r"\d+", name)[-1]) for name in cached.shards]
    ends = [*firsts[1:], cached.num_examples]
    return [ShardRange(split, first, last, cached.num_views) for first, last in zip(firsts, ends, strict=True)]


Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""Raw inputs `[B, *shape]` -> what is kept of the teacher's answer, by name: "logits" `[B, …, C]`, "hidden"
`[B, …, H]` if the codec stores that; "layer.<name>" `[B, …]`."""


def write_shard(
    path: Path,
    shard: ShardRange,
    examples: Examples,
    views: Views,
    predict: Predict,
    encoding: Encoding,
    batch_size: int,
) -> None:
    """Write one shard, encoded batch by batch: the raw logits of a batch are all that is held of them."""
    write_encoded(
        path,
        [encode_rows(rows, shard.num_views, examples, views, predict, encoding) for rows in shard.batches(batch_size)],
        encoding,
    )


def write_encoded(path: Path, parts: list[Columns], encoding: Encoding) -> None:
    """Write one shard from its encoded batches, in order."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    repeated = REPEATED if columns["view"].any() else ()
    write_columns(path, columns, compressed=CODECS[encoding.codec].compressed, dictionary=repeated)


def encode_rows(
    rows: Tensor, num_views: int, examples: Examples, views: Views, predict: Predict, encoding: Encoding
) -> Columns:
    """The columns of some rows of a split, given by number.

    Raises CacheMismatch for values that the stored number format cannot hold.
    """
    columns, inputs = identify(rows, num_views, examples, views)
    kept = predict(inputs)
    codec = CODECS[encoding.codec]
    columns |= codec.encode(kept[codec.source].float(), encoding, draw_streams(columns))
    return columns | {name: _narrowed(name, values) for name, values in kept.items() if name.startswith(LAYER)}


def identify(rows: Tensor, num_views: int, examples: Examples, views: Views) -> tuple[Columns, Tensor]:
    """What says whose the rows are, as columns, and the raw inputs `[B, *shape]` that the teacher is shown for them."""
    index, view = rows // num_views, rows % num_views
    inputs, pairs = show_with_pairs(examples, index, view, views)
    columns = {"key": examples.keys.index_select(0, index).numpy(), "view": view.numpy().astype(np.int16)}
    if views.mixes:
        columns |= {"partner": pairs.partner.numpy(), "weight": pairs.weight.numpy()}
    return columns, inputs


def draw_streams(columns: Columns) -> U64:
    """The random state of each row, for codecs that draw."""
    return streams(columns["key"], columns["view"].astype(np.int64), DRAW_SEED)


def _narrowed(name: str, values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    stored = values.half().cpu()
    if stored.numel() and not torch.isfinite(torch.stack(torch.aminmax(stored))).all():
        raise CacheMismatch(
            f"{name} holds values that float16 cannot (largest magnitude {float(values.abs().max()):g}); keep another "
            "layer under cache.layers, or look at the teacher if they are not finite"
        )
    return stored.numpy()
