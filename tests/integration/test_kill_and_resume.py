"""SIGKILL at every step boundary, inside the cache and inside the sweep: run again, it continues."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from distill_platform import load_spec, run
from distill_platform.artifact import Artifact, open_artifact
from distill_platform.runs import STEPS, read_run, request_stop
from distill_platform.spine import RunResult
from distill_platform.storage import LocalStorage
from distill_platform.sweep import read_trials
from tests.integration.conftest import expect_kill, finish, start

DIE_AFTER_EACH_STEP = """
import os, signal
from distill_platform import workspace
real = workspace.produce
def produce(*given, **named):
    artifact, made = real(*given, **named)
    if made:
        os.kill(os.getpid(), signal.SIGKILL)
    return artifact, made
workspace.produce = produce
"""

DIE_IN_CACHE = """
import os, signal
from distill_platform.artifact import Draft
Draft.adopt = lambda draft, name, entry: os.kill(os.getpid(), signal.SIGKILL)
"""

DIE_IN_SWEEP = """
import os, signal
from distill_platform.sweep import driver
ended = []
def on_trial_complete(callback, iteration, trials, trial, **info):
    ended.append(trial)
    if len(ended) == {trials}:
        os.kill(os.getpid(), signal.SIGKILL)
driver._Progress.on_trial_complete = on_trial_complete
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, spec_path: Path, ray_session: None) -> RunResult:
    return run(load_spec(spec_path), str(tmp_path_factory.mktemp("undisturbed")))


def made(workspace: Path, step: str) -> Artifact:
    storage = LocalStorage(workspace)
    (record,) = [name for name in storage.list(f"artifacts/{step}") if name.endswith("/record.json")]
    found = open_artifact(storage, step, record.split("/")[2])
    assert found is not None
    return found


@pytest.mark.slow
def test_killed_after_every_step_a_run_ends_as_an_undisturbed_one(
    undisturbed: RunResult, spec_path: Path, tmp_path: Path
) -> None:
    for number, step in enumerate(STEPS):
        expect_kill(start(spec_path, str(tmp_path), DIE_AFTER_EACH_STEP))
        there = {
            name.split("/")[1] for name in LocalStorage(tmp_path).list("artifacts") if name.endswith("record.json")
        }
        assert there == set(STEPS[: number + 1]), step
        assert read_run(LocalStorage(tmp_path)).status == "lost"
    finish(start(spec_path, str(tmp_path)))
    last = read_run(LocalStorage(tmp_path))
    assert {entry["status"] for entry in last.steps.values()} == {"reused"}
    for step in STEPS[:6]:  # from evaluate on there are latencies in what is judged
        assert last.steps[step]["digest"] == undisturbed.steps[step]["digest"], step
    assert LocalStorage(tmp_path).list("work") == []
    assert len(LocalStorage(tmp_path).list("registry")) == 1


@pytest.mark.slow  # test_kill_everywhere has the same in this suite, call by call
def test_killed_inside_the_cache_no_row_is_lost_or_doubled(
    undisturbed: RunResult, spec_path: Path, tmp_path: Path
) -> None:
    expect_kill(start(spec_path, str(tmp_path), DIE_IN_CACHE))
    markers = [name for name in LocalStorage(tmp_path).list("work/cache") if "/shards/" in name]
    assert len(markers) >= 1
    before = {marker: json.loads(LocalStorage(tmp_path).read(marker)) for marker in markers}
    finish(start(spec_path, str(tmp_path)))
    cache = made(tmp_path, "cache")
    assert cache.digest == undisturbed.steps["cache"]["digest"]
    for marker, entry in before.items():
        name = f"shards/{Path(marker).stem}"
        assert cache.record["files"][name] == entry


def test_killed_inside_the_sweep_finished_trials_never_run_again(
    undisturbed: RunResult, spec_path: Path, tmp_path: Path
) -> None:
    def results() -> dict[int, dict[str, Any]]:
        storage = LocalStorage(tmp_path)
        names = [name for name in storage.list("work") if "/results/" in name]
        return {int(name[-11:-5]): json.loads(storage.read(name)) for name in names}

    expect_kill(start(spec_path, str(tmp_path), DIE_IN_SWEEP.format(trials=3)))
    before = results()
    assert len(before) >= 3
    finish(start(spec_path, str(tmp_path)))
    trials = {trial["member"]: trial for trial in read_trials(made(tmp_path, "baseline"))}
    assert len(trials) == 5
    for number, result in before.items():
        assert trials[number]["seconds"] == result["seconds"]  # measured to a tenth of a millisecond: not run again
        assert trials[number]["score"] == result["score"]
    assert made(tmp_path, "compress").digest == undisturbed.steps["compress"]["digest"]


def test_two_runs_at_once_end_with_one_artifact_each(undisturbed: RunResult, spec_path: Path, tmp_path: Path) -> None:
    both = [start(spec_path, str(tmp_path)) for _ in range(2)]
    for process in both:
        finish(process)
    storage = LocalStorage(tmp_path)
    ids = {name.split("/")[1] for name in storage.list("runs")}
    first, second = (read_run(storage, run_id) for run_id in ids)
    for step in STEPS:
        assert made(tmp_path, step)
        assert first.steps[step]["digest"] == second.steps[step]["digest"], step
    for step in STEPS[:8]:
        assert {first.steps[step]["status"], second.steps[step]["status"]} == {"ran", "reused"}, step
    assert len(storage.list("registry")) == 1


def test_a_stop_request_ends_a_run_in_order_and_the_next_one_continues(spec_path: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    process = start(spec_path, str(tmp_path))
    while not any("/members/" in name for name in storage.list("work/baseline")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    stopped = request_stop(storage)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Stopped" in errors
    assert read_run(storage, stopped).status == "stopped"
    finish(start(spec_path, str(tmp_path)))
    assert read_run(storage).status == "done"
