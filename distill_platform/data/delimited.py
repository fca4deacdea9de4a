"""CSV files, plain or .gz: a piece is a file, streamed a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from distill_platform.data.blocks import ReadOptions, Source
from distill_platform.data.cells import blocks_of, documents_of
from distill_platform.data.documents import token_source
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.tables import Columns, Piece, understand
from distill_platform.errors import DataError

TEXT_BLOCK_BYTES = 16 * 2**20
"""What is parsed at once of a file with texts: no row may be longer."""


def open_csv(source: str, options: ReadOptions) -> Source:
    """A `.csv` or `.csv.gz` file, or a folder of them, each with a header line."""
    files = find_files(source, (".csv", ".csv.gz"))
    with files[0].local() as path:
        try:
            with _csv(path, options.input is not None) as first:
                schema = first.schema
        except pa.ArrowInvalid as error:
            raise DataError(f"{source}: {files[0].name} cannot be read as CSV ({error})") from error
    columns, spec = understand(source, schema, options, _Glimpses(files))
    pieces = tuple(map(Piece, files))
    if columns.form == "documents":
        return token_source(source, partial(documents_of, _tables, columns), pieces, total_bytes(files), options)
    read = partial(blocks_of, _tables, columns, spec)
    return Source(source, spec, pieces, read, None, total_bytes(files), has_ids=columns.id is not None)


def _tables(columns: Columns, piece: Piece, _: int) -> Iterator[pa.Table]:
    is_text = columns.form != "features"
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns.all,
        column_types={
            **dict.fromkeys(columns.inputs, pa.string() if is_text else pa.float64()),
            **dict.fromkeys(columns.texts, pa.string()),
        },
        strings_can_be_null=True,
        null_values=[""] if is_text else None,  # "n/a" may be all that somebody wrote
    )
    with piece.file.local() as path, _csv(path, is_text, convert) as opened:
        for batch in opened:
            yield pa.table(batch)


def _csv(path: Path, is_text: bool, convert: pyarrow.csv.ConvertOptions | None = None) -> Any:
    """A file opened for streaming; texts may hold line ends."""
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=TEXT_BLOCK_BYTES) if is_text else None,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=is_text),
        convert_options=convert,
    )


class _Glimpses:
    """See `Glimpses`."""

    def __init__(self, files: list[StoredFile]) -> None:
        self.files = files

    def first_image(self, column: str) -> bytes:
        raise AssertionError("CSV has no column of bytes")

    def longest(self, column: str, of: Callable[[Any], int]) -> int:
        convert = pyarrow.csv.ConvertOptions(include_columns=[column], column_types={column: pa.string()})
        greatest = 0
        for file in self.files:
            try:
                with file.local() as path, _csv(path, True, convert) as opened:
                    greatest = max([greatest, *(of(batch.column(0)) for batch in opened)])
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file.name} cannot be read as CSV ({error})") from error
        return greatest
