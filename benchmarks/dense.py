"""Dense logits, written and read: the platform beside a plain memory map and a plain Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from made import as_streams, make_cache, make_data
from timing import Seconds, empty_scratch, interleaved, timed
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache import CODECS, CachedTargets, Encoding, open_manifest, open_targets
from distill_platform.data.columns import ROW_GROUP_ROWS, map_columns, write_columns
from distill_platform.data.examples import Examples, open_split
from distill_platform.data.views import Views
from distill_platform.fingerprint import sha256_file
from distill_platform.storage import Storage

NUM_CLASSES, NUM_VIEWS, BATCH_SIZE = 100, 4, 256
VIEWS = Views.of(NUM_VIEWS, 0, [{"name": "shift", "pixels": 1}])
ENCODING = Encoding("dense", NUM_CLASSES)
ROW_BYTES = 16 + 2 + NUM_CLASSES * 2
"""Key, view, fp16 logits."""

Columns = dict[str, np.ndarray[Any, Any]]


def measure_write(folder: Path, num_rows: int, repeats: int) -> Seconds:
    """One shard of dense fp16 logits with their keys, from the fp32 logits `[N, C]` that a teacher gives.

    "platform" writes page checksums; "hashed" also reads the file again for its sha256, as `put_file` does. "fixed
    binary" has no checksum of any kind unless it says so.
    """
    rng = np.random.default_rng(0)
    logits_NC = torch.from_numpy(rng.standard_normal((num_rows, NUM_CLASSES), np.float32))
    keys = {
        "key": rng.integers(0, 256, (num_rows, 16), np.uint8),
        "view": np.arange(num_rows, dtype=np.int16) % NUM_VIEWS,
    }
    streams = as_streams(num_rows)
    path = folder / "platform.parquet"

    def encode() -> Columns:
        return CODECS["dense"].encode(logits_NC, ENCODING, streams)

    def by_hand() -> Columns:
        return {**keys, "logits": logits_NC.half().numpy()}

    def write() -> None:
        write_columns(path, {**keys, **encode()})

    def write_hashed() -> None:
        write()
        sha256_file(path)

    def write_plain() -> None:
        with (folder / "plain").open("wb") as file:
            for values in by_hand().values():
                values.tofile(file)

    def write_peer(checksums: bool) -> None:
        write_fixed_binary(folder / "fixed.parquet", by_hand(), checksums)

    def write_peer_hashed() -> None:
        write_peer(checksums=True)
        sha256_file(folder / "fixed.parquet")

    arms = {
        "platform": timed(write),
        "platform, hashed": timed(write_hashed),
        "memmap": timed(write_plain),
        "fixed binary": timed(lambda: write_peer(checksums=False)),
        "fixed binary, checksums": timed(lambda: write_peer(checksums=True)),
        "fixed binary, checksums, hashed": timed(write_peer_hashed),
        "encoding, part of platform": timed(encode),
    }
    return interleaved(arms, repeats)


def write_fixed_binary(path: Path, columns: Columns, checksums: bool = False) -> None:
    """Parquet at its fastest: fixed-size binary, uncompressed, no statistics; with page checksums if asked for."""
    arrays = {
        name: pa.Array.from_buffers(pa.binary(values[0].nbytes), len(values), [None, pa.py_buffer(values)])
        for name, values in columns.items()
    }
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    options["write_page_checksum"] = checksums
    pq.write_table(pa.table(arrays), path, row_group_size=ROW_GROUP_ROWS, **options)


@dataclass(frozen=True)
class Cached:
    """A dense cache in use: what a student is handed, and the same values in a plain file, fp16 `[N * views, C]`."""

    cache: Artifact
    data: Artifact
    examples: Examples
    targets: CachedTargets
    mapped: Tensor

    @property
    def shards(self) -> tuple[str, ...]:
        return open_manifest(self.cache).splits["train"].shards


def make_dense(workspace: Storage, folder: Path, num_rows: int) -> Cached:
    """`num_rows` rows, four views of each example."""
    data = make_data(workspace, num_rows // NUM_VIEWS, side=2, num_classes=NUM_CLASSES)
    cache = make_cache(workspace, data, VIEWS, random_logits, ENCODING)
    examples = open_split(data, "train")
    targets = open_targets(cache, data, "train", examples)
    logits = map_columns(cache, open_manifest(cache).splits["train"].shards, ["logits"])["logits"]
    logits.numpy().tofile(folder / "logits")
    plain = torch.from_file(str(folder / "logits"), size=logits.numel(), dtype=torch.float16)
    return Cached(cache, data, examples, targets, plain.reshape(logits.shape))


def random_logits(inputs: Tensor) -> dict[str, Tensor]:
    """A teacher that takes no time."""
    return {"logits": torch.randn(len(inputs), NUM_CLASSES)}


def read_arms(cached: Cached, order: Tensor) -> dict[str, Callable[[], float]]:
    """One warm pass over all rows in an order `[N]`, in whole batches: from (example, view) or row numbers to fp32."""
    mapped, targets = cached.mapped, cached.targets
    rows = [batch for batch in order.split(BATCH_SIZE) if len(batch) == BATCH_SIZE]
    asked = [(batch // NUM_VIEWS, batch % NUM_VIEWS) for batch in rows]
    out = torch.empty(BATCH_SIZE, mapped.shape[1], dtype=torch.float16)

    def select(batch: Tensor) -> Tensor:
        return torch.index_select(mapped, 0, batch, out=out).float()

    return {
        "platform": timed(lambda: [targets(index, view) for index, view in asked]),
        "memmap": timed(lambda: [select(batch) for batch in rows]),
        "memmap from (example, view)": timed(lambda: [select(index * NUM_VIEWS + view) for index, view in asked]),
        "row numbers, part of platform": timed(lambda: [index * NUM_VIEWS + view for index, view in asked]),
    }


def measure_read(workspace: Storage, folder: Path, num_rows: int, repeats: int) -> Seconds:
    """Shuffled batches of one pass, warm; opening the cache again; decoding it, verified, on a new machine."""
    cached = make_dense(workspace, folder, num_rows)

    def decode_cold() -> float:
        with empty_scratch():
            return timed(lambda: map_columns(cached.cache, cached.shards, ["logits"]))()

    arms = {
        **read_arms(cached, torch.randperm(num_rows)),
        "open again": timed(lambda: open_targets(cached.cache, cached.data, "train", cached.examples)),
        "cold decode": decode_cold,
    }
    return interleaved(arms, repeats)


def rows_read(num_rows: int) -> int:
    """Rows of one pass in whole batches."""
    return num_rows // BATCH_SIZE * BATCH_SIZE


def rates(seconds: Mapping[str, float], num_rows: int) -> dict[str, float]:
    """Rows per CPU-second by arm, from CPU-seconds of a pass."""
    return {name: rows_read(num_rows) / value for name, value in seconds.items()}
