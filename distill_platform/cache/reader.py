"""Memory-mapped targets for (example, view)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import CONSTANTS_FILE, CachedSplit, require
from distill_platform.cache.targets import Target
from distill_platform.data.columns import map_columns
from distill_platform.data.examples import Examples
from distill_platform.errors import CacheMismatch


@dataclass(frozen=True)
class CachedTargets:
    """A teacher's outputs for one split. `digest` is that of the cache artifact."""

    columns: dict[str, Tensor]
    encoding: Encoding
    constants: Mapping[str, Tensor]
    num_views: int
    digest: str

    def __call__(self, index: Tensor, view: Tensor) -> Target:
        """The targets of examples `index` `[B]` as seen in `view` `[B]`."""
        rows = index * self.num_views + view
        return CODECS[self.encoding.codec].decode(
            {name: values.index_select(0, rows) for name, values in self.columns.items()}, self.encoding, self.constants
        )


def open_targets(cache: Artifact, data: Artifact, split: str, examples: Examples) -> CachedTargets:
    """The cached targets of a split, matched row by row with its examples.

    Raises CacheMismatch if the cache was built from other data, or a row is not for the example it should be for.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    columns = map_columns(cache, cached.shards, ["key", *CODECS[manifest.encoding.codec].columns])
    _check_keys(cache, split, columns.pop("key"), cached, examples)
    return CachedTargets(columns, manifest.encoding, read_constants(cache), cached.num_views, cache.digest)


def read_constants(cache: Artifact) -> dict[str, Tensor]:
    """What the codec needs once for all rows; empty for most."""
    return load_tensors(cache.read(CONSTANTS_FILE)) if CONSTANTS_FILE in cache.files else {}


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
