"""Texts as inputs: bytes of UTF-8, so that no vocabulary has to be chosen, and cut between two characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.padding import Lengths, Sequences, padded, rows_at, sorted_out
from distill_platform.data.schema import PADDING, InputSpec
from distill_platform.errors import DataError

MIN_LENGTH = 4
"""Bytes of the longest character: no text that is cut is left empty."""


def text_spec(source: str, length: int | None, longest: Callable[[], int]) -> InputSpec:
    """The form of texts of up to `length` bytes; without it, of as many as the longest one has.

    Raises DataError for a length that may not hold one character.
    """
    if length is not None and length < MIN_LENGTH:
        raise DataError(
            f"{source}: data.length is {length} bytes; wanted {MIN_LENGTH} or more, which any character fits"
        )
    return InputSpec("text", (length or max(MIN_LENGTH, longest()),), "uint8", 0.0, 255.0)


def longest_text(column: pa.Array | pa.ChunkedArray) -> int:
    """Bytes of the longest; 0 if there is none."""
    return pc.max(pc.binary_length(column)).as_py() or 0


def text_inputs(column: pa.Array, where: Sequence[str], spec: InputSpec) -> Sequences:
    """Texts of a column without nulls as bytes `[n, L]`; faults are those that are empty, hold NUL or are no UTF-8."""
    values, lengths = _bytes_of(column)
    found = [
        ("empty text", np.flatnonzero(lengths == 0)),
        ("NUL in a text", rows_at(lengths, np.flatnonzero(values == 0))),
        ("invalid text", not_utf8(column)),
    ]
    kept, faults = sorted_out(found, len(column), where)
    if faults:
        values, lengths = _bytes_of(column.take(pa.array(kept, pa.int64())))
    (width,) = spec.shape
    ends = _between_characters(values, lengths, width)
    return Sequences(padded(values, lengths, ends, width, PADDING["text"]), kept, lengths > width, faults)


def not_utf8(column: pa.Array) -> NDArray[np.int64]:
    """Rows of a column of text whose bytes are not UTF-8: Parquet files may hold such."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        cells = column.cast(pa.large_binary()).to_pylist()
        return np.array([row for row, cell in enumerate(cells) if not _is_utf8(cell or b"")], np.int64)
    return np.empty(0, np.int64)


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(column: pa.Array) -> tuple[NDArray[np.uint8], Lengths]:
    """All bytes one after the other, and how many each text has."""
    cells = column.cast(pa.large_binary())
    _, offsets, values = cells.buffers()
    borders = np.frombuffer(offsets, np.int64)[cells.offset : cells.offset + len(cells) + 1]
    held = np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8)
    return held[borders[0] : borders[-1]], np.diff(borders)


def _between_characters(values: NDArray[np.uint8], lengths: Lengths, width: int) -> Lengths:
    """How many bytes of each text are kept: as many as fit, without a part of a character."""
    ends = np.minimum(lengths, width)
    starts = np.cumsum(lengths) - lengths
    for _ in range(MIN_LENGTH - 1):
        inside = ends < lengths
        inside[inside] = (values[(starts + ends)[inside]] & 0xC0) == 0x80  # goes on with a character begun before
        ends = ends - inside
    return ends
