"""The steps in order: run a spec from data to a promoted student, or say beforehand what that would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_platform import fits, steps
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
    spec = resolved(spec, ray_address)
    storage = open_storage(workspace)
    _refuse_unusable(spec, workspace, tracking_uri)
    under_way = Run(storage, run_id or new_run_id(spec.name), spec.to_json())
    place = Workspace(storage, under_way, ray_address or spec.resources.ray_address, tracking_uri)
    with under_way.watched():
        made = distil(spec, place)
        shipped, evaluation = made["compress"], made["evaluate"]
        verdict = steps.gate(spec, evaluation, place)
        promotion = None
        if verdict.read_json("verdict.json")["passed"]:
            registered = steps.register(spec, shipped, verdict, place)
            if spec.registry.promote:
                promoted = steps.promote(spec, shipped, verdict, registered, place)
                promotion = promoted.read_json("promotion.json")
    return result_of(spec, under_way, evaluation, verdict, promotion, place)


def distil(spec: Spec, place: Workspace, alone: bool = False) -> dict[str, Artifact]:
    """Every step from data to models that are measured on the test split; gives, by step, what a result is read from.

    That is each cache as `cache-<teacher>`, the last sweep, what ships, and the evaluation. alone: nothing is cached,
    and the baseline is what ships.
    """
    data = steps.prepare(spec, place)
    fits.check_fits(spec, data)
    teachers = {name: steps.teacher(spec, data, place, name) for name in spec.all_teachers}
    first = teachers.get(steps.TEACHER)
    fits.check_teachers(spec, data, teachers)
    caches = {} if alone or spec.cache.live else steps.caches(spec, data, teachers, place)
    baseline = steps.baseline(spec, data, place, first)
    student = baseline
    if not alone:
        student = steps.sweep(spec, data, caches or teachers, place, teacher=first)
        for generation in range(2, spec.sweep.generations + 1):
            student = steps.next_generation(spec, data, student, place, generation, first)
    shipped = steps.compress(spec, data, student, place)
    evaluation = steps.evaluate(spec, data, first, baseline, shipped, place)
    kept = {f"cache-{name}": cache for name, cache in caches.items()}
    return {**kept, "sweep": student, "compress": shipped, "evaluate": evaluation}


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
    spec = resolved(spec, ray_address)
    _refuse_unusable(spec, workspace, tracking_uri)
    place = DryWorkspace(open_storage(workspace), None, ray_address, tracking_uri)
    made: dict[str, Artifact] = {}
    rows = [_plan_row(step, call, made) for step, call in _calls(spec, place, made).items()]
    if "prepare" in made:
        fits.check_fits(spec, made["prepare"])
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
    """Every step of a run by its name in the run's record, in order."""
    last = spec.sweep.generations
    caches = {} if spec.cache.live else {_named("cache", spec, name): name for name in spec.all_teachers}
    taught_by = {} if spec.cache.live else {name: step for step, name in caches.items()}
    if spec.cache.live:
        taught_by = {name: _named("teacher", spec, name) for name in spec.all_teachers}

    def taught() -> dict[str, Artifact]:
        return {name: made[step] for name, step in taught_by.items()}

    def of_teacher(step: Callable[..., Artifact], name: str) -> Callable[[], Artifact]:
        if step is steps.teacher:
            return lambda: step(spec, made["prepare"], place, name)
        return lambda: step(spec, made["prepare"], made[_named("teacher", spec, name)], place, name)

    def generation(number: int) -> Callable[[], Artifact]:
        return lambda: steps.next_generation(
            spec, made["prepare"], made[_sweep_of(number - 1)], place, number, _started_from(spec, made)
        )

    return {
        "prepare": lambda: steps.prepare(spec, place),
        **{_named("teacher", spec, name): of_teacher(steps.teacher, name) for name in spec.all_teachers},
        **{step: of_teacher(steps.cache, name) for step, name in caches.items()},
        "baseline": lambda: steps.baseline(spec, made["prepare"], place, _started_from(spec, made)),
        "sweep": lambda: steps.sweep(spec, made["prepare"], taught(), place, teacher=_started_from(spec, made)),
        **{_sweep_of(number): generation(number) for number in range(2, last + 1)},
        "compress": lambda: steps.compress(spec, made["prepare"], made[_sweep_of(last)], place),
        "evaluate": lambda: steps.evaluate(
            spec, made["prepare"], _first_teacher(spec, made), made["baseline"], made["compress"], place
        ),
        "gate": lambda: steps.gate(spec, made["evaluate"], place),
    }


def _named(step: str, spec: Spec, teacher: str) -> str:
    return f"{step}-{teacher}" if spec.teachers else step


def _sweep_of(generation: int) -> str:
    return "sweep" if generation == 1 else f"sweep-generation-{generation}"


def _first_teacher(spec: Spec, made: Mapping[str, Artifact]) -> Artifact | None:
    return made[_named("teacher", spec, steps.TEACHER)] if spec.all_teachers else None


def _started_from(spec: Spec, made: Mapping[str, Artifact]) -> Artifact | None:
    """The teacher, if students start from it: without, they need not wait for it."""
    return _first_teacher(spec, made) if spec.start.from_ == "teacher" else None


def _plan_row(step: str, call: Callable[[], Artifact], made: dict[str, Artifact]) -> dict[str, Any]:
    """Whether a step's artifact is there. Its key is known once all that goes into it is there."""
    try:
        made[step] = call()
    except NotMade as missing:
        return {"step": step, "status": "to run", "key": missing.key, "uri": None}
    except KeyError as input_missing:
        return {"step": step, "status": f"to run, after {input_missing.args[0]}", "key": None, "uri": None}
    return {"step": step, "status": "ready", "key": made[step].key, "uri": made[step].uri}


def _cache_size(spec: Spec, data: Artifact | None, hidden_size: int | None) -> dict[str, Any] | None:
    """What the caches of all teachers take, and from how many trials on they cost less than live teachers.

    None where nothing is cached. Exact once the data is prepared, from a glance at the source before; counts are of
    teacher passes: a cache costs one per row, a live teacher one per training example, epoch and trial. A unit is an
    example, or a token of a block.
    """
    from distill_platform.cache.codecs import CODECS, KEY_BYTES
    from distill_platform.data.pool import fits_in_memory

    if spec.cache.live or not spec.all_teachers:
        return None
    counted = _counts(spec, data)
    of_layers = [fits.layer_bytes(spec, data, name) for name in spec.all_teachers]
    if counted is None or None in of_layers or (spec.cache.codec == "head" and hidden_size is None):
        unknown = ("bytes", "rows", "codec", "bytes_per_unit", "units_per_row", "pays_from_trials", "fits_in_memory")
        return {**dict.fromkeys(unknown), "exact": False}
    num_train, num_val, num_classes, units = counted
    rows = num_train * spec.data.views.num + num_val
    encoding = fits.encoding_for(spec, num_classes, hidden_size)
    unit_bytes = CODECS[encoding.codec].bytes_per_unit(encoding)
    row_bytes = sum(KEY_BYTES + units * unit_bytes + (layers or 0) for layers in of_layers)
    return {
        "bytes": rows * row_bytes,
        "rows": rows,
        "codec": encoding.codec,
        "bytes_per_unit": unit_bytes,
        "units_per_row": units,
        "pays_from_trials": math.ceil(rows / max(1, num_train * spec.train.epochs)),
        "fits_in_memory": fits_in_memory(rows * units * unit_bytes * len(of_layers)),
        "exact": data is not None,
    }


def _hidden_size(spec: Spec, made: Mapping[str, Artifact]) -> int | None:
    """What codec head stores of each output; known once the teacher is there."""
    first = _named("teacher", spec, steps.TEACHER)
    if spec.cache.codec != "head" or first not in made:
        return None
    from distill_platform.teacher import hidden_size

    return hidden_size(made[first], made["prepare"])


def _counts(spec: Spec, data: Artifact | None) -> tuple[int, int, int, int] | None:
    """(training examples, validation examples, classes, outputs of an example); None where the source does not tell."""
    from distill_platform.data.prepare import describe_source

    if data is not None:
        counts, schema = data.record["facts"]["counts"], data.record["facts"]["schema"]
        units = schema["input"]["shape"][0] if schema["input"]["kind"] == "tokens" else 1
        return counts["train"], counts["val"], len(schema["class_names"]), units
    options = {name: value for name, value in steps.source_options(spec).items() if name != "seed"}
    found = describe_source(**options)
    num_examples, num_classes, num_unlabelled = found.num_examples, found.num_classes, found.num_unlabelled
    if num_examples is None or num_classes is None or num_unlabelled is None:
        return None
    val, test = getattr(spec.data.split, "val", 0.0), getattr(spec.data.split, "test", 0.0)
    held_out = test if isinstance(test, float) else 0.0
    return round(num_examples * (1 - val - held_out)) + num_unlabelled, round(num_examples * val), num_classes, 1


def resolved(spec: Spec, ray_address: str | None) -> Spec:
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
