"""Rows on their way to disk: set down in buckets by key as they come, taken up again bucket by bucket in order of key.

So a source of any size is sorted with one bucket in memory, and the result does not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.ids import KEY_BYTES, keys_of, repeated_id
from distill_platform.data.rows import fixed_binary

MANY_BUCKETS = 256
_ORDER = ("key", "label", "group", "split", "where")


class Spool:
    """Rows in files below `folder`, by the first byte of their keys."""

    def __init__(self, folder: Path, schema: pa.Schema, num_buckets: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.schema, self.num_buckets = folder, schema, num_buckets
        self._writers: dict[int, Any] = {}

    def add(self, rows: pa.Table) -> None:
        """Set rows down."""
        buckets = keys_in(rows)[:, 0].astype(np.int64) * self.num_buckets >> 8
        order = np.argsort(buckets, kind="stable")
        rows, starts = rows.take(pa.array(order)), np.searchsorted(buckets[order], np.arange(self.num_buckets + 1))
        for bucket in np.flatnonzero(np.diff(starts)).tolist():
            if bucket not in self._writers:
                self._writers[bucket] = pa.ipc.new_stream(str(self._path(bucket)), self.schema)
            self._writers[bucket].write_table(rows.slice(starts[bucket], starts[bucket + 1] - starts[bucket]))

    def close(self) -> None:
        """No more rows."""
        for writer in self._writers.values():
            writer.close()

    def read(self, bucket: int) -> pa.Table:
        """A bucket's rows, ordered by key; equal keys by label, group, split and place."""
        path = self._path(bucket)
        if not path.exists():
            return self.schema.empty_table()
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            rows = stream.read_all()
        return rows.take(pc.sort_indices(rows, [(name, "ascending") for name in _ORDER]))

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:03d}.arrow"


def ordered(spool: Spool, look: Callable[[pa.Table], None]) -> Iterator[pa.Table]:
    """All rows in order of key. `look` is shown each bucket."""
    spool.close()
    for bucket in range(spool.num_buckets):
        rows = spool.read(bucket)
        look(rows)
        yield rows


def without_repeats(spool: Spool, look: Callable[[pa.Table], None]) -> Iterator[pa.Table]:
    """As `ordered`, for ids made from content: further rows of the same content get an ordinal after `look` saw them.

    That gives them keys of their own, in other buckets: so they are set down once more before any row is given out.
    """
    renamed = Spool(spool.folder / "repeats", spool.schema, spool.num_buckets)
    for rows in ordered(spool, look):
        ordinals = ordinals_in(rows)
        if (ordinals > 0).any():
            renamed.add(_renamed(rows.filter(pa.array(ordinals > 0)), ordinals[ordinals > 0]))
    renamed.close()
    for bucket in range(spool.num_buckets):
        rows = spool.read(bucket)
        both = pa.concat_tables([rows.filter(pa.array(ordinals_in(rows) == 0)), renamed.read(bucket)])
        yield both.take(pc.sort_indices(both, [("key", "ascending")]))


def keys_in(rows: pa.Table) -> NDArray[np.uint8]:
    """[N, KEY_BYTES] keys of rows."""
    return cells(rows, "key", np.dtype(np.uint8), (KEY_BYTES,))


def cells(rows: pa.Table, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A fixed-width column as an array [N, *shape]."""
    column = rows[name].combine_chunks()
    width = column.type.byte_width
    raw = memoryview(column.buffers()[1])[column.offset * width : (column.offset + len(column)) * width]
    return np.frombuffer(raw, dtype).reshape(len(column), *shape)


def ordinals_in(rows: pa.Table) -> NDArray[np.int64]:
    """[N] how many rows before it have the same key, for rows in order of key."""
    keys = keys_in(rows)
    first = np.ones(len(keys), bool)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    position = np.arange(len(keys))
    return position - np.maximum.accumulate(np.where(first, position, 0))


def _renamed(rows: pa.Table, ordinals: NDArray[np.int64]) -> pa.Table:
    ids = [repeated_id(one, int(ordinal)) for one, ordinal in zip(rows["id"].to_pylist(), ordinals, strict=True)]
    columns = {name: rows[name] for name in rows.column_names} | {"id": ids, "key": fixed_binary(keys_of(ids))}
    return pa.table(columns, schema=rows.schema)
