"""Every "auto" -> the value it stands for on the machines at hand, once, before anything is keyed by it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from distill_platform.spec.schema import LossSpec, ResourcesSpec, Spec, TrainSpec
from distill_platform.spec.terms import loss_settings

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Machine:
    """What work can run on: one machine, or the sum over a cluster."""

    num_cpus: float
    num_gpus: float
    gpu_precision: Precision
    """The short format that its GPUs compute fast in; float32 without one."""


def this_machine() -> Machine:
    """What this process may use of this machine."""
    import torch

    num_gpus = torch.cuda.device_count()
    gpu_precision: Precision = "float32"
    if num_gpus:
        gpu_precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return Machine(len(os.sched_getaffinity(0)), num_gpus, gpu_precision)


def resolve(spec: Spec, machine: Machine) -> Spec:
    """The spec with every "auto" replaced, and losses' settings at their defaults where none were given.

    Those of `cache` stay: which encoding is smallest depends on the number of classes, which the data tells.
    """
    on_gpu = machine.gpu_precision if machine.num_gpus else "float32"
    teachers = {
        name: each.model_copy(update={"train": _train(each.train, spec.seed, on_gpu)})
        for name, each in {"teacher": spec.teacher, **spec.teachers}.items()
    }
    precision = on_gpu if spec.resources.gpus_per_trial else "float32"
    resources = _resources(spec.resources, min(spec.sweep.trials, spec.sweep.in_flight), machine)
    answering = on_gpu if resources.gpus_per_teacher else "float32"
    model = spec.name if spec.registry.model == "auto" else spec.registry.model
    return spec.model_copy(
        update={
            "teacher": teachers.pop("teacher"),
            "teachers": teachers,
            "cache": spec.cache.model_copy(
                update={"precision": answering if spec.cache.precision == "auto" else spec.cache.precision}
            ),
            "objective": _objective(spec),
            "train": _train(spec.train, spec.seed, precision),
            "registry": spec.registry.model_copy(update={"model": model}),
            "resources": resources,
        }
    )


def _train(train: TrainSpec, seed: int, precision: Precision) -> TrainSpec:
    update = {
        "seed": seed if train.seed == "auto" else train.seed,
        "precision": precision if train.precision == "auto" else train.precision,
    }
    return train.model_copy(update=update)


def _objective(spec: Spec) -> dict[str, LossSpec]:
    from distill_platform.objective.schedules import DEFAULTS, is_schedule

    defaults = loss_settings(spec.task)
    objective = {}
    for name, term in spec.objective.items():
        given = {
            key: {**DEFAULTS, **value} if key in defaults[name] and is_schedule(value) else value
            for key, value in term.settings.items()
        }
        settings = {key: each.default for key, each in defaults[name].items()} | given
        objective[name] = LossSpec.model_validate({"weight": term.weight, **settings})
    return objective


def _resources(resources: ResourcesSpec, most_trials: int, machine: Machine) -> ResourcesSpec:
    per_teacher = resources.gpus_per_teacher
    if per_teacher == "auto":
        per_teacher = 1 if machine.num_gpus >= 1 else 0
    workers = max(1, int(machine.num_gpus / per_teacher if per_teacher else machine.num_cpus))
    fitting = machine.num_cpus / resources.cpus_per_trial
    if resources.gpus_per_trial:
        fitting = min(fitting, machine.num_gpus / resources.gpus_per_trial)
    concurrent = max(1, min(most_trials, int(fitting)))
    update = {
        "gpus_per_teacher": per_teacher,
        "cache_workers": workers if resources.cache_workers == "auto" else resources.cache_workers,
        "concurrent_trials": concurrent if resources.concurrent_trials == "auto" else resources.concurrent_trials,
    }
    return resources.model_copy(update=update)
