"""A cache larger than memory: its columns laid out epoch by epoch on local disk, and read through a pool of blocks.

Within V epochs every example shows each of its V views once, in an order of its own (`views.view_of_epoch`). Shards
keep the V rows of an example together, so reading them by blocks would read V times what an epoch needs. Here row
`slot * padded + example` holds the view that the example shows in epochs `slot`, `slot + V`, …, and an epoch's blocks
are read whole. It takes the disk that the plain layout takes, and is made instead of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.data.columns import RawColumn, fetched_ahead, raw_columns, read_columns
from distill_platform.data.examples import Examples
from distill_platform.data.order import Blocks, WindowedOrder
from distill_platform.data.pool import Pool
from distill_platform.data.views import Views, view_of_epoch
from distill_platform.fingerprint import fingerprint
from distill_platform.scratch import hold

EPOCHS_FORMAT = 1


class EpochRows:
    """Rows of a cache by (example, view). Those of the epoch that was announced last come from the pool."""

    def __init__(
        self, columns: Mapping[str, RawColumn], examples: Examples, views: Views, order: WindowedOrder
    ) -> None:
        self.examples, self.views, self.block_rows = examples, views, order.block_examples
        self.pool = Pool(columns, order.block_examples, max_blocks=2 * order.window_blocks)
        self._padded = _padded(len(examples), order.block_examples)
        self._slot = 0

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """Read these blocks ahead and forget all others; `take` expects the views of the first one's epoch."""
        per_slot = self._padded // self.block_rows
        if reads:
            self._slot = reads[0].epoch % self.views.num
        slots = [(blocks.epoch % self.views.num, blocks.numbers) for blocks in reads]
        self.pool.hold(slot * per_slot + number for slot, numbers in slots for number in numbers)

    def take(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """The columns' rows `[B, …]` for examples `index` `[B]` in `view` `[B]`."""
        if self.views.num == 1:
            return self.pool.take(index)
        found = self.pool.take(index + self._slot * self._padded)
        other = torch.nonzero(found["view"] != view).flatten()
        if len(other):
            slots = self._slots(index[other], view[other])
            for name, values in self.pool.take(index[other] + slots * self._padded).items():
                found[name][other] = values
        del found["view"]
        return found

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()

    def _slots(self, index: Tensor, view: Tensor) -> Tensor:
        keys = self.examples.keys.index_select(0, index)
        shown = torch.stack([view_of_epoch(keys, slot, self.views) for slot in range(self.views.num)])
        slots, which = torch.nonzero(shown == view, as_tuple=True)
        return torch.empty_like(index).index_copy_(0, which, slots)


def lay_out(
    cache: Artifact, shards: Sequence[str], names: Sequence[str], num_examples: int, views: Views, block_rows: int
) -> dict[str, RawColumn]:
    """The named columns of a split, and `view` with more than one, each in a raw file; made once per machine.

    Raises Corrupt for bytes that are not those committed, FormatError for a layout of another version.
    """
    if views.num == 1:
        return raw_columns(cache, shards, names)
    names, padded = ["view", *names], _padded(num_examples, block_rows)
    made_from = [EPOCHS_FORMAT, [cache.sha256(shard) for shard in shards], views.num, views.seed, block_rows]
    entries = {name: f"epochs/{fingerprint([name, *made_from])}" for name in names}
    wanted = {entry: name for name, entry in entries.items()}

    def make(folders: Mapping[str, Path]) -> None:
        with (
            tempfile.TemporaryDirectory(dir=next(iter(folders.values())).parent) as fetched,
            closing(fetched_ahead(cache, shards, Path(fetched))) as paths,
        ):
            _write_slots(paths, {wanted[entry]: folder for entry, folder in folders.items()}, padded, views)

    held = hold(list(wanted), make, cache.size_bytes(*shards))
    return {name: RawColumn.of(held[entry]) for name, entry in entries.items()}


def _write_slots(paths: Iterable[Path], folders: Mapping[str, Path], padded: int, views: Views) -> None:
    """Each column by slots: shard by shard, what an example shows in a slot's epochs goes to its place there."""
    with ExitStack() as stack:
        for folder in folders.values():
            folder.mkdir()
        files = {name: stack.enter_context((folder / "values").open("wb")) for name, folder in folders.items()}
        first = 0
        for path in paths:
            columns = read_columns(path, ["key", *folders])
            keys = torch.from_numpy(columns.pop("key")[:: views.num].copy())
            for slot in range(views.num):
                rows = np.arange(len(keys)) * views.num + view_of_epoch(keys, slot, views).numpy()
                for name, values in columns.items():
                    files[name].seek((slot * padded + first) * values[0].nbytes)
                    files[name].write(values[rows].data)
            first += len(keys)
    for name, folder in folders.items():
        values = columns[name]
        layout = {"dtype": values.dtype.str, "shape": list(values.shape[1:]), "rows": views.num * padded}
        os.truncate(folder / "values", views.num * padded * values[0].nbytes)
        (folder / "layout.json").write_text(json.dumps(layout))


def _padded(num_examples: int, block_rows: int) -> int:
    """Rows of a slot: whole blocks."""
    return -(-num_examples // block_rows) * block_rows
