"""What every model answered on the test split, with what it costs to run. Gate, report and CLI read this alone.

predictions.parquet    id, label, and `logits.<model>` [N, C] of each model, raw (T = 1)
evaluation.json        who they are, where it was measured, and the summary a person reads
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.artifact import Artifact
from distill_platform.data.columns import read_columns, write_columns
from distill_platform.errors import FormatError
from distill_platform.evaluate.bounds import TWO_SIDED_95, metric_intervals
from distill_platform.evaluate.latency import QUANTILES, latency_quantile
from distill_platform.evaluate.metrics import METRICS

EVALUATION_FORMAT = 1
PREDICTIONS = "predictions.parquet"
DESCRIPTION = "evaluation.json"


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model on the test split: raw logits [N, C] float32, and the milliseconds of each timed call."""

    name: str
    digest: str
    logits: NDArray[np.float32]
    num_parameters: int
    size_bytes: int
    latency_ms: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All models on the same test examples. `models` is keyed by role: teacher, baseline, student, champion.

    `data_digest` is the digest of the data artifact whose test split this is; latency was measured with `threads` CPU
    threads on batches of `batch_size`.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    data_digest: str
    threads: int
    batch_size: int
    hardware: str
    models: dict[str, ModelResult]

    def __post_init__(self) -> None:
        expected = (len(self.ids), len(self.class_names))
        assert expected[0] > 0, "an evaluation needs examples"
        assert self.labels.shape == (len(self.ids),), self.labels.shape
        for name, model in self.models.items():
            assert model.logits.shape == expected, f"{name} has logits {model.logits.shape}, wanted {expected}"

    @cached_property
    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Per model and metric: value, and lower and upper end of its two-sided 95% interval."""
        found = {}
        for name, model in self.models.items():
            intervals = metric_intervals(METRICS, self.labels, model.logits, TWO_SIDED_95)
            found[name] = {
                metric: {
                    "value": METRICS[metric].function(self.labels, model.logits),
                    "lower": interval.lower,
                    "upper": interval.upper,
                }
                for metric, interval in intervals.items()
            }
        return found

    def save(self, folder: Path) -> None:
        """Write predictions.parquet and evaluation.json into `folder`."""
        logits = {f"logits.{name}": model.logits.astype(np.float32) for name, model in self.models.items()}
        write_columns(folder / PREDICTIONS, {"id": self.ids, "label": self.labels.astype(np.int64), **logits})
        description = {
            "format": EVALUATION_FORMAT,
            "class_names": list(self.class_names),
            "data_digest": self.data_digest,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "hardware": self.hardware,
            "models": {name: _describe(model) for name, model in self.models.items()},
            "summary": finite_or_none(self.summary),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, allow_nan=False))

    @classmethod
    def load(cls, artifact: Artifact) -> Evaluation:
        """The evaluation that an artifact holds. Raises Corrupt for changed bytes, FormatError for another version."""
        saved = artifact.read_json(DESCRIPTION)
        if saved.get("format") != EVALUATION_FORMAT:
            raise FormatError(
                f"{artifact.uri}/{DESCRIPTION} has format {saved.get('format')!r}, this release reads "
                f"{EVALUATION_FORMAT}; run the evaluate step again with this release"
            )
        columns = read_columns(artifact.fetch(PREDICTIONS))
        models = {
            name: ModelResult(
                name=entry["name"],
                digest=entry["digest"],
                logits=columns[f"logits.{name}"],
                num_parameters=entry["num_parameters"],
                size_bytes=entry["size_bytes"],
                latency_ms=tuple(entry["latency_ms"]),
            )
            for name, entry in saved["models"].items()
        }
        return cls(
            ids=columns["id"],
            labels=columns["label"],
            class_names=tuple(saved["class_names"]),
            data_digest=saved["data_digest"],
            threads=saved["threads"],
            batch_size=saved["batch_size"],
            hardware=saved["hardware"],
            models=models,
        )


def table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row per model, ready for JSON: `model`, `digest`, every metric, `<metric>_interval` (two-sided 95%, [lower,
    upper]), `num_parameters`, `size_bytes`, `latency_ms_p50`, `latency_ms_p95`. What is not finite is None."""
    rows: list[dict[str, Any]] = []
    for name, model in evaluation.models.items():
        row: dict[str, Any] = {"model": name, "digest": model.digest}
        for metric, found in evaluation.summary[name].items():
            row[metric] = found["value"]
            row[f"{metric}_interval"] = [found["lower"], found["upper"]]
        row |= {"num_parameters": model.num_parameters, "size_bytes": model.size_bytes}
        row |= {latency: latency_quantile(model.latency_ms, quantile) for latency, quantile in QUANTILES.items()}
        rows.append(finite_or_none(row))
    return rows


def finite_or_none(value: Any) -> Any:
    """The value with None for every float in it that is not finite: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    return value


def _describe(model: ModelResult) -> dict[str, Any]:
    return {
        "name": model.name,
        "digest": model.digest,
        "num_parameters": model.num_parameters,
        "size_bytes": model.size_bytes,
        "latency_ms": list(model.latency_ms),
    }
