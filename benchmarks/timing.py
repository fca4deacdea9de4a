"""How figures are taken: arms that take turns, CPU-seconds, and where it was."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

Seconds = dict[str, list[float]]
"""CPU-seconds of each repeat, by arm."""


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """A call that does the work and gives the CPU-seconds that it took."""

    def measure() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return measure


def interleaved(arms: Mapping[str, Callable[[], float]], repeats: int) -> Seconds:
    """The arms in turn, `repeats` times after a round that only warms up; each call gives what it measured."""
    rounds = [{name: arm() for name, arm in arms.items()} for _ in range(repeats + 1)]
    return {name: [measured[name] for measured in rounds[1:]] for name in arms}


@contextmanager
def empty_scratch() -> Iterator[None]:
    """A scratch folder in which nothing is decoded yet, as on a new machine."""
    before = os.environ.get("DISTILL_SCRATCH")
    with tempfile.TemporaryDirectory(prefix="distill-bench-") as folder:
        os.environ["DISTILL_SCRATCH"] = folder
        try:
            yield
        finally:
            del os.environ["DISTILL_SCRATCH"]
            if before is not None:
                os.environ["DISTILL_SCRATCH"] = before


def hardware() -> dict[str, Any]:
    """The machine, and how busy it was."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "torch_threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }
