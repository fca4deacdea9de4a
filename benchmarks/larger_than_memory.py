"""A cache ten times as large as what a process may hold: is memory flat, and does it read as fast as the disk does?

    python benchmarks/larger_than_memory.py [--quick] [--json]

A child process may allocate no more than `limit_mb` beyond what torch takes (RLIMIT_DATA), and reads a cold cache in a
windowed order: batches and targets alone ("read"), and a small student trained by the Trainer ("train"). Around each
epoch of the first kind the same files are read from end to end, cold, by one thread: the disk's speed, of which the
faster of buffered and direct reads counts. The disk is shared, so both take turns.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import hardware

from distill_platform.artifact import Artifact, Draft, library_versions, open_artifact, produce
from distill_platform.cache import Encoding, open_targets
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.data.columns import write_columns
from distill_platform.data.examples import open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.order import WindowedOrder, make_order
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.models import SavedModel, Standardize
from distill_platform.objective import Objective
from distill_platform.scratch import scratch_dir
from distill_platform.storage import LocalStorage, Storage
from distill_platform.tasks import TASKS
from distill_platform.train import CachedTeacher, Trainer, TrainSettings

NUM_CLASSES, NUM_FEATURES, BATCH_SIZE, EPOCHS = 1000, 8, 1024, 2
VIEWS = Views.of(2, 0, [{"name": "noise", "std": 0.01}])
EXAMPLES_PER_SHARD = 32_768
READ_BYTES = 8 << 20
ROW_BYTES = NUM_CLASSES * 2 + 2 + NUM_FEATURES * 4
"""That an epoch reads of an example: logits and number of one view, and the input."""


def make_data(workspace: Storage, num_examples: int) -> Artifact:
    """Examples of a few features, in order of nothing: what is large is the cache."""
    rng = np.random.default_rng(0)
    spec = InputSpec("features", (NUM_FEATURES,), "float32", -4.0, 4.0, feature_ranges=(8.0,) * NUM_FEATURES)

    def body(draft: Draft) -> None:
        for split, num in (("train", num_examples), ("val", 64)):
            columns = {
                "key": rng.integers(0, 256, (num, 16), np.uint8),
                "input": rng.standard_normal((num, NUM_FEATURES), np.float32).clip(-4, 4),
                "label": rng.integers(0, NUM_CLASSES, num),
            }
            write_columns(draft.path(f"splits/{split}-00000.parquet"), columns)
        names = tuple(str(number) for number in range(NUM_CLASSES))
        statistics_of = {"mean": (0.0,) * NUM_FEATURES, "std": (1.0,) * NUM_FEATURES}
        draft.write_json("schema.json", Schema(spec, names, {}, **statistics_of).to_json())

    return produce(workspace, "prepare", 1, {"num_examples": num_examples}, {}, body)[0]


def make_cache(workspace: Storage, data: Artifact) -> Artifact:
    """Two views of each example, fp16 logits of random bits between -2 and 2."""
    rng = np.random.default_rng(0)

    def body(draft: Draft) -> None:
        splits = {}
        for split, num_views in (("train", VIEWS.num), ("val", 1)):
            keys, shards = open_split(data, split).keys.numpy(), []
            for first in range(0, len(keys), EXAMPLES_PER_SHARD):
                rows = np.repeat(keys[first : first + EXAMPLES_PER_SHARD], num_views, axis=0)
                bits = rng.integers(0, 2**64, (len(rows), NUM_CLASSES // 4), np.uint64).view(np.uint16) & 0xBFFF
                view = np.arange(len(rows), dtype=np.int16) % num_views
                name = f"shards/{split}-{first:010d}.parquet"
                write_columns(draft.path(name), {"key": rows, "view": view, "logits": bits.view(np.float16)})
                shards.append(name)
            splits[split] = CachedSplit(len(keys), num_views, tuple(shards))
        manifest = Manifest("benchmark", data.digest, Encoding("dense", NUM_CLASSES), splits)
        draft.write_json(MANIFEST_FILE, manifest.to_json())

    return produce(workspace, "cache", 1, {}, {"data": data}, body)[0]


class Opened:
    """Data and cache of a workspace, the training split read through pools."""

    def __init__(self, workspace: Storage, keys: dict[str, str], window_examples: int) -> None:
        order = make_order("windowed", window_examples)
        assert isinstance(order, WindowedOrder)
        data, cache = (open_artifact(workspace, step, keys[step]) for step in ("prepare", "cache"))
        assert data is not None
        assert cache is not None
        self.validation = open_split(data, "val")
        self.examples, self.inputs = open_windowed(data, "train", order)
        self.targets = open_targets(cache, data, "train", self.examples, VIEWS, order)
        self.validation_targets = open_targets(cache, data, "val", self.validation)
        self.loader = Loader(self.examples, VIEWS, BATCH_SIZE, 0, order, (self.inputs, self.targets))

    def read(self, epoch: int) -> None:
        """Every batch of an epoch, and its targets."""
        for batch in self.loader.batches(epoch):
            self.targets(batch.index, batch.view)

    def close(self) -> None:
        """Give back what pools hold."""
        self.inputs.close()
        self.targets.close()

    def trainer(self) -> Trainer:
        """A student so small that the loss over all classes is most of its cost."""
        schema = self.examples.schema
        network = SavedModel(
            *("mlp", {"hidden": [8]}, schema.input, schema.class_names), Standardize.of(schema), "classification"
        ).build(0)
        objective = Objective.of(TASKS["classification"], {"soft_targets": {"weight": 1.0, "temperature": 2.0}})
        settings = TrainSettings(
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            optimizer="sgd",
            lr=1e-2,
            weight_decay=0.0,
            momentum=0.9,
            schedule="constant",
            warmup_fraction=0.0,
            clip_norm=None,
            patience_epochs=None,
            precision="float32",
            seed=0,
            order="windowed",
        )
        teachers = {"train": CachedTeacher(self.targets), "val": CachedTeacher(self.validation_targets)}
        return Trainer(network, objective, self.loader, self.validation, settings, teachers)


def measure(workspace: Storage, keys: dict[str, str], limit_mb: int, window_examples: int, repeats: int) -> Any:
    """What the limited process finds: epochs of both kinds, and the disk's speed before and after each of the first."""
    torch.set_num_threads(1)
    limit = status_bytes("VmData") + limit_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    opened = Opened(workspace, keys, window_examples)
    files = sorted(scratch_dir().glob("*/*/values"), key=lambda path: path.stat().st_size)
    disk, reads = [disk_speed(files[-1])], []
    for number in range(repeats):
        reads.append(epoch(lambda number=number: opened.read(number), files, len(opened.examples)))
        disk.append(disk_speed(files[-1]))
    trainer = opened.trainer()
    train = [epoch(trainer.run_epoch, files, len(opened.examples)) for _ in range(EPOCHS)]
    return {"limit_holds": is_refused(limit_mb), "disk_bytes_per_s": disk, "read": reads, "train": train}


def epoch(work: Callable[[], object], files: Sequence[Path], num_examples: int) -> dict[str, float]:
    """One epoch over cold files: its speed, the most memory it took, and what the page cache then holds."""
    drop(files)
    assert cached_share(files[-1]) < 0.01
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return {
        "bytes_per_s": num_examples * ROW_BYTES / seconds,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_resident_bytes": status_bytes("VmHWM"),
        "anonymous_bytes": status_bytes("RssAnon"),
        "data_bytes": status_bytes("VmData"),
        "page_cache_share": cached_share(files[-1]),
    }


def disk_speed(path: Path) -> float:
    """Bytes per second of one thread that reads half a cold file from its start: buffered or direct, the faster."""
    buffer = mmap.mmap(-1, READ_BYTES)
    speeds = []
    for flag in (0, os.O_DIRECT):
        drop([path])
        num_reads = max(1, path.stat().st_size // 2 // READ_BYTES)
        descriptor = os.open(path, os.O_RDONLY | flag)
        started = time.perf_counter()
        num_bytes = sum(os.preadv(descriptor, [buffer], number * READ_BYTES) for number in range(num_reads))
        speeds.append(num_bytes / (time.perf_counter() - started))
        os.close(descriptor)
    return max(speeds)


def drop(files: Sequence[Path]) -> None:
    """Make files cold."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cached_share(path: Path) -> float:
    """Share of a file's pages that are in the page cache, by mincore(2)."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        if mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)):
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
        return float((pages & 1).mean())


def is_refused(limit_mb: int) -> bool:
    """Whether memory beyond the limit is refused to this process: the limit is real."""
    try:
        np.ones(limit_mb * 2**20, np.uint8)
    except MemoryError:
        return True
    return False


def status_bytes(field: str) -> int:
    """A figure of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def summary(found: dict[str, Any], limit_mb: int, num_rows: int) -> dict[str, Any]:
    """The figures that count, over the repeats."""
    around = [max(pair) for pair in pairwise(found["disk_bytes_per_s"])]
    ratios = [one["bytes_per_s"] / disk for one, disk in zip(found["read"], around, strict=True)]
    read_cpu_seconds = statistics.median(one["cpu_seconds"] for one in found["read"])
    peaks = [one["peak_resident_bytes"] for one in found["train"]]
    return {
        "limit_by": "RLIMIT_DATA",
        "limit_bytes": limit_mb * 2**20,
        "limit_holds": found["limit_holds"],
        "cache_bytes": num_rows * NUM_CLASSES * 2,
        "cache_vs_limit": num_rows * NUM_CLASSES * 2 / (limit_mb * 2**20),
        "read_vs_cold_disk": statistics.median(ratios),
        "read_vs_cold_disk_by_repeat": ratios,
        "read_cpu_seconds_per_gb": read_cpu_seconds / (num_rows / VIEWS.num * ROW_BYTES / 1e9),
        "train_vs_cold_disk": found["train"][-1]["bytes_per_s"] / found["disk_bytes_per_s"][-1],
        "train_peak_last_vs_first_epoch": peaks[-1] / peaks[0],
        "page_cache_share": max(one["page_cache_share"] for one in (*found["read"], *found["train"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a cache that is only a little larger than the limit")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("WORKSPACE", "KEYS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    num_examples, limit_mb, window = (196_608, 384, 8192) if given.quick else (1_310_720, 500, 65_536)
    if given.measure:
        workspace, keys = LocalStorage(Path(given.measure[0])), json.loads(given.measure[1])
        print(json.dumps(measure(workspace, keys, limit_mb, window, given.repeats)))
        return
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        os.environ["DISTILL_SCRATCH"] = f"{folder}/scratch"
        workspace = LocalStorage(Path(folder) / "workspace")
        data = make_data(workspace, num_examples)
        keys = json.dumps({"prepare": data.key, "cache": make_cache(workspace, data).key})
        Opened(workspace, json.loads(keys), window).close()  # fetched, verified and laid out, once per machine
        command = [sys.executable, __file__, "--measure", workspace.uri, keys, "--repeats", str(given.repeats)]
        child = subprocess.run([*command, *["--quick"] * given.quick], stdout=subprocess.PIPE, check=True)
    found = json.loads(child.stdout)
    result = {**summary(found, limit_mb, num_examples * VIEWS.num), "measured": found}
    result |= {"hardware": hardware(), "libraries": library_versions()}
    print(json.dumps(result, indent=1) if given.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
