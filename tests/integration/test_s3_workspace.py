"""The same run with everything on S3 and versions in a tracking server: only URIs change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine

from distill_platform import load_student
from distill_platform.artifact import open_artifact
from distill_platform.cache import verify_cache
from distill_platform.errors import Corrupt
from distill_platform.models import load_student_folder
from distill_platform.runs import STEPS, read_log, read_run
from distill_platform.storage import open_storage
from tests.integration.conftest import expect_kill, finish, start
from tests.integration.test_kill_and_resume import DIE_IN_SWEEP


def test_a_run_on_s3_is_killed_continues_and_is_reused(
    spec_path: Path, s3_uri: str, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path / "scratch"))
    workspace = f"{s3_uri}/workspace"
    expect_kill(start(spec_path, workspace, DIE_IN_SWEEP.format(trials=2)))
    finish(start(spec_path, workspace))
    storage = open_storage(workspace)
    done = read_run(storage)
    assert {step: entry["status"] for step, entry in done.steps.items()} == {
        step: "reused" if step in STEPS[:3] else "ran" for step in STEPS
    }
    assert "trial 4: " in read_log(storage, done.id, "sweep")
    assert storage.list("work") == []
    assert not Path("s3:").exists()

    shipped = open_artifact(storage, "compress", done.steps["compress"]["key"])
    assert shipped is not None
    raw = load_wine().data.astype(np.float32)
    wanted = load_student_folder(shipped.fetch_folder("model")).logits(raw)
    assert np.array_equal(load_student("models:/wine@champion", shipped.digest).logits(raw), wanted)

    cache = open_artifact(storage, "cache", done.steps["cache"]["key"])
    assert cache is not None
    path = cache.record["files"][cache.files_under("shards")[0]]["path"]
    content = bytearray(cache.storage.read(path))
    content[len(content) // 2] ^= 1
    cache.storage.write(path, bytes(content))
    with pytest.raises(Corrupt, match="the bytes changed after they were written"):
        verify_cache(cache)  # though this machine has a good copy in scratch
