"""Blocks become rows: each example with its id, key, group, split, label and place, as an Arrow table.

These are pure functions of a piece of a source, so any process may run them, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, Source, width_of
from distill_platform.data.ids import KEY_BYTES, content_ids, keys_of
from distill_platform.data.schema import InputSpec
from distill_platform.data.splits import SPLITS, SplitPlan, split_by_hash
from distill_platform.errors import DataError


@dataclass(frozen=True)
class Part:
    """A source, and how its rows are split. `fixed` is the split that all of them are in, if it is known.

    labelled:   False for a transfer set: all of its rows are of train, whatever a column or a hash would say
    by_content: whether rows carry what tells equal content, beside their key
    """

    source: Source
    plan: SplitPlan
    seed: int
    fixed: str | None = None
    labelled: bool = True
    by_content: bool = False

    def rows(self, piece: Any) -> Iterator[pa.Table]:
        """The rows of one piece; what cannot be read is among them as faults."""
        try:
            for block in self.source.read(piece):
                yield rows_of(block if self.labelled else unlabelled(block), self)
        except DataError as error:
            yield _fault_rows([("unreadable file", str(error))], self.source.input)


def unlabelled(block: Block) -> Block:
    """A block as one of a transfer set: examples are named by their content, and only groups are kept."""
    return replace(block, labels=[None] * len(block.where), ids=None, splits=None, subgroups=None)


def row_schema(spec: InputSpec) -> pa.Schema:
    """Columns of a row. `where` says where it comes from; where `fault` is set, the row could not be used.

    `cut` says that the input is the beginning of a longer one; `content` is null where a part does not ask for it.
    """
    width = width_of(spec)
    texts = [(name, pa.string()) for name in ("id", "group", "split", "label", "subgroup", "where", "fault")]
    columns = [("key", pa.binary(KEY_BYTES)), ("content", pa.binary(KEY_BYTES)), ("input", pa.binary(width))]
    tokens = [("target", pa.binary(width)), ("num_bytes", pa.int32())] if spec.kind == "tokens" else []
    return pa.schema([*columns, *tokens, *texts, ("cut", pa.bool_())])


def rows_of(block: Block, part: Part) -> pa.Table:
    """A block's rows, and one row for each fault in it."""
    spec = part.source.input
    found = list(_faults(block, part))
    faulty = {row for row, _, _ in found}
    good = [row for row in range(len(block.where)) if row not in faulty]
    faults = [*block.faults, *((kind, where) for _, kind, where in found)]
    inputs, num = block.inputs[good], len(good)
    contents = content_ids(inputs, spec.padding) if block.ids is None or part.by_content else []
    ids = contents if block.ids is None else _pick(block.ids, good)
    groups = ids if block.groups is None else _pick(block.groups, good)
    splits = _pick(block.splits, good) if block.splits is not None else [part.fixed] * num
    columns = {
        "key": fixed_binary(keys_of(ids)),
        "content": fixed_binary(keys_of(contents)) if part.by_content else pa.nulls(num, pa.binary(KEY_BYTES)),
        "input": fixed_binary(inputs),
        "id": ids,
        "group": groups,
        "split": _split(part, groups, splits),
        "label": _pick(block.labels, good),
        "subgroup": _pick(block.subgroups, good) if block.subgroups is not None else pa.nulls(num, pa.string()),
        "where": _pick(block.where, good),
        "fault": pa.nulls(num, pa.string()),
        "cut": block.cut[good] if block.cut is not None else np.zeros(num, bool),
    }
    if block.targets is not None and block.num_bytes is not None:
        columns |= {"target": fixed_binary(block.targets[good]), "num_bytes": block.num_bytes[good]}
    elif spec.kind == "tokens":  # a block of faults alone
        columns |= {"target": fixed_binary(inputs), "num_bytes": np.empty(0, np.int32)}
    table = pa.table(columns, schema=row_schema(spec))
    return pa.concat_tables([table, _fault_rows(faults, spec)]) if faults else table


def fixed_binary(values: NDArray[Any]) -> pa.Array:
    """[N, …] values as N cells of their bytes."""
    values = np.ascontiguousarray(values)
    width = values.itemsize * int(np.prod(values.shape[1:]))
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])


def _faults(block: Block, part: Part) -> Iterator[tuple[int, str, str]]:
    """(row, kind, where) of rows that cannot be used."""
    columns = [("missing id", block.ids), ("missing group", block.groups), ("missing subgroup", block.subgroups)]
    if part.labelled and block.targets is None:
        columns.append(("missing label", block.labels))
    for kind, values in columns:
        yield from ((row, kind, block.where[row]) for row, value in enumerate(values or ()) if value is None)
    if part.plan.by == "column" and part.labelled:
        for row, split in enumerate(block.splits or ()):
            if split not in SPLITS:
                yield row, "unknown split", f"{block.where[row]} ({split!r})"
    if block.inputs.dtype.kind == "f":
        finite = np.isfinite(block.inputs).reshape(len(block.inputs), int(np.prod(part.source.input.shape)))
        for row in np.flatnonzero(~finite.all(axis=1)).tolist():
            at = [_value_name(part.source.input, column) for column in np.flatnonzero(~finite[row]).tolist()]
            yield row, "not finite", f"{block.where[row]} ({', '.join(at[:3])}{', …' if len(at) > 3 else ''})"


def _value_name(spec: InputSpec, number: int) -> str:
    return spec.feature_names[number] if spec.feature_names else f"value {number}"


def _split(part: Part, groups: Sequence[str], given: Sequence[str | None]) -> Sequence[str | None]:
    plan = part.plan
    if not part.labelled:
        return ["train"] * len(groups)
    if plan.by == "column":
        return given
    by_hash = split_by_hash(groups, plan.val, plan.test, part.seed)
    if plan.by == "hash":
        return by_hash
    return ["test" if official == "test" else hashed for official, hashed in zip(given, by_hash, strict=True)]


def _pick(values: Sequence[Any] | None, rows: Sequence[int]) -> list[Any]:
    return [values[row] for row in rows] if values is not None else []


def _fault_rows(faults: Sequence[tuple[str, str]], spec: InputSpec) -> pa.Table:
    schema = row_schema(spec)
    columns = {field.name: pa.nulls(len(faults), field.type) for field in schema}
    columns["fault"] = pa.array([kind for kind, _ in faults], pa.string())
    columns["where"] = pa.array([where for _, where in faults], pa.string())
    return pa.table(columns, schema=schema)
