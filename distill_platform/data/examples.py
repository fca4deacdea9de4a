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
    """Raw examples: keys `[N, 16]` uint8, inputs `[N, *shape]`, labels `[N]` int64. Never written to.

    subgroups: `[N]` int64, positions in `schema.subgroup_names`; None where there are none
    num_bytes: `[N]`, bytes that the labelled tokens of each block stand for; None where the data does not say
    """

    schema: Schema
    keys: Tensor
    inputs: Tensor
    labels: Tensor
    subgroups: Tensor | None = None
    num_bytes: Tensor | None = None

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

    `inputs` is the reader that comes beside it: of what a tensor does it knows shape, dtype and `index_select`. Labels
    of tokens, which are as large, are held with them.
    """
    examples = open_split(data, split)
    names = ["input", "label"] if examples.schema.input.kind == "tokens" else ["input"]
    columns = raw_columns(data, _shards(data, split), names)
    pool = Pool(columns, order.block_examples, max_blocks=2 * order.window_blocks)
    pooled = {name: PooledColumn(pool, name, column) for name, column in columns.items()}
    labels = cast(Tensor, pooled.get("label", examples.labels))
    return replace(examples, inputs=cast(Tensor, pooled["input"]), labels=labels), pooled["input"]


def open_test(data: Artifact) -> tuple[Examples, list[str]]:
    """The test split and its example ids: for `steps.evaluate` alone."""
    ids = [id for shard in _shards(data, "test") for id in read_columns(data.fetch(shard), ["id"])["id"]]
    return _open(data, "test"), ids


def _open(data: Artifact, split: str) -> Examples:
    schema = open_schema(data)
    names = ["key", "input", "label"]
    names += ["subgroup"] if schema.subgroup_names else []
    names += ["num_bytes"] if schema.input.kind == "tokens" else []
    columns = map_columns(data, _shards(data, split), names)
    found = (columns.get(name) for name in ("subgroup", "num_bytes"))
    return Examples(schema, columns["key"], columns["input"], columns["label"], *found)


def _shards(data: Artifact, split: str) -> list[str]:
    return [name for name in data.files_under("splits") if name.startswith(f"splits/{split}-")]
