"""The folder of a registered version: laid out, listed in a manifest, and verified by everyone who reads it.

    MLmodel, requirements.txt, conda.yaml, python_env.yaml        for MLflow; `loader_module`, so nothing is pickled
    data/student/…                                                the student: model.json and safetensors
    distill/spec.yaml, lineage.json, verdict.json, report.html    where it comes from, and why it was let through
    distill/manifest.json                                         sha256 and size of every other file

MLflow, safetensors and S3's ranged reads notice no flipped bit, so readers compare with the manifest.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from distill_platform.errors import Corrupt, FormatError, RegistryError
from distill_platform.fingerprint import fingerprint, sha256_file

STUDENT = "student"
DOCUMENTS = "distill"
MANIFEST = f"{DOCUMENTS}/manifest.json"
MANIFEST_FORMAT = 1
OUTPUT, PREDICTION, LOGITS = "output", "prediction", "logits"
"""The name of the predict parameter, and its two values; the first is also a column of what it gives."""


def probability_column(class_name: str) -> str:
    """The column of a prediction that holds the probability of a class."""
    return f"p({class_name})"


def import_mlflow() -> Any:
    """MLflow, which reports to nobody, copies no project files into a model, and warns but does not chat."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault(
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
    )  # stdout is the command line's, and URLs hold passwords
    import mlflow

    return mlflow


def write_version_folder(folder: Path, student_folder: Path, digest: str, documents: Mapping[str, Path | bytes]) -> str:
    """Lay out a version at `folder`; `digest` is that of the student's artifact. Gives the manifest's sha256.

    Raises what `load_student_folder` raises: a student that cannot be loaded is not registered.
    """
    _save_mlflow_model(folder, student_folder)
    (folder / DOCUMENTS).mkdir()
    for name, given in documents.items():
        (folder / DOCUMENTS / name).write_bytes(given if isinstance(given, bytes) else given.read_bytes())
    return _write_manifest(folder, digest)


def _write_manifest(folder: Path, digest: str) -> str:
    """List what `folder` holds now; `digest` is that of the artifact it was made from. Gives the manifest's sha256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
        for path in paths
    }
    body = {"format": MANIFEST_FORMAT, "digest": digest, "files": files}
    seal = fingerprint(body)
    (folder / MANIFEST).write_text(json.dumps({**body, "sha256": seal}, indent=1, sort_keys=True))
    return seal


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """The manifest in `data`. Raises Corrupt and FormatError, naming `where` it was read from."""
    try:
        manifest = dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{where} is no manifest ({error}); fetch or register the version again") from error
    if manifest.get("format") != MANIFEST_FORMAT:
        raise FormatError(
            f"{where} has format {manifest.get('format')!r}, this release reads {MANIFEST_FORMAT}; "
            "use the release that wrote it"
        )
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    _compare(where, fingerprint(body), str(manifest.get("sha256")))
    return manifest


def verify_folder(folder: Path, where: str, *, digest: str | None = None, seal: str | None = None) -> None:
    """Compare a folder's files with its manifest, and that with what the caller knows of it.

    `where` is the place the folder was fetched from, for the message; `seal` is the manifest's sha256. Raises Corrupt
    for anything missing or changed, and RegistryError for the version of another `digest`.
    """
    manifest = parse_manifest(_read(folder, where), f"{where}/{MANIFEST}")
    if seal is not None:
        _compare(f"{where}/{MANIFEST}", manifest["sha256"], seal)
    if digest is not None and manifest["digest"] != digest:
        raise RegistryError(
            f"{where} holds the student with digest {manifest['digest'][:12]}, wanted {digest[:12]}; "
            "name the version that has it (`distill models list`)"
        )
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise Corrupt(f"{where}/{name} is missing, its manifest names it; fetch or register the version again")
        _compare(f"{where}/{name}", sha256_file(path), entry["sha256"])


def _read(folder: Path, where: str) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise Corrupt(f"{where} has no {MANIFEST}; wanted a version that the platform registered") from None


def _compare(where: str, got: str, wanted: str) -> None:
    if got != wanted:
        raise Corrupt(
            f"{where}: sha256 is {got[:12]}, wanted {wanted[:12]}; the bytes changed after they were registered. "
            "Fetch the version again, or restore the file"
        )


def _save_mlflow_model(folder: Path, student_folder: Path) -> None:
    """Write an MLflow model around the student, without pickle and without MLflow guessing requirements.

    It has no input schema: MLflow's would refuse whole numbers where it says float, and arrays where it names columns.
    The student checks its inputs itself, and the metadata describe them.
    """
    mlflow = import_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    from distill_platform.models import load_student_folder

    student = load_student_folder(student_folder)
    columns = [ColSpec("string", PREDICTION)]
    columns += [ColSpec("float", probability_column(name)) for name in student.class_names]
    params = ParamSchema([ParamSpec(OUTPUT, "string", PREDICTION)])
    with tempfile.TemporaryDirectory(prefix="distill-student-") as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        data = shutil.copytree(student_folder, Path(temporary) / STUDENT)
        mlflow.pyfunc.save_model(
            folder,
            loader_module="distill_platform.registry.loader",
            data_path=str(data),
            signature=ModelSignature(outputs=Schema(columns), params=params),
            metadata={"input": asdict(student.input), "class_names": list(student.class_names)},
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("distill-platform", "mlflow-skinny")],
        )
