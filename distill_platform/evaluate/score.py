"""Every model on the test split: what it answers, and what it costs to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from distill_platform.data.examples import Examples
from distill_platform.evaluate.evaluation import Evaluation, ModelResult
from distill_platform.evaluate.latency import describe_hardware, limited_threads, measure_latency
from distill_platform.models import load_student_folder


@dataclass(frozen=True)
class Timing:
    """How latency is measured: `runs` calls on batches of `batch_size`, after `warmup` calls, on `threads` threads."""

    batch_size: int
    threads: int
    warmup: int
    runs: int


def score_models(
    test: Examples,
    ids: list[str],
    data_digest: str,
    folders: Mapping[str, Path],
    digests: Mapping[str, str],
    timing: Timing,
) -> Evaluation:
    """Score the model folders, by role: logits on all test examples, parameters, bytes of the folder, latency."""
    models = {}
    for name, folder in folders.items():
        student = load_student_folder(folder)
        models[name] = ModelResult(
            name=name,
            digest=digests[name],
            logits=student.logits(test.inputs.numpy()),
            num_parameters=student.network.num_parameters,
            size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
            latency_ms=_latency_ms(student.network, test, timing),
        )
    return Evaluation(
        ids=ids,
        labels=test.labels.numpy(),
        class_names=test.schema.class_names,
        data_digest=data_digest,
        threads=timing.threads,
        batch_size=timing.batch_size,
        hardware=describe_hardware(),
        models=models,
    )


def _latency_ms(network: torch.nn.Module, test: Examples, timing: Timing) -> tuple[float, ...]:
    batch = test.inputs[: timing.batch_size].clone()
    with limited_threads(timing.threads), torch.inference_mode():
        return tuple(measure_latency(lambda: network(batch), warmup=timing.warmup, runs=timing.runs))
