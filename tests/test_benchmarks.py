"""The benchmarks run from a shell, say everything that they promise, and divide the right way round."""

from __future__ import annotations

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from distill_platform.cache import CODECS, SampledTarget
from distill_platform.fingerprint import sha256_bytes, sha256_file

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


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A script or one of its neighbours as a module, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run_json(script: str, *options: str) -> dict[str, Any]:
    """The one document that a script prints."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


CACHE_KEYS = {
    "warm_read_vs_mmap",
    "dense_write_vs_fixed_binary",
    "bytes_per_token_128k",
    "bytes_per_example_100",
    "memory_4_trials_vs_1",
}


@pytest.mark.slow
def test_the_cache_without_peers_is_measured_all_the_same_and_what_is_missing_is_said(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILL_PEERS_PYTHON", raising=False)
    document = run_json("cache.py")
    assert all(math.isfinite(document[key]) and document[key] > 0 for key in CACHE_KEYS)
    assert document["warm_read_vs_best_peer"] is None
    assert document["peers"]["missing"].keys() == set(benchmark("peer_workers").PEERS)
    hashed = document["bytes_hashed"]
    assert 0 < hashed["bytes_stored"] <= hashed["open on a new machine"] < 1.1 * hashed["bytes_stored"], "once"
    assert hashed["warm pass"] == 0
    assert document["memory"]["bytes_of_4_trials"]["mapped"] == pytest.approx(
        document["memory"]["bytes_of_1_trial"]["mapped"], rel=0.1
    ), "four trials map the same pages"
    variances = document["stored"]["variance"]["variance_vs_50_draws"]
    assert variances[str(document["stored"]["variance"]["keep"])] <= 1
    assert document["stored"]["variance"]["distinct_of_50"] == pytest.approx(12, rel=0.1)
    for unit in ("tokens", "examples"):
        for name, size in document["stored"][unit].items():
            assert 0 < size["payload"] < size["file"], name
    with Console(width=160) as console, console.capture() as shown:
        console.print(benchmark("cache").as_table(document))
    assert all(name in shown.get() for name in [*CACHE_KEYS, "no --peers-python was given"])


@pytest.mark.slow
@pytest.mark.skipif("DISTILL_PEERS_PYTHON" not in os.environ, reason="DISTILL_PEERS_PYTHON names no environment")
def test_every_peer_reads_back_what_it_was_given() -> None:
    document = run_json("cache.py")
    assert document["peers"]["missing"] == {}
    assert document["warm_read_vs_best_peer"] == min(document["warm_read_vs_each_peer"].values()) > 1


def test_a_peer_takes_turns_from_its_own_process_and_one_that_cannot_run_says_why(
    benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float16)
    names = ("litdata", "tinyvit layout")
    with benchmark("peer_workers").peers(Path(sys.executable), rows, tmp_path, 64, names) as (workers, missing):
        assert workers["tinyvit layout"].facts["size_bytes"] >= 300 * (4 + 12 * 4)
        assert all(workers["tinyvit layout"].read_pass(seed) > 0 for seed in (1, 2))
        process = workers["tinyvit layout"].process
    assert process.returncode is not None, "it does not outlive the measurement"
    assert "No module named 'litdata'" in missing["litdata"]


def test_a_rate_against_a_peer_is_its_seconds_over_the_platforms(benchmark: Callable[[str], ModuleType]) -> None:
    seconds = {
        "read": {"platform": [2.0], "memmap": [1.0], "memmap from (example, view)": [1.5]},
        "read_with_peers": {"platform": [2.0], "slow": [40.0], "quick": [30.0]},
        "write": {
            "platform": [2.0],
            "platform, hashed": [4.0],
            "fixed binary": [1.0],
            "fixed binary, checksums": [1.8],
            "fixed binary, checksums, hashed": [3.0],
        },
    }
    assert benchmark("cache").ratios(seconds, statistics.median) == {
        "warm_read_vs_mmap": 0.75,
        "warm_read_vs_mmap_given_rows": 0.5,
        "warm_read_vs_best_peer": 15.0,
        "warm_read_vs_each_peer": {"slow": 20.0, "quick": 15.0},
        "dense_write_vs_fixed_binary": 0.75,
        "dense_write_vs_fixed_binary_unhashed": 0.9,
        "dense_write_vs_unchecked_fixed_binary": 0.5,
        "dense_write_vs_unchecked_fixed_binary_hashed": 0.25,
    }


def test_the_variance_of_a_sample_counts_ids_that_come_twice_once(benchmark: Callable[[str], ModuleType]) -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=torch.float64)
    target = SampledTarget(torch.tensor([[0, 2, 0], [2, 1, 1]]), torch.tensor([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]), 3)
    estimate = torch.zeros_like(p)
    for token in range(2):
        for id, weight in zip(target.ids[token], target.weights[token], strict=True):
            estimate[token, id] += weight
    errors = benchmark("sizes")._squared_error(target, p, p.square().sum(-1))
    torch.testing.assert_close(errors, (estimate - p).square().sum(-1))


def test_only_what_goes_through_a_hash_is_counted(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)

    def work() -> None:
        sha256_file(tmp_path / "file")
        sha256_bytes(b"y" * 10)
        (tmp_path / "file").read_bytes()

    assert benchmark("verified").bytes_hashed(work) == 1010


@pytest.mark.slow
def test_student_quality_has_a_row_for_every_codec_that_carries_a_temperature_and_a_plot(tmp_path: Path) -> None:
    document = run_json("cache_quality.py", "--seeds", "2", "--plot", str(tmp_path / "plot.html"))
    for name, temperatures in (("classes", [1.0, 2.0, 4.0, 8.0]), ("tokens", [1.0])):
        rows = document[name]
        assert {row["codec"] for row in rows} == CODECS.keys()
        for codec in CODECS:
            lowest, highest = CODECS[codec].temperatures
            measured = {row["temperature"] for row in rows if row["codec"] == codec}
            assert measured == {each for each in temperatures if lowest <= each <= highest}, codec
        assert all(math.isfinite(row["kl"]) and 0 <= row["agreement"] <= 1 for row in rows)
        assert {len(row["seeds"]) for row in rows} == {2}
        page = (tmp_path / "plot.html").read_text()
        knees = [document["knees"][name][f"T = {at:g}"] for at in temperatures]
        assert all(f"knee: {knee['codec']}, {knee['bytes']:,} bytes" in page for knee in knees)


def test_the_knee_is_the_fewest_bytes_within_the_seeds_noise_of_dense(benchmark: Callable[[str], ModuleType]) -> None:
    quality = benchmark("cache_quality")

    def row(codec: str, size: int, kl: float, at: float = 1.0) -> dict[str, Any]:
        return {"codec": codec, "keep": 0, "bytes": size, "temperature": at, "kl": kl, "agreement": 0.9}

    dense = {**row("dense", 200, 0.2), "seeds": [{"kl": 0.1, "agreement": 0.9}, {"kl": 0.3, "agreement": 0.9}]}
    noise = 2 * statistics.stdev([0.1, 0.3])
    assert quality.within_noise(row("small", 20, 0.2 + noise - 1e-9), dense)
    assert not quality.within_noise(row("small", 20, 0.2 + noise + 1e-9), dense)
    assert not quality.within_noise({**row("small", 20, 0.2), "agreement": 0.89}, dense)
    rows = [{**row("dense", 200, 0.2, at), "within_noise": True} for at in (1.0, 4.0)] + [
        {**row("smallest", 10, 0.2), "within_noise": True},
        {**row("middle", 20, 0.2), "within_noise": True},
        {**row("middle", 20, 0.2, 4.0), "within_noise": True},
        {**row("bad", 5, 9.0), "within_noise": False},
    ]
    found = {at: knee["codec"] for at, knee in quality.knees(rows).items()}
    assert found == {"T = 1": "smallest", "T = 4": "middle", "all": "middle"}
