"""What a spec's students start from, found and checked before anything is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distill_platform.errors import ModelError, NotFound
from distill_platform.fingerprint import fingerprint, sha256_file
from distill_platform.spec.schema import Spec
from distill_platform.storage import Storage, open_storage

if TYPE_CHECKING:
    from distill_platform.artifact import Artifact
    from distill_platform.data.schema import Schema
    from distill_platform.models import SavedModel
    from distill_platform.train.start import Start

FOLDER = "start"
"""Below a sweep's work: the files of the model that its members start from."""


def fetch_model(uri: str, folder: Path, where: str = "teacher.weights") -> Path:
    """A saved model's files, fetched into `folder`. Raises ModelError, naming the field, if they are not there."""
    from distill_platform.models.saved import MODEL_FILE, model_files

    storage = open_storage(uri)
    try:
        storage.download(name := MODEL_FILE, folder / name)
        for name in model_files(folder)[1:]:
            storage.download(name, folder / name)
    except NotFound:
        raise ModelError(f"{where}: {uri} holds no {name}; wanted the folder of a saved model") from None
    return folder


def start_inputs(spec: Spec, teacher: Artifact | None) -> dict[str, Artifact | str]:
    """What a sweep is keyed by beside its config: the model that its students start from."""
    if spec.start.from_ == "weights":
        with tempfile.TemporaryDirectory(prefix="distill-start-") as folder:
            return {"start": _digest(fetch_model(spec.start.uri, Path(folder), "start.uri"))}
    if spec.start.from_ == "teacher":
        assert teacher is not None, "the spec is refused"
        return {"start": teacher}
    return {}


def start_of(spec: Spec, inputs: Mapping[str, Artifact | str], work: Storage) -> Start:
    """What members of a sweep are handed; a saved model is copied to where they all read.

    inputs: of the sweep, what `start_inputs` gave among them. Raises ModelError for a model that is no longer that.
    """
    from distill_platform.train.start import Start

    if spec.start.from_ == "weights":
        place = work.child(FOLDER)
        with tempfile.TemporaryDirectory(prefix="distill-start-") as folder:
            fetched = fetch_model(spec.start.uri, Path(folder), "start.uri")
            if _digest(fetched) != inputs["start"]:
                raise ModelError(f"start.uri: {spec.start.uri} was changed after this run began; run it again")
            files = sorted(fetched.iterdir())
            for path in files:
                place.write(path.name, path.read_bytes())
            return Start("weights", weights=(place, tuple(path.name for path in files)))
    if spec.start.from_ == "teacher":
        teacher = inputs["start"]
        assert not isinstance(teacher, str)
        return Start("teacher", teacher=teacher, keep=kept_layers(spec), importance=spec.start.importance)
    return Start()


def kept_layers(spec: Spec) -> tuple[int, ...] | None:
    """The teacher's layers that a spec names to start from; None for evenly spaced ones."""
    return None if spec.start.from_ != "teacher" or spec.start.layers == "evenly" else spec.start.layers


def check_start(spec: Spec, schema: Schema, teacher: SavedModel | None) -> None:
    """Raises ModelError if the spec's student cannot start as the spec says.

    teacher: None while nothing is known of it. What a sweep makes of the student is not looked at: its members may
    change width and heads together, and one that cannot start fails alone.
    """
    from distill_platform.models import SavedModel, read_model
    from distill_platform.models.start import check_start as check

    given = teacher if spec.start.from_ == "teacher" else None
    if spec.start.from_ == "weights":
        with tempfile.TemporaryDirectory(prefix="distill-start-") as folder:
            given = read_model(fetch_model(spec.start.uri, Path(folder), "start.uri"))
    if given is None:
        return
    student = SavedModel.for_data(spec.student.name, spec.student.args, schema, spec.task)
    try:
        check(student, given, spec.start.from_, kept_layers(spec))
    except ModelError as error:
        raise ModelError(f"start, from {spec.start.from_}: {error}") from error


def _digest(folder: Path) -> str:
    return fingerprint({path.name: sha256_file(path) for path in sorted(folder.iterdir())})
