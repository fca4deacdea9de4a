"""A worker of the pass that fills the cache: it makes shards, and compares what is stored with what the teacher says.

It is one process with one device, or one of a group of processes that hold the teacher together: then the batches of a
shard are dealt over the ranks, which take their turns in lockstep, and rank 0 writes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from distill_platform.artifact import Artifact, put_file
from distill_platform.cache.codecs import Columns
from distill_platform.cache.manifest import CONSTANTS_FILE, Manifest
from distill_platform.cache.writer import ShardRange, draw_streams, encode_rows, write_encoded
from distill_platform.cluster.group import gather_arrays, place_in_group, shard_weights
from distill_platform.data.draws import draw
from distill_platform.data.examples import Examples, open_split
from distill_platform.models.batch_size import batch_size_by_memory, batch_size_on_gpu, free_memory_bytes
from distill_platform.storage import Storage
from distill_platform.teacher.answers import Answers
from distill_platform.teacher.audit import Comparison, Shapes, compare_stored
from distill_platform.train.trainer import best_device

SPLITS = ("train", "val")
BATCH_SIZES = "batch_size"
SAMPLE_SIZE = 4
"""Inputs that a pass is tried with, to see what it takes."""

GROUP_BYTES = 2**30
"""What one operation of a group's batch may read and write: enough work for a GPU, and far below its memory."""


@dataclass(frozen=True)
class Check:
    """A shard that is stored, to be compared with the teacher in `num_rows` rows."""

    shard: ShardRange
    entry: dict[str, Any]
    num_rows: int


@dataclass(frozen=True)
class Made:
    """A shard that is stored, and its entry for the record."""

    shard: ShardRange
    entry: dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """What a check found; shapes and modes of the layers that are kept."""

    comparison: Comparison
    shapes: Shapes
    modes: dict[str, str]


@dataclass(frozen=True)
class FillJob:
    """What a worker needs to make any shard. `manifest` is that of the cache to be, its findings left out."""

    teacher: Artifact
    data: Artifact
    manifest: Manifest
    cache: Storage
    work: Storage
    num_workers: int
    num_threads: int

    def start_worker(self) -> Callable[[ShardRange | Check], Made | Checked]:
        """Load teacher and data once; gives the function that makes or checks a shard."""
        torch.set_num_threads(self.num_threads)
        examples = {split: open_split(self.data, split) for split in SPLITS}
        sample = examples["train"].inputs[:SAMPLE_SIZE]
        answers = Answers.of(self.teacher, self.manifest.encoding, self.manifest.modes, sample)
        if answers.constants:
            self.work.create(CONSTANTS_FILE, save_tensors(answers.constants))
        batch_size = self.agree_on_batch_size(answers, sample)
        if place_in_group()[1] > 1:
            shard_weights(answers.network, best_device())
        answers.to(best_device())
        return lambda item: (
            self._check(item, examples[item.shard.split], answers)
            if isinstance(item, Check)
            else self._make(item, examples[item.split], answers, batch_size)
        )

    def marker(self, shard: ShardRange, batch_size: int) -> str:
        """Where it is kept that a shard is there."""
        return f"{self.markers(batch_size)}/{shard.name}.json"

    def markers(self, batch_size: int) -> str:
        """Where markers are kept; those made with another batch size are not looked at."""
        return f"batches-of-{batch_size}"

    def batch_size(self) -> int | None:
        """What the build's workers agreed on; None before the first has started."""
        kept = self.work.list(BATCH_SIZES)
        return int(json.loads(self.work.read(kept[-1]))["batch_size"]) if kept else None

    def agree_on_batch_size(self, answers: Answers, sample: Tensor) -> int:
        """The batch size of this build, proposed by this worker if it is the first.

        Per-row results may differ in the last bit with the batch, so all shards of a build are made with one size,
        whichever worker makes them and however often the build is continued.
        """
        if (agreed := self.batch_size()) is None:
            self._keep_batch_size(0, self._proposal(answers, sample))
            agreed = self.batch_size()
        assert agreed is not None
        return agreed

    def halve_batch_size(self) -> None:
        """Agree on half the batch size, for a device whose memory did not suffice: the shards are made anew with it.

        Halving a single batch instead would leave rows in the cache that depend on what else the device was doing.
        """
        size = self.batch_size()
        assert size is not None
        self._keep_batch_size(len(self.work.list(BATCH_SIZES)), max(1, size // 2))

    def _keep_batch_size(self, number: int, size: int) -> None:
        self.work.create(f"{BATCH_SIZES}/{number:03d}.json", json.dumps({"batch_size": size}).encode())

    def _proposal(self, answers: Answers, sample: Tensor) -> int:
        if best_device().type == "cuda" and place_in_group()[1] == 1:
            answers.to(best_device())
            repeated = partial(_repeated, sample)
            return batch_size_on_gpu(lambda size: answers(repeated(size), self.manifest.precision))
        if best_device().type == "cuda":
            # a group cannot try until memory is full: a rank that fails leaves the others waiting for its weights
            memory = torch.cuda.get_device_properties(0).total_memory
            return batch_size_by_memory(answers.network, sample, memory, target_bytes=GROUP_BYTES)
        return batch_size_by_memory(answers.network, sample, free_memory_bytes() / self.num_workers)

    def _make(self, shard: ShardRange, examples: Examples, answers: Answers, batch_size: int) -> Made:
        parts = self._encode(shard, examples, answers, batch_size)
        if place_in_group()[0] > 0:
            return Made(shard, {})
        with tempfile.TemporaryDirectory(prefix="distill-shard-") as folder:
            path = Path(folder) / "shard.parquet"
            write_encoded(path, parts, self.manifest.encoding)
            entry = put_file(self.cache, shard.name, path)
        marker = self.marker(shard, batch_size)
        if not self.work.create(marker, json.dumps(entry, sort_keys=True).encode()):
            entry = json.loads(self.work.read(marker))
        return Made(shard, entry)

    def _encode(self, shard: ShardRange, examples: Examples, answers: Answers, batch_size: int) -> list[Columns]:
        """The encoded batches of a shard, in order; nothing at ranks other than 0."""
        assert self.manifest.views is not None
        encode = partial(
            encode_rows,
            num_views=shard.num_views,
            examples=examples,
            views=self.manifest.views,
            predict=partial(answers, precision=self.manifest.precision),
            encoding=self.manifest.encoding,
        )
        (rank, size), batches = place_in_group(), shard.batches(batch_size)
        if size == 1:
            return [encode(rows) for rows in batches]
        num_turns = -(-len(batches) // size)
        mine = [encode(rows) for rows in batches[rank::size]]
        if len(mine) < num_turns:  # a pass needs all ranks: whoever has no batch left answers the first again
            spare = encode(batches[0])
            mine.append({name: values[:0] for name, values in spare.items()})
        return list(_in_turn([gather_arrays(part) for part in mine]))

    def _check(self, check: Check, examples: Examples, answers: Answers) -> Checked:
        shard = check.shard
        stored = Artifact(self.cache, "cache", "", "", {"files": {shard.name: check.entry}})
        constants = answers.constants
        rows = sample_rows(shard, examples, check.num_rows)
        found = compare_stored(stored, shard, rows, examples, answers, self.manifest, constants)
        return Checked(*found, answers.layers)


def sample_rows(shard: ShardRange, examples: Examples, num_rows: int) -> Tensor:
    """Rows of a shard that a hash of key and view picks, as numbers in the split, in order."""
    rows = torch.arange(shard.first_row, shard.first_row + shard.num_rows)
    index, view = rows // shard.num_views, rows % shard.num_views
    states = draw_streams({"key": examples.keys.index_select(0, index).numpy(), "view": view.numpy()})
    picked = torch.from_numpy(draw(states, 1).view("i8")).argsort()[:num_rows]
    return rows[picked.sort().values]


def _in_turn(turns: list[list[Columns]]) -> Iterator[Columns]:
    for parts in turns:
        yield from (part for part in parts if len(part["key"]))


def _repeated(sample: Tensor, size: int) -> Tensor:
    return sample[torch.arange(size) % len(sample)]
