"""Blocks become rows: each example with its id, key, group, split, label and place, as an Arrow table.

These are pure functions of a piece of a source, so any process may run them, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, Source
from distill_platform.data.ids import KEY_BYTES, content_ids, keys_of
from distill_platform.data.schema import InputSpec
from distill_platform.data.splits import SPLITS, SplitPlan, split_by_hash
from distill_platform.errors import DataError


@dataclass(frozen=True)
class Part:
    """A source, and how its rows are split. `fixed` is the split that all of them are in, if it is known."""

    source: Source
    plan: SplitPlan
    seed: int
    fixed: str | None = None

    def rows(self, piece: Any) -> Iterator[pa.Table]:
        """The rows of one piece; what cannot be read is among them as faults."""
        try:
            for block in self.source.read(piece):
                yield rows_of(block, self)
        except DataError as error:
            yield _fault_rows([("unreadable file", str(error))], self.source.input)


def row_schema(spec: InputSpec) -> pa.Schema:
    """Columns of a row. `where` says where it comes from; where `fault` is set, the row could not be used."""
    width = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    texts = [(name, pa.string()) for name in ("id", "group", "split", "label", "where", "fault")]
    return pa.schema([("key", pa.binary(KEY_BYTES)), ("input", pa.binary(width)), *texts])


def rows_of(block: Block, part: Part) -> pa.Table:
    """A block's rows, and one row for each fault in it."""
    spec = part.source.input
    faults = [*block.faults, *_faults(block, part)]
    faulty = {where for _, where in faults}
    good = [row for row, where in enumerate(block.where) if where not in faulty]
    inputs = block.inputs[good]
    contents = content_ids(inputs) if block.ids is None else []
    ids = contents or _pick(block.ids, good)
    groups = ids if block.groups is None else _pick(block.groups, good)
    columns = {
        "key": fixed_binary(keys_of(ids)),
        "input": fixed_binary(inputs),
        "id": ids,
        "group": groups,
        "split": _splits(part, groups, _pick(block.splits, good)),
        "label": _pick(block.labels, good),
        "where": _pick(block.where, good),
        "fault": pa.nulls(len(good), pa.string()),
    }
    table = pa.table(columns, schema=row_schema(spec))
    return pa.concat_tables([table, _fault_rows(faults, spec)]) if faults else table


def fixed_binary(values: NDArray[Any]) -> pa.Array:
    """[N, …] values as N cells of their bytes."""
    values = np.ascontiguousarray(values)
    width = values.itemsize * int(np.prod(values.shape[1:]))
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
