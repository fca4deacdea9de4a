"""Train a teacher, or load one and check that it fits the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_platform.artifact import Artifact, Draft
from distill_platform.data.examples import Examples, open_schema, open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.order import Reader, WindowedOrder, make_order
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.errors import ModelError
from distill_platform.models import (
    Network,
    SavedModel,
    load_network,
    preprocess_for,
    save_model,
)
from distill_platform.objective import Objective, without_teacher
from distill_platform.progress import track
from distill_platform.tasks import TASKS, UNLABELLED, Task, rows_per_pass
from distill_platform.train import Checkpoints, Trainer, TrainSettings, fit
from distill_platform.train.trainer import without_timing

MODEL_FOLDER = "model"
NAMES_SHOWN = 5
"""Names of classes that an error lists: of a vocabulary there may be thousands."""


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
    _write_validation(draft, network, validation, TASKS[task])


def load_teacher(draft: Draft, folder: Path, data: Artifact) -> None:
    """Take the model of a folder as teacher. Raises ModelError if its classes or inputs are not those of the data."""
    model, network = load_network(folder)
    schema = open_schema(data)
    _check_fits(folder, model, schema)
    _check_length(folder, model, network, schema.input)
    save_model(draft.folder / MODEL_FOLDER, model, network)
    draft.write_json("curves.json", [])
    _write_validation(draft, network, open_split(data, "val"), TASKS[model.task])


@dataclass(frozen=True)
class ValidationCounts:
    """How often the teacher is right on the validation split.

    num_counted:       labelled examples, or labelled tokens
    num_clusters:      what was drawn whole: the examples themselves, or the blocks that hold the tokens
    squared_residuals: sum over clusters of (number right - share right times number counted) squared
    """

    num_correct: int
    num_counted: int
    num_clusters: int
    squared_residuals: float
    per_token: bool

    @classmethod
    def of(cls, right: Tensor, counted: Tensor, per_token: bool) -> ValidationCounts:
        """From how many are right `[N]`, and how many count `[N]`, of each example."""
        right, counted = right.double(), counted.double()
        share = right.sum() / counted.sum().clamp(min=1)
        residuals = float(((right - share * counted) ** 2).sum())
        return cls(int(right.sum()), int(counted.sum()), int((counted > 0).sum()), residuals, per_token)


def validation_counts(teacher: Artifact) -> ValidationCounts:
    """What validation.json of a teacher says. Of release 0.1 it has classes alone."""
    counts = teacher.read_json("validation.json")
    if "num_counted" in counts:
        return ValidationCounts(**counts)
    num_correct, num_examples = counts["num_correct"], counts["num_examples"]
    residuals = num_correct * (num_examples - num_correct) / num_examples
    return ValidationCounts(num_correct, num_examples, num_examples, residuals, per_token=False)


def _check_fits(folder: Path, model: SavedModel, schema: Schema) -> None:
    if model.class_names != schema.class_names:
        raise ModelError(f"teacher {folder} {_name_mismatch(model.class_names, schema.class_names)}")
    given, wanted = model.input, schema.input
    if given.kind != wanted.kind or given.sample_rate != wanted.sample_rate:
        raise ModelError(
            f"teacher {folder} takes {_described(given)}, the data has {_described(wanted)}; prepare the data as the "
            "teacher takes it, or give another teacher"
        )
    if given.padding is None and given.shape != wanted.shape:
        raise ModelError(
            f"teacher {folder} takes {given.kind} inputs {list(given.shape)}, the data has {wanted.kind} inputs "
            f"{list(wanted.shape)}; prepare the data at the teacher's size"
        )


def _check_length(folder: Path, model: SavedModel, network: Network, wanted: InputSpec) -> None:
    """Raises ModelError for a teacher that cannot take the data's sequences, which are not as long as its own."""
    own, task = model.input, TASKS[model.task]
    if own.padding is None or wanted.shape == own.shape:
        return
    longest = torch.ones(1, *wanted.shape, dtype=getattr(torch, wanted.dtype))  # 1 stands for padding in no kind
    try:
        with torch.inference_mode():
            positions = list(network(longest)[task.output].values.shape[1:-1])
        why = f"it gives logits at {positions}"
    except (RuntimeError, IndexError) as error:
        positions, why = None, str(error)
    if positions != (list(wanted.shape) if task.per_token else []):
        raise ModelError(
            f"teacher {folder} was made for {_described(own)} and cannot take the data's {list(wanted.shape)}: {why}; "
            f"set data.length: {own.shape[0]}, or give a teacher of that length"
        )


def _described(input: InputSpec) -> str:
    rate = f" of {input.sample_rate:,} samples per second" if input.sample_rate else ""
    return f"{input.kind} inputs {list(input.shape)}{rate}"


def _name_mismatch(own: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    """How the classes, or tokens, of a teacher differ from those of the data, and what to do."""
    if sorted(own) == sorted(wanted):
        place = {name: number for number, name in enumerate(own)}
        moved = [
            f"{name!r} is {n} in the data, {place[name]} in the teacher"
            for n, name in enumerate(wanted)
            if place[name] != n
        ]
        return (
            f"has the same {len(own)} classes as the data in another order ({_first(moved)}), and no mapping is "
            "applied: number the data's classes in the teacher's order, or train it again on these"
        )
    only_own, only_wanted = (
        _first([repr(name) for name in names if name not in others]) or "none"
        for names, others in ((own, set(wanted)), (wanted, set(own)))
    )
    return (
        f"has {len(own)} classes, the data {len(wanted)}: other names, the teacher's alone {only_own}, the data's "
        f"alone {only_wanted}; give a teacher of these classes, or rename the classes of the data"
    )


def _first(words: list[str]) -> str:
    """The first few of a list that may be a vocabulary."""
    return ", ".join(words[:NAMES_SHOWN]) + (
        f" and {len(words) - NAMES_SHOWN} more" if len(words) > NAMES_SHOWN else ""
    )


def _write_validation(draft: Draft, network: Network, validation: Examples, task: Task) -> None:
    step = rows_per_pass(task, validation.schema, torch.device("cpu"))
    right, counted = [], []
    with torch.inference_mode():
        for inputs, labels in zip(validation.inputs.split(step), validation.labels.split(step), strict=True):
            hits = network(inputs)[task.output].values.argmax(-1) == labels
            right.append(hits.view(len(labels), -1).sum(1))
            counted.append((labels != UNLABELLED).view(len(labels), -1).sum(1))
    counts = ValidationCounts.of(torch.cat(right), torch.cat(counted), task.per_token)
    draft.write_json("validation.json", asdict(counts))
    draft.metrics["val_accuracy"] = counts.num_correct / max(1, counts.num_counted)
    draft.facts["num_parameters"] = network.num_parameters
