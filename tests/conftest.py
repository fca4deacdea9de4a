"""What every test shares: scratch space of its own, and one thread, so that figures do not depend on the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.services"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def session_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scratch folder for the session: its content is named by hashes, so tests may share it."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def ray_session(session_scratch: Path) -> Iterator[None]:
    """One local Ray for all tests that need it."""
    import ray

    from distill_platform.cluster import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_SCRATCH", str(session_scratch))
        connect()
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def _scratch(session_scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH", str(session_scratch))
