"""One shard of a cache: the teacher's outputs for a range of examples, every view of each, keyed by (example, view)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.codecs import CODECS, Columns
from distill_platform.cache.encoding import Encoding
from distill_platform.data.columns import write_columns
from distill_platform.data.draws import streams
from distill_platform.data.examples import Examples
from distill_platform.data.views import Views, augment

ROWS_PER_SHARD = 65_536
DRAW_SEED = 0
"""Of codecs that draw: a row draws by its key and view alone."""


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


def plan_shards(
    split: str, num_examples: int, num_views: int, rows_per_shard: int = ROWS_PER_SHARD
) -> list[ShardRange]:
    """A split cut into shards; the same cut whatever the number of workers."""
    step = max(1, rows_per_shard // num_views)
    return [
        ShardRange(split, first, min(first + step, num_examples), num_views) for first in range(0, num_examples, step)
    ]


Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""Raw inputs `[B, *shape]` -> what is kept of the teacher's answer, by name: "logits" `[B, …, C]`, or "hidden"
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
    parts = [_encoded(rows, shard, examples, views, predict, encoding) for rows in _rows(shard, batch_size)]
    write_columns(path, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _rows(shard: ShardRange, batch_size: int) -> list[Tensor]:
    """The shard's row numbers in order, in batches: example-major, then view."""
    rows = torch.arange(shard.first * shard.num_views, shard.last * shard.num_views)
    return list(rows.split(batch_size))


def _encoded(
    rows: Tensor, shard: ShardRange, examples: Examples, views: Views, predict: Predict, encoding: Encoding
) -> Columns:
    index, view = rows // shard.num_views, rows % shard.num_views
    keys = examples.keys.index_select(0, index)
    inputs = augment(examples.inputs.index_select(0, index), keys, view, views, examples.schema.input)
    kept = {name: values.float().cpu() for name, values in predict(inputs).items()}
    codec = CODECS[encoding.codec]
    columns = {"key": keys.numpy(), "view": view.numpy().astype(np.int16)}
    columns |= codec.encode(kept.pop(codec.source), encoding, streams(keys.numpy(), view.numpy(), DRAW_SEED))
    layers = {name: values.half().numpy() for name, values in kept.items() if name.startswith("layer.")}
    return {**columns, **layers}
