"""Real students to register, and a real S3 endpoint in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_platform.data.schema import InputSpec
from distill_platform.models import SavedModel, Standardize, save_model


@pytest.fixture(scope="session")
def image_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small student of 4 x 4 images, 3 classes."""
    image = InputSpec("image", (4, 4, 1), "uint8", 0, 16)
    return _save(tmp_path_factory.mktemp("image"), image, Standardize((8.0,), (4.0,)), ("one", "two", "three"))


@pytest.fixture(scope="session")
def feature_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small student of 3 named features, 2 classes."""
    features = InputSpec("features", (3,), "float32", -9, 9, ("width", "height", "depth"), (1.0, 1.0, 1.0))
    preprocess = Standardize((0.0, 1.0, 2.0), (1.0, 2.0, 3.0))
    return _save(tmp_path_factory.mktemp("features"), features, preprocess, ("no", "yes"))


def _save(folder: Path, form: InputSpec, preprocess: Standardize, class_names: tuple[str, ...]) -> Path:
    saved = SavedModel("mlp", {"hidden": [8]}, form, class_names, preprocess)
    save_model(folder, saved, saved.build(seed=3))
    return folder
