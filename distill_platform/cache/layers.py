"""What a teacher's inner layers said, beside its logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.epochs import EpochRows, lay_out
from distill_platform.cache.manifest import open_manifest, require
from distill_platform.cache.reader import MappedRows
from distill_platform.cache.writer import LAYER
from distill_platform.data.columns import map_columns
from distill_platform.data.examples import Examples
from distill_platform.data.order import Blocks, Order, WindowedOrder
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch


def open_layers(cache: Artifact, data: Artifact, split: str) -> dict[str, Tensor]:
    """Name of each kept layer -> its values `[rows, …]` fp16, mapped; row `example * num_views + view`.

    Shapes of a row are in the manifest. Raises CacheMismatch if the cache was built from other data.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    columns = map_columns(cache, cached.shards, [f"{LAYER}{name}" for name in manifest.layers])
    return {name.removeprefix(LAYER): values for name, values in columns.items()}


@dataclass(frozen=True)
class CachedLayers:
    """Layers of a teacher for one split. shapes: name -> shape of one row's values."""

    rows: MappedRows | EpochRows
    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """Name -> values `[B, …]` fp16 of examples `index` `[B]` as seen in `view` `[B]`, both int64."""
        found = self.rows.take(index, view)
        return {name: found[f"{LAYER}{name}"] for name in self.shapes}

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """What will be asked for next."""
        self.rows.prefetch(reads)

    def close(self) -> None:
        """Stop reading ahead."""
        self.rows.close()


def open_layer_rows(
    cache: Artifact,
    data: Artifact,
    split: str,
    wanted: Mapping[str, str],
    examples: Examples,
    views: Views,
    order: Order | None = None,
) -> CachedLayers:
    """Layers of a split by (example, view), in the order of `open_targets`, which checks whose the rows are.

    wanted: name of a layer -> "pooled" or "whole". order: if it is windowed, two windows of rows are all that memory
    holds.

    Raises CacheMismatch if the cache was built from other data, or does not keep a layer as it is wanted.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    for name, mode in wanted.items():
        kept = manifest.modes.get(name, "nothing")
        if kept not in (mode, "whole"):
            raise CacheMismatch(
                f"{cache.uri} keeps {kept} of layer {name!r}, the objective wants {mode}; run the cache step again"
            )
    columns = [f"{LAYER}{name}" for name in wanted]
    rows: MappedRows | EpochRows
    if isinstance(order, WindowedOrder):
        laid_out = lay_out(cache, cached.shards, columns, len(examples), views, order.block_examples)
        rows = EpochRows(laid_out, examples, views, order)
    else:
        rows = MappedRows(map_columns(cache, cached.shards, columns), cached.num_views)
    return CachedLayers(rows, {name: manifest.layers[name] for name in wanted})


def kept_layers(cache: Artifact) -> dict[str, tuple[int, ...]]:
    """Name of each layer that a cache keeps -> shape of one row's values."""
    return dict(open_manifest(cache).layers)
