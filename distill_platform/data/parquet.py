"""Parquet files: pieces are row groups, streamed a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_platform.data.blocks import ReadOptions, Source
from distill_platform.data.cells import blocks_of, documents_of
from distill_platform.data.documents import token_source
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.tables import Columns, Piece, difference_from_first, encoded_images, understand
from distill_platform.errors import DataError

PIECE_BYTES = 32 * 2**20
GLIMPSED_ROWS = 512


def open_parquet(source: str, options: ReadOptions) -> Source:
    """A `.parquet` file, or a folder of them."""
    files = find_files(source, (".parquet",))
    with files[0].local() as path, _parquet(path, files[0].name) as first:
        schema = first.schema_arrow
    columns, spec = understand(source, schema, options, _Glimpses(files))
    if columns.form == "documents":  # packed file by file, so that blocks do not depend on row groups
        documents = partial(documents_of, _tables, columns)
        return token_source(source, documents, tuple(map(Piece, files)), total_bytes(files), options)
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
    return Source(
        source,
        spec,
        tuple(pieces),
        partial(blocks_of, _tables, columns, spec),
        num_rows,
        total_bytes(files),
        has_ids=columns.id is not None,
        count_classes=partial(_count_classes, files, columns.label),
    )


def _tables(columns: Columns, piece: Piece, num_rows: int) -> Iterator[pa.Table]:
    name = piece.file.name
    with piece.file.local() as path, _parquet(path, name) as opened:
        if fault := difference_from_first(opened.schema_arrow, columns):
            raise DataError(f"{name} ({fault})")
        groups = list(piece.row_groups) if piece.row_groups is not None else None
        for batch in opened.iter_batches(num_rows, row_groups=groups, columns=columns.all):
            yield pa.table(batch)


def _parquet(path: Path, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} is no Parquet file ({error})") from error


class _Glimpses:
    """See `Glimpses`."""

    def __init__(self, files: list[StoredFile]) -> None:
        self.files = files

    def first_image(self, column: str) -> bytes:
        with self.files[0].local() as path, _parquet(path, self.files[0].name) as first:
            for batch in first.iter_batches(1, columns=[column]):
                for cell in encoded_images(batch.column(0)).drop_null():
                    return bytes(cell.as_py())
        raise DataError(f"column {column!r} holds no image in any row")

    def longest(self, column: str, of: Callable[[Any], int]) -> int:
        greatest = 0
        for file in self.files:
            with file.local() as path, _parquet(path, file.name) as opened:
                if column in opened.schema_arrow.names:  # reading reports the others
                    batches = opened.iter_batches(GLIMPSED_ROWS, columns=[column])
                    greatest = max([greatest, *(of(batch.column(0)) for batch in batches)])
        return greatest


def _count_classes(files: list[StoredFile], label: str | None) -> int | None:
    """By reading that one column; None without it, and for files that would have to be fetched whole."""
    if label is None:
        return None
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
