"""What readers give: a Source that was opened, and Blocks of its rows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError

BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ReadOptions:
    """Which column is what, and what inputs are turned into. Columns are None where they are not named.

    length:      bytes of a text, samples of a sound, tokens of a block
    sample_rate: samples per second of a column of sounds
    tokenizer:   what `open_tokenizer` takes; makes texts into blocks of tokens
    labelled:    False for a transfer set: columns of labels, ids, splits and subgroups are not read, and may be missing
    """

    label: str | None = None
    id: str | None = None
    group: str | None = None
    subgroup: str | None = None
    input: str | None = None
    split: str | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    length: int | None = None
    sample_rate: int | None = None
    tokenizer: str | None = None
    labelled: bool = True

    def refuse_all_but(self, source: str, *allowed: str) -> None:
        """Raises DataError for options that this kind of source has no use for."""
        if not self.labelled:  # they are those of the source that has labels
            allowed = (*allowed, "label", "id", "subgroup", "split", "input")
        options = [option.name for option in fields(self) if option.name != "labelled"]
        given = [name for name in options if getattr(self, name) is not None]
        if useless := [f"data.{name}" for name in given if name not in allowed]:
            raise DataError(f"{source} has no use for {', '.join(useless)}; leave them out")


@dataclass(frozen=True)
class Block:
    """Some rows of a source. `faults` are (kind, where) of rows that could not be read and are not in it."""

    inputs: NDArray[Any]
    """[n, *shape], of the dtype that the source announced."""
    labels: Sequence[str | None]
    where: Sequence[str]
    """How to find each row, for messages."""
    ids: Sequence[str | None] | None = None
    groups: Sequence[str | None] | None = None
    splits: Sequence[str | None] | None = None
    subgroups: Sequence[str | None] | None = None
    cut: NDArray[np.bool_] | None = None
    """[n] inputs of which only the beginning is there; None if none can be."""
    targets: NDArray[np.int32] | None = None
    """Tokens: [n, T] the next token at every position, UNLABELLED where there is none."""
    num_bytes: NDArray[np.int32] | None = None
    """Tokens: [n] bytes of text that the targets stand for."""
    faults: Sequence[tuple[str, str]] = field(default=())


@dataclass(frozen=True)
class Source:
    """A source that was opened: its form is known, its rows are read piece by piece, by any process."""

    name: str
    input: InputSpec
    """Bounds are infinite where only the rows tell them."""
    pieces: tuple[Any, ...]
    read: Callable[[Any], Iterator[Block]]
    num_examples: int | None
    stored_bytes: int | None = None
    """Of its files, if they are on this machine."""
    class_names: tuple[str, ...] | None = None
    """In the order of their numbers, where the source itself has one."""
    has_test_split: bool = False
    has_ids: bool = False
    """Whether its blocks carry ids; else examples are named by their content."""
    count_classes: Callable[[], int | None] = lambda: None
    """The number of classes, if that can be told without reading the inputs."""
    tokenizer_digest: str = ""
    """Tokens: of what made them."""

    @property
    def size_bytes(self) -> int | None:
        """About what its inputs take in memory; None if all of it would have to be read to know."""
        return self.stored_bytes if self.num_examples is None else self.num_examples * width_of(self.input)


def rows_per_block(spec: InputSpec) -> int:
    """How many rows make up about BLOCK_BYTES."""
    return max(1, min(65_536, BLOCK_BYTES // max(1, width_of(spec))))


def in_blocks(
    spec: InputSpec,
    inputs: NDArray[Any],
    labels: Sequence[str | None],
    where: Callable[[int], str],
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    subgroups: Sequence[str] | None = None,
) -> Iterator[Block]:
    """Arrays in memory as blocks; `where` names a row by its number."""
    step = rows_per_block(spec)
    for start in range(0, len(inputs), step):
        rows = slice(start, min(start + step, len(inputs)))
        yield Block(
            np.ascontiguousarray(inputs[rows], dtype=spec.dtype),
            labels[rows],
            [where(row) for row in range(rows.start, rows.stop)],
            ids=ids[rows] if ids is not None else None,
            groups=groups[rows] if groups is not None else None,
            splits=splits[rows] if splits is not None else None,
            subgroups=subgroups[rows] if subgroups is not None else None,
        )


def features(names: Sequence[str], count: int) -> InputSpec:
    """The form of `count` features, their bounds not yet known."""
    return InputSpec("features", (count,), "float32", -np.inf, np.inf, tuple(names))


def require_column(source: str, option: str, name: str, columns: Collection[str]) -> None:
    """Raises DataError, with what was probably meant, if there is no such column."""
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(columns)[:20]) or 'none'}"
        raise DataError(f"{source}: there is no column {name!r}, named by data.{option}; {hint}")


def width_of(spec: InputSpec) -> int:
    """Bytes of one input."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
