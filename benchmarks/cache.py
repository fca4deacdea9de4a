"""The teacher cache against its peers, in one run: reading, writing, bytes at rest, memory.

    python benchmarks/cache.py [--quick] [--json] [--peers-python PATH]

Peers from PyPI live in an environment of their own; the platform does not depend on them:

    python -m venv ~/.cache/distill-peers
    ~/.cache/distill-peers/bin/pip install torch==2.13.0
    ~/.cache/distill-peers/bin/pip install -r benchmarks/peers/requirements.txt
    python benchmarks/cache.py --json --peers-python ~/.cache/distill-peers/bin/python

Without it, what needs them is null, and why is said.

warm_read_vs_mmap            shuffled batches of 256 rows of 100 classes, warm, from (example, view) to fp32: rate over
                             that of a memory map with `index_select(out=)` that does the same, row numbers included
warm_read_vs_best_peer       the same rate over that of the fastest peer: peers/layouts.py says how each is read
dense_write_vs_fixed_binary  one shard from fp32 logits, up to the file's sha256: rate over that of uncompressed
                             fixed-size binary Parquet up to its own, both with checksums of their pages; `_unhashed`:
                             neither up to its sha256. By the fastest repeats, always: through the page cache they vary
dense_write_vs_unchecked_fixed_binary  the same, the platform with checksums of its pages, the other without any;
                             `_hashed`: the platform up to its file's sha256, the other with neither
bytes_per_token_128k         bytes of the cells of `sampled` at V = 131,072, K being the codec's own or, if that is
                             more, the fewest whose variance is that of 50 independent draws or less
bytes_per_example_100        bytes of the cells of the codec that the platform itself chooses for 100 classes and
                             temperatures from 1 to 8; `_with_keys`, of both: all of the file
memory_4_trials_vs_1         memory of the cache in four trials over one: memory.py defines it

dense.py        write and read arms                made.py       data and caches to measure with
peer_workers.py peers in their own processes       peers/        what runs there
sizes.py        bytes at rest, variance            teachers.py   the logits that are stored
memory.py       trials that share a cache          verified.py   what is hashed, and when
timing.py       how figures are taken

Arms of one comparison take turns, each on one torch thread, after a round of warm-up. Times are CPU-seconds of the
process that does the work, all of its threads; ratios are of medians but for `dense_write_…`, `of_minima` of each
arm's fastest repeat.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import dense
import torch
import typer
from memory import measure_memory
from peer_workers import Worker, peers
from rich.console import Console
from rich.table import Table
from sizes import encodings, matched_keep, measure_examples, measure_tokens
from teachers import token_teacher
from timing import Seconds, empty_scratch, hardware, interleaved
from verified import measure_hashing

from distill_platform.artifact import library_versions
from distill_platform.cache import CODECS
from distill_platform.cache.choice import Demand, choose_encoding
from distill_platform.objective import LOSSES
from distill_platform.storage import LocalStorage

SOFT_TARGETS = Demand(LOSSES["soft_targets"].accepts(), (1.0, 2.0, 4.0, 8.0))
HEADLINES = (
    "warm_read_vs_mmap",
    "warm_read_vs_best_peer",
    "dense_write_vs_fixed_binary",
    "dense_write_vs_unchecked_fixed_binary",
    "bytes_per_token_128k",
    "bytes_per_example_100",
    "memory_4_trials_vs_1",
)


@dataclass(frozen=True)
class Sizes:
    """How much of everything. rows: of 100 classes. tokens: written with `sampled`; with other codecs other_tokens."""

    rows: int = 1 << 20
    peer_rows: int = 1 << 20
    repeats: int = 11
    peer_repeats: int = 3
    vocabulary: int = 131_072
    tokens: int = 131_072
    other_tokens: int = 1024
    variance_tokens: int = 512
    variance_repeats: int = 16


QUICK = Sizes(8192, 4096, 3, 1, 2048, 512, 128, 64, 4)


def measure(sizes: Sizes, peers_python: Path | None) -> dict[str, Any]:
    """Everything, as the document that `--json` prints."""
    machine = hardware()
    with empty_scratch(), tempfile.TemporaryDirectory(prefix="distill-bench-") as name:
        write = dense.measure_write(Path(name), min(sizes.rows, 65_536), sizes.repeats)
        read, hashed = measure_read(Path(name), sizes.rows, sizes.repeats)
        with_peers = measure_peers(Path(name) / "peers", sizes.peer_rows, sizes.peer_repeats, peers_python)
        stored = measure_sizes(Path(name) / "sizes", sizes)
    memory = measure_memory(sizes.rows)
    seconds = {"write": write, "read": read, "read_with_peers": with_peers.pop("cpu_seconds")}
    return {
        **ratios(seconds, statistics.median),
        **headline_sizes(stored),
        "memory_4_trials_vs_1": memory["cache_4_trials_vs_1"],
        "of_minima": ratios(seconds, min),
        "peers": with_peers,
        "bytes_hashed": hashed,
        "stored": stored,
        "memory": memory,
        "rates": rates(seconds, sizes),
        "cpu_seconds": seconds,
        "sizes": vars(sizes),
        "hardware": machine,
        "libraries": library_versions(),
    }


def measure_read(folder: Path, num_rows: int, repeats: int) -> tuple[Seconds, dict[str, int]]:
    """CPU-seconds of a warm pass by arm, and what is hashed on the way."""
    cached = dense.make_dense(LocalStorage(folder / "workspace"), folder, num_rows)
    order = torch.randperm(num_rows)
    asked = [(rows // dense.NUM_VIEWS, rows % dense.NUM_VIEWS) for rows in order.split(dense.BATCH_SIZE)]
    return interleaved(dense.read_arms(cached, order), repeats), measure_hashing(cached, asked)


def measure_peers(folder: Path, num_rows: int, repeats: int, python: Path | None) -> dict[str, Any]:
    """CPU-seconds of a warm pass over the same rows, the platform's and each peer's, and what is known of each peer."""
    folder.mkdir()
    cached = dense.make_dense(LocalStorage(folder / "workspace"), folder, num_rows)
    platform = dense.read_arms(cached, torch.randperm(num_rows))["platform"]
    with peers(python, cached.mapped.numpy(), folder, dense.BATCH_SIZE) as (workers, missing):
        seeds = count(1)
        arms = {name: partial(_read_pass, worker, seeds) for name, worker in workers.items()}
        seconds = interleaved({"platform": platform, **arms}, repeats)
        facts = {name: _facts(worker, num_rows) for name, worker in workers.items()}
    return {"of": facts, "missing": missing, "cpu_seconds": seconds}


def _read_pass(worker: Worker, seeds: Iterator[int]) -> float:
    return worker.read_pass(next(seeds))


def _facts(worker: Worker, num_rows: int) -> dict[str, Any]:
    return {**worker.facts, "bytes_per_row": worker.facts["size_bytes"] / num_rows}


def measure_sizes(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Bytes per token and per example of every codec, and the variance of `sampled`."""
    teacher = token_teacher(sizes.vocabulary, sizes.variance_tokens)
    variance = matched_keep(teacher, sizes.variance_tokens, sizes.variance_repeats)
    keep = max(variance["keep"], encodings(sizes.vocabulary, 0)["sampled"].keep)
    num_tokens = {name: sizes.tokens if name == "sampled" else sizes.other_tokens for name in CODECS}
    logits_NC = 3 * torch.randn(4096, dense.NUM_CLASSES)
    return {
        "tokens": measure_tokens(folder / "tokens", teacher, num_tokens, keep),
        "examples": measure_examples(folder / "examples", logits_NC, min(sizes.rows, 65_536)),
        "chosen_for_100": choose_encoding(dense.NUM_CLASSES, [SOFT_TARGETS]).codec,
        "variance": variance,
    }


def ratios(seconds: Mapping[str, Seconds], typical: Callable[[Sequence[float]], float]) -> dict[str, Any]:
    """Rates of the platform over those of what it is measured against: more is better."""

    def over(arms: str, other: str, arm: str = "platform") -> float:
        return typical(seconds[arms][other]) / typical(seconds[arms][arm])

    def write_over(other: str, arm: str) -> float:
        return min(seconds["write"][other]) / min(seconds["write"][arm])

    against = {name: over("read_with_peers", name) for name in seconds["read_with_peers"] if name != "platform"}
    return {
        "warm_read_vs_mmap": over("read", "memmap from (example, view)"),
        "warm_read_vs_mmap_given_rows": over("read", "memmap"),
        "warm_read_vs_best_peer": min(against.values(), default=None),
        "warm_read_vs_each_peer": against,
        "dense_write_vs_fixed_binary": write_over("fixed binary, checksums, hashed", "platform, hashed"),
        "dense_write_vs_fixed_binary_unhashed": write_over("fixed binary, checksums", "platform"),
        "dense_write_vs_unchecked_fixed_binary": write_over("fixed binary", "platform"),
        "dense_write_vs_unchecked_fixed_binary_hashed": write_over("fixed binary", "platform, hashed"),
    }


def headline_sizes(stored: Mapping[str, Any]) -> dict[str, float]:
    """Bytes per unit of what each kind of task stores by default."""
    token, example = stored["tokens"]["sampled"], stored["examples"][stored["chosen_for_100"]]
    return {
        "bytes_per_token_128k": token["cells"],
        "bytes_per_token_128k_with_keys": token["file"],
        "bytes_per_example_100": example["cells"],
        "bytes_per_example_100_with_keys": example["file"],
    }


def rates(seconds: Mapping[str, Seconds], sizes: Sizes) -> dict[str, dict[str, float]]:
    """Medians on this machine; they mean nothing on another."""
    median = {name: {arm: statistics.median(each) for arm, each in arms.items()} for name, arms in seconds.items()}
    written_mb = min(sizes.rows, 65_536) * dense.ROW_BYTES / 1e6
    return {
        "write_mb_per_cpu_s": {arm: written_mb / value for arm, value in median["write"].items()},
        "read_rows_per_cpu_s": dense.rates(median["read"], sizes.rows),
        "read_with_peers_rows_per_cpu_s": dense.rates(median["read_with_peers"], sizes.peer_rows),
    }


def as_table(document: Mapping[str, Any]) -> Table:
    """The figures; the machine as caption."""
    caption = "{cpu}, {cores} cores, {memory_gib} GiB, one torch thread, load {load_average}".format_map(
        document["hardware"]
    )
    table = Table("figure", "value", "of minima", caption=caption)
    for name in HEADLINES:
        table.add_row(name, _shown(document[name]), _shown(document["of_minima"].get(name)))
    table.add_section()
    for name, value in _flat(document):
        table.add_row(name, _shown(value), "")
    for name, reason in document["peers"]["missing"].items():
        table.add_row(name, "", reason)
    return table


def _flat(document: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What stands behind the headlines, a line each."""
    rows = [(name, value) for name, value in document.items() if isinstance(value, float) and name not in HEADLINES]
    rows += [(f"warm read vs {name}", value) for name, value in document["warm_read_vs_each_peer"].items()]
    for unit in ("tokens", "examples"):
        for codec, each in document["stored"][unit].items():
            rows.append((f"bytes, {unit}, {codec}", each["payload"]))
    rows += [(f"variance of sampled, K = {keep}", value) for keep, value in _variances(document)]
    rows += [(f"bytes hashed: {name}", value) for name, value in document["bytes_hashed"].items()]
    rows += [("memory_whole_4_trials_vs_1", document["memory"]["whole_4_trials_vs_1"])]
    return rows + [(f"{rate}: {arm}", value) for rate, arms in document["rates"].items() for arm, value in arms.items()]


def _variances(document: Mapping[str, Any]) -> list[tuple[str, float]]:
    return list(document["stored"]["variance"]["variance_vs_50_draws"].items())


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything: that it runs, not how fast.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    peers_python: Annotated[
        Path | None, typer.Option(help="The Python of the peers' environment.", envvar="DISTILL_PEERS_PYTHON")
    ] = None,
) -> None:
    """Measure the cache against its peers, on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CPU-seconds say nothing about a GPU
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document = measure(QUICK if quick else Sizes(), peers_python)
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        Console().print(as_table(document))


if __name__ == "__main__":
    typer.run(main)
