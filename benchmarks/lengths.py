"""What cutting each batch behind its longest sequence saves: a training step with it and without.

OMP_NUM_THREADS=1 python benchmarks/lengths.py ../shared/data
"""

from __future__ import annotations

import csv
import gzip
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from distill_platform.data.schema import PADDING, InputSpec
from distill_platform.models import Ids, LogMel, Network, build_network

BATCH_SIZE, NUM_STEPS, REPEATS, NUM_CLASSES = 32, 12, 3, 10


def texts(folder: Path) -> tuple[InputSpec, Tensor]:
    """banking77's training texts, padded to the longest."""
    with gzip.open(folder / "banking77/train.csv.gz", "rt", encoding="utf-8") as file:
        encoded = [row[0].encode() for row in list(csv.reader(file))[1:]]
    length = max(map(len, encoded))
    return InputSpec("text", (length,), "uint8", 0, 255), _padded(
        [np.frombuffer(text, np.uint8) for text in encoded], 0
    )


def sounds(folder: Path) -> tuple[InputSpec, Tensor]:
    """fsdd's training sounds, padded to the longest."""
    table = pq.read_table(folder / "fsdd/train.parquet", columns=["audio", "sample_rate"])
    samples = [np.maximum(np.array(each, np.int16), -(2**15) + 1) for each in table["audio"].to_pylist()]
    form = InputSpec(
        "audio", (max(map(len, samples)),), "int16", -32767, 32767, sample_rate=table["sample_rate"][0].as_py()
    )
    return form, _padded(samples, PADDING["audio"])


def seconds_per_step(network: Network, raw: Tensor) -> float:
    """Of the fastest of a few rounds over the same batches."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    batches = raw[torch.randperm(len(raw), generator=torch.Generator().manual_seed(0))].split(BATCH_SIZE)[:NUM_STEPS]
    rounds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            logits = network(batch)["logits"].values
            nn.functional.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long)).backward()
            optimizer.step()
        rounds.append((time.perf_counter() - started) / len(batches))
    return min(rounds)


def _padded(values: list[np.ndarray], padding: int) -> Tensor:  # type: ignore[type-arg]
    rows = np.full((len(values), max(map(len, values))), padding, values[0].dtype)
    for row, each in zip(rows, values, strict=True):
        row[: len(each)] = each
    return torch.from_numpy(rows)


def main(folder: Path) -> None:
    """Print a row per model: milliseconds per step with whole sequences, with cut ones, and how many times faster."""
    cases = {
        "banking77, ngrams": ("ngrams", texts(folder), Ids(256)),
        "banking77, transformer": ("transformer", texts(folder), Ids(256)),
        "fsdd, conv1d": ("conv1d", sounds(folder), LogMel()),
    }
    for title, (name, (form, raw), preprocess) in cases.items():
        network = build_network(name, {}, form, NUM_CLASSES, preprocess, 0)
        cut = seconds_per_step(network, raw)
        network.register_forward_hook(lambda *_: None)  # listened to, it takes every sequence whole
        whole = seconds_per_step(network, raw)
        counted = (raw != form.padding).sum(1).float()
        print(
            f"{title}: mean length {counted.mean():.0f} of {form.shape[0]}; whole {1000 * whole:.1f} ms, "
            f"cut {1000 * cut:.1f} ms, {whole / cut:.1f} times"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
