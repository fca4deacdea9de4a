from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from distill_platform.errors import Corrupt, ModelError, RegistryError
from distill_platform.models import Student, load_student_folder
from distill_platform.registry import log
from distill_platform.registry.loader import StudentModel, load_student
from distill_platform.registry.mlflow_registry import Version, open_registry
from distill_platform.storage import open_storage
from tests.models.kinds import MODEL_OF, model_for

A = "a" * 64
Load = Callable[[str], mlflow.pyfunc.PyFuncModel]
IMAGES = np.random.default_rng(0).integers(0, 17, (5, 4, 4, 1), dtype=np.uint8)
FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, image_student: Path, feature_student: Path, monkeypatch_module: None
) -> str:
    """A workspace with the promoted models `images` and `features`."""
    uri = str(tmp_path_factory.mktemp("workspace"))
    for model, folder in (("images", image_student), ("features", feature_student)):
        verdict = {"passed": True, "student_digest": A, "champion_digest": None}
        documents: dict[str, Path | bytes] = {"verdict.json": json.dumps(verdict).encode()}
        version = open_registry(uri).register(model, folder, digest=A, documents=documents, tags={})
        log.promote(open_storage(uri), model, version=version.number, digest=A, verdict=verdict, by="ann")
        open_registry(uri).sync(open_storage(uri), model)
    return uri


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def version_of(workspace: str, model: str) -> Version:
    return open_registry(workspace).get(model, "champion")


@pytest.fixture
def load_with_mlflow(workspace: str, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", open_registry(workspace).tracking_uri)
    return lambda model: mlflow.pyfunc.load_model(f"models:/{model}@champion")


# --- through MLflow ---


def test_mlflow_gives_the_same_logits_as_the_student(load_with_mlflow: Load, image_student: Path) -> None:
    wanted = load_student_folder(image_student).logits(IMAGES)
    loaded = load_with_mlflow("images")
    got = loaded.predict(IMAGES, params={"output": "logits"})
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("form", ["uint8", "int64", "float64", "list", "without channel"])
def test_mlflow_predicts_from_raw_images_of_any_number_type(
    load_with_mlflow: Load, image_student: Path, form: str
) -> None:
    student = load_student_folder(image_student)
    given = {"list": IMAGES.tolist(), "without channel": IMAGES[..., 0]}.get(form)
    table = load_with_mlflow("images").predict(IMAGES.astype(form) if given is None else given)
    assert list(table.columns) == ["prediction", "p(one)", "p(two)", "p(three)"]
    assert table["prediction"].tolist() == student.predict(IMAGES)
    np.testing.assert_array_equal(table.iloc[:, 1:].to_numpy(), student.probabilities(IMAGES))


def test_mlflow_predicts_from_flattened_images_in_a_table(load_with_mlflow: Load, image_student: Path) -> None:
    table = load_with_mlflow("images").predict(pd.DataFrame(IMAGES.reshape(5, 16)))
    assert table["prediction"].tolist() == load_student_folder(image_student).predict(IMAGES)
    with pytest.raises(ModelError, match="the table has 15 columns, wanted 16: one flattened image a row"):
        load_with_mlflow("images").predict(pd.DataFrame(IMAGES.reshape(5, 16)[:, :15]))


def test_feature_columns_may_come_in_any_order_among_others(load_with_mlflow: Load, feature_student: Path) -> None:
    loaded, wanted = load_with_mlflow("features"), load_student_folder(feature_student).predict(FEATURES)
    table = pd.DataFrame(FEATURES, columns=["width", "height", "depth"])
    shuffled = table[["depth", "width", "height"]].assign(name="text that is no feature")
    assert loaded.predict(table)["prediction"].tolist() == wanted
    assert loaded.predict(shuffled)["prediction"].tolist() == wanted
    assert loaded.predict(FEATURES)["prediction"].tolist() == wanted
    assert loaded.predict(FEATURES.tolist())["prediction"].tolist() == wanted
    assert list(loaded.predict(table[:0]).columns) == ["prediction", "p(no)", "p(yes)"]


def test_whole_numbers_are_taken_as_features(load_with_mlflow: Load, feature_student: Path) -> None:
    table = pd.DataFrame({"width": [1, 2], "height": [3, -4], "depth": [5, 60]})
    wanted = load_student_folder(feature_student).predict(table.to_numpy())
    assert load_with_mlflow("features").predict(table)["prediction"].tolist() == wanted


def test_missing_feature_columns_are_named(load_with_mlflow: Load) -> None:
    with pytest.raises(ModelError, match="has no column width, depth; wanted, in any order, width, height, depth"):
        load_with_mlflow("features").predict(pd.DataFrame({"height": [1.0], "Width": [1.0]}))


TEXTS = ["a card", "where is my money, please", "x"]
SOUNDS = [np.arange(length, dtype=np.int16) * 5 for length in (900, 400, 1600)]
TOKENS = [[1, 2, 3], [4], [0, 10, 9, 8, 7]]


def student_of(kind: str) -> Student:
    made = model_for(MODEL_OF[kind], kind)
    return Student(made, made.build(seed=1))


@pytest.mark.parametrize(("kind", "inputs"), [("text", TEXTS), ("audio", SOUNDS), ("tokens", TOKENS)])
@pytest.mark.parametrize("form", [list, "column", "array of objects"])
def test_sequences_of_unequal_length_are_taken_as_they_are(kind: str, inputs: list[Any], form: Any) -> None:
    student = student_of(kind)
    array = np.empty(len(inputs), dtype=object)
    array[:] = inputs
    given = {"column": pd.DataFrame({"any name": array}), "array of objects": array}.get(form, inputs)
    model = StudentModel(student)
    np.testing.assert_array_equal(model.predict(given, params={"output": "logits"}), student.logits(inputs))
    assert model.predict(given)["prediction"].tolist() == student.predict(inputs)


def test_a_language_model_gives_the_probabilities_of_the_token_behind_the_last() -> None:
    student = student_of("tokens")
    table = StudentModel(student).predict(TOKENS)
    wanted = [student.probabilities([ids])[0, len(ids) - 1] for ids in TOKENS]
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), wanted, rtol=1e-5)
    with pytest.raises(ModelError, match="input 1 holds no token, and nothing comes before the first"):
        StudentModel(student).predict([[1], []])


def test_a_table_of_sequences_has_one_column() -> None:
    table = pd.DataFrame({"text": TEXTS, "length": [1, 2, 3]})
    with pytest.raises(ModelError, match="the table has 2 columns, wanted one, with a text, the samples of a sound"):
        StudentModel(student_of("text")).predict(table)


def test_an_unknown_output_is_refused(feature_student: Path) -> None:
    model = StudentModel(load_student_folder(feature_student))
    with pytest.raises(ModelError, match="params\\['output'\\] is 'logit', known are 'prediction' and 'logits'"):
        model.predict(FEATURES, params={"output": "logit"})


def test_mlflow_refuses_a_model_whose_files_changed(workspace: str, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    open_registry(workspace).download(version_of(workspace, "images"), folder)
    described = folder / "data/student/model.json"
    described.write_text(described.read_text().replace('"two"', '"tow"'))
    with pytest.raises(Corrupt, match=r"data/student/model\.json: sha256 is"):
        mlflow.pyfunc.load_model(str(folder))


# --- load_student ---


def logits(student: Student) -> np.ndarray:
    return student.logits(IMAGES)


@pytest.mark.parametrize("uri", ["models:/images@champion", "models:/images/1", "models:/images/champion"])
def test_a_registered_student_is_loaded(workspace: str, image_student: Path, uri: str) -> None:
    student = load_student(uri, workspace=workspace)
    np.testing.assert_array_equal(logits(student), logits(load_student_folder(image_student)))
    assert student.class_names == ("one", "two", "three")


def test_the_tracking_uri_of_the_environment_is_used(workspace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", open_registry(workspace).tracking_uri)
    assert load_student("models:/images/1").class_names == ("one", "two", "three")


def test_a_student_of_another_digest_is_refused(workspace: str) -> None:
    assert load_student("models:/images/1", A, workspace=workspace)
    with pytest.raises(RegistryError, match=f"holds the student with digest {A[:12]}, wanted {'b' * 12}; name"):
        load_student("models:/images/1", "b" * 64, workspace=workspace)


@pytest.mark.parametrize("uri", ["models:/images", "models:/", "models:images@", "models:/a/b/1", "models:/@champion"])
def test_a_uri_that_names_no_version_is_refused(workspace: str, uri: str) -> None:
    with pytest.raises(RegistryError, match="names no version; wanted models:/name@champion or models:/name/3"):
        load_student(uri, workspace=workspace)


def test_a_student_is_loaded_from_a_folder_here_and_on_s3(
    workspace: str, image_student: Path, s3_uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "version"
    open_registry(workspace).download(version_of(workspace, "images"), folder)
    storage = open_storage(s3_uri)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.upload(path, path.relative_to(folder).as_posix())
    wanted = logits(load_student_folder(image_student))
    for uri in (str(folder), s3_uri):
        np.testing.assert_array_equal(logits(load_student(uri, A)), wanted)
    storage.write("data/student/weights.safetensors", b"\0" + storage.read("data/student/weights.safetensors")[1:])
    with pytest.raises(Corrupt, match=rf"{s3_uri}/data/student/weights\.safetensors: sha256 is"):
        load_student(s3_uri)


def test_a_folder_that_was_never_registered_is_refused(image_student: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"has no distill/manifest\.json; wanted the folder of a registered version"
    ):
        load_student(str(image_student))
