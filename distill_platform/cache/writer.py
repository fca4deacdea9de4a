"""One shard of a cache: the teacher's outputs for a range of examples, every view of each, keyed by (example, view)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.codecs import CODECS
from distill_platform.data.columns import write_columns
from distill_platform.data.examples import Examples
from distill_platform.data.views import Views, augment

ROWS_PER_SHARD = 65_536


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


def write_shard(
    path: Path,
    shard: ShardRange,
    examples: Examples,
    views: Views,
    predict: Callable[[Tensor], Tensor],
    codec: str,
    dtype: str,
    batch_size: int,
) -> None:
    """Write one shard. `predict` takes raw inputs `[B, *shape]` and gives raw logits `[B, C]`."""
    parts = [predict(inputs).float().cpu().numpy() for inputs in _inputs(shard, examples, views, batch_size)]
    keys = examples.keys[shard.first : shard.last].numpy()
    columns = CODECS[codec].encode(np.concatenate(parts), dtype)
    rows_per_example = shard.num_views
    key_columns = {
        "key": np.repeat(keys, rows_per_example, axis=0),
        "view": np.tile(np.arange(rows_per_example, dtype=np.int16), len(keys)),
    }
    write_columns(path, {**key_columns, **columns})


def _inputs(shard: ShardRange, examples: Examples, views: Views, batch_size: int) -> Iterator[Tensor]:
    """Raw inputs of the shard's rows in order: example-major, then view."""
    rows = torch.arange(shard.first * shard.num_views, shard.last * shard.num_views)
    for part in rows.split(batch_size):
        index, view = part // shard.num_views, part % shard.num_views
        keys = examples.keys.index_select(0, index)
        yield augment(examples.inputs.index_select(0, index), keys, view, views, examples.schema.input)
