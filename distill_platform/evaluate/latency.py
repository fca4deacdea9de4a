"""How long a prediction takes on this machine."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

QUANTILES = {"latency_ms_p50": 0.50, "latency_ms_p95": 0.95}


def measure_latency(predict: Callable[[], object], *, warmup: int, runs: int) -> list[float]:
    """Milliseconds of each of `runs` calls, after `warmup` calls that are not counted.

    `predict` must return only when its work is done (on a GPU: after a synchronise). The garbage collector is off while
    calls are timed.
    """
    for _ in range(warmup):
        predict()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return [_time_ms(predict) for _ in range(runs)]
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """torch computes with `num_threads` CPU threads inside; the number before is restored after."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def latency_quantile(latency_ms: Sequence[float], quantile: float) -> float:
    """A quantile of latencies in ms; NaN where none was measured."""
    return float(np.quantile(latency_ms, quantile)) if latency_ms else float("nan")


def describe_hardware() -> str:
    """The processor by its own name where the system tells it, and how many of its threads there are."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} threads"


def _time_ms(predict: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    predict()
    return (time.perf_counter_ns() - started) / 1e6
