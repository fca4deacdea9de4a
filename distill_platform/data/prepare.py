"""A source becomes a data set: checked, named, split, and laid down in shards ordered by key.

    open the source -> read it piece by piece, here or on Ray -> rows in buckets by key -> checks -> shards, schema.json

Both ways run the same pure functions on pieces, and rows are put in order after: so the bytes written depend neither
on block sizes nor on how many workers there were. Memory holds a few blocks, one bucket and one shard.

Rows pass through this process whatever reads them, because they end on its disk. A shuffle by Ray Data would move them
once more, and keeps what it shuffles in memory.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from distill_platform.data import checks
from distill_platform.data.blocks import ReadOptions, Source
from distill_platform.data.large import rows_on_ray
from distill_platform.data.rows import Part, row_schema
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.shards import Moments, write_shards
from distill_platform.data.sources import content_digest, open_source
from distill_platform.data.splits import SplitPlan, parse_split
from distill_platform.data.spool import MANY_BUCKETS, Spool, ordered, without_repeats
from distill_platform.data.tokenizers import open_tokenizer
from distill_platform.data.transfer import HeldOut
from distill_platform.errors import DataError
from distill_platform.fingerprint import fingerprint
from distill_platform.progress import track

_log = logging.getLogger("distill_platform")

LARGE_BYTES = 256 * 2**20
"""Inputs that take more than this are read by Ray's workers, if there are any."""


def prepare_examples(
    folder: Path,
    source: str,
    *,
    split: Mapping[str, Any],
    seed: int,
    transfer: str | None = None,
    workers: Callable[[], None] | None = None,
    **reading: Any,
) -> Schema:
    """Write schema.json and splits/{train,val,test}-00000.parquet, … below `folder`.

    `split` is what `parse_split` takes, salted by `seed`; `transfer` is a source of examples for train without labels;
    `reading` is what `ReadOptions` has. `workers` connects to Ray; it is called only if the source is large.

    Raises DataError, naming every fault found and where it is.
    """
    plan = parse_split(split)
    parts = _open_parts(source, transfer, ReadOptions(split=plan.column, **reading), plan, seed)
    first = parts[0].source
    spec, per_token = first.input, first.input.kind == "tokens"
    large = any(part.source.size_bytes is None or part.source.size_bytes > LARGE_BYTES for part in parts)
    can_be_shared = any(len(part.source.pieces) > 1 for part in parts)
    faults, found = checks.RowFaults(), checks.Found(first.has_ids, splits_are_given=plan.by != "hash")
    held_out = HeldOut()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spool-", dir=folder) as temporary:
        spool = Spool(Path(temporary) / "rows", row_schema(spec), MANY_BUCKETS if large else 1)
        for part, rows in _all_rows(parts, workers if large and can_be_shared else None):
            spool.add(_usable(part, rows, faults, found, held_out))
        class_names = first.class_names or _in_order(found.labels)
        subgroup_names = _in_order(found.subgroups)
        has_names = first.has_ids and transfer is None
        in_order = (ordered if has_names else without_repeats)(spool, found.look_for_repeats)
        moments = write_shards(folder / "splits", in_order, spec, class_names, subgroup_names)
    spec = _bounded(spec, moments)
    counts = found.num_blocks() if per_token else found.per_class(class_names)
    constant = checks.constant(moments.low.tolist(), moments.high.tolist(), _names(spec))
    of_split = checks.empty_splits(counts) if per_token else checks.class_faults(counts, class_names)
    checks.raise_all(source, [*faults.sentences(), *found.sentences(), *of_split, *constant])
    schema = Schema(
        spec,
        class_names,
        counts,
        tuple(moments.mean.tolist()),
        tuple(moments.std.tolist()),
        num_unlabelled=held_out.num_kept,
        num_left_out=held_out.num_left_out,
        num_cut=dict(found.num_cut),
        subgroup_names=subgroup_names,
        tokenizer_digest=first.tokenizer_digest,
    )
    _tell(source, schema)
    (folder / "schema.json").write_text(json.dumps(schema.to_json(), indent=1, sort_keys=True, allow_nan=False))
    return schema


def source_fingerprint(
    source: str, *, split: Mapping[str, Any], seed: int, transfer: str | None = None, **reading: Any
) -> str:
    """sha256 over all that `prepare_examples` would depend on: the bytes of the sources wherever they lie, those of
    the tokenizer, the options.

    Files are read in pieces. Raises DataError if a source is not there.
    """
    plan = parse_split(split)
    contents = [content_digest(one) if one is not None else None for one in (source, plan.test_source, transfer)]
    options = asdict(ReadOptions(split=plan.column, **reading))
    if options["tokenizer"] is not None:
        tokenizer = open_tokenizer(options["tokenizer"])
        options["tokenizer"] = [tokenizer.digest, tokenizer.end_of_text]
    return fingerprint([contents, options, {**asdict(plan), "test_source": None}, seed])


class Glance(NamedTuple):
    """What sources tell without being read; None for what they do not."""

    num_examples: int | None
    """Labelled ones."""
    shape: tuple[int, ...]
    """Of an input."""
    num_classes: int | None
    num_unlabelled: int | None = 0
    """Rows of the transfer set."""


def describe_source(source: str, *, split: Mapping[str, Any], transfer: str | None = None, **reading: Any) -> Glance:
    """What there is, from a glance at the sources.

    Raises DataError if a source is not there, or the options do not fit it.
    """
    plan = parse_split(split)
    parts = _open_parts(source, transfer, ReadOptions(split=plan.column, **reading), plan, seed=0)
    first = parts[0].source
    num_labelled, num_unlabelled = (_total(parts, labelled) for labelled in (True, False))
    return Glance(num_labelled, first.input.shape, first.count_classes(), num_unlabelled)


def _total(parts: Sequence[Part], labelled: bool) -> int | None:
    """Examples of the parts that have labels, or of those that have none; None where one does not tell."""
    nums = [part.source.num_examples for part in parts if part.labelled == labelled]
    return None if None in nums else sum(num for num in nums if num is not None)


def _open_parts(source: str, transfer: str | None, options: ReadOptions, plan: SplitPlan, seed: int) -> list[Part]:
    """The sources to read, each with the split that its rows are in; a transfer set last."""
    without_labels = replace(options, labelled=False)
    wanted = [(source, options)]
    if plan.test_source is not None:
        wanted.append((plan.test_source, options))
    if transfer is not None:
        wanted.append((transfer, without_labels))
    first, *others = _opened(wanted)
    if plan.by == "sources" and first.has_test_split and plan.test_source is not None:
        raise DataError(f"{source} has a test split of its own; leave data.split.test out")
    if plan.by == "sources" and not first.has_test_split and plan.test_source is None:
        raise DataError(f"{source} has no test split of its own; name the test source by data.split.test")
    by_content = transfer is not None
    parts = [Part(first, plan, seed, by_content=by_content)]
    for (name, how), other in zip(wanted[1:], others, strict=True):
        for what in ("input", "has_ids", "class_names") if how.labelled else ("input",):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise DataError(f"{what} differs between {source} ({ours}) and {name} ({theirs})")
        fixed = "test" if how.labelled else "train"
        parts.append(Part(other, plan, seed, fixed, labelled=how.labelled, by_content=by_content))
    return parts


def _opened(wanted: Sequence[tuple[str, ReadOptions]]) -> list[Source]:
    """Sources; where only their longest texts or sounds say how long inputs are, all are as long as the longest."""
    opened = [open_source(*one) for one in wanted]
    lengths = {one.input.shape[0] for one in opened if one.input.kind in ("text", "audio")}
    if len(lengths) > 1 and wanted[0][1].length is None:
        return [open_source(name, replace(options, length=max(lengths))) for name, options in wanted]
    return opened


def _all_rows(parts: list[Part], workers: Callable[[], None] | None) -> Iterator[tuple[Part, pa.Table]]:
    if workers is not None:
        workers()
    for part in parts:
        total = part.source.num_examples or 0  # CSV does not tell
        with track(f"prepare {part.source.name}", total, "examples") as advance:
            for rows in rows_on_ray(part) if workers is not None else _rows_here(part):
                yield part, rows
                advance(len(rows))


def _usable(part: Part, rows: pa.Table, faults: checks.RowFaults, found: checks.Found, held_out: HeldOut) -> pa.Table:
    """Rows without a fault, and none of a transfer set that val or test hold; all of it is noted."""
    is_fault = pc.is_valid(rows["fault"])
    bad, good = rows.filter(is_fault), rows.filter(pc.invert(is_fault))
    faults.add(zip(bad["fault"].to_pylist(), bad["where"].to_pylist(), strict=True))
    if part.labelled:
        found.count(good)
        held_out.add(good)
        return good
    kept = held_out.without(good)
    found.count_cut(kept)
    return kept


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


def _tell(source: str, schema: Schema) -> None:
    """Log what of the source is not in the data as it stands there."""
    if schema.num_cut:
        cut = ", ".join(f"{num} of {split}" for split, num in sorted(schema.num_cut.items()))
        _log.info("%s: cut to data.length, %d: %s", source, schema.input.shape[0], cut)
    if schema.num_left_out:
        _log.info("data.transfer: %d rows left out that val or test holds", schema.num_left_out)
