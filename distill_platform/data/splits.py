"""Which split an example belongs to: never decided by its row, so that adding examples moves no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill_platform.errors import DataError

SPLITS = ("train", "val", "test")
_FIELDS = {"hash": ("val", "test"), "column": ("column",), "sources": ("val", "test")}


@dataclass(frozen=True)
class SplitPlan:
    """How examples are split, as `parse_split` checked it."""

    by: Literal["hash", "column", "sources"]
    val: float = 0.0
    test: float = 0.0
    column: str | None = None
    test_source: str | None = None


def parse_split(split: Mapping[str, Any]) -> SplitPlan:
    """One of `{"by": "hash", "val": 0.15, "test": 0.25}`, `{"by": "column", "column": "split"}` and
    `{"by": "sources", "test": "URI", "val": 0.1}` (no test for a source that has an official one).

    Raises DataError.
    """
    by = split.get("by")
    if by not in _FIELDS:
        raise DataError(f"data.split.by is {by!r}; wanted hash, column or sources")
    given = {name: value for name, value in split.items() if name != "by" and value is not None}
    if extra := given.keys() - set(_FIELDS[by]):
        raise DataError(f"data.split.by: {by} takes {' and '.join(_FIELDS[by])}, not {', '.join(sorted(extra))}")
    if by == "column":
        if not isinstance(given.get("column"), str):
            raise DataError("data.split.column has to name the column that holds train, val or test")
        return SplitPlan("column", column=given["column"])
    val = _fraction("val", given.get("val"))
    if by == "sources":
        return SplitPlan("sources", val=val, test_source=given.get("test"))
    test = _fraction("test", given.get("test"))
    if val + test >= 1:
        raise DataError(f"data.split: val {val:g} and test {test:g} leave nothing for train; wanted a sum below 1")
    return SplitPlan("hash", val=val, test=test)


def split_by_hash(groups: Sequence[str], val: float, test: float, seed: int) -> list[str]:
    """The split of each group: a pure function of its name and the data's seed, so groups never straddle splits."""
    test_below, val_below = int(test * 2**64), int((test + val) * 2**64)
    return [_side(group, seed, test_below, val_below) for group in groups]


def _side(group: str, seed: int, test_below: int, val_below: int) -> str:
    position = int.from_bytes(hashlib.sha256(f"split:{seed}:{group}".encode()).digest()[:8], "big")
    return "test" if position < test_below else "val" if position < val_below else "train"


def _fraction(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise DataError(f"data.split.{name} is {value!r}; wanted a fraction between 0 and 1")
    return float(value)
