"""Train a teacher, or load one and check that it fits the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill_platform.artifact import Artifact, Draft
from distill_platform.data.examples import Examples, open_schema, open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.order import Reader, WindowedOrder, make_order
from distill_platform.data.schema import Schema
from distill_platform.data.views import Views
from distill_platform.errors import ModelError
from distill_platform.models import (
    Network,
    SavedModel,
    inference_batch_size,
    load_network,
    preprocess_for,
    save_model,
)
from distill_platform.objective import Objective, without_teacher
from distill_platform.progress import track
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, Trainer, TrainSettings, fit
from distill_platform.train.trainer import without_timing

MODEL_FOLDER = "model"


def train_teacher(
    draft: Draft, name: str, args: Mapping[str, Any], data: Artifact, views: Views, task: str, settings: TrainSettings
) -> None:
    """Train a teacher on the labels; write its model folder, curves and validation counts into the draft."""
    schema, train, validation = open_schema(data), open_split(data, "train"), open_split(data, "val")
    model = SavedModel(name, args, schema.input, schema.class_names, preprocess_for(name, args, schema), task)
    order = make_order(settings.order, settings.window_examples)
    readers: tuple[Reader, ...] = ()
    if isinstance(order, WindowedOrder):
        train, reader = open_windowed(data, "train", order)
        readers = (reader,)
    loader = Loader(train, views, settings.batch_size, settings.seed, order, readers)
    objective = Objective.of(TASKS[task], without_teacher({}))
    trainer = Trainer(model.build(settings.seed), objective, loader, validation, settings)
    with track("teacher", settings.epochs, "epochs") as advance:
        reports = fit(trainer, Checkpoints(draft.work), on_epoch=lambda report: advance(1))
    network = trainer.load_best()
    save_model(draft.folder / MODEL_FOLDER, model, network)
    draft.write_json("curves.json", [without_timing(report) for report in reports])
    _write_validation(draft, network, validation)


def load_teacher(draft: Draft, folder: Path, data: Artifact) -> None:
    """Take the model of a folder as teacher. Raises ModelError if its classes or inputs are not those of the data."""
    model, network = load_network(folder)
    _check_fits(folder, model, open_schema(data))
    save_model(draft.folder / MODEL_FOLDER, model, network)
    draft.write_json("curves.json", [])
    _write_validation(draft, network, open_split(data, "val"))


def validation_counts(teacher: Artifact) -> tuple[int, int]:
    """(right answers, examples) of the teacher on the validation split."""
    counts = teacher.read_json("validation.json")
    return counts["num_correct"], counts["num_examples"]


def _check_fits(folder: Path, model: SavedModel, schema: Schema) -> None:
    if model.class_names != schema.class_names:
        same = (
            "the same names in another order"
            if sorted(model.class_names) == sorted(schema.class_names)
            else "other names"
        )
        raise ModelError(
            f"teacher {folder} has classes {list(model.class_names)}, the data {list(schema.class_names)} ({same}); "
            "give a teacher of these classes, or rename or reorder the classes of the data"
        )
    if model.input.shape != schema.input.shape or model.input.kind != schema.input.kind:
        raise ModelError(
            f"teacher {folder} takes {model.input.kind} inputs {list(model.input.shape)}, the data has "
            f"{schema.input.kind} inputs {list(schema.input.shape)}; prepare the data at the teacher's size"
        )


def _write_validation(draft: Draft, network: Network, validation: Examples) -> None:
    with torch.inference_mode():
        parts = [
            network(part)["logits"].values
            for part in validation.inputs.split(inference_batch_size(torch.device("cpu")))
        ]
    num_correct = int((torch.cat(parts).argmax(-1) == validation.labels).sum())
    draft.write_json("validation.json", {"num_correct": num_correct, "num_examples": len(validation)})
    draft.metrics["val_accuracy"] = num_correct / len(validation)
    draft.facts["num_parameters"] = network.num_parameters
