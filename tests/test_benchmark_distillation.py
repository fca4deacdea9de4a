"""The comparison with torchdistill: the platform's side runs without it, and figures divide the right way round."""

from __future__ import annotations

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from distill_platform.objective import LOSSES
from distill_platform.storage import LocalStorage

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PEER = "DISTILL_TORCHDISTILL_PYTHON"


@pytest.fixture
def distillation(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; its neighbours have short names, which are forgotten again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("distillation")
    torch.set_num_threads(threads)
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_platforms_side_runs_without_the_peer_and_what_needs_it_is_null(distillation: ModuleType) -> None:
    document = json.loads(json.dumps(distillation.measure(distillation.QUICK, None, None), allow_nan=False))
    assert document["accuracy_vs_torchdistill"] is None
    assert document["step_time_vs_torchdistill"] is None
    assert document["peer"] == {"missing": "no --peer-python was given"}
    compared = {one.loss for one in importlib.import_module("loss_pairs").COMPARED.values()}
    assert compared | set(document["losses_without_counterpart"]) == LOSSES.keys(), "every loss is accounted for"
    for name, one in document["loss_values"].items():
        assert math.isfinite(one["ours"]), name
        assert one["ours"] > 0, name
        assert one["theirs"] is None, name
    for method, arms in (("soft_targets", {"ours, cached", "ours, live"}), ("attention", {"ours, live"})):
        seeds = document["accuracy"][method]["seeds"]
        assert len(seeds) == document["sizes"]["num_seeds"]
        assert all(0 <= one["ours"] <= 1 and one["theirs"] is None for one in seeds)
        assert document["cpu_seconds"][method].keys() == arms
    with Console(width=160) as console, console.capture() as shown:
        console.print(distillation.as_table(document))
    assert all(name in shown.get() for name in ("accuracy_vs_torchdistill", "step_time_vs_torchdistill", "rkd, angles"))


def test_a_value_is_compared_after_the_factor_by_which_the_definitions_differ(distillation: ModuleType) -> None:
    pairs = importlib.import_module("loss_pairs")
    tensors = pairs.made_tensors()
    ours = {name: float(one.ours(tensors)) for name, one in pairs.COMPARED.items()}
    same = {name: ours[name] / one.factor for name, one in pairs.COMPARED.items()}
    assert all(one["agrees"] for one in pairs.compare(tensors, same).values())
    off = pairs.compare(tensors, {**same, "hint": same["hint"] * 1.01})
    assert [name for name, one in off.items() if not one["agrees"]] == ["hint"]
    assert off["hint"]["relative_difference"] == pytest.approx(0.01, rel=1e-3)


def test_the_peer_is_handed_the_students_weights_the_orders_and_the_inputs_that_the_platform_trains_with(
    distillation: ModuleType, tmp_path: Path
) -> None:
    same_problem = importlib.import_module("same_problem")
    sizes = distillation.QUICK
    problem = same_problem.make_problem(LocalStorage(tmp_path / "workspace"), same_problem.digits(), sizes)
    same_problem.hand_over(problem, tmp_path)
    given = torch.load(tmp_path / "problem.pt", weights_only=True)
    trainer = problem.trainer("soft_targets", 1, is_cached=True)
    for name, weights in trainer.network.body.state_dict().items():
        torch.testing.assert_close(given[f"student.1.{name}"], weights, rtol=0, atol=0)
    rows = torch.cat([batch.index for batch in trainer.loader.batches(0)])
    assert given["order.1"].shape == (sizes.epochs, len(trainer.loader.examples))
    assert torch.equal(given["order.1"][0], rows)
    cached = trainer.teachers["train"].targets(rows, torch.zeros_like(rows)).logits
    torch.testing.assert_close(cached.float(), given["teacher_logits"][rows], rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        logits = problem.teacher.body(given["inputs"][:8])
    torch.testing.assert_close(logits, given["teacher_logits"][:8], rtol=1e-4, atol=1e-4)


def test_ratios_are_our_time_over_theirs(distillation: ModuleType) -> None:
    seconds = {
        "soft_targets": {
            "ours, cached": [2.0],
            "ours, live": [3.0],
            "theirs, live": [8.0],
            "theirs, live, batches": [4.0],
            "theirs, table, batches, nhwc": [1.0],
        },
        "attention": {"ours, live": [6.0], "theirs, live": [3.0]},
    }
    found = distillation.ratios(seconds, statistics.median)
    assert found["step_time_vs_torchdistill"] == 0.5, "against the fastest with a teacher, and it has no table itself"
    assert found["step_time_vs_each"]["attention"] == {"ours, live / theirs, live": 2.0}
    assert found["step_time_vs_each"]["soft_targets"] == {
        "ours, cached / theirs, live": 0.25,
        "ours, cached / theirs, live, batches": 0.5,
        "ours, cached / theirs, table, batches, nhwc": 2.0,
        "ours, live / theirs, live": 0.375,
        "ours, live / theirs, live, batches": 0.75,
        "ours, live / theirs, table, batches, nhwc": 3.0,
    }


def test_the_interval_over_seeds_is_students(distillation: ModuleType) -> None:
    lower, upper = distillation.interval_over_seeds([0.01, 0.02, 0.03])
    assert (lower + upper) / 2 == pytest.approx(0.02)
    assert (upper - lower) / 2 == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-5)  # two degrees of freedom
    assert distillation.interval_over_seeds([0.01]) is None


@pytest.mark.slow
@pytest.mark.skipif(PEER not in os.environ, reason=f"{PEER} names no environment")
def test_both_say_the_same_of_the_same_tensors_but_for_the_two_definitions_that_no_factor_makes_one() -> None:
    command = [sys.executable, str(BENCHMARKS / "distillation.py"), "--quick", "--json"]
    command += ["--peer-python", os.environ[PEER]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    differing = [name for name, one in document["loss_values"].items() if not one["agrees"]]
    assert differing == ["soft_targets standardized, T = 2", "attention, as the paper"]
    for method in ("soft_targets", "attention"):
        for one in document["accuracy"][method]["seeds"]:
            assert one["their_first_epoch_loss"] == pytest.approx(one["first_epoch_loss"], rel=1e-3)
