"""What can be wrong with examples, said so that a user can find and mend it. One message holds every fault found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from distill_platform.data.splits import SPLITS
from distill_platform.errors import DataError

NAMED = 5
"""How many rows, files or columns a message names."""

KINDS: dict[str, tuple[str, str]] = {
    "missing label": ("have no label", "label or remove them"),
    "missing input": ("have no input", "remove them"),
    "missing id": ("have no id", "fill in the column, or leave data.id out to name examples by their content"),
    "missing group": ("have no group", "fill in the column"),
    "unknown split": ("are in no known split", "the split column has to hold train, val or test"),
    "not finite": ("hold a value that is missing, NaN or infinite", "fill in or remove them"),
    "unreadable image": ("are no readable images", "remove or replace them"),
    "image of another size": ("differ in size from the first image", "set data.image_size"),
    "unreadable file": ("cannot be read", "mend or remove it"),
}
"""Faults of single rows or files: what they do wrong, and what to do."""


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
            f"{count} {'file' if kind == 'unreadable file' else 'rows'} {KINDS[kind][0]}: "
            f"{_named(self._first[kind], count)}; {KINDS[kind][1]}"
            for kind, count in sorted(self._counts.items())
        ]


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
    if empty := [split for split in SPLITS if not sizes[split]]:
        faults.append(f"no examples in {' and '.join(empty)} (of {sum(sizes.values())}); give data.split larger shares")
    for split in ("train", "test"):
        missing = [name for name in class_names if not counts[split].get(name)]
        if missing and sizes[split]:
            faults.append(f"{split} has no example of {_plural(len(missing), 'class', 'classes')} {_named(missing)}")
    return faults


def constant_features(low: Sequence[float], high: Sequence[float], names: Sequence[str]) -> list[str]:
    """Features that hold one value all through train: they teach nothing, and cannot be standardised."""
    constant = [f"{name} (always {one:g})" for name, one, other in zip(names, low, high, strict=True) if one == other]
    return [f"constant in train: {_named(constant)}; leave them out"] if constant else []


def shared(what: str, names: Sequence[str], count: int) -> list[str]:
    """Ids, contents or groups that more than one split holds."""
    if not count:
        return []
    return [f"{count} {what} in more than one split: {_named(names, count)}; what is tested must not be trained on"]


def repeated_ids(names: Sequence[str], count: int) -> list[str]:
    """Ids that more than one row has."""
    return [f"{count} ids occur more than once: {_named(names, count)}; ids have to be unique"] if count else []


def _named(names: Sequence[str], count: int | None = None) -> str:
    """The first few, and how many more there are."""
    count = len(names) if count is None else count
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else f"{count} {many}"
