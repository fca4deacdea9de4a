"""What the cache costs, and what it saves: each figure beside a named peer that does the same work in the same run.

    python benchmarks/spine.py [--rows N] [--quick] [--json]

timing.py    how figures are taken
made.py      data and caches to measure with
dense.py     write, read, open, decode
step.py      a training step with the cache, without a teacher, with a live one

Arms of one comparison take turns in one process with one torch thread, after a round of warm-up. Times are CPU-seconds,
which a busy machine disturbs less than a wall clock's; a ratio is that of medians over the repeats. `of_minima` is the
same of each arm's fastest repeat: where the two differ much, the machine was too busy to tell.

The peers, each at its best:

memmap          fp16 values in a plain file. Written by torch's cast and `tofile`, several times faster than through
                np.memmap. Read by `index_select(out=)` for row numbers that it is handed, where the platform is handed
                examples and views
fixed binary    Parquet as the platform's, without checksums and without the check that logits fit into fp16
without         the same Trainer, student, data and views, with the task loss alone
live            the same Trainer, with the teacher's forward pass in every step in place of the cache

Steps are measured with one view, the example itself: augmentation costs the same in all arms, and would bring their
ratios nearer to 1. The first step of an epoch, which may measure gradient shares as well, is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import dense
import step
import torch
import typer
from rich.console import Console
from rich.table import Table
from timing import Seconds, empty_scratch, hardware

from distill_platform.artifact import library_versions
from distill_platform.cache.writer import ROWS_PER_SHARD
from distill_platform.storage import LocalStorage


def measure(num_rows: int, num_steps: int, repeats: int) -> dict[str, Any]:
    """Everything, as the document that `--json` prints."""
    machine = hardware()
    shard_rows = min(num_rows, ROWS_PER_SHARD)
    with empty_scratch(), tempfile.TemporaryDirectory(prefix="distill-bench-") as name:
        folder, workspace = Path(name), LocalStorage(Path(name) / "workspace")
        write = dense.measure_write(folder, shard_rows, repeats)
        read = dense.measure_read(workspace, folder, num_rows, repeats)
        fill, steps = step.measure_steps(workspace, num_steps, repeats)
    seconds = {"cache_write": write, "cache_read": read, "cache_fill": fill, "step": steps}
    sizes = {"cache_rows": num_rows, "rows_written": shard_rows, "steps_per_epoch": num_steps}
    return {
        **ratios(seconds, num_steps, statistics.median),
        "of_minima": ratios(seconds, num_steps, min),
        "here": absolute(seconds, sizes),
        "hardware": machine,
        "libraries": library_versions(),
        "repeats": repeats,
        "sizes": sizes,
        "cpu_seconds": seconds,
    }


def ratios(
    seconds: Mapping[str, Any], num_steps: int, typical: Callable[[Sequence[float]], float]
) -> dict[str, float | dict[str, float]]:
    """Cache: rate over the peer's rate, more is better. Steps: time over the time without a teacher, less is better.

    `cache_pays_from_epochs_x_trials` is, per cached view, what filling the cache costs over what each epoch of each
    trial saves: fill / (steps per epoch * (step with live teacher - step with cache)).
    """
    write, read, fill, steps = (seconds[name] for name in ("cache_write", "cache_read", "cache_fill", "step"))

    def over(times: Seconds, arm: str, other: str) -> float:
        return typical(times[arm]) / typical(times[other])

    def pays_from(times: Seconds) -> float:
        return typical(fill["platform"]) / (num_steps * (typical(times["live"]) - typical(times["cached"])))

    return {
        "cache_write_vs_memmap": over(write, "memmap", "platform"),
        "cache_write_vs_fixed_binary": over(write, "fixed binary", "platform"),
        "cache_read_vs_memmap": over(read, "memmap", "platform"),
        "step_with_teacher_vs_without": {name: over(arms, "cached", "without") for name, arms in steps.items()},
        "step_with_live_teacher_vs_without": {name: over(arms, "live", "without") for name, arms in steps.items()},
        "cache_pays_from_epochs_x_trials": {name: pays_from(arms) for name, arms in steps.items()},
    }


def absolute(seconds: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, float | dict[str, float]]:
    """The platform's medians on this machine; they mean nothing on another."""
    median = {name: statistics.median(times) for name, times in seconds["cache_read"].items()}
    written_mb = sizes["rows_written"] * dense.ROW_BYTES / 1e6
    decoded_mb = sizes["cache_rows"] * dense.NUM_CLASSES * 2 / 1e6
    return {
        "cache_write_mb_per_cpu_s": written_mb / statistics.median(seconds["cache_write"]["platform"]),
        "cache_read_rows_per_cpu_s": dense.rows_read(sizes["cache_rows"]) / median["platform"],
        "cache_cold_decode_mb_per_cpu_s": decoded_mb / median["cold decode"],
        "cache_open_again_cpu_ms": median["open again"] * 1e3,
        **{
            f"step_{arm}_cpu_ms": {
                student: statistics.median(times[arm]) * 1e3 for student, times in seconds["step"].items()
            }
            for arm in ("without", "cached", "live")
        },
    }


def as_table(document: Mapping[str, Any]) -> Table:
    """The figures; the machine as caption."""
    caption = "{cpu}, {cores} cores, {memory_gib} GiB, one torch thread, load {load_average}".format_map(
        document["hardware"]
    )
    table = Table("figure", "median", "of minima", caption=caption)
    fastest = _flat(document["of_minima"])
    for name, value in _flat({key: document[key] for key in document["of_minima"]}).items():
        table.add_row(name, f"{value:.2f}", f"{fastest[name]:.2f}")
    table.add_section()
    for name, value in _flat(document["here"]).items():
        table.add_row(name, f"{value:,.0f}" if value >= 100 else f"{value:.2f}", "")
    return table


def _flat(figures: Mapping[str, float | dict[str, float]]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in figures.items():
        flat |= {f"{name}: {of}": one for of, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def main(
    rows: Annotated[int | None, typer.Option(min=1024, help="Rows of the cache; 524,288, or 8,192 if quick.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything: that it runs, not how fast.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure the cache and the training step against their peers, on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CPU-seconds say nothing about a GPU
    torch.set_num_threads(1)
    torch.manual_seed(0)
    num_rows = rows or (8_192 if quick else 524_288)
    document = measure(num_rows, num_steps=4 if quick else 50, repeats=5 if quick else 15)
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        Console().print(as_table(document))


if __name__ == "__main__":
    typer.run(main)
