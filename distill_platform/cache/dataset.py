"""A cache as a Ray Data dataset, for pipelines of one's own, on the Ray that the caller has connected to.

Ray is imported when a dataset is asked for: importing this package loads none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distill_platform.artifact import Artifact, open_artifact
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.manifest import Manifest, open_manifest
from distill_platform.cache.reader import read_constants
from distill_platform.data.columns import read_columns
from distill_platform.errors import InputError, NotFound
from distill_platform.storage import open_storage

if TYPE_CHECKING:
    import ray.data

ROWS_AT_ONCE = 4096
"""Decoded rows may be a hundred times as wide as stored ones; Ray joins what is small into one block."""


def read_dataset(uri: str) -> ray.data.Dataset:
    """The rows of a cache, decoded: one read task per shard, which fetches it, verifies it and decodes it.

    uri: the cache's folder, `<workspace>/artifacts/cache/<key>`, on disk or `s3://…`.

    Columns: `split` (text), `key` (16 bytes), `view` (int); the tensors of the decoded target: `logits` `[…, C]` fp32
    of codecs that give all logits; ids, weights and so on of others; and what else is stored, as it stands there: kept
    layers; partner and weight of a mixed row.

    Raises NotFound if no cache is committed there, InputError for a URI of another form; on reading, Corrupt.
    """
    import ray.data

    cache = _open(uri)
    manifest = open_manifest(cache)
    shards = [(split, shard) for split, cached in manifest.splits.items() for shard in cached.shards]

    def read(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in batch["item"]:
            yield from _rows(cache, manifest, *shards[number])

    dataset = ray.data.from_items(list(range(len(shards))), override_num_blocks=len(shards))
    return dataset.map_batches(read, batch_size=1)


def _open(uri: str) -> Artifact:
    workspace, _, key = uri.rstrip("/").rpartition("/artifacts/cache/")
    if not workspace or not key or "/" in key:
        raise InputError(f"{uri} names no cache; wanted <workspace>/artifacts/cache/<key>")
    cache = open_artifact(open_storage(workspace), "cache", key)
    if cache is None:
        raise NotFound(f"{uri}: no cache is committed there")
    return cache


def _rows(cache: Artifact, manifest: Manifest, split: str, shard: str) -> Iterator[dict[str, Any]]:
    """The rows of a shard as Ray wants them, some thousand at a time."""
    with tempfile.TemporaryDirectory(prefix="distill-dataset-") as folder:
        columns = read_columns(cache.local_copy(shard, Path(folder)))
    codec, constants = CODECS[manifest.encoding.codec], read_constants(cache)
    for first in range(0, len(columns["view"]), ROWS_AT_ONCE):
        part = {name: values[first : first + ROWS_AT_ONCE] for name, values in columns.items()}
        encoded = {name: torch.from_numpy(part.pop(name).copy()) for name in codec.columns}
        keys = part.pop("key")
        target = codec.decode(encoded, manifest.encoding, constants)
        decoded = {name: value.numpy() for name, value in vars(target).items() if isinstance(value, Tensor)}
        named = {"split": np.full(len(keys), split), "key": np.array([key.tobytes() for key in keys], object)}
        yield {**named, **part, **decoded}
