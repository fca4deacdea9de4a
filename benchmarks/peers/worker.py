"""One peer in a process of its own, driven line by line, so that it can take turns with arms of other processes.

    python worker.py LAYOUT FOLDER BATCH_SIZE

FOLDER holds `rows.npy`, fp16 `[N, C]`. Prints one line of JSON when the rows are laid down in the peer's own layout,
then one for each line of standard input: a seed, for one pass over all rows. The first pass is checked: its rows are
those that were given, each once, in another order.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layouts import LAYOUTS, Pass, Rows
from torch import Tensor


def main(name: str, folder: Path, batch_size: int) -> None:
    torch.set_num_threads(1)
    rows_NC = np.load(folder / "rows.npy", mmap_mode="r")
    layout, where = LAYOUTS[name], folder / name.replace(" ", "-")
    where.mkdir()
    started = time.process_time()
    layout.write(where, rows_NC)
    write_s = time.process_time() - started
    size_bytes = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
    version = f"{layout.distribution} {metadata.version(layout.distribution)}"
    read = layout.open(where, batch_size)
    check(name, read, rows_NC)
    answer({"version": version, "torch": torch.__version__, "write_cpu_s": write_s, "size_bytes": size_bytes})
    for line in sys.stdin:
        answer({"cpu_s": seconds_of(read(int(line)))})


def seconds_of(batches: Iterator[Tensor]) -> float:
    """CPU-seconds of this process, all of its threads, for one pass."""
    started = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - started


def check(name: str, read: Pass, rows_NC: Rows) -> None:
    """Raises RuntimeError unless a pass gives every row once, bit for bit, and not in the order given."""
    given = torch.from_numpy(np.array(rows_NC))
    got = torch.cat([batch.half() for batch in read(0)])
    if got.shape != given.shape or not torch.equal(_sorted(got), _sorted(given)):
        raise RuntimeError(f"{name} gave other rows than it was given: {tuple(got.shape)}, wanted {tuple(given.shape)}")
    if len(given) > 1 and torch.equal(got, given):
        raise RuntimeError(f"{name} did not shuffle")


def _sorted(rows_NC: Tensor) -> Tensor:
    """Rows by the two 64-bit words that they begin with; the rest of a row moves with them."""
    words = rows_NC[:, :8].contiguous().view(torch.int64)
    order = torch.argsort(words[:, 1], stable=True)
    order = order[torch.argsort(words[order, 0], stable=True)]
    return rows_NC[order]


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
