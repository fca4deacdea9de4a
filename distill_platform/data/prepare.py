"""A source becomes a data set: checked, named, split, and laid down in shards ordered by key.

    open the source -> read it piece by piece, here or on Ray -> rows in buckets by key -> checks -> shards, schema.json

Both ways run the same pure functions on pieces, and rows are put in order after: so the bytes written depend neither
on block sizes nor on how many workers there were. Memory holds a few blocks, one bucket and one shard.

Rows pass through this process whatever reads them, because they end on its disk. A shuffle by Ray Data would move them
once more, and keeps what it shuffles in memory.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_platform.data import checks
from distill_platform.data.blocks import ReadOptions
from distill_platform.data.large import rows_on_ray
from distill_platform.data.rows import Part, row_schema
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.shards import Moments, write_shards
from distill_platform.data.sources import content_digest, open_source
from distill_platform.data.splits import SplitPlan, parse_split
from distill_platform.data.spool import MANY_BUCKETS, Spool, ordered, without_repeats
from distill_platform.errors import DataError
from distill_platform.fingerprint import fingerprint
from distill_platform.progress import track

LARGE_BYTES = 256 * 2**20
"""Inputs that take more than this are read by Ray's workers, if there are any."""


def prepare_examples(
    folder: Path,
    source: str,
    *,
    label: str | None = None,
    id: str | None = None,
    group: str | None = None,
    input: str | None = None,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    split: Mapping[str, Any],
    seed: int,
    workers: Callable[[], None] | None = None,
) -> Schema:
    """Write schema.json and splits/{train,val,test}-00000.parquet, … below `folder`.

    `label`, `id`, `group` and `input` name columns, `image_size` is [H, W] and `channels` 1 or 3; `split` is what
    `parse_split` takes, salted by `seed`. `workers` connects to Ray; it is called only if the source is large.

    Raises DataError, naming every fault found and where it is.
    """
    plan = parse_split(split)
    options = ReadOptions(label, id, group, input, plan.column, image_size, channels)
    parts = _open_parts(source, options, plan, seed)
    first = parts[0].source
    large = any(part.source.size_bytes is None or part.source.size_bytes > LARGE_BYTES for part in parts)
    can_be_shared = any(len(part.source.pieces) > 1 for part in parts)
    faults, found = checks.RowFaults(), checks.Found(first.has_ids, splits_are_given=plan.by != "hash")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spool-", dir=folder) as temporary:
        spool = Spool(Path(temporary) / "rows", row_schema(first.input), MANY_BUCKETS if large else 1)
        for rows in _all_rows(parts, workers if large and can_be_shared else None):
            is_fault = pc.is_valid(rows["fault"])
            bad, good = rows.filter(is_fault), rows.filter(pc.invert(is_fault))
            faults.add(zip(bad["fault"].to_pylist(), bad["where"].to_pylist(), strict=True))
            found.count(good)
            spool.add(good)
        class_names = first.class_names or _in_order(found.labels)
        in_order = (ordered if first.has_ids else without_repeats)(spool, found.look_for_repeats)
        moments = write_shards(folder / "splits", in_order, first.input, class_names)
    spec = _bounded(first.input, moments)
    counts = found.per_class(class_names)
    constant = checks.constant(moments.low.tolist(), moments.high.tolist(), _names(spec))
    of_split = [*checks.class_faults(counts, class_names), *constant]
    checks.raise_all(source, [*faults.sentences(), *found.sentences(), *of_split])
    schema = Schema(spec, class_names, counts, tuple(moments.mean.tolist()), tuple(moments.std.tolist()))
    (folder / "schema.json").write_text(json.dumps(schema.to_json(), indent=1, sort_keys=True, allow_nan=False))
    return schema


def source_fingerprint(
    source: str,
    *,
    label: str | None = None,
    id: str | None = None,
    group: str | None = None,
    input: str | None = None,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    split: Mapping[str, Any],
    seed: int,
) -> str:
    """sha256 over all that `prepare_examples` would depend on: the bytes of the sources wherever they lie, the options.

    Files are read in pieces. Raises DataError if a source is not there.
    """
    plan = parse_split(split)
    contents = [content_digest(one) for one in (source, plan.test_source) if one is not None]
    size = list(image_size) if image_size is not None else None
    how = {**asdict(plan), "test_source": None}
    return fingerprint([contents, label, id, group, input, size, channels, how, seed])


def describe_source(
    source: str,
    *,
    label: str | None = None,
    id: str | None = None,
    group: str | None = None,
    input: str | None = None,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    split: Mapping[str, Any],
) -> tuple[int | None, tuple[int, ...], int | None]:
    """Number of examples, shape of an input, number of classes: what a source tells without being read.

    Raises DataError if a source is not there, or the options do not fit it.
    """
    plan = parse_split(split)
    options = ReadOptions(label, id, group, input, plan.column, image_size, channels)
    sources = [part.source for part in _open_parts(source, options, plan, seed=0)]
    nums = [one.num_examples for one in sources]
    num_examples = None if None in nums else sum(num for num in nums if num is not None)
    return num_examples, sources[0].input.shape, sources[0].count_classes()


def _open_parts(source: str, options: ReadOptions, plan: SplitPlan, seed: int) -> list[Part]:
    """The sources to read, each with the split that its rows are in."""
    opened = open_source(source, options)
    if plan.by != "sources":
        return [Part(opened, plan, seed)]
    if opened.has_test_split:
        if plan.test_source is not None:
            raise DataError(f"{source} has a test split of its own; leave data.split.test out")
        return [Part(opened, plan, seed)]
    if plan.test_source is None:
        raise DataError(f"{source} has no test split of its own; name the test source by data.split.test")
    test = open_source(plan.test_source, options)
    for what in ("input", "has_ids", "class_names"):
        ours, theirs = getattr(opened, what), getattr(test, what)
        if ours != theirs:
            raise DataError(f"{what} differs between {source} ({ours}) and {plan.test_source} ({theirs})")
    return [Part(opened, plan, seed), Part(test, plan, seed, fixed="test")]


def _all_rows(parts: list[Part], workers: Callable[[], None] | None) -> Iterator[pa.Table]:
    if workers is not None:
        workers()
    for part in parts:
        total = part.source.num_examples or 0  # CSV does not tell
        with track(f"prepare {part.source.name}", total, "examples") as advance:
            for rows in rows_on_ray(part) if workers is not None else _rows_here(part):
                yield rows
                advance(len(rows))


def _rows_here(part: Part) -> Iterator[pa.Table]:
    for piece in part.source.pieces:
        yield from part.rows(piece)


def _in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names sorted: by value if all are numbers, else as text."""
    names = sorted(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)


def _bounded(spec: InputSpec, moments: Moments) -> InputSpec:
    """The form of inputs with the bounds that the train split shows, where the source's format sets none."""
    if math.isfinite(spec.low):
        return spec
    ranges = tuple((moments.high - moments.low).tolist()) if spec.kind == "features" else ()
    return replace(spec, low=float(moments.low.min()), high=float(moments.high.max()), feature_ranges=ranges)


def _names(spec: InputSpec) -> Sequence[str]:
    what = "channel" if spec.kind == "image" else "feature"
    return spec.feature_names or [f"{what} {number}" for number in range(spec.shape[-1])]
