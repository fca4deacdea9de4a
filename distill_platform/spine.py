"""The steps in order: run a spec from data to a promoted student, or say beforehand what that would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_platform import steps
from distill_platform.artifact import Artifact
from distill_platform.runs import Run, new_run_id
from distill_platform.storage import open_storage
from distill_platform.workspace import DryWorkspace, NotMade, Workspace

if TYPE_CHECKING:
    from distill_platform.spec.schema import Spec


@dataclass(frozen=True)
class RunResult:
    """What a run came to. `table` has a row per model, `verdict` the checks, `model` is None behind a failed gate."""

    run: str
    steps: dict[str, dict[str, Any]]
    table: list[dict[str, Any]]
    verdict: dict[str, Any]
    model: dict[str, Any] | None
    promotion: dict[str, Any] | None
    report: str

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return bool(self.verdict["passed"])

    def to_json(self) -> dict[str, Any]:
        """The document of `distill run --json`."""
        shown = ("status", "seconds", "uri", "key", "digest")
        return {
            "run": self.run,
            "steps": {step: {name: entry[name] for name in shown} for step, entry in self.steps.items()},
            "metrics": {row["model"]: {name: row[name] for name in row if name != "model"} for row in self.table},
            "verdict": self.verdict,
            "model": self.model,
            "promotion": self.promotion,
            "report": self.report,
        }


def run(
    spec: Spec,
    workspace: str = "./runs",
    *,
    ray_address: str | None = None,
    tracking_uri: str | None = None,
    run_id: str | None = None,
) -> RunResult:
    """Run every step of a spec in a workspace (a folder or s3://bucket/prefix); what is there is reused.

    A failed gate is a result, not an exception: see `RunResult.passed`. Raises what the steps raise.
    """
    spec = _resolved(spec, ray_address)
    storage = open_storage(workspace)
    _refuse_unusable(spec, workspace, tracking_uri)
    under_way = Run(storage, run_id or new_run_id(spec.name), spec.to_json())
    place = Workspace(storage, under_way, ray_address or spec.resources.ray_address, tracking_uri)
    with under_way.watched():
        data = steps.prepare(spec, place)
        steps.check_fits(spec, data)
        teacher = steps.teacher(spec, data, place)
        cache = steps.cache(spec, data, teacher, place)
        baseline = steps.baseline(spec, data, place)
        student = steps.sweep(spec, data, cache, place)
        shipped = steps.compress(spec, student, place)
        evaluation = steps.evaluate(spec, data, teacher, baseline, shipped, place)
        verdict = steps.gate(spec, evaluation, place)
        promotion = None
        if verdict.read_json("verdict.json")["passed"]:
            registered = steps.register(spec, shipped, verdict, place)
            if spec.registry.promote:
                promoted = steps.promote(spec, shipped, verdict, registered, place)
                promotion = promoted.read_json("promotion.json")
    return result_of(spec, under_way, evaluation, verdict, promotion, place)


def result_of(
    spec: Spec,
    under_way: Run,
    evaluation: Artifact,
    verdict: Artifact,
    promotion: dict[str, Any] | None,
    place: Workspace,
) -> RunResult:
    """Gather what the steps committed into the run's result, and put the report beside the run."""
    from distill_platform.evaluate.evaluation import Evaluation, table

    judged = verdict.read_json("verdict.json")
    under_way.storage.write("report.html", verdict.read("report.html"))
    return RunResult(
        run=under_way.id,
        steps=under_way.steps,
        table=table(Evaluation.load(evaluation)),
        verdict=judged,
        model=steps.registered_model(spec, judged["student_digest"], place) if judged["passed"] else None,
        promotion=promotion,
        report=f"{under_way.storage.uri}/report.html",
    )


def plan(
    spec: Spec, workspace: str = "./runs", *, ray_address: str | None = None, tracking_uri: str | None = None
) -> dict[str, Any]:
    """What a run would do, before anything is spent: per step whether its artifact is there; cache bytes; trials.

    Raises InputError for what a run would stumble over: a source that is not there, a registry that may not be used.
    """
    spec = _resolved(spec, ray_address)
    _refuse_unusable(spec, workspace, tracking_uri)
    place = DryWorkspace(open_storage(workspace), None, ray_address, tracking_uri)
    made: dict[str, Artifact] = {}
    rows = [_plan_row(step, call, made) for step, call in _calls(spec, place, made).items()]
    if "prepare" in made:
        steps.check_fits(spec, made["prepare"])
    for step in ("register", "promote"):
        rows.append({"step": step, "status": "if the gate passes", "key": None, "uri": None})
    return {
        "spec": spec.name,
        "workspace": place.storage.uri,
        "steps": rows,
        "cache": _cache_size(spec, made.get("prepare"), _hidden_size(spec, made)),
        "trials": {"sweep": spec.sweep.trials, "baseline": spec.sweep.trials, "epochs_each": spec.train.epochs},
        "resolved": {
            "cache_workers": spec.resources.cache_workers,
            "concurrent_trials": spec.resources.concurrent_trials,
            "precision": spec.train.precision,
            "registry": steps.registry_uri(spec, place),
        },
    }


def _calls(spec: Spec, place: Workspace, made: Mapping[str, Artifact]) -> dict[str, Callable[[], Artifact]]:
    return {
        "prepare": lambda: steps.prepare(spec, place),
        "teacher": lambda: steps.teacher(spec, made["prepare"], place),
        "cache": lambda: steps.cache(spec, made["prepare"], made["teacher"], place),
        "baseline": lambda: steps.baseline(spec, made["prepare"], place),
        "sweep": lambda: steps.sweep(spec, made["prepare"], made["cache"], place),
        "compress": lambda: steps.compress(spec, made["sweep"], place),
        "evaluate": lambda: steps.evaluate(
            spec, made["prepare"], made["teacher"], made["baseline"], made["compress"], place
        ),
        "gate": lambda: steps.gate(spec, made["evaluate"], place),
    }


def _plan_row(step: str, call: Callable[[], Artifact], made: dict[str, Artifact]) -> dict[str, Any]:
    """Whether a step's artifact is there. Its key is known once all that goes into it is there."""
    try:
        made[step] = call()
    except NotMade as missing:
        return {"step": step, "status": "to run", "key": missing.key, "uri": None}
    except KeyError as input_missing:
        return {"step": step, "status": f"to run, after {input_missing.args[0]}", "key": None, "uri": None}
    return {"step": step, "status": "ready", "key": made[step].key, "uri": made[step].uri}


def _cache_size(spec: Spec, data: Artifact | None, hidden_size: int | None) -> dict[str, Any]:
    """What the cache takes, and from how many trials on it costs less than a live teacher.

    Exact once the data is prepared, from a glance at the source before; counts are of teacher passes: a cache costs one
    per row, a live teacher one per training example, epoch and trial.
    """
    from distill_platform.cache.codecs import CODECS, KEY_BYTES
    from distill_platform.data.pool import fits_in_memory

    counted = _counts(spec, data)
    layers = steps.layer_bytes(spec, data)
    if counted is None or layers is None or (spec.cache.codec == "head" and hidden_size is None):
        unknown = ("bytes", "rows", "codec", "bytes_per_unit", "pays_from_trials", "fits_in_memory")
        return {**dict.fromkeys(unknown), "exact": False}
    num_train, num_val, num_classes = counted
    rows = num_train * spec.data.views.num + num_val
    encoding = steps.encoding_for(spec, num_classes, hidden_size)
    unit_bytes = CODECS[encoding.codec].bytes_per_unit(encoding)
    return {
        "bytes": rows * (KEY_BYTES + unit_bytes + layers),
        "rows": rows,
        "codec": encoding.codec,
        "bytes_per_unit": unit_bytes,
        "pays_from_trials": math.ceil(rows / max(1, num_train * spec.train.epochs)),
        "fits_in_memory": fits_in_memory(rows * unit_bytes),
        "exact": data is not None,
    }


def _hidden_size(spec: Spec, made: Mapping[str, Artifact]) -> int | None:
    """What codec head stores of each output; known once the teacher is there."""
    if spec.cache.codec != "head" or "teacher" not in made:
        return None
    from distill_platform.teacher import hidden_size

    return hidden_size(made["teacher"], made["prepare"])


def _counts(spec: Spec, data: Artifact | None) -> tuple[int, int, int] | None:
    """(training examples, validation examples, classes); None where they are not known before the data is prepared."""
    from distill_platform.data.prepare import describe_source

    if data is not None:
        counts = data.record["facts"]["counts"]
        return counts["train"], counts["val"], len(data.record["facts"]["schema"]["class_names"])
    options = {name: value for name, value in steps.source_options(spec).items() if name != "seed"}
    num_examples, _, num_classes = describe_source(**options)
    if num_examples is None or num_classes is None:
        return None
    val, test = getattr(spec.data.split, "val", 0.0), getattr(spec.data.split, "test", 0.0)
    held_out = test if isinstance(test, float) else 0.0
    return round(num_examples * (1 - val - held_out)), round(num_examples * val), num_classes


def _resolved(spec: Spec, ray_address: str | None) -> Spec:
    """The spec with every "auto" replaced by what it stands for, on this machine or on the Ray cluster."""
    from distill_platform.spec import Machine, resolve, this_machine

    address = ray_address or spec.resources.ray_address
    if address is None:
        return resolve(spec, this_machine())
    from distill_platform.cluster import connect, gpu_precision, resources

    connect(address)
    return resolve(spec, Machine(*resources(), gpu_precision()))


def _refuse_unusable(spec: Spec, workspace: str, tracking_uri: str | None) -> None:
    """Raises RegistryError for a registry that this workspace may not use."""
    steps.registry_uri(spec, Workspace.at(workspace, tracking_uri=tracking_uri))
