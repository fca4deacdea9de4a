"""Whether a spec fits its data, and what follows from both: what a cache keeps, and in how many bytes.

Everything here is found out before anything is spent: models are built and called without memory or arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_platform.errors import DataError, GateError, ModelError
from distill_platform.spec.schema import ModelSpec, Spec
from distill_platform.starts import check_start

if TYPE_CHECKING:
    from distill_platform.artifact import Artifact
    from distill_platform.cache import Encoding
    from distill_platform.data.schema import Schema
    from distill_platform.data.views import Views
    from distill_platform.models import SavedModel
    from distill_platform.objective import Objective


def check_fits(spec: Spec, data: Artifact) -> None:
    """Raises InputError if the spec's models, views, gates or cache do not fit these examples.

    Each architecture that the spec names or lets the sweep choose is built and called.
    """
    from distill_platform.compress.calibrate import check_shares
    from distill_platform.data.examples import open_schema
    from distill_platform.models import preprocess_for
    from distill_platform.models.builders import check_body
    from distill_platform.tasks import TASKS

    schema, task = open_schema(data), TASKS[spec.task]
    if schema.input.kind not in task.kinds:
        raise DataError(
            f"task {spec.task} is done on {', '.join(task.kinds)}; {spec.data.source} gives {schema.input.kind}; "
            "set another task, or another source"
        )
    views_of(spec).check(schema.input)
    _check_subgroups(spec, schema)
    students, teachers = _students(spec), _teachers(spec)
    for where, model in {**students, **teachers}.items():
        try:
            preprocess = preprocess_for(model.name, model.args, schema)
            check_body(model.name, model.args, schema.input, len(schema.class_names), preprocess, task.per_token)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
    known = {name: each.model for name, each in spec.all_teachers.items()}
    if spec.teacher.ema is not None:
        known = {"teacher": spec.student}
    first = spec.teacher.model
    check_start(spec, schema, _saved(first, schema, spec) if first is not None else None)
    check_parts(spec, schema)
    if not isinstance(spec.compress.class_bias, str):
        check_shares(spec.compress.class_bias, schema.class_names)
    if None not in known.values():
        check_layers(spec, schema, {name: _saved(model, schema, spec) for name, model in known.items() if model})
    for name in spec.all_teachers:
        layer_bytes(spec, data, name)
    if spec.cache.codec != "head":  # whose width the teacher alone knows
        encoding_for(spec, len(schema.class_names))


def check_teachers(spec: Spec, data: Artifact, teachers: Mapping[str, Artifact]) -> None:
    """Raises ModelError for layers that the objective names and that a given teacher lacks, before it is asked, and for
    a student that cannot start from it.
    """
    from distill_platform.data.examples import open_schema
    from distill_platform.models import read_model

    schema = open_schema(data)
    if spec.start.from_ == "teacher":
        check_start(spec, schema, read_model(teachers["teacher"].fetch_folder("model")))
    if teachers and objective_of(spec).teacher_layers:
        models = {name: read_model(teacher.fetch_folder("model")) for name, teacher in teachers.items()}
        check_layers(spec, schema, models)


def check_layers(spec: Spec, schema: Schema, teachers: Mapping[str, SavedModel]) -> None:
    """Raises ModelError for layers that the objective names and that are not there, or cannot be compared."""
    from distill_platform.models.capture import layer_shapes
    from distill_platform.objective import check_layers as check
    from distill_platform.train.panel import SEPARATOR, layers_of

    objective = objective_of(spec)
    if not objective.teacher_layers:
        return
    several, theirs = len(teachers) > 1, dict[str, tuple[int, ...]]()
    for name, teacher in teachers.items():
        wanted = layers_of(name, objective.teacher_layers) if several else objective.teacher_layers
        found = layer_shapes(teacher, wanted, "objective", f"the teacher {name}" if several else "the teacher")
        theirs |= {f"{name}{SEPARATOR}{layer}" if several else layer: shape for layer, shape in found.items()}
    for where, student in _students(spec).items():
        try:
            check(objective, _saved(student, schema, spec), theirs, schema.num_examples["train"])
        except ModelError as error:
            raise ModelError(str(error) if where == "student" else f"{where}: {error}") from error


def check_parts(spec: Spec, schema: Schema) -> None:
    """Raises ModelError for parts of `train` that a model does not have, as the sweep may set them both."""
    from distill_platform.models import SavedModel
    from distill_platform.models.parts import check_parts as check

    swept = spec.sweep.space.get("train.parts")
    given = {"train.parts": {name: part.lr_factor for name, part in spec.train.parts.items()}}
    given |= {
        f"sweep.space, train.parts = {value}": {name: part["lr_factor"] for name, part in value.items()}
        for value in (swept.values if swept is not None else ())
    }
    asked = [(where, model, parts) for model in _students(spec).values() for where, parts in given.items()]
    of_teachers = {"teacher": spec.teacher, **{f"teachers.{name}": each for name, each in spec.teachers.items()}}
    asked += [
        (f"{name}.train.parts", each.model, {part: found.lr_factor for part, found in each.train.parts.items()})
        for name, each in of_teachers.items()
        if each.model is not None
    ]
    for where, model, parts in asked:
        if parts:
            check(SavedModel.for_data(model.name, model.args, schema, spec.task), parts, where)


def layer_bytes(spec: Spec, data: Artifact | None, teacher: str = "teacher") -> int | None:
    """Bytes that a row of a teacher's cache takes for layers; None before the data, or for a teacher that is given.

    Layers are those that `cache.layers` names and those that the objective compares.

    Raises ModelError for layers that the teacher to be trained will not have.
    """
    from distill_platform.data.examples import open_schema
    from distill_platform.models.capture import layer_shapes

    layers = kept_layers(spec, teacher)
    if not layers:
        return 0
    model = spec.all_teachers[teacher].model
    if data is None or model is None:
        return None
    shapes = layer_shapes(_saved(model, open_schema(data), spec), layers)
    return 2 * sum(math.prod(shape) for shape in shapes.values())


def kept_layers(spec: Spec, teacher: str = "teacher") -> dict[str, str]:
    """Name or pattern of each layer of a teacher that its cache keeps -> "pooled" or "whole"."""
    from distill_platform.objective.layers import merged
    from distill_platform.train.panel import layers_of

    asked = objective_of(spec).teacher_layers
    return merged(spec.cache.layers, layers_of(teacher, asked) if spec.teachers else asked)


def encoding_for(spec: Spec, num_classes: int, hidden_size: int | None = None) -> Encoding:
    """How outputs of so many classes are stored. Raises InputError for a `cache` section that does not fit them."""
    from distill_platform.cache import choose_encoding
    from distill_platform.spec.checks import distillation_demands

    settings = spec.cache.model_dump(include={"codec", "dtype", "keep"})
    asked = {"objective": spec.objective, "sweep": spec.sweep, "combine": spec.combine}
    demands = [demand for _, demand in distillation_demands(asked)]
    return choose_encoding(num_classes, demands, hidden_size=hidden_size, **settings)


def objective_of(spec: Spec) -> Objective:
    """What students minimise."""
    from distill_platform.objective import Objective
    from distill_platform.tasks import TASKS

    return Objective.of(TASKS[spec.task], objective_terms(spec))


def objective_terms(spec: Spec) -> dict[str, dict[str, Any]]:
    """The terms of the objective as plain nested values."""
    return {name: term.model_dump(mode="json") for name, term in spec.objective.items()}


def views_of(spec: Spec) -> Views:
    """The views of every example."""
    from distill_platform.data.views import Views

    return Views.of(spec.data.views.num, spec.seed, [transform.model_dump() for transform in spec.data.views.augment])


def _students(spec: Spec) -> dict[str, ModelSpec]:
    """Where a spec says so -> the architecture that a student may have."""
    found = {"student": spec.student}
    for path, dimension in spec.sweep.space.items():
        if path.startswith("student."):
            field = path.removeprefix("student.")
            plain = spec.student.model_dump()
            found |= {
                f"sweep.space, {path} = {value}": ModelSpec.model_validate({**plain, field: value})
                for value in dimension.values
            }
    return found


def _teachers(spec: Spec) -> dict[str, ModelSpec]:
    """Where a spec says so -> the architecture of a teacher that is trained."""
    where = {name: "teacher.model" if name == "teacher" else f"teachers.{name}.model" for name in spec.all_teachers}
    return {where[name]: each.model for name, each in spec.all_teachers.items() if each.model is not None}


def _saved(model: ModelSpec, schema: Schema, spec: Spec) -> SavedModel:
    from distill_platform.models import SavedModel

    return SavedModel.for_data(model.name, model.args, schema, spec.task)


def _check_subgroups(spec: Spec, schema: Schema) -> None:
    """Raises GateError or DataError for what is about subgroups that the data has not."""
    from distill_platform.evaluate.measures import WORST

    source, names = spec.data.source, schema.subgroup_names
    for gate in spec.gates.checks:
        if gate.strip().startswith(WORST) and not names:
            raise GateError(
                f"gate `{gate}` is about the subgroup where the student is worst, and {source} is read without "
                "subgroups; set data.subgroup to the column that names them, or take the gate out"
            )
    if spec.combine.by == "subgroup" and (unrouted := _missing(names, spec.combine.routes)):
        raise DataError(
            f"combine.routes names no teacher for {', '.join(unrouted)}, which data.subgroup holds; wanted one for "
            f"each of {', '.join(names)}"
        )


def _missing(wanted: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    return [name for name in wanted if name not in given]
