"""The pass that fills the cache: every (example, view) through the teacher once, shard by shard over Ray workers.

A shard is done when its marker is there, created if absent and naming the file it belongs to. A build that is killed
continues with the shards that have no marker; two builds of one key agree on the first marker of each shard.

When all shards are there, rows of them are read back from storage and held against the teacher computed again; the
manifest is written after that, or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from distill_platform.artifact import Artifact, Draft
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import CONSTANTS_FILE, MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.cache.writer import ShardRange, plan_shards
from distill_platform.cluster import over_workers
from distill_platform.data.examples import open_split
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch
from distill_platform.fingerprint import sha256_bytes
from distill_platform.progress import track
from distill_platform.teacher.audit import merged
from distill_platform.teacher.shards import SPLITS, Check, Checked, FillJob

PARITY_ROWS, PARITY_SHARDS = 256, 64
"""Rows that are compared before a cache is sealed, at least, and the shards that they are spread over, at most: each
one is read whole, to see that what is stored is what was written."""
UPLOAD_S = 600.0
"""After how long an upload of a shard is taken for a dead build's."""

log = logging.getLogger(__name__)


def fill_cache(
    draft: Draft,
    teacher: Artifact,
    data: Artifact,
    views: Views,
    encoding: Encoding,
    num_workers: int,
    num_gpus: float = 0,
    num_threads: int = 1,
    layers: Mapping[str, str] | None = None,
    precision: str = "float32",
    group_size: int = 1,
) -> None:
    """Cache what the teacher says: training split in every view, validation split as it is.

    layers:     name or pattern of the teacher's layers to keep beside its logits -> "pooled" or "whole".
    precision:  number format of its arithmetic.
    group_size: processes that hold one teacher together, with `num_gpus` GPUs each.

    Raises CacheMismatch, and writes no manifest, if rows read back are not what the teacher says of their examples;
    ModelError for layers that the teacher does not have.
    """
    shards = {
        split: plan_shards(split, len(open_split(data, split)), views.num if split == "train" else 1)
        for split in SPLITS
    }
    manifest = Manifest(
        teacher=teacher.digest,
        data=data.digest,
        encoding=encoding,
        splits={split: _cached_split(parts) for split, parts in shards.items()},
        modes=dict(layers or {}),
        mixes=views.mixes,
        views=views,
        precision=precision,
    )
    job = FillJob(teacher, data, manifest, draft.storage, draft.work, num_workers, num_threads)
    planned = [shard for split in SPLITS for shard in shards[split]]
    for upload in draft.storage.unfinished_uploads(older_than_s=UPLOAD_S):
        draft.storage.abort_upload(upload)
    log.info("cache: %d shards, %d workers of %d processes", len(planned), num_workers, group_size)
    while True:
        try:
            checked = _run(draft, job, planned, num_gpus, group_size)
            break
        except torch.OutOfMemoryError:
            if job.batch_size() in (None, 1):
                raise
            job.halve_batch_size()
            log.warning(
                "cache: the device's memory did not suffice; starting over with batches of %d", job.batch_size()
            )
    _seal(draft, job, checked)
    draft.facts |= {"num_rows": sum(shard.num_rows for shard in planned), "batch_size": job.batch_size()}


def _cached_split(shards: list[ShardRange]) -> CachedSplit:
    num_examples = sum(shard.last - shard.first for shard in shards)
    return CachedSplit(num_examples, shards[0].num_views, tuple(shard.name for shard in shards))


def _run(draft: Draft, job: FillJob, planned: list[ShardRange], num_gpus: float, group_size: int) -> list[Checked]:
    """Make the shards that are missing, and compare all with the teacher."""
    made = _made_before(job, planned)
    for shard, entry in made.items():
        draft.adopt(shard.name, entry)
    queue: list[ShardRange | Check] = [shard for shard in planned if shard not in made] or [*_checks(made)]
    checked: list[Checked] = []
    with track("cache", sum(shard.num_rows for shard in planned), "rows") as advance:
        advance(sum(shard.num_rows for shard in made))
        for result in over_workers(job.start_worker, queue, job.num_workers, num_gpus=num_gpus, group_size=group_size):
            draft.check()
            if isinstance(result, Checked):
                checked.append(result)
                continue
            if not made:
                log.info("cache: batches of %d", job.batch_size())
            made[result.shard] = result.entry
            draft.adopt(result.shard.name, result.entry)
            advance(result.shard.num_rows)
            if len(made) == len(planned):
                queue += _checks(made)
    return checked


def _made_before(job: FillJob, planned: list[ShardRange]) -> dict[ShardRange, dict[str, Any]]:
    """The shards that an earlier try of this build left, and their entries."""
    size = job.batch_size()
    if size is None:
        return {}
    done = set(job.work.list(job.markers(size)))
    markers = {shard: job.marker(shard, size) for shard in planned}
    return {shard: json.loads(job.work.read(marker)) for shard, marker in markers.items() if marker in done}


def _checks(made: Mapping[ShardRange, dict[str, Any]]) -> list[Check]:
    """What is compared: at least a row of every shard, or of PARITY_SHARDS of them spread evenly."""
    shards = sorted(made, key=lambda shard: shard.name)
    chosen = shards[:: -(-len(shards) // PARITY_SHARDS)]
    num_rows = -(-PARITY_ROWS // len(chosen))
    return [Check(shard, made[shard], num_rows) for shard in chosen]


def _seal(draft: Draft, job: FillJob, checked: list[Checked]) -> None:
    """Write the manifest. Raises CacheMismatch if a row that was compared is not what it should be."""
    found = merged(each.comparison for each in checked)
    if not found.passed:
        redrawn = f"{found.num_redrawn} rows were drawn anew" if found.num_redrawn else ""
        raise CacheMismatch(
            f"{draft.storage.uri}: {found.num_wrong} of {found.num_rows} rows that were read back are not what the "
            f"teacher says: {'; '.join([*found.wrong, *filter(None, [redrawn])])}. Nothing was sealed. A teacher must "
            "answer the same twice (no dropout, no state); if it does, `distill retry cache` makes the rows again"
        )
    manifest = job.manifest
    if CODECS[manifest.encoding.codec].source == "hidden":
        constants = job.work.read(CONSTANTS_FILE)
        draft.write(CONSTANTS_FILE, constants)
        manifest = replace(manifest, output_layer=sha256_bytes(constants))
    parity = {
        "num_rows": found.num_rows,
        "num_shards": len(checked),
        "worst": float(f"{found.worst:.2g}"),  # two digits: the rest may be the order of sums, and this file is hashed
        "tolerance": found.tolerance,
        "num_redrawn": found.num_redrawn,
    }
    manifest = replace(manifest, layers=checked[0].shapes, modes=checked[0].modes, parity=parity)
    draft.write_json(MANIFEST_FILE, manifest.to_json())
