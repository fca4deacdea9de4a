"""The pass that fills the cache: every (example, view) through the teacher once, shard by shard over Ray workers.

A shard is done when its marker is there, created if absent and naming the file it belongs to. A build that is killed
continues with the shards that have no marker; two builds of one key agree on the first marker of each shard.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill_platform.artifact import Artifact, Draft, put_file
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.cache.writer import ShardRange, plan_shards, write_shard
from distill_platform.cluster import over_workers
from distill_platform.data.examples import open_split
from distill_platform.data.views import Views
from distill_platform.models import inference_batch_size, load_network
from distill_platform.progress import track
from distill_platform.storage import Storage
from distill_platform.teacher.train import MODEL_FOLDER

SPLITS = ("train", "val")


@dataclass(frozen=True)
class FillJob:
    """What a worker needs to make any shard."""

    teacher: Artifact
    data: Artifact
    views: Views
    encoding: Encoding
    cache: Storage
    markers: Storage
    num_threads: int

    def marker(self, shard: ShardRange) -> str:
        return f"{shard.name}.json"

    def start_worker(self) -> Callable[[ShardRange], tuple[ShardRange, dict[str, Any]]]:
        """Load teacher and data once; gives the function that makes a shard."""
        torch.set_num_threads(self.num_threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _, network = load_network(self.teacher.fetch_folder(MODEL_FOLDER))
        network.to(device)
        examples = {split: open_split(self.data, split) for split in SPLITS}

        @torch.inference_mode()
        def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": network(inputs.to(device))["logits"].values}

        def make(shard: ShardRange) -> tuple[ShardRange, dict[str, Any]]:
            with tempfile.TemporaryDirectory(prefix="distill-shard-") as folder:
                path = Path(folder) / "shard.parquet"
                write_shard(
                    *(path, shard, examples[shard.split], self.views, predict, self.encoding),
                    batch_size=inference_batch_size(device),
                )
                entry = put_file(self.cache, shard.name, path)
            if not self.markers.create(self.marker(shard), json.dumps(entry, sort_keys=True).encode()):
                entry = json.loads(self.markers.read(self.marker(shard)))
            return shard, entry

        return make


def fill_cache(
    draft: Draft,
    teacher: Artifact,
    data: Artifact,
    views: Views,
    encoding: Encoding,
    num_workers: int,
    num_gpus: float = 0,
    num_threads: int = 1,
) -> None:
    """Cache the teacher's raw logits: training split in every view, validation split as it is."""
    shards = {
        split: plan_shards(split, len(open_split(data, split)), views.num if split == "train" else 1)
        for split in SPLITS
    }
    job = FillJob(teacher, data, views, encoding, draft.storage, draft.work, num_threads)
    planned = [shard for split in SPLITS for shard in shards[split]]
    done = set(draft.work.list("shards"))
    missing = [shard for shard in planned if job.marker(shard) not in done]
    with track("cache", sum(shard.num_rows for shard in planned), "rows") as advance:
        for shard in planned:
            if shard not in missing:
                draft.adopt(shard.name, json.loads(draft.work.read(job.marker(shard))))
                advance(shard.num_rows)
        for shard, entry in over_workers(job.start_worker, missing, num_workers, num_gpus=num_gpus):
            draft.check()
            draft.adopt(shard.name, entry)
            advance(shard.num_rows)
    manifest = Manifest(
        teacher=teacher.digest,
        data=data.digest,
        encoding=encoding,
        splits={
            split: CachedSplit(
                num_examples=sum(shard.last - shard.first for shard in parts),
                num_views=parts[0].num_views,
                shards=tuple(shard.name for shard in parts),
            )
            for split, parts in shards.items()
        },
    )
    draft.write_json(MANIFEST_FILE, manifest.to_json())
    draft.facts["num_rows"] = sum(shard.num_rows for shard in planned)
