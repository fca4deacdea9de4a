"""A registered version back as a Student.

`load_student` is for those who have this package and want the Student itself. `_load_pyfunc` is what MLflow calls for
`mlflow.pyfunc.load_model` and `mlflow models serve`; it needs this package too, and runs nothing out of the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill_platform.errors import ModelError, NotFound, RegistryError
from distill_platform.models import Student, load_student_folder
from distill_platform.models.raw_inputs import raw_inputs
from distill_platform.registry import log
from distill_platform.registry.folder import (
    LOGITS,
    MANIFEST,
    OUTPUT,
    PREDICTION,
    STUDENT,
    parse_manifest,
    probability_column,
    verify_folder,
)
from distill_platform.registry.mlflow_registry import CHAMPION, open_registry
from distill_platform.storage import open_storage


def load_student(uri: str, digest: str | None = None, *, workspace: str = "./runs") -> Student:
    """The student of `models:/name@alias`, of `models:/name/3`, or of a version's folder, local or on S3.

    The champion is the one of the workspace's promotion log; without a log there, of MLflow's alias. A `models:` URI
    is looked up in $MLFLOW_TRACKING_URI, or in the registry of the local `workspace`. Every file is
    verified by the version's manifest, and the version by `digest` if one is given.

    Raises RegistryError for a version that is not there or has another digest, and Corrupt for changed bytes.
    """
    with tempfile.TemporaryDirectory(prefix="distill-load-") as temporary:
        folder = Path(temporary) / "version"
        if uri.startswith("models:"):
            registry = open_registry(workspace)
            model, ref = _parse_models_uri(uri)
            if ref == CHAMPION and (entry := log.champion(open_storage(workspace), model)) is not None:
                ref = entry.digest  # the log decides; MLflow's alias may lag behind it
            registry.download(registry.get(model, ref), folder)
        else:
            _fetch_folder(uri, folder)
        verify_folder(folder, uri, digest=digest)
        return load_student_folder(folder / "data" / STUDENT)


class StudentModel:
    """What MLflow predicts with."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Raw inputs `[N, …]` -> a table of `prediction` and one `p(<class>)` per class, a row per input.

        Inputs are an array or nested list, or a DataFrame: of feature columns in any order, of an image's pixels, one
        flattened image a row, or of one column that holds a text, the samples of a sound or the ids of tokens a row.
        Of tokens the prediction is the next one, behind the last. `params={"output": "logits"}` gives the logits
        instead, float32 `[N, C]`, or `[N, T, V]` for each of the tokens.

        Raises ModelError for inputs that are not of the student's form.
        """
        output = (params or {}).get(OUTPUT, PREDICTION)
        inputs = self._raw(model_input)
        if output == LOGITS:
            return self.student.logits(inputs)
        if output != PREDICTION:
            raise ModelError(f"params[{OUTPUT!r}] is {output!r}, known are {PREDICTION!r} and {LOGITS!r}")
        probabilities = self.student.probabilities(inputs)
        if self.student.input.kind == "tokens":
            probabilities = probabilities[np.arange(len(probabilities)), self._last_positions(inputs)]
        names = np.asarray(self.student.class_names, dtype=object)
        table: dict[str, Any] = {PREDICTION: names[probabilities.argmax(-1)]}
        for index, name in enumerate(self.student.class_names):
            table[probability_column(name)] = probabilities[:, index]
        return pd.DataFrame(table)

    def _raw(self, given: Any) -> Any:
        form = self.student.input
        if form.padding is not None:
            return _sequences(given)
        if not isinstance(given, pd.DataFrame):
            return np.asarray(given)
        if form.kind == "features":
            if missing := [name for name in form.feature_names if name not in given.columns]:
                wanted = ", ".join(form.feature_names)
                raise ModelError(f"the table has no column {', '.join(missing)}; wanted, in any order, {wanted}")
            return given[list(form.feature_names)].to_numpy()
        if given.shape[1] != (pixels := int(np.prod(form.shape))):
            raise ModelError(f"the table has {given.shape[1]} columns, wanted {pixels}: one flattened image a row")
        return given.to_numpy().reshape(-1, *form.shape)

    def _last_positions(self, inputs: Any) -> NDArray[np.int64]:
        """[N] the position of the last token of each input; raises ModelError for one that has none."""
        form = self.student.input
        lengths = (raw_inputs(inputs, form, len(self.student.class_names)).numpy() != form.padding).sum(1)
        if not lengths.all():
            raise ModelError(f"input {int(lengths.argmin())} holds no token, and nothing comes before the first")
        return np.asarray(lengths - 1)


def _sequences(given: Any) -> Any:
    """Texts, sounds or tokens of any length as they are, out of a table's one column where they come in a table."""
    if not isinstance(given, pd.DataFrame):
        return given
    if given.shape[1] != 1:
        raise ModelError(
            f"the table has {given.shape[1]} columns, wanted one, with a text, the samples of a sound or the ids of "
            "tokens in each row"
        )
    return given.iloc[:, 0].tolist()


def _load_pyfunc(data_path: str) -> StudentModel:
    """MLflow's entry point; `data_path` is `data/student` of a version's folder, which is verified first."""
    folder = Path(data_path)
    verify_folder(folder.parents[1], str(folder.parents[1]))
    return StudentModel(load_student_folder(folder))


def _parse_models_uri(uri: str) -> tuple[str, str]:
    name, separator, ref = uri.removeprefix("models:/").partition("@" if "@" in uri else "/")
    if not (name and separator and ref) or "/" in name + ref:
        raise RegistryError(f"{uri} names no version; wanted models:/name@champion or models:/name/3")
    return name, ref


def _fetch_folder(uri: str, folder: Path) -> None:
    storage = open_storage(uri)
    try:
        manifest = parse_manifest(storage.read(MANIFEST), f"{uri}/{MANIFEST}")
    except NotFound:
        raise RegistryError(
            f"{uri} has no {MANIFEST}; wanted the folder of a registered version, or models:/name@champion"
        ) from None
    for name in (MANIFEST, *manifest["files"]):
        storage.download(name, folder / name)
