from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_platform.errors import Corrupt, ModelError, PromotionRefused, RegistryError, StorageError
from distill_platform.lease import hold
from distill_platform.registry import log
from distill_platform.registry.folder import MANIFEST
from distill_platform.registry.mlflow_registry import (
    COMPLETE_TAG,
    ModelRegistry,
    Version,
    open_registry,
    tracking_uri_for,
)
from distill_platform.storage import Storage, open_storage

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One workspace for the module, since a new database takes a second; each test names its own model."""
    return str(tmp_path_factory.mktemp("work space"))


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def registry(workspace: str) -> ModelRegistry:
    return open_registry(workspace)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:100].strip("-")


def verdict(digest: str, champion: str | None = None, passed: bool = True) -> dict[str, Any]:
    return {"passed": passed, "student_digest": digest, "champion_digest": champion}


def register(registry: ModelRegistry, model: str, folder: Path, digest: str = A, **documents: bytes) -> Version:
    given = {"verdict.json": json.dumps(verdict(digest)).encode(), "spec.yaml": b"seed: 1\n", **documents}
    return registry.register(model, folder, digest=digest, documents=given, tags={"accuracy": "0.93"})


def promote(workspace: str, version: Version) -> log.Entry:
    storage = open_storage(workspace)
    against = log.compared_champion(storage, version.model, version.digest)
    judged = verdict(version.digest, against.digest if against else None)
    return log.promote(storage, version.model, version=version.number, digest=version.digest, verdict=judged, by="ann")


# --- which MLflow ---


def test_a_local_workspace_brings_its_own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri_for(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert open_registry(str(tmp_path)).artifact_root == f"{tmp_path}/mlflow/artifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert tracking_uri_for(str(tmp_path)) == "https://mlflow.example.com"
    assert tracking_uri_for(str(tmp_path), "http://other:5000") == "http://other:5000"
    assert open_registry(str(tmp_path)).artifact_root is None, "the server decides"


@pytest.mark.parametrize("given", [None, "sqlite:////tmp/mlflow.db", "file:///tmp/mlruns", "./mlruns"])
def test_a_shared_workspace_needs_a_shared_registry(given: str | None) -> None:
    with pytest.raises(
        RegistryError, match=r"s3://team/ws is shared, and the registry is .*MLFLOW_TRACKING_URI"
    ) as error:
        tracking_uri_for("s3://team/ws", given)
    assert (given or "not set") in str(error.value)
    assert tracking_uri_for("s3://team/ws", "https://mlflow.example.com") == "https://mlflow.example.com"


def test_credentials_of_the_tracking_uri_are_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = ModelRegistry("http://ann:secret@127.0.0.1:9")
    with pytest.raises(StorageError, match=r"MLflow at http://127\.0\.0\.1:9, listing versions of digits") as error:
        registry.versions("digits")
    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__, "a traceback would quote the URI"


def test_importing_the_registry_loads_neither_mlflow_nor_torch_and_mlflow_reports_to_nobody() -> None:
    code = (
        "import sys, distill_platform.registry.mlflow_registry, distill_platform.registry.log\n"
        "assert not {'mlflow', 'torch', 'pandas'} & set(sys.modules)\n"
        "from distill_platform.registry.folder import import_mlflow\n"
        "import_mlflow()\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    spared = ("PYTEST", "CI", "GITHUB", "MLFLOW", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(spared)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


# --- register ---


def test_a_version_carries_the_student_and_its_documents(
    registry: ModelRegistry, model: str, image_student: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.write_text("<h1>0.93</h1>")
    version = registry.register(
        model,
        image_student,
        digest=A,
        documents={"verdict.json": json.dumps(verdict(A)).encode(), "report.html": report},
        tags={"accuracy": "0.93"},
    )
    assert (version.number, version.digest, version.aliases, version.tags["accuracy"]) == (1, A, (), "0.93")
    registry.download(version, tmp_path / "version")
    names = sorted(p.relative_to(tmp_path / "version").as_posix() for p in (tmp_path / "version").rglob("*.*"))
    assert names == [
        "conda.yaml",
        "data/student/model.json",
        "data/student/weights.safetensors",
        "distill/manifest.json",
        "distill/report.html",
        "distill/verdict.json",
        "python_env.yaml",
        "requirements.txt",
    ], "and nothing pickled"
    assert (tmp_path / "version/distill/report.html").read_text() == "<h1>0.93</h1>"
    weights = "data/student/weights.safetensors"
    assert (tmp_path / "version" / weights).read_bytes() == (image_student / "weights.safetensors").read_bytes()
    requirements = (tmp_path / "version/requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in requirements] == ["distill-platform", "mlflow-skinny"]


def test_registering_a_digest_again_gives_its_version(registry: ModelRegistry, model: str, image_student: Path) -> None:
    first = register(registry, model, image_student, A)
    second = register(registry, model, image_student, B)
    assert register(registry, model, image_student, A) == first
    assert [version.number for version in registry.versions(model)] == [1, 2] == [first.number, second.number]


def test_nothing_is_registered_without_a_pass_for_this_very_digest(
    tmp_path: Path, model: str, image_student: Path
) -> None:
    registry = open_registry(str(tmp_path))
    with pytest.raises(PromotionRefused, match=f"the verdict judged {B[:12]}, the candidate is {A[:12]}"):
        register(registry, model, image_student, A, **{"verdict.json": json.dumps(verdict(B)).encode()})
    with pytest.raises(PromotionRefused, match=f"the verdict on {A[:12]} is not a pass"):
        register(registry, model, image_student, A, **{"verdict.json": json.dumps(verdict(A, passed=False)).encode()})
    with pytest.raises(RegistryError, match=r"no verdict\.json, only spec\.yaml; run the gate first"):
        registry.register(model, image_student, digest=A, documents={"spec.yaml": b""}, tags={})
    assert registry.versions(model) == []
    assert list(tmp_path.iterdir()) == [], "not even a database"


def test_a_student_that_cannot_be_loaded_is_not_registered(
    registry: ModelRegistry, model: str, tmp_path: Path, image_student: Path
) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        register(registry, model, tmp_path)
    assert registry.versions(model) == []
    assert register(registry, model, image_student).number == 1


# --- register, interrupted ---


class Killed(BaseException):
    """As SIGKILL: nothing in the code under test catches it."""


class KilledAt:
    """An MLflow client that dies at its k-th call, before or after the call had its effect."""

    def __init__(self, inner: Any, k: int, after: bool) -> None:
        self._inner, self._left, self._after = inner, k, after
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            self.called.append(name)
            if self._left == 0 and not self._after:
                raise Killed
            try:
                return real(*args, **kwargs)
            finally:
                if self._left == 0:
                    raise Killed

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_registration_killed_at_any_call_is_completed_by_the_next(
    workspace: str, model: str, image_student: Path, tmp_path: Path, after: bool
) -> None:
    died_at: list[str] = []
    for k in range(1, 50):
        name, registry = f"{model}-{k}", open_registry(workspace)
        client = KilledAt(registry.client, k, after)
        registry.__dict__["client"] = client
        try:
            register(registry, name, image_student)
            break
        except Killed:
            died_at.append(client.called[-1])
        fresh = open_registry(workspace)
        for version in fresh.versions(name):
            fresh.download(version, tmp_path / f"{k}-early")  # whatever is visible is whole
        version = register(fresh, name, image_student)
        assert register(fresh, name, image_student) == version
        assert [found.number for found in fresh.versions(name)] == [1]
        assert len(list(fresh.client.search_model_versions(f"name='{name}'"))) == 1, "and no half one beside it"
        fresh.download(version, tmp_path / str(k))
        experiment = fresh.client.get_experiment_by_name(f"distill/{name}")
        runs = fresh.client.search_runs([experiment.experiment_id])
        assert [run.info.status for run in runs].count("FINISHED") == 1
        assert "RUNNING" not in [run.info.status for run in runs]
    for step in ("create_registered_model", "create_experiment", "create_run", "log_artifacts", "create_model_version"):
        assert step in died_at


def test_a_run_that_was_uploaded_in_part_is_never_a_version(
    workspace: str, model: str, image_student: Path, tmp_path: Path
) -> None:
    registry = open_registry(workspace)
    upload = registry.client.log_artifacts

    def upload_in_part(run_id: str, folder: str) -> None:
        next(Path(folder).rglob("weights.safetensors")).unlink()
        upload(run_id, folder)
        raise Killed

    registry.client.log_artifacts = upload_in_part
    with pytest.raises(Killed):
        register(registry, model, image_student)
    registry.client.log_artifacts = upload
    assert registry.versions(model) == []
    registry.download(register(registry, model, image_student), tmp_path / "whole")
    assert (tmp_path / "whole/data/student/weights.safetensors").is_file()


def _register_when_told(workspace: str, folder: Path, ready: Any, told: Any, answers: Any) -> None:
    registry = open_registry(workspace)
    ready.release()
    told.wait(60)
    with hold(open_storage(workspace), "leases/registry/digits"):
        answers.put(register(registry, "digits", folder).number)


def test_two_processes_that_register_at_once_end_with_one_version(tmp_path: Path, image_student: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, told, answers = context.Semaphore(0), context.Event(), context.Queue()
    given = (str(tmp_path), image_student, ready, told, answers)
    processes = [context.Process(target=_register_when_told, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=120)
    told.set()
    assert [answers.get(timeout=120) for _ in processes] == [1, 1]
    for process in processes:
        process.join()
    registry = open_registry(str(tmp_path))
    assert len(list(registry.client.search_model_versions("name='digits'"))) == 1


def test_of_two_versions_of_one_digest_the_lower_counts(
    registry: ModelRegistry, model: str, image_student: Path
) -> None:
    first = register(registry, model, image_student)
    registry.client.create_model_version(model, first.source, run_id=first.run_id, tags=dict(first.tags))
    assert registry.versions(model) == [first]
    assert register(registry, model, image_student) == first


def test_versions_that_others_made_in_mlflow_are_left_out(
    registry: ModelRegistry, model: str, image_student: Path
) -> None:
    first = register(registry, model, image_student)
    registry.client.create_model_version(model, first.source, run_id=first.run_id)
    registry.client.delete_model_version_tag(model, "1", COMPLETE_TAG)
    assert registry.versions(model) == []


# --- get ---


def test_versions_are_found_by_number_alias_and_digest(
    registry: ModelRegistry, workspace: str, model: str, image_student: Path
) -> None:
    promote(workspace, register(registry, model, image_student, A))
    register(registry, model, image_student, B)
    registry.sync(open_storage(workspace), model)
    assert {registry.get(model, ref).number for ref in ("1", ":1", "champion", "@champion")} == {1}
    assert registry.get(model, "@challenger").number == registry.get(model, B).number == 2
    wanted = r"has no version '@latest' in sqlite.*; it has versions 1, 2 and aliases challenger, champion"
    with pytest.raises(RegistryError, match=wanted):
        registry.get(model, "@latest")


def test_looking_into_a_workspace_without_a_registry_makes_none(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="has no registered version of .digits."):
        open_registry(str(tmp_path)).get("digits", "1")
    assert list(tmp_path.iterdir()) == []


# --- sync ---


def test_aliases_follow_the_log(registry: ModelRegistry, workspace: str, model: str, image_student: Path) -> None:
    storage = open_storage(workspace)
    first = register(registry, model, image_student, A)
    assert registry.sync(storage, model) == {"challenger": 1}
    promote(workspace, first)
    assert registry.sync(storage, model) == {"champion": 1}
    second = register(registry, model, image_student, B)
    assert registry.sync(storage, model) == {"champion": 1, "challenger": 2}
    promote(workspace, second)
    assert registry.sync(storage, model) == {"champion": 2}
    log.rollback(storage, model, by="bob", reason="slow")
    assert registry.sync(storage, model) == {"champion": 1, "challenger": 2}
    assert [version.aliases for version in registry.versions(model)] == [("champion",), ("challenger",)]


def test_aliases_moved_or_deleted_by_hand_are_put_back(
    registry: ModelRegistry, workspace: str, model: str, image_student: Path
) -> None:
    storage = open_storage(workspace)
    promote(workspace, register(registry, model, image_student, A))
    register(registry, model, image_student, B)
    registry.sync(storage, model)
    registry.client.set_registered_model_alias(model, "champion", "2")
    registry.client.delete_registered_model_alias(model, "challenger")
    assert registry.sync(storage, model) == {"champion": 1, "challenger": 2}
    assert registry.client.get_model_version_by_alias(model, "champion").version in (1, "1")
    assert registry.client.get_model_version_by_alias(model, "challenger").version in (2, "2")


def test_an_alias_set_by_hand_before_any_promotion_is_taken_away(
    registry: ModelRegistry, workspace: str, model: str, image_student: Path
) -> None:
    register(registry, model, image_student, A)
    registry.client.set_registered_model_alias(model, "champion", "1")
    assert registry.sync(open_storage(workspace), model) == {"challenger": 1}
    assert registry.get(model, "1").aliases == ("challenger",)


def test_a_champion_that_mlflow_lost_is_said_and_not_pointed_at(
    registry: ModelRegistry, workspace: str, model: str, image_student: Path
) -> None:
    promote(workspace, register(registry, model, image_student, A))
    second = register(registry, model, image_student, B)
    registry.client.delete_model_version(model, "1")
    registry.client.set_registered_model_alias(model, "champion", "2")
    with pytest.raises(RegistryError, match=rf"the log's champion, version 1 \({A[:12]}\), is not in .*run its spec"):
        registry.sync(open_storage(workspace), model)
    assert registry.get(model, "2").aliases == ("challenger",)
    again = register(registry, model, image_student, A)
    assert registry.sync(open_storage(workspace), model) == {"champion": again.number}
    assert again.number > second.number, "found by its digest, whatever number it has now"


def test_a_promotion_during_sync_is_seen(
    registry: ModelRegistry, workspace: str, model: str, image_student: Path
) -> None:
    promote(workspace, register(registry, model, image_student, A))
    second = register(registry, model, image_student, B)
    set_alias, storage = registry.client.set_registered_model_alias, open_storage(workspace)

    def promoted_meanwhile(name: str, alias: str, number: str) -> None:
        promote(workspace, second)
        set_alias(name, alias, number)

    registry.client.set_registered_model_alias = promoted_meanwhile
    assert registry.sync(storage, model) == {"champion": 2}
    assert registry.get(model, "champion").digest == B


# --- download ---


@pytest.fixture
def version_files(registry: ModelRegistry, model: str, image_student: Path) -> tuple[Version, Path]:
    """A version, and the folder in which its files lie at rest."""
    version = register(registry, model, image_student)
    return version, Path(version.source)


def test_a_flipped_byte_in_any_file_of_a_version_is_refused(
    registry: ModelRegistry, version_files: tuple[Version, Path], tmp_path: Path
) -> None:
    version, folder = version_files
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert len(paths) >= 8
    for path in paths:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        name = path.relative_to(folder).as_posix()
        with pytest.raises(Corrupt, match=f"version 1/{name}"):
            registry.download(version, tmp_path / "version")
        assert list(tmp_path.iterdir()) == [], "nothing is left of what was refused"
        path.write_bytes(whole)
    registry.download(version, tmp_path / "version")


def test_a_version_whose_files_were_exchanged_for_another_is_refused(
    registry: ModelRegistry, version_files: tuple[Version, Path], image_student: Path, tmp_path: Path
) -> None:
    version, folder = version_files
    other = Path(register(registry, version.model, image_student, B).source)
    for path in other.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(other)).write_bytes(path.read_bytes())
    with pytest.raises(Corrupt, match=f"version 1/{MANIFEST}: sha256 is .* the bytes changed after"):
        registry.download(version, tmp_path / "version")


def test_a_missing_file_and_missing_files_are_refused(
    registry: ModelRegistry, version_files: tuple[Version, Path], tmp_path: Path
) -> None:
    version, folder = version_files
    (folder / "data/student/model.json").unlink()
    with pytest.raises(Corrupt, match=r"version 1/data/student/model\.json is missing, its manifest names it"):
        registry.download(version, tmp_path / "version")
    folder.rename(folder.with_name("moved"))
    with pytest.raises(StorageError, match=f"fetching .* version 1 from {folder}: Failed to download artifacts"):
        registry.download(version, tmp_path / "version")


def test_a_folder_that_is_there_is_not_written_into(
    registry: ModelRegistry, version_files: tuple[Version, Path], tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="exists; name a folder that is not there yet"):
        registry.download(version_files[0], tmp_path)


def test_storage_is_only_read_by_sync(registry: ModelRegistry, workspace: str, model: str, image_student: Path) -> None:
    class ReadOnly:
        def __init__(self, inner: Storage) -> None:
            self.uri, self.list, self.read = inner.uri, inner.list, inner.read

    promote(workspace, register(registry, model, image_student, A))
    assert registry.sync(ReadOnly(open_storage(workspace)), model) == {"champion": 1}  # type: ignore[arg-type]
