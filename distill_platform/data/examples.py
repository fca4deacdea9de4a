"""One split of a prepared data artifact, mapped into memory.

Training and selection open "train" and "val" with `open_split`. The test split has a door of its own, `open_test`,
and `steps.evaluate` alone goes through it (a test holds that true).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.data.columns import map_columns, raw_columns, read_columns
from distill_platform.data.order import WindowedOrder
from distill_platform.data.pool import Pool, PooledColumn
from distill_platform.data.schema import Schema

SCHEMA_FILE = "schema.json"


@dataclass(frozen=True)
class Examples:
    """Raw examples: keys `[N, 16]` uint8, inputs `[N, *shape]`, labels `[N]` int64. Never written to."""

    schema: Schema
    keys: Tensor
    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def open_schema(data: Artifact) -> Schema:
    """What the examples of a data artifact look like."""
    return Schema.from_json(data.read_json(SCHEMA_FILE))


def open_split(data: Artifact, split: str) -> Examples:
    """The split "train" or "val"."""
    assert split in ("train", "val"), "the test split is opened by steps.evaluate alone"
    return _open(data, split)


def open_windowed(data: Artifact, split: str, order: WindowedOrder) -> tuple[Examples, PooledColumn]:
    """As `open_split`, for a loader with this order: its inputs are held two windows at a time, and are its reader.

    `inputs` is the reader that comes beside it: of what a tensor does it knows shape, dtype and `index_select`.
    """
    column = raw_columns(data, _shards(data, split), ["input"])["input"]
    pool = Pool({"input": column}, order.block_examples, max_blocks=2 * order.window_blocks)
    inputs = PooledColumn(pool, "input", column)
    return replace(open_split(data, split), inputs=cast(Tensor, inputs)), inputs


def open_test(data: Artifact) -> tuple[Examples, list[str]]:
    """The test split and its example ids: for `steps.evaluate` alone."""
    ids = [id for shard in _shards(data, "test") for id in read_columns(data.fetch(shard), ["id"])["id"]]
    return _open(data, "test"), ids


def _open(data: Artifact, split: str) -> Examples:
    columns = map_columns(data, _shards(data, split), ["key", "input", "label"])
    return Examples(open_schema(data), columns["key"], columns["input"], columns["label"])


def _shards(data: Artifact, split: str) -> list[str]:
    return [name for name in data.files_under("splits") if name.startswith(f"splits/{split}-")]
