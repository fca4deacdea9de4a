"""Memory-mapped targets for (example, view)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.manifest import CachedSplit, open_manifest, require
from distill_platform.cache.targets import Target
from distill_platform.data.columns import count_rows, map_columns
from distill_platform.data.examples import Examples
from distill_platform.errors import CacheMismatch


@dataclass(frozen=True)
class CachedTargets:
    """A teacher's outputs for one split."""

    columns: dict[str, Tensor]
    codec: str
    num_views: int

    def __call__(self, index: Tensor, view: Tensor) -> Target:
        """The targets of examples `index` `[B]` as seen in `view` `[B]`."""
        rows = index * self.num_views + view
        return CODECS[self.codec].decode({name: values.index_select(0, rows) for name, values in self.columns.items()})


def open_targets(cache: Artifact, data: Artifact, split: str, examples: Examples) -> CachedTargets:
    """The cached targets of a split, matched row by row with its examples.

    Raises CacheMismatch if the cache was built from other data, or a row is not for the example it should be for.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    columns = map_columns(cache, cached.shards, ["key", *CODECS[manifest.codec].columns])
    _check_keys(cache, split, columns.pop("key"), cached, examples)
    return CachedTargets(columns, manifest.codec, cached.num_views)


def _check_keys(cache: Artifact, split: str, keys: Tensor, cached: CachedSplit, examples: Examples) -> None:
    wanted = (len(examples) * cached.num_views, 16)
    if tuple(keys.shape) != wanted:
        raise CacheMismatch(f"{cache.uri}: split {split!r} has {len(keys)} rows, the data wants {wanted[0]}")
    same = (keys.view(len(examples), cached.num_views, 16) == examples.keys[:, None, :]).all(-1)
    if not bool(same.all()):
        row = int(torch.nonzero(~same.flatten())[0])
        raise CacheMismatch(
            f"{cache.uri}: row {row} of split {split!r} is not for the data's example; build the cache again"
        )


def verify_cache(cache: Artifact) -> int:
    """Read every file of a cache from where it is stored, against its hash; gives the number of rows.

    Raises Corrupt naming the first file that changed.
    """
    open_manifest(cache)
    return sum(count_rows(cache.read(shard)) for shard in cache.files_under("shards"))
