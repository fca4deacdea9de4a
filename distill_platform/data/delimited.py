"""CSV files, plain or .gz: a piece is a file, streamed a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.csv

from distill_platform.data.blocks import Block, ReadOptions, Source
from distill_platform.data.files import find_files, total_bytes
from distill_platform.data.schema import InputSpec
from distill_platform.data.tables import Columns, Piece, block_of, understand, unreadable_file
from distill_platform.errors import DataError


def open_csv(source: str, options: ReadOptions) -> Source:
    """A `.csv` or `.csv.gz` file, or a folder of them, each with a header line."""
    if options.input is not None:
        raise DataError(f"{source}: data.input names a column of images or lists, which CSV cannot hold; use Parquet")
    files = find_files(source, (".csv", ".csv.gz"))
    with files[0].local() as path:
        try:
            with pyarrow.csv.open_csv(path) as first:
                schema = first.schema
        except pa.ArrowInvalid as error:
            raise DataError(f"{source}: {files[0].name} cannot be read as CSV ({error})") from error
    columns, spec = understand(source, schema, options, lambda column: b"")
    read = partial(_read_csv, columns, spec)
    pieces = tuple(map(Piece, files))
    return Source(source, spec, pieces, read, None, total_bytes(files), has_ids=options.id is not None)


def _read_csv(columns: Columns, spec: InputSpec, piece: Piece) -> Iterator[Block]:
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns.all,
        column_types={
            **dict.fromkeys(columns.inputs, pa.float64()),
            **dict.fromkeys(columns.texts, pa.string()),
        },
        strings_can_be_null=True,
    )
    row = 0
    try:
        with piece.file.local() as path, pyarrow.csv.open_csv(path, convert_options=convert) as opened:
            for batch in opened:
                yield block_of(pa.table(batch), columns, spec, piece.file.name, row)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield unreadable_file(piece.file, error, spec)
