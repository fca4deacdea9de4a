"""A table's rows as blocks of examples, or as documents: whatever file they come from, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, rows_per_block
from distill_platform.data.images import decode_images
from distill_platform.data.packing import Document
from distill_platform.data.padding import Sequences
from distill_platform.data.schema import InputSpec
from distill_platform.data.sounds import sound_inputs
from distill_platform.data.tables import Columns, Piece, encoded_images
from distill_platform.data.texts import text_inputs
from distill_platform.errors import DataError

Tables = Callable[[Columns, Piece, int], Iterator[pa.Table]]
"""Reads the columns of a piece, about so many rows at a time."""

DOCUMENTS_AT_ONCE = 1024


def blocks_of(tables: Tables, columns: Columns, spec: InputSpec, piece: Piece) -> Iterator[Block]:
    """A piece's rows; a file that stops being readable is a fault behind them."""
    row, step = piece.first_row, rows_per_block(spec)
    try:
        for table in tables(columns, piece, step):
            for start in range(0, table.num_rows, step):
                part = table.slice(start, step)
                yield block_of(part, columns, spec, piece.file.name, row)
                row += part.num_rows
    except (pa.ArrowException, OSError) as error:
        fault = ("unreadable file", f"{piece.file.name} ({error})")
        yield Block(np.empty((0, *spec.shape), spec.dtype), [], [], faults=[fault])


def documents_of(tables: Tables, columns: Columns, piece: Piece) -> Iterator[Document]:
    """A piece's rows as documents. Raises DataError for a file that stops being readable."""
    name, row = PurePosixPath(piece.file.name).name, piece.first_row
    try:
        for table in tables(columns, piece, DOCUMENTS_AT_ONCE):
            cells = table[columns.inputs[0]].cast(pa.large_binary()).to_pylist()
            splits = _as_text(table[columns.split]) if columns.split is not None else None
            for number, cell in enumerate(cells):
                where = f"{name} row {row + number}"
                yield Document(where, _decoded(cell, where), (splits[number] or "") if splits is not None else None)
            row += table.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{piece.file.name} ({error})") from error


def _decoded(cell: bytes | None, where: str) -> Iterator[str]:
    try:
        yield (cell or b"").decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} (no UTF-8 at byte {error.start})") from error


def block_of(table: pa.Table, columns: Columns, spec: InputSpec, file: str, first_row: int) -> Block:
    """A batch of rows, the first of them being row `first_row` of `file`."""
    name = PurePosixPath(file).name
    where = [f"{name} row {row}" for row in range(first_row, first_row + table.num_rows)]
    if columns.input_type is None:
        faults: list[tuple[str, str]] = []
        inputs, kept, cut = _stacked(table, columns.inputs), list(range(table.num_rows)), None
    else:
        inputs, kept, cut, faults = _from_column(table[columns.inputs[0]], columns, spec, where)
    rows = pa.array(kept, pa.int64())
    texts = {name: _as_text(table[name].take(rows)) for name in columns.texts}
    return Block(
        inputs,
        texts[columns.label] if columns.label is not None else [None] * len(kept),
        [where[row] for row in kept],
        ids=texts.get(columns.id or ""),
        groups=texts.get(columns.group or ""),
        splits=texts.get(columns.split or ""),
        subgroups=texts.get(columns.subgroup or ""),
        cut=cut,
        faults=faults,
    )


def _from_column(
    column: pa.ChunkedArray, columns: Columns, spec: InputSpec, where: list[str]
) -> tuple[NDArray[Any], list[int], NDArray[np.bool_] | None, list[tuple[str, str]]]:
    """Inputs [n, *shape] of one column, the rows they are of, which are cut, and the faults of the other rows."""
    if columns.form == "images":
        column = encoded_images(column)
    present = pc.is_valid(column).to_numpy()
    kept = [int(row) for row in np.flatnonzero(present)]
    faults = [("missing input", where[row]) for row in np.flatnonzero(~present)]
    cells = column.filter(pa.array(present)).combine_chunks()
    if columns.form == "numbers":
        return _flattened(cells).reshape(-1, *spec.shape).astype(spec.dtype), kept, None, faults
    places = [where[row] for row in kept]
    if columns.form == "images":
        images, readable, unreadable = decode_images(cells.to_pylist(), places, spec, columns.resize)
        return images, [kept[number] for number in readable], None, faults + unreadable
    read: Sequences = (text_inputs if columns.form == "text" else sound_inputs)(cells, places, spec)
    return read.inputs, [kept[number] for number in read.kept], read.cut, faults + read.faults


def _stacked(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Numeric columns side by side, [n, F]; a missing value is NaN."""
    values = np.empty((table.num_rows, len(names)), np.float32)
    for number, name in enumerate(names):
        column = pc.fill_null(table[name].cast(pa.float64(), safe=False), np.nan)
        values[:, number] = column.to_numpy()
    return values


def _flattened(column: pa.Array) -> NDArray[Any]:
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    if column.null_count and not pa.types.is_floating(column.type):  # among floats they become NaN, which is found
        raise DataError(f"{column.null_count} values are missing inside the lists of the input column")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as text; pyarrow writes 3.0 as 3, so both are one class."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
