"""Targets for (example, view): from memory maps, or from a pool if the cache is larger than memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.epochs import EpochRows, lay_out
from distill_platform.cache.manifest import CONSTANTS_FILE, CachedSplit, require
from distill_platform.cache.targets import Target
from distill_platform.data.columns import map_columns
from distill_platform.data.examples import Examples
from distill_platform.data.mixing import pairs
from distill_platform.data.order import Blocks, Order, WindowedOrder
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch
from distill_platform.scratch import scratch_dir

PAIR_COLUMNS = ("partner", "weight")
EXAMPLES_AT_ONCE = 1 << 16
PAIRS_CHECKED = 4096
"""Recorded pairs follow from views, split and code, so they are wrong for most rows or for none."""


@dataclass(frozen=True)
class MappedRows:
    """Rows of a cache by (example, view), from maps `[N * V, …]`: example-major, so row `example * V + view`."""

    columns: dict[str, Tensor]
    num_views: int

    def take(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """The columns' rows `[B, …]` for examples `index` `[B]` in `view` `[B]`."""
        rows = index if self.num_views == 1 else torch.add(view, index, alpha=self.num_views)
        return {name: values.index_select(0, rows) for name, values in self.columns.items()}

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """Nothing: the page cache keeps what is read."""

    def close(self) -> None:
        """Nothing: maps go with the last tensor over them."""


@dataclass(frozen=True)
class CachedTargets:
    """A teacher's outputs for one split. `digest` is that of the cache artifact.

    Every call gives tensors of its own, which autograd may keep.
    """

    rows: MappedRows | EpochRows
    encoding: Encoding
    constants: Mapping[str, Tensor]
    digest: str

    def __call__(self, index: Tensor, view: Tensor) -> Target:
        """The targets of examples `index` `[B]` as seen in `view` `[B]`, both int64."""
        return CODECS[self.encoding.codec].decode(self.rows.take(index, view), self.encoding, self.constants)

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """What will be asked for next; changes how long calls take, and nothing else."""
        self.rows.prefetch(reads)

    def close(self) -> None:
        """Stop reading ahead; the targets cannot be asked any more."""
        self.rows.close()


def open_targets(
    cache: Artifact,
    data: Artifact,
    split: str,
    examples: Examples,
    views: Views | None = None,
    order: Order | None = None,
) -> CachedTargets:
    """The cached targets of a split, matched row by row with its examples.

    views: those of the run; needed for a cache that mixes, and with a windowed order.
    order: in which order they will be asked for. If it is windowed, two windows of rows are all that memory holds.

    Raises CacheMismatch if the cache was built from other data or views, or a row is not for the example it should be
    for, or not mixed with the one it should be mixed with.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    if None not in (views, manifest.views) and views != manifest.views:
        raise CacheMismatch(
            f"{cache.uri} was built with the views {manifest.views}, this run has {views}; run the cache step again"
        )
    names = CODECS[manifest.encoding.codec].columns
    recorded = ("key", "view", *(PAIR_COLUMNS if manifest.mixes else ()))
    mapped = recorded if isinstance(order, WindowedOrder) else (*recorded, *names)
    columns = map_columns(cache, cached.shards, mapped)
    _check_rows(cache, split, columns["key"], columns["view"], cached, examples)
    if manifest.mixes:
        assert views is not None, "a cache that mixes is checked against the run's views"
        _check_pairs(cache, split, columns, cached, examples, views)
    rows: MappedRows | EpochRows
    if isinstance(order, WindowedOrder):
        assert views is not None, "which rows an epoch needs follows from the views"
        if views.num != cached.num_views:
            raise CacheMismatch(f"{cache.uri}: split {split!r} has {cached.num_views} views, the run has {views.num}")
        laid_out = lay_out(cache, cached.shards, names, len(examples), views, order.block_examples)
        rows = EpochRows(laid_out, examples, views, order)
    else:
        rows = MappedRows({name: columns[name] for name in names}, cached.num_views)
    return CachedTargets(rows, manifest.encoding, read_constants(cache), cache.digest)


def read_constants(cache: Artifact) -> dict[str, Tensor]:
    """What the codec needs once for all rows; empty for most."""
    return load_tensors(cache.read(CONSTANTS_FILE)) if CONSTANTS_FILE in cache.files else {}


def _check_rows(
    cache: Artifact, split: str, keys: Tensor, view: Tensor, cached: CachedSplit, examples: Examples
) -> None:
    num_views, wanted = cached.num_views, (len(examples) * cached.num_views, 16)
    if tuple(keys.shape) != wanted:
        raise CacheMismatch(f"{cache.uri}: split {split!r} has {len(keys)} rows, the data wants {wanted[0]}")
    at_once = EXAMPLES_AT_ONCE * num_views
    parts = zip(keys.split(at_once), view.split(at_once), examples.keys.split(EXAMPLES_AT_ONCE), strict=True)
    for number, (stored, shown, own) in enumerate(parts):
        same = (stored.view(-1, num_views, 16) == own[:, None, :]).all(-1)
        same &= shown.view(-1, num_views) == torch.arange(num_views)
        if not bool(same.all()):
            row = number * at_once + int(torch.nonzero(~same.flatten())[0])
            raise CacheMismatch(
                f"{cache.uri}: row {row} of split {split!r} is not for the data's example and view; build the cache "
                f"again, or if `distill cache verify` finds it sound, delete its copy in {scratch_dir()}"
            )


def _check_pairs(
    cache: Artifact,
    split: str,
    recorded: Mapping[str, Tensor],
    cached: CachedSplit,
    examples: Examples,
    views: Views,
) -> None:
    """Of rows drawn evenly: whom they were mixed with, against whom this run mixes them with."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(recorded["weight"]), (PAIRS_CHECKED,), generator=generator).unique()
    wanted = pairs(examples, rows // cached.num_views, rows % cached.num_views, views)
    partner, weight = (recorded[name].index_select(0, rows) for name in PAIR_COLUMNS)
    wrong = torch.nonzero((partner != wanted.partner) | (weight != wanted.weight)).flatten()
    if len(wrong):
        row = int(wrong[0])
        raise CacheMismatch(
            f"{cache.uri}: row {int(rows[row])} of split {split!r} is mixed with example {int(partner[row])} (share "
            f"{float(weight[row]):g} its own), this run mixes it with {int(wanted.partner[row])} (share "
            f"{float(wanted.weight[row]):g}); {len(wrong)} of {len(rows)} rows differ. Build the cache again"
        )
