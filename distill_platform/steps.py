"""The spine: one function per step, artifacts in, artifact out. Read it top to bottom.

    prepare -> teacher -> cache -> baseline -> sweep -> compress -> evaluate -> gate -> register -> promote

Every step takes the resolved spec, the artifacts it builds on and the workspace; config stops here, and everything
below takes plain arguments. A step names what it makes by what goes in, so calling it again is free. Kubeflow
components call the same functions, each in a pod of its own.
"""

from __future__ import annotations

import getpass
import json
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_platform import lease as leases
from distill_platform.artifact import Artifact, Draft, ancestors
from distill_platform.errors import PromotionRefused, TeacherRefused
from distill_platform.fingerprint import sha256_file
from distill_platform.fits import encoding_for, kept_layers, objective_terms, views_of
from distill_platform.runs import log
from distill_platform.spec.schema import Spec
from distill_platform.starts import fetch_model, start_inputs, start_of
from distill_platform.workspace import Workspace

STUDENT = "model"
"""The folder of an artifact that holds a model."""
TEACHER = "teacher"
"""The name of the first teacher."""


def prepare(spec: Spec, workspace: Workspace) -> Artifact:
    """Examples with stable ids, split, as fixed-width columns."""
    from distill_platform.data.prepare import prepare_examples, source_fingerprint

    options = source_options(spec)

    def body(draft: Draft) -> None:
        schema = prepare_examples(draft.folder, **options, workers=lambda: _connect(workspace))
        draft.facts["counts"] = schema.num_examples
        draft.facts["schema"] = schema.to_json()
        draft.facts["source"] = spec.data.source

    # sources and tokenizer count by their content, wherever they lie
    config = {name: value for name, value in options.items() if name not in ("source", "transfer", "tokenizer")}
    if spec.data.split.by == "sources":
        config["split"] = {name: value for name, value in options["split"].items() if name != "test"}
    return workspace.produce("prepare", 1, config, {"source": source_fingerprint(**options)}, body)


def teacher(spec: Spec, data: Artifact, workspace: Workspace, name: str = TEACHER) -> Artifact:
    """A trained or given teacher, its validation accuracy measured. Raises TeacherRefused below its `floor`."""
    from distill_platform.models import model_source
    from distill_platform.teacher import load_teacher, train_teacher
    from distill_platform.train import TrainSettings

    asked, which = spec.all_teachers[name], name if spec.teachers else ""
    given, model = asked.weights, asked.model
    if given is not None:
        with tempfile.TemporaryDirectory(prefix="distill-teacher-") as temporary:
            folder = fetch_model(given, Path(temporary))
            config: dict[str, Any] = {"weights": {path.name: sha256_file(path) for path in sorted(folder.iterdir())}}
            made = workspace.produce(
                "teacher", 1, config, {"data": data}, lambda draft: load_teacher(draft, folder, data), which=which
            )
    else:
        assert model is not None
        config = {
            "model": {"name": model.name, "args": model.args, "source": model_source(model.name)},
            "train": asked.train.model_dump(mode="json"),
            "views": _views_config(spec),
            "task": spec.task,
        }
        settings = TrainSettings(**asked.train.model_dump())
        made = workspace.produce(
            "teacher",
            1,
            config,
            {"data": data},
            lambda draft: train_teacher(draft, model.name, model.args, data, views_of(spec), spec.task, settings),
            which=which,
        )
    _refuse_below_floor(made, asked.floor)
    return made


def cache(
    spec: Spec, data: Artifact, teacher: Artifact, workspace: Workspace, name: str = TEACHER, which: str = ""
) -> Artifact:
    """A teacher's raw outputs for every (example, view) of train, and for val; and the layers that are to be kept."""
    from distill_platform.data.examples import open_schema
    from distill_platform.teacher import fill_cache, hidden_size

    hidden = hidden_size(teacher, data) if spec.cache.codec == "head" else None
    encoding = encoding_for(spec, len(open_schema(data).class_names), hidden)
    layers, precision = kept_layers(spec, name), spec.cache.precision
    workers, gpus = int(spec.resources.cache_workers), int(spec.resources.gpus_per_teacher)

    def body(draft: Draft) -> None:
        _connect(workspace)
        fill_cache(
            *(draft, teacher, data, views_of(spec), encoding, workers),
            num_gpus=min(1, gpus),
            layers=layers,
            precision=precision,
            group_size=max(1, gpus),
        )

    config = {"encoding": asdict(encoding), "views": _views_config(spec), "layers": layers, "precision": precision}
    which = which or (name if spec.teachers else "")
    return workspace.produce("cache", 2, config, {"data": data, "teacher": teacher}, body, which=which)


def caches(spec: Spec, data: Artifact, teachers: Mapping[str, Artifact], workspace: Workspace) -> dict[str, Artifact]:
    """What every teacher says, by its name; each has a cache of its own, which others do not touch."""
    return {name: cache(spec, data, teacher, workspace, name) for name, teacher in teachers.items()}


def baseline(spec: Spec, data: Artifact, workspace: Workspace, teacher: Artifact | None = None) -> Artifact:
    """The best student without a teacher's outputs: the same trials, epochs and views, labels alone.

    teacher: the first, where students start from it. The baseline then starts from it as well: it is to differ from
    the student in what the teacher says, and in nothing else, or a gate would credit distillation with the start.
    """
    from distill_platform.objective import without_teacher

    base = _sweep_base(spec)
    base["objective"] = without_teacher(base["objective"])
    space = {path: found for path, found in _space(spec).items() if not _is_of_teacher(path)}
    # without a teacher there is no distance to one
    metric = "val_accuracy" if spec.sweep.metric == "kl_to_teacher" else spec.sweep.metric
    return _sweep("baseline", spec, base, space, metric, data, {}, workspace, "", teacher)


def sweep(
    spec: Spec,
    data: Artifact,
    taught_by: Mapping[str, Artifact],
    workspace: Workspace,
    which: str = "",
    teacher: Artifact | None = None,
) -> Artifact:
    """The best distilled student, and every trial that led to it.

    taught_by: teacher's name -> its cache, or with `cache.live` the teacher itself; nothing with `teacher.ema`.
    teacher: the first, where students start from it.
    """
    base, space = _sweep_base(spec), _space(spec)
    return _sweep("sweep", spec, base, space, spec.sweep.metric, data, taught_by, workspace, which, teacher)


def next_generation(
    spec: Spec, data: Artifact, student: Artifact, workspace: Workspace, number: int, teacher: Artifact | None = None
) -> Artifact:
    """The best student of a sweep that the one before it teaches, as a teacher teaches the first.

    teacher: the first, where students start from it; those of every generation start alike.

    Furlanello et al. 2018, arXiv:1805.04770, section 3.
    """
    which = f"generation-{number}"
    taught_by = student if spec.cache.live else cache(spec, data, student, workspace, which=which)
    return sweep(spec, data, {TEACHER: taught_by}, workspace, which, teacher)


def compress(spec: Spec, data: Artifact, student: Artifact, workspace: Workspace) -> Artifact:
    """The artifact that ships: what is judged, registered and promoted is this digest.

    What is put right of its answers is fitted to the validation split, on the weights as they are stored.
    """
    from distill_platform.compress import calibrate_model, store_weights
    from distill_platform.data.examples import open_split

    settings = spec.compress
    is_corrected = settings.calibrate or settings.class_bias != "none"

    def body(draft: Draft) -> None:
        folder = draft.folder / STUDENT
        store_weights(student.fetch_folder(STUDENT), folder, settings.weights)
        if is_corrected:
            found = calibrate_model(
                *(folder, open_split(data, "val"), settings.weights),
                scale=settings.calibrate,
                class_bias=settings.class_bias,
            )
            draft.facts["calibration"] = found._asdict()

    inputs: dict[str, Artifact | str] = {"data": data, "student": student} if is_corrected else {"student": student}
    return workspace.produce("compress", 1, settings.model_dump(mode="json"), inputs, body)


def evaluate(
    spec: Spec,
    data: Artifact,
    teacher: Artifact | None,
    baseline: Artifact,
    shipped: Artifact,
    workspace: Workspace,
) -> Artifact:
    """All models on the test split, which no step before this one has opened.

    teacher: the first one; None where the student's own average taught.
    """
    from distill_platform.data.examples import open_test
    from distill_platform.evaluate.score import Timing, score_models
    from distill_platform.tasks import TASKS

    champion = _champion(spec, shipped, workspace)
    models = {"teacher": teacher, "baseline": baseline, "student": shipped}
    judged = {name: artifact for name, artifact in models.items() if artifact is not None}
    inputs: dict[str, Artifact | str] = {"data": data, **judged, "champion": champion.digest if champion else "none"}
    settings = spec.evaluate
    timing = Timing(settings.latency_batch_size, settings.threads, settings.latency_warmup, settings.latency_runs)

    def body(draft: Draft) -> None:
        with tempfile.TemporaryDirectory(prefix="distill-champion-") as temporary:
            folders = {name: artifact.fetch_folder(STUDENT) for name, artifact in judged.items()}
            digests = {name: artifact.digest for name, artifact in judged.items()}
            if champion is not None:
                folders["champion"] = _fetch_version(spec, champion.digest, Path(temporary) / "version", workspace)
                digests["champion"] = champion.digest
            evaluation = score_models(*open_test(data), data.digest, folders, digests, timing, TASKS[spec.task])
        evaluation.save(draft.folder)
        headline = evaluation.measures.headline
        draft.metrics.update({name: figures[headline]["value"] for name, figures in evaluation.summary.items()})

    return workspace.produce("evaluate", 1, spec.evaluate.model_dump(mode="json"), inputs, body)


def gate(spec: Spec, evaluation: Artifact, workspace: Workspace) -> Artifact:
    """The verdict on the student, check by check, and the report that shows why."""
    from distill_platform.evaluate.evaluation import Evaluation
    from distill_platform.evaluate.gate import judge, parse_gate
    from distill_platform.reporting import report_page

    def body(draft: Draft) -> None:
        judged = Evaluation.load(evaluation)
        gates = [parse_gate(text, judged.measures) for text in spec.gates.checks]
        verdict = judge(gates, judged, spec.gates.min_examples)
        draft.write_json("verdict.json", verdict.to_json())
        lineage = ancestors(workspace.storage, evaluation)
        draft.write("report.html", report_page(spec, verdict, judged, lineage).encode())
        draft.facts["passed"] = verdict.passed

    return workspace.produce("gate", 1, spec.gates.model_dump(mode="json"), {"evaluation": evaluation}, body)


def register(spec: Spec, shipped: Artifact, verdict: Artifact, workspace: Workspace) -> Artifact:
    """A version in the registry for this digest, with its spec, lineage, verdict and report."""
    registry = _registry(spec, workspace)
    model = spec.registry.model
    documents = {
        "spec.json": json.dumps(spec.to_json(), indent=1).encode(),
        "lineage.json": json.dumps(_lineage(verdict, workspace), indent=1, sort_keys=True).encode(),
        "verdict.json": verdict.read("verdict.json"),
        "report.html": verdict.read("report.html"),
    }
    tags = {"distill.artifact": f"{shipped.step}/{shipped.key}", "distill.verdict": verdict.digest}
    known = {version.digest for version in registry.versions(model)}
    with leases.hold(workspace.storage, f"leases/register/{model}"):
        version = registry.register(
            model, shipped.fetch_folder(STUDENT), digest=shipped.digest, documents=documents, tags=tags
        )
        registry.sync(workspace.storage, model)
    registration = {"model": model, "version": version.number, "digest": version.digest}
    return workspace.produce(
        "register",
        1,
        registration,
        {"student": shipped, "verdict": verdict},
        lambda draft: draft.write_json("registration.json", registration),
        ran=version.digest not in known,
    )


def promote(spec: Spec, shipped: Artifact, verdict: Artifact, registered: Artifact, workspace: Workspace) -> Artifact:
    """Make the registered version champion, unless the log forbids it; what came of it is in promotion.json.

    A promotion that the log refuses (rolled back and not approved again, or judged against a champion that has changed
    since) is an outcome of the run and no fault of it: status "withheld", with the reason.
    """
    from distill_platform.registry import log as promotions

    registry = _registry(spec, workspace)
    model, version = spec.registry.model, registered.read_json("registration.json")["version"]
    before = promotions.champion(workspace.storage, model)
    outcome: dict[str, Any] = {"model": model, "version": version, "digest": shipped.digest}
    try:
        entry = promotions.promote(
            workspace.storage,
            model,
            version=version,
            digest=shipped.digest,
            verdict=verdict.read_json("verdict.json"),
            by=f"{getpass.getuser()}@{socket.gethostname()}",
            reason=f"gate {verdict.digest[:12]} passed",
        )
        outcome |= {"status": "champion", "entry": entry.number, "reason": ""}
    except PromotionRefused as refused:
        log.warning("promotion withheld: %s", refused)
        outcome |= {"status": "withheld", "entry": None, "reason": str(refused)}
    registry.sync(workspace.storage, model)
    changed = outcome["status"] == "champion" and (before is None or before.digest != shipped.digest)
    return workspace.produce(
        "promote",
        1,
        outcome,
        {"student": shipped, "verdict": verdict},
        lambda draft: draft.write_json("promotion.json", outcome),
        ran=changed,
    )


def _sweep(
    step: str,
    spec: Spec,
    base: dict[str, Any],
    space: Mapping[str, Mapping[str, Any]],
    metric: str,
    data: Artifact,
    taught_by: Mapping[str, Artifact],
    workspace: Workspace,
    which: str = "",
    teacher: Artifact | None = None,
) -> Artifact:
    from distill_platform.models import model_source
    from distill_platform.sweep import Slots, SweepPlan, parse_space, run_sweep
    from distill_platform.train.teaching import Teaching

    search = spec.sweep.model_dump(include={"trials", "in_flight", "search", "scheduler", "grace_epochs", "reduction"})
    resources = spec.resources

    def body(draft: Draft) -> None:
        _connect(workspace)
        plan = SweepPlan(name=step, metric=metric, space=parse_space(space), base=base, seed=spec.seed, **search)
        slots = Slots(int(resources.concurrent_trials), resources.cpus_per_trial, resources.gpus_per_trial)
        teaching = _teaching(spec, taught_by) if step == "sweep" else Teaching()
        start = start_of(spec, inputs, draft.work)
        run_sweep(draft, plan, data, teaching, views_of(spec), spec.task, slots, workspace.should_stop, start)

    config = {
        **search,
        "metric": metric,
        "space": {path: dict(found) for path, found in space.items()},
        "base": base,
        "seed": spec.seed,
        "views": _views_config(spec),
        "task": spec.task,
        "source": model_source(base["student"]["name"]),
    }
    if step == "sweep":
        config |= _teaching_config(spec)
    if spec.start.from_ == "teacher":
        config["start"] = spec.start.model_dump(mode="json")
    role = "teacher" if spec.cache.live else "cache"
    several = len(taught_by) > 1
    taught = {f"{role}-{name}" if several else role: artifact for name, artifact in taught_by.items()}
    inputs: dict[str, Artifact | str] = {"data": data, **(taught or {"cache": "none"}), **start_inputs(spec, teacher)}
    return workspace.produce(step, 1, config, inputs, body, which=which)


def _teaching(spec: Spec, taught_by: Mapping[str, Artifact]) -> Any:
    """Whom the members of a sweep learn from."""
    from distill_platform.objective.combination import Combination
    from distill_platform.train.teaching import Teaching

    combination = None
    if len(taught_by) > 1:
        combine = spec.combine
        combination = Combination(combine.by, tuple(taught_by), dict(combine.weights), dict(combine.routes))
    role = "models" if spec.cache.live else "caches"
    return Teaching(
        **{role: dict(taught_by)}, ema=spec.teacher.ema, combination=combination, precision=spec.cache.precision
    )


def _teaching_config(spec: Spec) -> dict[str, Any]:
    """What a sweep depends on beside the artifacts that teach: nothing, with one cached teacher."""
    config: dict[str, Any] = {}
    if spec.teachers:
        config["combine"] = spec.combine.model_dump(mode="json")
    if spec.cache.live:
        config["precision"] = spec.cache.precision
    if spec.teacher.ema is not None:
        config["ema"] = spec.teacher.ema
    return config


def _sweep_base(spec: Spec) -> dict[str, Any]:
    """What trials start from: student, objective and train as plain nested values."""
    return {
        "student": spec.student.model_dump(mode="json"),
        "objective": objective_terms(spec),
        "train": spec.train.model_dump(mode="json"),
    }


def _space(spec: Spec) -> dict[str, Mapping[str, Any]]:
    return {path: {found.kind: list(found.values)} for path, found in spec.sweep.space.items()}


def _is_of_teacher(path: str) -> bool:
    """Whether a searched path means nothing without a teacher: distillation terms, and the task term's weight."""
    return path.startswith("objective.") and (not path.startswith("objective.task.") or path == "objective.task.weight")


def _champion(spec: Spec, shipped: Artifact, workspace: Workspace) -> Any:
    """The champion that the student is judged against, by the promotion log; None if there is none."""
    from distill_platform.registry.log import compared_champion

    return compared_champion(workspace.storage, spec.registry.model, shipped.digest)


def _fetch_version(spec: Spec, digest: str, folder: Path, workspace: Workspace) -> Path:
    from distill_platform.registry.folder import STUDENT as REGISTERED

    registry = _registry(spec, workspace)
    registry.download(registry.get(spec.registry.model, digest), folder)
    return folder / "data" / REGISTERED


def registered_model(spec: Spec, digest: str, workspace: Workspace) -> dict[str, Any]:
    """Name, version and aliases of the version that holds a digest."""
    versions = _registry(spec, workspace).versions(spec.registry.model)
    (found,) = [version for version in versions if version.digest == digest]
    return {"name": found.model, "version": found.number, "aliases": list(found.aliases)}


def registry_uri(spec: Spec, workspace: Workspace) -> str:
    """The tracking URI, credentials left out. Raises RegistryError if this workspace may not use it."""
    from distill_platform.registry.mlflow_registry import tracking_uri_for, without_credentials

    given = workspace.tracking_uri or spec.registry.tracking_uri
    return without_credentials(tracking_uri_for(workspace.storage.uri, given))


def _registry(spec: Spec, workspace: Workspace) -> Any:
    from distill_platform.registry.mlflow_registry import open_registry

    return open_registry(workspace.storage.uri, workspace.tracking_uri or spec.registry.tracking_uri)


def _lineage(verdict: Artifact, workspace: Workspace) -> dict[str, Any]:
    """Every artifact that the verdict descends from, by step: what it was made from, and with which libraries."""
    kept = ("key", "digest", "inputs", "libraries", "machine", "committed_at")
    found = ancestors(workspace.storage, verdict)
    return {step: {name: artifact.record[name] for name in kept} for step, artifact in found.items()}


def _refuse_below_floor(teacher: Artifact, floor: float) -> None:
    from distill_platform.evaluate.bounds import ONE_SIDED_95, clustered_proportion_interval
    from distill_platform.teacher import validation_counts

    found = validation_counts(teacher)
    counts = (found.num_correct, found.num_counted, found.num_clusters)
    lower = clustered_proportion_interval(*counts, found.squared_residuals, ONE_SIDED_95).lower
    if not lower >= floor:
        counted = f"tokens, in {found.num_clusters:,} blocks," if found.per_token else "examples"
        share = found.num_correct / max(1, found.num_counted)
        raise TeacherRefused(
            f"teacher {teacher.digest[:12]} is right on {found.num_correct} of {found.num_counted} validation "
            f"{counted} ({share:.4f}); its one-sided 95% lower bound is {lower:.4f}, teacher.floor wants "
            f"{floor:g}. Train it longer, give a better one, or lower the floor"
        )


def source_options(spec: Spec) -> dict[str, Any]:
    """What decides the examples and their splits; views are not part of it."""
    options = spec.data.model_dump(mode="json", exclude={"views", "image_size"})
    return {**options, "image_size": spec.data.image_size, "seed": spec.seed}


def _views_config(spec: Spec) -> dict[str, Any]:
    return {**spec.data.views.model_dump(mode="json"), "seed": spec.seed}


def _connect(workspace: Workspace) -> None:
    from distill_platform.cluster import connect

    connect(workspace.ray_address)
