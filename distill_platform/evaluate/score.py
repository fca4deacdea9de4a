"""Every model on the test split: what it answers, and what it costs to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill_platform.data.examples import Examples
from distill_platform.errors import ModelError
from distill_platform.evaluate.evaluation import Evaluation, ModelResult
from distill_platform.evaluate.latency import describe_hardware, limited_threads, measure_latency
from distill_platform.evaluate.measures import TOKENS, measures_of
from distill_platform.evaluate.metrics import Answers, Labels
from distill_platform.evaluate.token_metrics import NLL, each_token
from distill_platform.models import Student, load_student_folder
from distill_platform.tasks import UNLABELLED, Task, rows_per_pass


@dataclass(frozen=True)
class Timing:
    """How latency is measured: `runs` calls on batches of `batch_size`, after `warmup` calls, on `threads` threads."""

    batch_size: int
    threads: int
    warmup: int
    runs: int


@dataclass(frozen=True)
class _Answered:
    answers: Answers
    loss_by_position: tuple[float, ...] = ()


def score_models(
    test: Examples,
    ids: list[str],
    data_digest: str,
    folders: Mapping[str, Path],
    digests: Mapping[str, str],
    timing: Timing,
    task: Task,
) -> Evaluation:
    """Score the model folders, by role: answers on all test examples, parameters, bytes of the folder, latency.

    Of a task with labels of tokens there must be a "teacher", which the others are held against. Raises ModelError for
    a model whose classes, or tokens, are not those of the data, in their order.
    """
    students = {name: load_student_folder(folder) for name, folder in folders.items()}
    for name, student in students.items():
        if student.class_names != test.schema.class_names:
            raise ModelError(
                f"{name} {digests[name][:12]} was made for {len(student.class_names)} classes that are not, in this "
                f"order, the {len(test.schema.class_names)} of the data, so what it answers cannot be compared; retire "
                "it, or give data of its classes"
            )
    measures = measures_of(task)
    answered = _token_answers(students, test, task) if measures is TOKENS else _logits(students, test)
    models = {
        name: ModelResult(
            name=name,
            digest=digests[name],
            answers=answered[name].answers,
            num_parameters=student.network.num_parameters,
            size_bytes=sum(path.stat().st_size for path in folders[name].iterdir()),
            latency_ms=_latency_ms(student.network, test, timing),
            loss_by_position=answered[name].loss_by_position,
        )
        for name, student in students.items()
    }
    return Evaluation(
        ids=ids,
        labels=_token_counts(test) if measures is TOKENS else test.labels.numpy(),
        class_names=test.schema.class_names,
        data_digest=data_digest,
        threads=timing.threads,
        batch_size=timing.batch_size,
        hardware=describe_hardware(),
        models=models,
        measures=measures,
        subgroups=None if test.subgroups is None else test.subgroups.numpy(),
        subgroup_names=test.schema.subgroup_names,
    )


def _logits(students: Mapping[str, Student], test: Examples) -> dict[str, _Answered]:
    return {name: _Answered(student.logits(test.inputs.numpy())) for name, student in students.items()}


def _token_counts(test: Examples) -> Labels:
    """Labelled tokens of each block, and the bytes that they stand for; 0 where the data does not say. [N, 2]"""
    num_tokens = (test.labels != UNLABELLED).sum(1)
    num_bytes = torch.zeros_like(num_tokens) if test.num_bytes is None else test.num_bytes
    return torch.stack([num_tokens, num_bytes.long()], dim=1).numpy()


def _token_answers(students: Mapping[str, Student], test: Examples, task: Task) -> dict[str, _Answered]:
    """Sums over the tokens of each block, some blocks at a time, for each model beside the teacher."""
    sums: dict[str, list[Tensor]] = {name: [] for name in students}
    by_position = {name: torch.zeros(test.labels.shape[1], dtype=torch.float64) for name in students}
    step = rows_per_pass(task, test.schema, torch.device("cpu"))
    with torch.inference_mode():
        for inputs, labels in zip(test.inputs.split(step), test.labels.long().split(step), strict=True):
            logits = {name: _at_labels(name, student, inputs, labels, task) for name, student in students.items()}
            for name in students:
                tokens = each_token(logits[name], labels, logits["teacher"])
                sums[name].append(tokens.sum(1))
                by_position[name] += tokens[..., NLL].sum(0)
    counts = (test.labels != UNLABELLED).sum(0).numpy()
    return {
        name: _Answered(torch.cat(sums[name]).numpy(), _means(by_position[name].numpy(), counts)) for name in students
    }


def _at_labels(name: str, student: Student, inputs: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Logits `[B, T, V]` of some blocks. Raises ModelError if they are not at the positions of the labels `[B, T]`."""
    logits: Tensor = student.network(inputs)[task.output].values
    if logits.shape[:-1] != labels.shape:
        raise ModelError(
            f"{name} gives logits at {logits.shape[1]} positions of a block, the data has labels at {labels.shape[1]}; "
            f"set data.length: {student.input.shape[0]}, or leave this model out"
        )
    return logits


def _means(totals: Answers, counts: Labels) -> tuple[float, ...]:
    return tuple(np.divide(totals, counts, out=np.full(len(totals), np.nan), where=counts > 0).tolist())


def _latency_ms(network: torch.nn.Module, test: Examples, timing: Timing) -> tuple[float, ...]:
    batch = test.inputs[: timing.batch_size].clone()
    with limited_threads(timing.threads), torch.inference_mode():
        return tuple(measure_latency(lambda: network(batch), warmup=timing.warmup, runs=timing.runs))
