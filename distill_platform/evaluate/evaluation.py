"""What every model answered on the test split, with what it costs to run. Gate, report and CLI read this alone.

predictions.parquet    id, label, and of each model `logits.<model>` [N, C], raw (T = 1). Where tokens have labels,
                       label is [N, 2] and `sums.<model>` [N, 4], as token_metrics says. `subgroup`, if there are any
evaluation.json        who they are, where it was measured, and the summary a person reads

Format 1, of release 0.1, knew classes alone, and no subgroups.
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
from distill_platform.evaluate.measures import CLASSES, MEASURES, TOKENS, Measures
from distill_platform.evaluate.metrics import Answers
from distill_platform.evaluate.subgroups import Groups, rows_by_group, worst_group
from distill_platform.evaluate.token_metrics import TOKEN_SUMS

EVALUATION_FORMAT = 2
READABLE = (1, 2)
PREDICTIONS = "predictions.parquet"
DESCRIPTION = "evaluation.json"


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model on the test split: its answers, and the milliseconds of each timed call.

    answers: raw logits [N, C] float32, or sums over each block's tokens [N, 4] float64
    loss_by_position: of tokens, mean negative log-likelihood in nats at each position of a block; NaN where none is
    """

    name: str
    digest: str
    answers: Answers
    num_parameters: int
    size_bytes: int
    latency_ms: tuple[float, ...]
    loss_by_position: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All models on the same test examples. `models` is keyed by role: teacher, baseline, student, champion.

    `data_digest` is the digest of the data artifact whose test split this is; latency was measured with `threads` CPU
    threads on batches of `batch_size`. `measures` say what labels and answers are. `subgroups` [N] are positions in
    `subgroup_names`; None where the data has no subgroups.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    data_digest: str
    threads: int
    batch_size: int
    hardware: str
    models: dict[str, ModelResult]
    measures: Measures = CLASSES
    subgroups: NDArray[np.int64] | None = None
    subgroup_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        num_examples = len(self.ids)
        tokens = self.measures.name == TOKENS.name
        expected = (num_examples, len(TOKEN_SUMS) if tokens else len(self.class_names))
        assert num_examples > 0, "an evaluation needs examples"
        assert self.labels.shape == ((num_examples, 2) if tokens else (num_examples,)), self.labels.shape
        assert self.subgroups is None or self.subgroups.shape == (num_examples,), self.subgroups.shape
        for name, model in self.models.items():
            assert model.answers.shape == expected, f"{name} has answers {model.answers.shape}, wanted {expected}"

    @cached_property
    def groups(self) -> Groups:
        """Rows of each subgroup, by name; nothing where the data has no subgroups."""
        return {} if self.subgroups is None else rows_by_group(self.subgroups, self.subgroup_names)

    @cached_property
    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Per model and metric: value, and lower and upper end of its two-sided 95% interval.

        With subgroups also that of the worst of them, as `worst_group_…`.
        """
        found = {name: self._figures(model, np.arange(len(self.ids))) for name, model in self.models.items()}
        if self.groups:
            for name, model in self.models.items():
                value, _, ends = worst_group(self.measures, self.labels, model.answers, self.groups, TWO_SIDED_95)
                found[name][self.measures.worst_group] = {"value": value, "lower": ends.lower, "upper": ends.upper}
        return found

    @cached_property
    def by_subgroup(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """Per subgroup and model what `summary` has of all examples; NaN of a subgroup that has none."""
        return {
            group: {name: self._figures(model, rows) for name, model in self.models.items()}
            for group, rows in self.groups.items()
        }

    def _figures(self, model: ModelResult, rows: NDArray[np.int64]) -> dict[str, dict[str, float]]:
        labels, answers, metrics = self.labels[rows], model.answers[rows], self.measures.metrics
        intervals = metric_intervals(self.measures, metrics, labels, answers, TWO_SIDED_95)
        return {
            name: {
                "value": metrics[name].function(labels, answers),
                "lower": interval.lower,
                "upper": interval.upper,
            }
            for name, interval in intervals.items()
        }

    def save(self, folder: Path) -> None:
        """Write predictions.parquet and evaluation.json into `folder`."""
        kind = _COLUMNS[self.measures.name]
        columns = {f"{kind}.{name}": _stored(model.answers, kind) for name, model in self.models.items()}
        subgroups = {} if self.subgroups is None else {"subgroup": self.subgroups.astype(np.int64)}
        labels = self.labels.astype(np.int64)
        write_columns(folder / PREDICTIONS, {"id": self.ids, "label": labels, **subgroups, **columns})
        description = {
            "format": EVALUATION_FORMAT,
            "measures": self.measures.name,
            "class_names": list(self.class_names),
            "subgroup_names": list(self.subgroup_names),
            "data_digest": self.data_digest,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "hardware": self.hardware,
            "models": {name: _describe(model) for name, model in self.models.items()},
            "summary": finite_or_none(self.summary),
            "subgroups": {
                group: {"num_examples": len(self.groups[group]), "summary": finite_or_none(found)}
                for group, found in self.by_subgroup.items()
            },
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, allow_nan=False))

    @classmethod
    def load(cls, artifact: Artifact) -> Evaluation:
        """The evaluation that an artifact holds. Raises Corrupt for changed bytes, FormatError for another version."""
        saved = artifact.read_json(DESCRIPTION)
        if saved.get("format") not in READABLE:
            raise FormatError(
                f"{artifact.uri}/{DESCRIPTION} has format {saved.get('format')!r}, this release reads "
                f"{' and '.join(map(str, READABLE))}; run the evaluate step again with this release"
            )
        measures = MEASURES[saved["measures"]] if saved["format"] > 1 else CLASSES
        columns = read_columns(artifact.fetch(PREDICTIONS))
        models = {
            name: ModelResult(
                name=entry["name"],
                digest=entry["digest"],
                answers=columns[f"{_COLUMNS[measures.name]}.{name}"],
                num_parameters=entry["num_parameters"],
                size_bytes=entry["size_bytes"],
                latency_ms=tuple(entry["latency_ms"]),
                loss_by_position=tuple(
                    math.nan if loss is None else loss for loss in entry.get("loss_by_position", ())
                ),
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
            measures=measures,
            subgroups=columns.get("subgroup"),
            subgroup_names=tuple(saved.get("subgroup_names", ())),
        )


def table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row per model, ready for JSON: `model`, `digest`, every metric, `<metric>_interval` (two-sided 95%, [lower,
    upper]), `num_parameters`, `size_bytes`, `latency_ms_p50`, `latency_ms_p95`. What is not finite is None. With
    subgroups also `subgroups`: name -> `num_examples`, every metric and its interval."""
    rows: list[dict[str, Any]] = []
    for name, model in evaluation.models.items():
        row: dict[str, Any] = {"model": name, "digest": model.digest, **_flat(evaluation.summary[name])}
        row |= {"num_parameters": model.num_parameters, "size_bytes": model.size_bytes}
        row |= {latency: latency_quantile(model.latency_ms, quantile) for latency, quantile in QUANTILES.items()}
        if evaluation.groups:
            row["subgroups"] = {
                group: {"num_examples": len(evaluation.groups[group]), **_flat(found[name])}
                for group, found in evaluation.by_subgroup.items()
            }
        rows.append(finite_or_none(row))
    return rows


def _flat(summary: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Every metric's value, and its interval beside it."""
    flat: dict[str, Any] = {}
    for metric, found in summary.items():
        flat[metric] = found["value"]
        flat[f"{metric}_interval"] = [found["lower"], found["upper"]]
    return flat


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
        "loss_by_position": finite_or_none(list(model.loss_by_position)),
    }


_COLUMNS = {CLASSES.name: "logits", TOKENS.name: "sums"}
"""What the columns of answers are called, by what is measured."""


def _stored(answers: Answers, kind: str) -> Answers:
    return answers.astype(np.float32 if kind == "logits" else np.float64)
