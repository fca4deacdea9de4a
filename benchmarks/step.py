"""A training step with the cache, without a teacher, and with a live one."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Mapping
from typing import Any

import torch
from made import make_cache, make_data
from timing import Seconds, interleaved, timed
from torch import Tensor

from distill_platform.cache import Encoding, open_targets
from distill_platform.data.examples import Examples, open_split
from distill_platform.data.loader import Loader
from distill_platform.data.views import Views
from distill_platform.models import Network, Standardize, build_network
from distill_platform.objective import Objective, without_teacher
from distill_platform.storage import Storage
from distill_platform.tasks import TASKS
from distill_platform.train import CachedTeacher, LiveTeacher, Teacher, Trainer, TrainSettings

NUM_CLASSES, BATCH_SIZE = 10, 128
STUDENTS: dict[str, tuple[str, dict[str, list[int]]]] = {
    "mlp 784-64-10": ("mlp", {"hidden": [64]}),
    "cnn 8-16": ("cnn", {"channels": [8, 16]}),
}
TEACHER = ("cnn", {"channels": [32, 64, 128]})
TERMS = {"task": {"weight": 0.5}, "soft_targets": {"weight": 0.5, "temperature": 4.0}}
VIEWS = Views.of(1, 0, [])
ENCODING = Encoding("dense", NUM_CLASSES)


def measure_steps(workspace: Storage, num_steps: int, repeats: int) -> tuple[Seconds, dict[str, Seconds]]:
    """Filling the cache for an epoch of `num_steps`; and by student, one step of each arm."""
    data = make_data(workspace, num_steps * BATCH_SIZE, side=28, num_classes=NUM_CLASSES)
    examples = {split: open_split(data, split) for split in ("train", "val")}
    teacher = _network(*TEACHER, examples["train"]).eval()

    @torch.inference_mode()
    def predict(inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": teacher(inputs)["logits"].values}

    numbers = itertools.count()
    fill = {
        "platform": timed(lambda: make_cache(workspace, data, VIEWS, predict, ENCODING, name=f"fill {next(numbers)}"))
    }
    filling = interleaved(fill, min(5, repeats))
    cache = make_cache(workspace, data, VIEWS, predict, ENCODING)
    teachers: dict[str, Mapping[str, Teacher] | None] = {
        "without": None,
        "cached": {split: CachedTeacher(open_targets(cache, data, split, examples[split])) for split in examples},
        "live": {split: LiveTeacher(teacher, "live", {}, examples[split].inputs[:2]) for split in examples},
    }
    steps = {}
    for student in STUDENTS:
        trainers = {arm: _trainer(student, examples, given, repeats + 1) for arm, given in teachers.items()}
        steps[student] = interleaved(
            {arm: functools.partial(step_seconds, one) for arm, one in trainers.items()}, repeats
        )
    return filling, steps


def step_seconds(trainer: Trainer) -> float:
    """Mean CPU-seconds of a step over one epoch, from the end of its first to the end of its last."""
    ends: list[float] = []
    trainer.run_epoch(after_step=lambda: ends.append(time.process_time()))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _network(name: str, args: Mapping[str, Any], examples: Examples) -> Network:
    schema = examples.schema
    return build_network(name, args, schema.input, len(schema.class_names), Standardize.of(schema), seed=0)


def _trainer(
    student: str, examples: Mapping[str, Examples], teachers: Mapping[str, Teacher] | None, epochs: int
) -> Trainer:
    settings = TrainSettings(
        epochs=epochs,
        batch_size=BATCH_SIZE,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=1e-4,
        momentum=0.9,
        schedule="cosine",
        warmup_fraction=0.1,
        clip_norm=1.0,
        patience_epochs=None,
        precision="float32",
        seed=0,
    )
    objective = Objective.of(TASKS["classification"], without_teacher(TERMS) if teachers is None else TERMS)
    loader = Loader(examples["train"], VIEWS, BATCH_SIZE, seed=0)
    network = _network(*STUDENTS[student], examples["train"])
    return Trainer(network, objective, loader, examples["val"], settings, teachers)
