"""Data and caches to measure with, laid down by the platform's own writer."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import Encoding, Manifest
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit
from distill_platform.cache.writer import Predict, plan_shards, write_shard
from distill_platform.data.columns import write_columns
from distill_platform.data.examples import open_split
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.storage import Storage

NUM_VALIDATION = 64


def make_data(workspace: Storage, num_examples: int, side: int, num_classes: int) -> Artifact:
    """Random grey images as `prepare` lays them down; nothing that is measured depends on what they show."""
    spec = InputSpec("image", (side, side, 1), "uint8", 0, 255)
    rng = np.random.default_rng(0)

    def body(draft: Draft) -> None:
        for split, num in (("train", num_examples), ("val", NUM_VALIDATION)):
            columns = {
                "key": rng.integers(0, 256, (num, 16), np.uint8),
                "input": rng.integers(0, 256, (num, *spec.shape), np.uint8),
                "label": rng.integers(0, num_classes, num),
            }
            write_columns(draft.path(f"splits/{split}-00000.parquet"), columns)
        class_names = tuple(str(number) for number in range(num_classes))
        draft.write_json("schema.json", Schema(spec, class_names, {}, mean=(127.5,), std=(73.9,)).to_json())

    return produce(workspace, "prepare", 1, {"num_examples": num_examples, "side": side}, {}, body)[0]


def make_cache(
    workspace: Storage,
    data: Artifact,
    views: Views,
    predict: Predict,
    encoding: Encoding,
    name: str = "",
    batch_size: int = 128,
    splits: tuple[str, ...] = ("train", "val"),
) -> Artifact:
    """The pass of a teacher in this process: shards, then the manifest, committed as one artifact."""

    def body(draft: Draft) -> None:
        cached = {}
        for split in splits:
            examples, num_views = open_split(data, split), views.num if split == "train" else 1
            shards = plan_shards(split, len(examples), num_views)
            for shard in shards:
                write_shard(draft.path(shard.name), shard, examples, views, predict, encoding, batch_size)
            cached[split] = CachedSplit(len(examples), num_views, tuple(shard.name for shard in shards))
        draft.write_json(MANIFEST_FILE, Manifest("benchmark", data.digest, encoding, cached).to_json())

    return produce(workspace, "cache", 1, {"name": name}, {"data": data}, body)[0]


def as_streams(num_rows: int, number: int = 0) -> np.ndarray[Any, Any]:
    """Random states of rows for codecs that draw `[N]`; another set of them for each `number`."""
    return np.random.default_rng(number).integers(0, 2**64, num_rows, np.uint64)
