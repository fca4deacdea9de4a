"""Peers in processes of their own, under the Python of their own environment: see peers/."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

PEERS = ("mosaicml-streaming", "litdata", "datasets", "distillkit layout", "tinyvit layout")
WORKER = Path(__file__).parent / "peers" / "worker.py"


@dataclass(frozen=True)
class Worker:
    """A peer that holds the rows in its own layout. facts: version, bytes at rest, CPU-seconds that writing took."""

    process: subprocess.Popen[str]
    said: Path
    facts: Mapping[str, Any]

    def read_pass(self, seed: int) -> float:
        """CPU-seconds of one shuffled pass over all rows."""
        _stream(self.process.stdin).write(f"{seed}\n")
        _stream(self.process.stdin).flush()
        return float(_answer(self.process, self.said)["cpu_s"])


@contextmanager
def peers(
    python: Path | None, rows_NC: np.ndarray[Any, Any], folder: Path, batch_size: int, names: Sequence[str] = PEERS
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """The peers that run, and why each of the others does not. Rows are fp16; `folder` is theirs."""
    if python is None:
        yield {}, dict.fromkeys(names, "no --peers-python was given")
        return
    np.save(folder / "rows.npy", rows_NC)
    workers: dict[str, Worker] = {}
    failures: dict[str, str] = {}
    processes = []
    try:
        for name in names:
            process, said = _start(python, name, folder, batch_size)
            processes.append(process)
            try:
                workers[name] = Worker(process, said, _answer(process, said))
            except RuntimeError as error:
                failures[name] = str(error)
        yield workers, failures
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _start(python: Path, name: str, folder: Path, batch_size: int) -> tuple[subprocess.Popen[str], Path]:
    said = folder / f"{name.replace(' ', '-')}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "hf")}
    command = [str(python), str(WORKER), name, str(folder), str(batch_size)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with said.open("w") as log:
        return subprocess.Popen(command, **pipes, stderr=log, text=True, env=environment), said  # type: ignore[call-overload]


def _answer(process: subprocess.Popen[str], said: Path) -> dict[str, Any]:
    """The next line of JSON; libraries print lines of their own. Raises RuntimeError with its last words if it died."""
    for line in _stream(process.stdout):
        if line.startswith("{"):
            return dict(json.loads(line))
    last = [line for line in said.read_text().splitlines() if line.strip()][-1:]
    raise RuntimeError(f"exit code {process.wait()}: {' '.join(last) or 'nothing said'}")


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
