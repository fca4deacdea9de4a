"""A team's setting: workspace and model files on S3, versions in a tracking server that several machines reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distill_platform.errors import Corrupt
from distill_platform.models import load_student_folder
from distill_platform.registry import log
from distill_platform.registry.loader import load_student
from distill_platform.registry.mlflow_registry import open_registry
from distill_platform.storage import open_storage

A, B = "a" * 64, "b" * 64


def test_a_team_registers_promotes_and_loads_over_a_server_and_s3(
    tracking_uri: str,
    s3_uri: str,
    image_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    registry, storage = open_registry(s3_uri), open_storage(s3_uri)
    champion = None
    for number, digest in enumerate((A, B), start=1):
        verdict = {"passed": True, "student_digest": digest, "champion_digest": champion}
        documents: dict[str, Path | bytes] = {"verdict.json": json.dumps(verdict).encode()}
        for _ in range(2):  # the second time it is there
            version = registry.register("digits", image_student, digest=digest, documents=documents, tags={})
            assert version.number == number
        assert version.source.startswith(f"{s3_uri}/mlflow/")
        log.promote(storage, "digits", version=number, digest=digest, verdict=verdict, by="ann")
        assert registry.sync(storage, "digits") == {"champion": number}
        champion = digest
    log.rollback(storage, "digits", by="bob", reason="slow")
    assert registry.sync(storage, "digits") == {"champion": 1, "challenger": 2}
    assert capfd.readouterr().out == "", "MLflow prints links to runs, which hold what the URI holds"

    images = np.zeros((2, 4, 4, 1))
    wanted = load_student_folder(image_student).logits(images)
    np.testing.assert_array_equal(load_student("models:/digits@champion", A).logits(images), wanted)
    np.testing.assert_array_equal(load_student(version.source, B).logits(images), wanted)

    open_storage(version.source).write("data/student/weights.safetensors", b"other bytes")
    with pytest.raises(Corrupt, match=r"digits version 2/data/student/weights\.safetensors: sha256 is"):
        registry.download(registry.get("digits", "2"), tmp_path / "version")
