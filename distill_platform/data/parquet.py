"""Parquet files: pieces are row groups, streamed a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_platform.data.blocks import Block, ReadOptions, Source, rows_per_block
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.schema import InputSpec
from distill_platform.data.tables import (
    Columns,
    Piece,
    block_of,
    difference_from_first,
    encoded_images,
    understand,
    unreadable_file,
)
from distill_platform.errors import DataError

PIECE_BYTES = 32 * 2**20


def open_parquet(source: str, options: ReadOptions) -> Source:
    """A `.parquet` file, or a folder of them."""
    files = find_files(source, (".parquet",))
    with files[0].local() as path, _parquet(path, files[0].name) as first:
        columns, spec = understand(source, first.schema_arrow, options, lambda name: _first_image(first, name))
    pieces: list[Piece] = []
    num_rows: int | None = 0
    for file in files:
        if file.size_bytes is None:
            pieces.append(Piece(file))
            num_rows = None
            continue
        with file.local() as path, _parquet(path, file.name) as opened:
            pieces += _row_group_pieces(file, opened.metadata)
            num_rows = None if num_rows is None else num_rows + opened.metadata.num_rows
    read = partial(_read_parquet, columns, spec)
    return Source(
        source,
        spec,
        tuple(pieces),
        read,
        num_rows,
        total_bytes(files),
        has_ids=options.id is not None,
        count_classes=partial(_count_classes, files, columns.label),
    )


def _read_parquet(columns: Columns, spec: InputSpec, piece: Piece) -> Iterator[Block]:
    row = piece.first_row
    try:
        with piece.file.local() as path, _parquet(path, piece.file.name) as opened:
            if fault := difference_from_first(opened.schema_arrow, columns):
                yield unreadable_file(piece.file, fault, spec)
                return
            groups = list(piece.row_groups) if piece.row_groups is not None else None
            for batch in opened.iter_batches(rows_per_block(spec), row_groups=groups, columns=columns.all):
                yield block_of(pa.table(batch), columns, spec, piece.file.name, row)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield unreadable_file(piece.file, error, spec)


def _parquet(path: Path, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} is no Parquet file ({error})") from error


def _first_image(file: pq.ParquetFile, column: str) -> bytes:
    for batch in file.iter_batches(1, columns=[column]):
        for cell in encoded_images(batch.column(0)).drop_null():
            return bytes(cell.as_py())
    raise DataError(f"column {column!r} holds no image in any row")


def _count_classes(files: list[StoredFile], label: str) -> int | None:
    """By reading that one column; None for files that would have to be fetched whole."""
    found: set[Any] = set()
    for file in files:
        if file.size_bytes is None:
            return None
        with file.local() as path, _parquet(path, file.name) as opened:
            for batch in opened.iter_batches(columns=[label]):
                found.update(pc.unique(batch.column(0)).drop_null().to_pylist())
    return len(found)


def _row_group_pieces(file: StoredFile, metadata: pq.FileMetaData) -> list[Piece]:
    """Neighbouring row groups together, up to PIECE_BYTES."""
    pieces: list[Piece] = []
    groups: list[int] = []
    first_row = row = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if groups and size + group.total_byte_size > PIECE_BYTES:
            pieces.append(Piece(file, tuple(groups), first_row))
            groups, first_row, size = [], row, 0
        groups.append(number)
        row, size = row + group.num_rows, size + group.total_byte_size
    return [*pieces, Piece(file, tuple(groups), first_row)]
