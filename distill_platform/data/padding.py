"""Sequences of any length as rows of one width: what is longer is cut, behind what is shorter stands padding.

Axes: N sequences, L the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Those of some rows that could be read: inputs `[n, L]`, `kept` says of which rows, `cut` `[n]` which were longer.

    faults: (kind, where) of the other rows.
    """

    inputs: NDArray[Any]
    kept: list[int]
    cut: NDArray[np.bool_]
    faults: list[tuple[str, str]]


def padded(values: NDArray[Any], lengths: Lengths, ends: Lengths, width: int, padding: int) -> NDArray[Any]:
    """`[N, width]`: row n holds the first `ends[n]` of the `lengths[n]` values of sequence n; all stand in `values`."""
    if (ends < lengths).any():
        within = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        values = values[within < np.repeat(ends, lengths)]
    rows = np.full((len(lengths), width), padding, values.dtype)
    rows[np.arange(width) < ends[:, None]] = values
    return rows


def rows_at(lengths: Lengths, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which sequences hold the values at these positions, each once, where all stand one after the other."""
    return np.unique(np.searchsorted(np.cumsum(lengths), positions, side="right"))


def lengths_of(inputs: NDArray[Any], padding: int) -> Lengths:
    """[N] how many values stand before the padding, for `[N, L]`."""
    lengths: Lengths = (inputs != padding).sum(axis=1)
    return lengths


def sorted_out(
    found: Sequence[tuple[str, NDArray[np.int64]]], num: int, where: Sequence[str]
) -> tuple[list[int], list[tuple[str, str]]]:
    """The rows of `num` without a fault, and the faults of the others: the first of (kind, rows) that each one has."""
    faulty: dict[int, str] = {}
    for kind, rows in found:
        for row in rows.tolist():
            faulty.setdefault(row, kind)
    return [row for row in range(num) if row not in faulty], [(faulty[row], where[row]) for row in sorted(faulty)]
