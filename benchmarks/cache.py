"""The cache at rest and in use: writing, reading, opening, decoding; and data and caches to measure with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from timing import Seconds, empty_scratch, interleaved, timed
from torch import Tensor

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import CODECS, Manifest, open_manifest, open_targets
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit
from distill_platform.cache.writer import plan_shards, write_shard
from distill_platform.data.columns import ROW_GROUP_ROWS, map_columns, write_columns
from distill_platform.data.examples import open_schema, open_split
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.storage import Storage

NUM_CLASSES, NUM_VIEWS, BATCH_SIZE = 100, 4, 256
NUM_VALIDATION = 64
ROW_BYTES = 16 + 2 + NUM_CLASSES * 2
"""Key, view, fp16 logits."""


def measure_write(folder: Path, num_rows: int, repeats: int) -> Seconds:
    """One shard of dense fp16 logits with their keys, from the fp32 logits `[N, C]` that a teacher gives."""
    rng = np.random.default_rng(0)
    logits_NC = rng.standard_normal((num_rows, NUM_CLASSES), np.float32)
    keys = {
        "key": rng.integers(0, 256, (num_rows, 16), np.uint8),
        "view": np.arange(num_rows, dtype=np.int16) % NUM_VIEWS,
    }

    def encode() -> dict[str, np.ndarray[Any, Any]]:
        return CODECS["dense"].encode(logits_NC, "float16")

    def by_hand() -> dict[str, np.ndarray[Any, Any]]:
        return {**keys, "logits": torch.from_numpy(logits_NC).half().numpy()}

    def write_plain() -> None:
        with (folder / "plain").open("wb") as file:
            for values in by_hand().values():
                values.tofile(file)

    def write_fixed_binary() -> None:
        arrays = {
            name: pa.Array.from_buffers(pa.binary(values[0].nbytes), num_rows, [None, pa.py_buffer(values)])
            for name, values in by_hand().items()
        }
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(pa.table(arrays), folder / "fixed.parquet", row_group_size=ROW_GROUP_ROWS, **options)

    arms = {
        "platform": timed(lambda: write_columns(folder / "platform.parquet", {**keys, **encode()})),
        "memmap": timed(write_plain),
        "fixed binary": timed(write_fixed_binary),
        "encoding, part of platform": timed(encode),
    }
    return interleaved(arms, repeats)


def measure_read(workspace: Storage, folder: Path, num_rows: int, repeats: int) -> Seconds:
    """Shuffled batches of one epoch, warm; opening the cache again; decoding it, verified, on a new machine."""
    data = make_data(workspace, num_rows // NUM_VIEWS, side=2, num_classes=NUM_CLASSES)
    views = Views.of(NUM_VIEWS, 0, [{"name": "shift", "pixels": 1}])
    cache = make_cache(workspace, data, views, lambda inputs: torch.randn(len(inputs), NUM_CLASSES))
    examples = open_split(data, "train")
    targets = open_targets(cache, data, "train", examples)
    targets.columns["logits"].numpy().tofile(folder / "logits")
    shape = targets.columns["logits"].shape
    mapped = torch.from_file(str(folder / "logits"), size=shape.numel(), dtype=torch.float16).reshape(shape)
    shards = open_manifest(cache).splits["train"].shards
    out = torch.empty(BATCH_SIZE, NUM_CLASSES, dtype=torch.float16)
    order = torch.randperm(len(examples))[: rows_read(num_rows)]
    batches = [(index, torch.randint(NUM_VIEWS, (BATCH_SIZE,))) for index in order.split(BATCH_SIZE)]
    rows_of_batches = [index * NUM_VIEWS + view for index, view in batches]

    def decode_cold() -> float:
        with empty_scratch():
            return timed(lambda: map_columns(cache, shards, ["logits"]))()

    arms = {
        "platform": timed(lambda: [targets(index, view) for index, view in batches]),
        "memmap": timed(lambda: [torch.index_select(mapped, 0, rows, out=out).float() for rows in rows_of_batches]),
        "row numbers, part of platform": timed(lambda: [index * NUM_VIEWS + view for index, view in batches]),
        "open again": timed(lambda: open_targets(cache, data, "train", examples)),
        "cold decode": decode_cold,
    }
    return interleaved(arms, repeats)


def rows_read(num_rows: int) -> int:
    """Rows of one epoch: one view of each example, in whole batches."""
    return num_rows // NUM_VIEWS // BATCH_SIZE * BATCH_SIZE


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
    workspace: Storage, data: Artifact, views: Views, predict: Callable[[Tensor], Tensor], name: str = ""
) -> Artifact:
    """The pass of a teacher in this process: shards, then the manifest, committed as one artifact."""

    def body(draft: Draft) -> None:
        splits = {}
        for split, num_views in (("train", views.num), ("val", 1)):
            examples = open_split(data, split)
            shards = plan_shards(split, len(examples), num_views)
            for shard in shards:
                write_shard(draft.path(shard.name), shard, examples, views, predict, "dense", "float16", batch_size=128)
            splits[split] = CachedSplit(len(examples), num_views, tuple(shard.name for shard in shards))
        num_classes = len(open_schema(data).class_names)
        draft.write_json(
            MANIFEST_FILE, Manifest("benchmark", data.digest, "dense", "float16", num_classes, splits).to_json()
        )

    return produce(workspace, "cache", 1, {"name": name}, {"data": data}, body)[0]
