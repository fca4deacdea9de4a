"""The whole path in one process: run, reuse, gate, registry, and a student that comes back as it was judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from sklearn.datasets import load_wine

from distill_platform import load_spec, load_student, plan, run
from distill_platform.artifact import Artifact, open_artifact
from distill_platform.data.examples import open_test
from distill_platform.errors import Corrupt, InputError, RegistryError, TeacherRefused
from distill_platform.models import load_student_folder
from distill_platform.registry import log as promotions
from distill_platform.registry.mlflow_registry import open_registry
from distill_platform.runs import STEPS, list_runs, read_log, read_run, read_runs
from distill_platform.spine import RunResult
from distill_platform.storage import LocalStorage
from tests.integration.conftest import SPEC, finish, start


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def done(workspace: str, spec_path: Path, ray_session: None) -> RunResult:
    return run(load_spec(spec_path), workspace)


def artifact(workspace: str, result: RunResult, step: str) -> Artifact:
    found = open_artifact(LocalStorage(Path(workspace)), step, result.steps[step]["key"])
    assert found is not None
    return found


def test_a_run_goes_through_every_step(done: RunResult) -> None:
    document = json.loads(json.dumps(done.to_json()))
    assert list(document["steps"]) == list(STEPS)
    assert {entry["status"] for entry in document["steps"].values()} == {"ran"}
    assert set(document["metrics"]) == {"teacher", "baseline", "student"}
    assert document["verdict"]["passed"] is True
    assert len(document["verdict"]["checks"]) == 3
    assert document["model"] == {"name": "wine", "version": 1, "aliases": ["champion"]}
    assert Path(document["report"]).read_text().startswith("<!doctype html>")


def test_a_second_run_reuses_every_step(done: RunResult, workspace: str, spec_path: Path) -> None:
    again = run(load_spec(spec_path), workspace)
    assert {entry["status"] for entry in again.steps.values()} == {"reused"}
    assert [entry["digest"] for entry in again.steps.values()] == [entry["digest"] for entry in done.steps.values()]
    assert again.table == done.table
    assert len(promotions.history(LocalStorage(Path(workspace)), "wine")) == 1


def test_the_plan_of_a_done_run_has_nothing_left(done: RunResult, workspace: str, spec_path: Path) -> None:
    planned = plan(load_spec(spec_path), workspace)
    assert {row["status"] for row in planned["steps"][:-2]} == {"ready"}
    cache = artifact(workspace, done, "cache")
    assert planned["cache"] == {
        "bytes": cache.record["facts"]["num_rows"] * (18 + 3 * 2),
        "rows": cache.record["facts"]["num_rows"],
        "codec": "dense",
        "bytes_per_unit": 3 * 2,
        "units_per_row": 1,
        "pays_from_trials": 1,
        "fits_in_memory": True,
        "exact": True,
    }


def test_a_plan_spends_nothing(spec_path: Path, tmp_path: Path) -> None:
    planned = plan(load_spec(spec_path), str(tmp_path / "new"))
    assert planned["steps"][0]["status"] == "to run"
    assert planned["steps"][1]["status"] == "to run, after prepare"
    assert planned["cache"]["exact"] is False
    assert planned["cache"]["bytes"] == pytest.approx(178 * (0.5 * 2 + 0.2) * 24, rel=0.2)
    assert not (tmp_path / "new").exists()


def test_the_test_split_is_shared_with_no_other(done: RunResult, workspace: str) -> None:
    data = artifact(workspace, done, "prepare")
    counts = data.record["facts"]["counts"]
    assert sum(counts.values()) == 178
    test, ids = open_test(data)
    assert len(test) == len(ids) == counts["test"]


def test_a_student_comes_back_with_the_logits_that_were_judged(
    done: RunResult, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = load_wine().data.astype(np.float32)
    shipped = load_student_folder(artifact(workspace, done, "compress").fetch_folder("model"))
    loaded = load_student("models:/wine@champion", done.verdict["student_digest"], workspace=workspace)
    assert np.array_equal(loaded.logits(raw), shipped.logits(raw))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/wine@champion")
    assert np.array_equal(served.predict(raw, params={"output": "logits"}), shipped.logits(raw))
    assert list(served.predict(raw)["prediction"]) == shipped.predict(raw)
    accuracy = np.mean(
        [
            name == load_wine().target_names[label]
            for name, label in zip(shipped.predict(raw), load_wine().target, strict=True)
        ]
    )
    assert accuracy > 0.8


def test_the_run_can_be_read_from_the_workspace_alone(done: RunResult, workspace: str) -> None:
    storage = LocalStorage(Path(workspace))
    status = read_run(storage, done.run)
    assert status.status == "done"
    assert status.steps == done.steps
    assert done.run in list_runs(storage)
    log = read_log(storage, done.run)
    assert "step sweep: ran in" in log
    assert "epoch 11: train loss" in read_log(storage, done.run, "teacher")
    assert log.count("trial ") == 10


def test_a_failed_gate_registers_nothing(done: RunResult, workspace: str, spec_path: Path) -> None:
    strict = load_spec(spec_path, ["gates.checks=[accuracy >= 0.5, size_bytes <= 10]", "registry.model=strict"])
    result = run(strict, workspace)
    assert not result.passed
    assert [check["passed"] for check in result.verdict["checks"]] == [True, False]
    assert result.model is None
    assert list(result.steps) == list(STEPS[:8])
    assert promotions.champion(LocalStorage(Path(workspace)), "strict") is None


def test_a_teacher_below_its_floor_is_refused_before_anything_is_spent_on_it(spec_path: Path, tmp_path: Path) -> None:
    spec = load_spec(spec_path, ["teacher.floor=0.999"])
    with pytest.raises(
        TeacherRefused, match=r"is right on \d+ of \d+ .* lower bound is 0\.\d+, teacher.floor wants 0.999"
    ):
        run(spec, str(tmp_path))
    assert not (tmp_path / "artifacts" / "cache").exists()
    failed = read_run(LocalStorage(tmp_path))
    assert (failed.status, failed.end and failed.end["exit_code"]) == ("failed", 3)


def test_a_given_teacher_is_loaded_and_checked(
    done: RunResult, workspace: str, spec_path: Path, tmp_path: Path
) -> None:
    weights = artifact(workspace, done, "teacher").fetch_folder("model")
    spec = load_spec(spec_path, ["teacher.model=null", f"teacher.weights={weights}", "registry.model=given"])
    result = run(spec, str(tmp_path))
    assert result.table[0]["accuracy"] == done.table[0]["accuracy"]


def test_the_next_student_is_judged_against_the_champion(done: RunResult, workspace: str, spec_path: Path) -> None:
    """Promote, roll back, run again: the log decides, and a rolled-back digest needs a new approval."""
    storage = LocalStorage(Path(workspace))
    other = load_spec(spec_path, ["student.hidden=[12]", "gates.checks=[accuracy >= champion - 0.4]"])
    second = run(other, workspace)
    assert [row["model"] for row in second.table] == ["teacher", "baseline", "student", "champion"]
    assert second.verdict["champion_digest"] == done.verdict["student_digest"]
    assert second.model == {"name": "wine", "version": 2, "aliases": ["champion"]}
    assert {entry["status"] for entry in run(other, workspace).steps.values()} == {"reused"}
    promotions.rollback(storage, "wine", by="tester", reason="complaints")
    withheld = run(other, workspace)
    assert withheld.promotion is not None
    assert withheld.promotion["status"] == "withheld"
    assert "rolled back" in withheld.promotion["reason"]
    current = promotions.champion(storage, "wine")
    assert current is not None
    assert current.digest == done.verdict["student_digest"]


def test_a_shared_workspace_needs_a_shared_registry(spec_path: Path) -> None:
    with pytest.raises(RegistryError, match="wanted one that every machine reaches"):
        plan(load_spec(spec_path), "s3://bucket/prefix")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.hidden=lots", "model 'mlp' with {'hidden': 'lots'}"),
        ("sweep.space={student.hidden: {choice: [[8], [-1]]}}", r"model 'mlp' with {'hidden': \[-1\]}"),
        ("teacher.model={name: cnn}", "cnn takes image inputs, the data has features inputs; use mlp"),
        ("data.views={num: 2, augment: [{name: flip}]}", "flip"),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_teacher(
    spec_path: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(load_spec(spec_path, [override]), str(tmp_path))
    assert not (tmp_path / "artifacts" / "teacher").exists()


def test_a_term_that_does_nothing_is_named_in_the_report(spec_path: Path, tmp_path: Path) -> None:
    terms = "objective={task: {weight: 1.0}, soft_targets: {weight: 0.00001, temperature: 2.0}}"
    result = run(load_spec(spec_path, [terms, "sweep.trials=1", "sweep.space={}"]), str(tmp_path))
    assert "soft_targets&#39; never reached 1% of the gradient" in Path(result.report).read_text()


def test_a_model_of_the_users_own_is_found_in_the_current_folder_by_workers_too(tmp_path: Path) -> None:
    (tmp_path / "our_models.py").write_text(
        "from torch import nn\ndef linear(shape, classes):\n    return nn.Linear(shape[0], classes)\n"
    )
    own = SPEC.replace(
        "teacher:\n  model: {name: mlp, hidden: [32]}", "teacher:\n  model: {name: 'import:our_models:linear'}"
    )
    (tmp_path / "own.yaml").write_text(own)
    here = f"import os; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '')"
    finish(start(tmp_path / "own.yaml", str(tmp_path / "workspace"), here))
    data = json.loads(next((tmp_path / "workspace").glob("artifacts/teacher/*/record.json")).read_text())
    assert data["facts"]["num_parameters"] == 13 * 3 + 3


def test_a_source_counts_by_its_content_wherever_it_lies(tmp_path: Path, spec_path: Path) -> None:
    frame = load_wine(as_frame=True).frame
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        frame.to_parquet(tmp_path / folder / "wine.parquet")
    keys = []
    for folder in ("here", "there"):
        source = [f"data.source={tmp_path}/{folder}/wine.parquet", "data.label=target"]
        keys.append(plan(load_spec(spec_path, source), str(tmp_path / "workspace"))["steps"][0]["key"])
    assert keys[0] == keys[1]


def test_a_model_that_cannot_take_the_inputs_is_refused_before_the_teacher(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrow_models.py").write_text(
        "from torch import nn\ndef narrow(shape, classes):\n    return nn.Linear(3, classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = load_spec(spec_path, ["student={name: 'import:narrow_models:narrow'}", "sweep.trials=1", "sweep.space={}"])
    with pytest.raises(InputError, match=r"student: model 'import:narrow_models:narrow' cannot take features inputs"):
        run(spec, str(tmp_path / "workspace"))
    assert not (tmp_path / "workspace" / "artifacts" / "teacher").exists()


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("runs/a-20260101-000000-0001/run.json", b'{"host": "elsewhere", "at": "then", "spec": {}}')
    storage.write("runs/b-20260102-000000-0002/run.json", b"{")
    first, second = read_runs(storage)
    assert (first.status, second.status) == ("running", "unreadable")
    assert second.end is not None
    assert "is not JSON" in second.end["error"]


def test_the_log_decides_who_is_champion_and_a_copied_workspace_uses_its_own_files(
    done: RunResult, workspace: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    digest = done.verdict["student_digest"]
    registry = open_registry(str(copy))
    number = registry.get("wine", digest).number
    registry.client.delete_registered_model_alias("wine", "champion")
    entry = promotions.champion(LocalStorage(copy), "wine")
    assert entry is not None
    raw = load_wine().data.astype(np.float32)
    wanted = load_student(f"models:/wine/{number}", workspace=str(copy)).logits(raw)
    for weights in copy.glob("mlflow/artifacts/**/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(Corrupt, match="weights.safetensors: sha256 is"):
        load_student("models:/wine@champion", workspace=str(copy))
    assert np.array_equal(load_student(f"models:/wine/{number}", workspace=workspace).logits(raw), wanted)
