"""The benchmark runs from a shell, says everything that it promises, and divides the right way round."""

from __future__ import annotations

import importlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STUDENTS = {"mlp 784-64-10", "cnn 8-16"}


@pytest.fixture
def spine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; its neighbours have short names, which are forgotten again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("spine")
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def leaves(value: Any) -> list[Any]:
    """All numbers of nested dicts and lists."""
    if isinstance(value, dict | list):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value]


def test_a_quick_run_prints_one_json_document_with_every_ratio_and_what_it_came_from(spine: ModuleType) -> None:
    command = [sys.executable, str(BENCHMARKS / "spine.py"), "--quick", "--rows", "2048", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    ratios = document["of_minima"]
    assert ratios.keys() == {
        "cache_write_vs_memmap",
        "cache_write_vs_fixed_binary",
        "cache_read_vs_memmap",
        "step_with_teacher_vs_without",
        "step_with_live_teacher_vs_without",
        "cache_pays_from_epochs_x_trials",
    }
    for name in ratios:
        values = leaves([document[name], ratios[name]])
        assert all(math.isfinite(value) and value > 0 for value in values), (name, values)
    assert document["step_with_teacher_vs_without"].keys() == STUDENTS
    for arms in (document["cpu_seconds"]["cache_write"], *document["cpu_seconds"]["step"].values()):
        assert {len(times) for times in arms.values()} == {document["repeats"]}
    assert document["sizes"] == {"cache_rows": 2048, "rows_written": 2048, "steps_per_epoch": 4}
    assert document["hardware"]["torch_threads"] == 1
    assert "torch" in document["libraries"]
    with Console(width=120) as console, console.capture() as shown:
        console.print(spine.as_table(document))
    assert all(name in shown.get() for name in [*ratios, *document["here"]])


def test_rates_are_platform_over_peer_and_steps_are_time_over_time_without_a_teacher(spine: ModuleType) -> None:
    seconds = {
        "cache_write": {"platform": [1.0, 2.0, 9.0], "memmap": [1.0, 1.0, 9.0], "fixed binary": [4.0, 4.0, 0.5]},
        "cache_read": {"platform": [4.0, 5.0, 6.0], "memmap": [1.0, 1.0, 1.0]},
        "cache_fill": {"platform": [30.0, 60.0, 60.0]},
        "step": {"mlp": {"without": [1.0, 2.0, 2.0], "cached": [3.0, 3.0, 3.0], "live": [9.0, 9.0, 9.0]}},
    }
    assert spine.ratios(seconds, 10, statistics.median) == {
        "cache_write_vs_memmap": 0.5,
        "cache_write_vs_fixed_binary": 2.0,
        "cache_read_vs_memmap": 0.2,
        "step_with_teacher_vs_without": {"mlp": 1.5},
        "step_with_live_teacher_vs_without": {"mlp": 4.5},
        "cache_pays_from_epochs_x_trials": {"mlp": 1.0},  # 60 for filling, 10 steps that each save 9 - 3
    }
    assert spine.ratios(seconds, 10, min)["cache_pays_from_epochs_x_trials"] == {"mlp": 0.5}


def test_arms_take_turns_and_the_round_of_warm_up_is_not_counted(spine: ModuleType) -> None:
    timing, calls = importlib.import_module("timing"), []

    def arm(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    seconds = timing.interleaved({"a": lambda: arm("a"), "b": lambda: arm("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
