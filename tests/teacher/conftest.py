"""What tests of the teacher's pass share: a workspace of the module's own, with data and a trained teacher."""

from __future__ import annotations

import pytest

from distill_platform.artifact import Artifact
from distill_platform.storage import LocalStorage
from tests.factory import make_data, make_teacher


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    return LocalStorage(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def data(workspace: LocalStorage) -> Artifact:
    return make_data(workspace)


@pytest.fixture(scope="module")
def teacher(workspace: LocalStorage, data: Artifact) -> Artifact:
    return make_teacher(workspace, data)
