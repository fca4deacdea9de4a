"""Teachers other than one with a cache: several, a student of the generation before, a live one, one's own average."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_platform import load_spec, plan, run
from distill_platform.runs import read_run
from distill_platform.storage import open_storage

ONE_TRIAL = ["sweep={trials: 1}", "train.epochs=3", "teacher.train.epochs=6", "gates.checks=[accuracy >= 0.2]"]
SECOND = "teachers={plain: {model: {name: mlp, hidden: []}, train: {epochs: 4, batch_size: 16, lr: 0.01}}}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> str:
    """Where one teacher has taught already."""
    folder = str(tmp_path_factory.mktemp("workspace"))
    run(load_spec(spec_path, ONE_TRIAL), folder)
    return folder


def test_a_second_teacher_leaves_the_first_ones_work_as_it_is(workspace: str, spec_path: Path) -> None:
    layers = "objective.hint={weight: 0.1, layers: {plain/1: '1'}}"
    spec = load_spec(spec_path, [*ONE_TRIAL, SECOND, "combine={by: confidence}", layers])
    planned = {row["step"]: row["status"] for row in plan(spec, workspace)["steps"]}
    assert (planned["teacher-teacher"], planned["teacher-plain"]) == ("ready", "to run")
    done = run(spec, workspace)
    assert {name: step["status"] for name, step in done.steps.items() if "-" in name} == {
        "teacher-teacher": "reused",
        "teacher-plain": "ran",
        "cache-teacher": "reused",
        "cache-plain": "ran",
    }
    storage = open_storage(workspace)
    assert list(read_run(storage, done.run).steps)[1:5] == [
        "teacher-plain",
        "teacher-teacher",
        "cache-plain",
        "cache-teacher",
    ]
    (winner,) = Path(workspace).glob(f"artifacts/sweep/{done.steps['sweep']['key']}/model/model.*.json")
    digests = [done.steps[f"cache-{name}"]["digest"] for name in ("teacher", "plain")]
    assert json.loads(winner.read_text())["cache"] == "+".join(digests)
    assert done.passed
    again = plan(spec, workspace)
    assert {row["status"] for row in again["steps"][:-2]} == {"ready"}


def test_the_best_student_of_one_generation_teaches_the_next(workspace: str, spec_path: Path) -> None:
    spec = load_spec(spec_path, [*ONE_TRIAL, "sweep.generations=2"])
    done = run(spec, workspace)
    assert [name for name in done.steps if "generation" in name] == ["cache-generation-2", "sweep-generation-2"]
    assert done.steps["sweep"]["status"] == "reused"
    manifest = json.loads(next(Path(done.steps["cache-generation-2"]["uri"]).glob("manifest.*.json")).read_text())
    assert manifest["teacher"] == done.steps["sweep"]["digest"]
    assert {row["status"] for row in plan(spec, workspace)["steps"][:-2]} == {"ready"}


def test_a_live_teacher_teaches_without_a_cache(workspace: str, spec_path: Path) -> None:
    spec = load_spec(spec_path, [*ONE_TRIAL, "cache={live: true}"])
    assert plan(spec, workspace)["cache"] is None
    done = run(spec, workspace)
    assert "cache" not in done.steps
    assert done.steps["sweep"]["status"] == "ran"


def test_a_student_learns_from_its_own_average(workspace: str, spec_path: Path) -> None:
    spec = load_spec(spec_path, [*ONE_TRIAL[:2], ONE_TRIAL[3], "teacher={ema: 0.9}"])
    done = run(spec, workspace)
    assert list(done.steps)[:3] == ["prepare", "baseline", "sweep"]
    assert {row["model"] for row in done.table} >= {"baseline", "student"}
    assert "teacher" not in {row["model"] for row in done.table}
    assert {row["status"] for row in plan(spec, workspace)["steps"][:-2]} == {"ready"}
