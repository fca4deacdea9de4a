"""A team's setting: workspace and model files on S3, versions in a tracking server that several machines reach."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from distill_platform.errors import Corrupt
from distill_platform.models import load_student_folder
from distill_platform.registry import log
from distill_platform.registry.loader import load_student
from distill_platform.registry.mlflow_registry import open_registry
from distill_platform.storage import open_storage

A, B = "a" * 64, "b" * 64


@pytest.fixture
def tracking_uri(tmp_path: Path, s3_uri: str) -> Iterator[str]:
    """A real MLflow server that keeps its records in sqlite and lets clients put files on S3 themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--default-artifact-root", f"{s3_uri}/mlflow", "--no-serve-artifacts"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/health", server, tmp_path / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=30)


def _wait_until_up(url: str, server: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (URLError, ConnectionError):
            assert server.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.3)


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
