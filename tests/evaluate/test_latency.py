from __future__ import annotations

import gc
import math
import time

import pytest
import torch

from distill_platform.evaluate.latency import latency_quantile, limited_threads, measure_latency


def test_latency_is_in_milliseconds_and_leaves_the_warmup_out() -> None:
    calls = []

    def predict() -> None:
        calls.append(None)
        time.sleep(0.05 if len(calls) <= 2 else 0.004)

    measured = measure_latency(predict, warmup=2, runs=5)
    assert len(calls) == 7
    assert len(measured) == 5
    assert all(4 <= latency < 50 for latency in measured)


def test_garbage_collector_is_off_while_timing_and_back_on_after_even_on_an_error() -> None:
    seen = []
    measure_latency(lambda: seen.append(gc.isenabled()), warmup=0, runs=2)
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, warmup=0, runs=1)
    assert gc.isenabled()


def test_threads_are_limited_inside_and_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail_inside() -> None:
        with limited_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_quantiles_of_latency_and_of_none() -> None:
    assert latency_quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert math.isnan(latency_quantile([], 0.5))
