"""Memory that trials on one machine take to read one cache.

Each trial is a process (of this very file) that opens the cache as a training does, reads one shuffled pass of it and
then holds still. From Linux's proportional set size (PSS: a page that n processes map counts 1/n in each), in bytes:

cache  of all trials: PSS of the mapped columns, and what the process has grown by otherwise since before it opened the
       cache (anonymous PSS: the order of an epoch, batches, and whatever reading leaves behind)
whole  of all trials: PSS of everything, interpreter and libraries included

`memory_4_trials_vs_1` in the document of cache.py is `cache` of four trials over `cache` of one. Each process has
handled one batch of random numbers before it is first looked at, so that what torch allocates once does not count as
the cache's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from dense import ENCODING, NUM_CLASSES, NUM_VIEWS, VIEWS, random_logits
from made import make_cache, make_data
from timing import empty_scratch

from distill_platform.artifact import Artifact, open_artifact
from distill_platform.cache import open_targets
from distill_platform.data.examples import open_split
from distill_platform.scratch import scratch_dir
from distill_platform.storage import LocalStorage

BATCH_SIZE = 256


def measure_memory(num_rows: int) -> dict[str, Any]:
    """Bytes of one trial and of four, and their ratios, on a dense cache of `num_rows` rows of 100 classes.

    The cache is this function's own, so that no other process maps it; a trial that is not counted decodes it.
    """
    with empty_scratch(), tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        workspace = LocalStorage(Path(folder))
        data = make_data(workspace, num_rows // NUM_VIEWS, side=2, num_classes=NUM_CLASSES)
        cache = make_cache(workspace, data, VIEWS, random_logits, ENCODING)
        _, one, several = (_of_trials(number, workspace, cache, data) for number in (1, 1, 4))
    return {
        "cache_bytes": num_rows * NUM_CLASSES * 2,
        "cache_4_trials_vs_1": several["cache"] / one["cache"],
        "whole_4_trials_vs_1": several["whole"] / one["whole"],
        "bytes_of_1_trial": one,
        "bytes_of_4_trials": several,
    }


def _of_trials(number: int, workspace: LocalStorage, cache: Artifact, data: Artifact) -> dict[str, int]:
    where = json.dumps([workspace.uri, cache.key, data.key])
    with ExitStack() as stack:
        trials = [stack.enter_context(_trial(where)) for _ in range(number)]
        before = [_said(trial) for trial in trials]
        for trial in trials:
            _go_on(trial)
        pids = [_said(trial)["pid"] for trial in trials]  # all have read, and none has ended
        mapped = sum(_pss_of_files(pid, scratch_dir()) for pid in pids)
        anonymous = sum(_rollup(pid, "Pss_Anon") for pid in pids)
        whole = sum(_rollup(pid, "Pss") for pid in pids)
    growth = anonymous - sum(one["anonymous"] for one in before)
    return {"cache": mapped + growth, "mapped": mapped, "private_growth": growth, "whole": whole}


@contextmanager
def _trial(where: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, __file__, where], **pipes, text=True)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _said(trial: subprocess.Popen[str]) -> dict[str, int]:
    line = _pipe(trial.stdout).readline()
    if not line:
        raise RuntimeError(f"a trial ended with exit code {trial.wait()} before it was measured")
    return dict(json.loads(line))


def _go_on(trial: subprocess.Popen[str]) -> None:
    _pipe(trial.stdin).write("\n")
    _pipe(trial.stdin).flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _rollup(pid: int, field: str) -> int:
    """Bytes of a field of /proc/<pid>/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _pss_of_files(pid: int, folder: Path) -> int:
    """Bytes of PSS of the files below a folder that a process maps."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split(maxsplit=5)
        if "-" in head[0] and not head[0].endswith(":"):
            inside = len(head) == 6 and Path(head[5]).is_relative_to(folder.resolve())
        elif inside and head[0] == "Pss:":
            total += int(head[1]) * 1024
    return total


def trial(workspace_uri: str, cache_key: str, data_key: str) -> None:
    """Read one shuffled pass; say where memory stands before it, and wait to be told to go on; say when it is done."""
    torch.set_num_threads(1)
    workspace = LocalStorage(Path(workspace_uri))
    cache, data = (open_artifact(workspace, step, key) for step, key in (("cache", cache_key), ("prepare", data_key)))
    assert cache is not None
    assert data is not None
    torch.randn(BATCH_SIZE, 100).half().index_select(0, torch.randperm(BATCH_SIZE)).float()
    print(json.dumps({"anonymous": _rollup(os.getpid(), "Pss_Anon")}), flush=True)
    sys.stdin.readline()
    examples = open_split(data, "train")
    targets = open_targets(cache, data, "train", examples)
    for number, index in enumerate(torch.randperm(len(examples)).split(BATCH_SIZE)):
        for view in range(NUM_VIEWS):
            targets(index, torch.full_like(index, (number + view) % NUM_VIEWS))
    print(json.dumps({"pid": os.getpid()}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    trial(*json.loads(sys.argv[1]))
