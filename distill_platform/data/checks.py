"""What can be wrong with examples, said so that a user can find and mend it. One message holds every fault found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_platform.data.splits import SPLITS
from distill_platform.errors import DataError

NAMED = 5
"""How many rows, files or columns a message names."""

KINDS: dict[str, tuple[str, str]] = {
    "missing label": ("without a label", "label or remove them"),
    "missing input": ("without an input", "remove them"),
    "missing id": ("without an id", "fill in the column, or leave data.id out to name examples by their content"),
    "missing group": ("without a group", "fill in the column"),
    "missing subgroup": ("without a subgroup", "fill in the column"),
    "unknown split": ("in no known split", "the split column has to hold train, val or test"),
    "not finite": ("with a value that is missing, NaN or infinite", "fill in or remove them"),
    "unreadable image": ("with an unreadable image", "remove or replace it"),
    "image of another size": ("of another size than the first image", "set data.image_size"),
    "empty text": ("with an empty text", "remove them"),
    "NUL in a text": ("with a NUL byte in its text", "remove the byte: it stands for the end of a text"),
    "invalid text": ("whose text is not UTF-8", "store it as UTF-8"),
    "unreadable text": ("with a text that cannot be read", "mend or remove it"),
    "empty sound": ("with a sound of no sample", "remove them"),
    "sample beyond 1": ("with a sample below -1 or above 1", "scale real samples to -1 to 1, or store them as int16"),
    "unreadable sound": ("that cannot be read as sound", "store it as WAV, PCM of 8 or 16 bits"),
    "sound of another rate": ("of another sample rate than the first file", "bring all to one rate"),
    "unreadable file": ("that cannot be read", "mend or remove it"),
}
"""Faults of single rows or files: which those are, and what to do."""


class RowFaults:
    """Counts faults of single rows, and remembers where the first of each kind are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, faults: Iterable[tuple[str, str]]) -> None:
        """Faults as (kind, where)."""
        for kind, where in faults:
            self._counts[kind] += 1
            first = self._first.setdefault(kind, [])
            if len(first) < NAMED:
                first.append(where)

    def sentences(self) -> list[str]:
        """One for each kind that occurred."""
        return [
            f"{_counted(count, 'file' if kind == 'unreadable file' else 'row')} {KINDS[kind][0]}: "
            f"{_named(self._first[kind], count)}; {KINDS[kind][1]}"
            for kind, count in sorted(self._counts.items())
        ]


class Found:
    """What is learnt of rows as they pass: how many per split and class, and what more than one split holds."""

    def __init__(self, has_ids: bool, splits_are_given: bool) -> None:
        self._has_ids, self._splits_are_given = has_ids, splits_are_given
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self.num_cut: Counter[str] = Counter()
        self.subgroups: set[str] = set()
        self._split_of_group: dict[str, str] = {}
        self._straddling: dict[str, None] = {}
        self._shared: list[str] = []
        self._repeated: list[str] = []

    @property
    def labels(self) -> set[str]:
        """Every label met."""
        return {label for _, label in self._counts if label is not None}

    def count(self, rows: pa.Table) -> None:
        """Count labelled rows, and notice named groups that a given split parts (one by hash cannot)."""
        for entry in rows.group_by(["split", "label"]).aggregate([([], "count_all")]).to_pylist():
            self._counts[entry["split"], entry["label"]] += entry["count_all"]
        self.count_cut(rows)
        self.subgroups.update(pc.unique(rows["subgroup"]).drop_null().to_pylist())
        if self._splits_are_given:
            named = rows.filter(pc.not_equal(rows["group"], rows["id"]))
            for group, split in zip(named["group"].to_pylist(), named["split"].to_pylist(), strict=True):
                if self._split_of_group.setdefault(group, split) != split:
                    self._straddling[group] = None

    def count_cut(self, rows: pa.Table) -> None:
        """Count the rows whose inputs were cut."""
        self.num_cut.update(rows.filter(rows["cut"])["split"].to_pylist())

    def look_for_repeats(self, rows: pa.Table) -> None:
        """Notice equal keys, in rows ordered by key: ids that are not unique, and contents in more than one split."""
        keys = rows["key"].combine_chunks()
        same = pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(same):
            one, other = rows.slice(int(row), 2).select(["id", "split", "where", "label"]).to_pylist()
            if one["split"] != other["split"]:
                self._shared.append(f"{one['where']} ({one['split']}) and {other['where']} ({other['split']})")
            elif self._has_ids and one["label"] is not None:  # a transfer set is named by its content
                self._repeated.append(f"{one['id']!r} at {one['where']} and {other['where']}")

    def per_class(self, class_names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Labelled examples per split and class."""
        return {split: {name: self._counts[split, name] for name in class_names} for split in SPLITS}

    def num_blocks(self) -> dict[str, dict[str, int]]:
        """Blocks of tokens per split, in the form of `per_class`."""
        return {split: {"blocks": self._counts[split, None]} for split in SPLITS}

    def sentences(self) -> list[str]:
        """One for each kind of fault noticed."""
        same = "id" if self._has_ids else "content"
        faults = []
        if self._repeated:
            faults.append(
                f"ids given more than once ({len(self._repeated)}): {_named(self._repeated)}; ids have to be unique"
            )
        if self._shared:
            longer = ", or raise data.length, behind which rows may differ" if self.num_cut else ""
            faults.append(
                f"rows of the same {same} in different splits ({_counted(len(self._shared), 'pair')}): "
                f"{_named(self._shared)}; keep one of each, or give them one group{longer}"
            )
        if self._straddling:
            faults.append(
                f"groups in more than one split ({len(self._straddling)}): {_named(sorted(self._straddling))}; "
                "put each into one"
            )
        return faults


def raise_all(source: str, faults: Sequence[str]) -> None:
    """Raises DataError if there is any fault."""
    if faults:
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError(f"{source} has {count}:\n" + "\n".join(f"  - {fault}" for fault in faults))


def class_faults(counts: Mapping[str, Mapping[str, int]], class_names: Sequence[str]) -> list[str]:
    """Fewer than two classes, empty splits, and classes that train or test lacks. Counts are [split][class]."""
    faults = []
    if len(class_names) < 2:
        faults.append(f"{len(class_names)} class ({_named(class_names)}); wanted 2 or more: is data.label right?")
    sizes = {split: sum(counts[split].values()) for split in SPLITS}
    faults += empty_splits(counts)
    for split in ("train", "test"):
        missing = [name for name in class_names if not counts[split].get(name)]
        if missing and sizes[split]:
            faults.append(f"{split} has no example of {_plural(len(missing), 'class', 'classes')} {_named(missing)}")
    return faults


def empty_splits(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Splits without an example. Counts are [split][class]."""
    sizes = {split: sum(counts[split].values()) for split in SPLITS}
    empty = [split for split in SPLITS if not sizes[split]]
    told = f"no examples in {' and '.join(empty)} (of {sum(sizes.values())}); give data.split larger shares"
    return [told] if empty else []


def constant(low: Sequence[float], high: Sequence[float], names: Sequence[str]) -> list[str]:
    """Features or channels that hold one value all through train: they teach nothing, and cannot be standardised."""
    held = zip(names, low, high, strict=False)  # without any example there are bounds of nothing
    found = [f"{name} (always {one:g})" for name, one, other in held if one == other]
    return [f"constant in train: {_named(found)}; leave them out"] if found else []


def _named(names: Sequence[str], count: int | None = None) -> str:
    """The first few, and how many more there are."""
    count = len(names) if count is None else count
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else f"{count} {many}"
