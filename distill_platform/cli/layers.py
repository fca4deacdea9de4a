"""Whose layers `distill models layers` lists: the models of a spec, a model's folder, or a registered version."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill_platform.errors import InputError, ModelError, NotFound

if TYPE_CHECKING:
    from distill_platform.data.schema import Schema
    from distill_platform.models import SavedModel
    from distill_platform.spec import Spec
    from distill_platform.spec.schema import TeacherSpec


def models_of(target: str, workspace: str, overrides: Sequence[str]) -> dict[str, SavedModel]:
    """Role -> model: the teachers by name and "student" of a spec, "model" of a folder or of `models:/name@champion`.

    Raises InputError for a spec whose data is not prepared in the workspace, and ModelError for what is no model.
    """
    if target.endswith((".yaml", ".yml", ".json")):
        return _of_spec(target, workspace, overrides)
    if overrides:
        raise InputError(f"--set changes a spec, and {target} is none; leave it out")
    if target.startswith("models:"):
        from distill_platform.registry.loader import load_student

        return {"model": load_student(target, workspace=workspace).model}
    return {"model": _described(target)}


def _of_spec(path: str, workspace: str, overrides: Sequence[str]) -> dict[str, SavedModel]:
    from distill_platform import steps
    from distill_platform.data.examples import open_schema
    from distill_platform.models import SavedModel
    from distill_platform.spec import load_spec, resolve, this_machine
    from distill_platform.storage import open_storage
    from distill_platform.workspace import DryWorkspace, NotMade

    spec = resolve(load_spec(path, overrides), this_machine())
    try:
        schema = open_schema(steps.prepare(spec, DryWorkspace(open_storage(workspace))))
    except NotMade:
        raise InputError(
            f"the data of {path} is not prepared in {workspace}, and a model's shapes depend on it; "
            f"`distill run {path}` prepares it first, or name the folder of a saved model"
        ) from None
    student = SavedModel.for_data(spec.student.name, spec.student.args, schema, spec.task)
    teachers = {name: _teacher(given, spec, schema) for name, given in spec.all_teachers.items()}
    return {**teachers, "student": student}


def _teacher(given: TeacherSpec, spec: Spec, schema: Schema) -> SavedModel:
    from distill_platform.models import SavedModel

    if given.weights is not None:
        return _described(given.weights)
    assert given.model is not None
    return SavedModel.for_data(given.model.name, given.model.args, schema, spec.task)


def _described(uri: str) -> SavedModel:
    """What a model's folder says; its weights stay where they are."""
    from distill_platform.models import read_model
    from distill_platform.models.saved import MODEL_FILE, WEIGHTS_FILE, model_files
    from distill_platform.storage import open_storage

    storage = open_storage(uri)
    with tempfile.TemporaryDirectory(prefix="distill-layers-") as temporary:
        folder = Path(temporary)
        try:
            storage.download(name := MODEL_FILE, folder / name)
            for name in model_files(folder):
                if name not in (MODEL_FILE, WEIGHTS_FILE):
                    storage.download(name, folder / name)
        except NotFound:
            raise ModelError(
                f"{uri} holds no {name}; wanted a spec (*.yaml), the folder of a saved model, or models:/name@champion"
            ) from None
        return read_model(folder)
