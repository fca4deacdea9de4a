"""Methods side by side: the same data, teacher, views, architecture, trials and epochs; only the objective differs.

A method is a loss by name, several joined by `+`, or `task`: no teacher. Every method gets as many trials as the spec's
sweep has, searches what the spec lets students and training be, its own settings as the spec has them, and each of its
losses' weights. Students are chosen on the validation split, and compared on the test split.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student_t

from distill_platform import spine
from distill_platform.errors import InputError
from distill_platform.progress import track
from distill_platform.workspace import Workspace

if TYPE_CHECKING:
    from distill_platform.spec.schema import Spec

TASK = "task"
WEIGHTS = (0.1, 10.0)
"""Range of a loss's weight where the spec's sweep does not give one: beside a task loss of weight 1 or less."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outcome:
    """One method with one seed: the headline metric on the test split, of its student and of the models beside it.

    difference: the student's metric minus the baseline's, positive if the student is better. lower, upper: two-sided
    95% interval of it over the test examples. settings: of the best trial. codecs, cache_bytes: of the caches.
    teacher: None where the student's own average taught.
    """

    method: str
    seed: int
    teacher: float | None
    baseline: float
    student: float
    difference: float
    lower: float
    upper: float
    settings: Mapping[str, Any]
    codecs: tuple[str, ...]
    cache_bytes: int
    evaluation: str


@dataclass(frozen=True)
class Comparison:
    """All outcomes, in order of method and seed. `metric` is the task's headline metric."""

    spec: str
    metric: str
    higher_is_better: bool
    trials: int
    epochs: int
    outcomes: tuple[Outcome, ...]

    def table(self) -> list[dict[str, Any]]:
        """One row per method, best first: the mean over the seeds and that of the difference to the baseline.

        `interval`: 95% of the mean difference, by Student's t over the seeds; None of one seed. `better_in`: of how
        many seeds the interval over the test examples lies above 0; `worse_in` likewise below.
        """
        rows = []
        for method in dict.fromkeys(outcome.method for outcome in self.outcomes):
            mine = [outcome for outcome in self.outcomes if outcome.method == method]
            differences = np.array([outcome.difference for outcome in mine])
            rows.append(
                {
                    "method": method,
                    "seeds": len(mine),
                    self.metric: float(np.mean([outcome.student for outcome in mine])),
                    "teacher": mine[0].teacher and float(np.mean([outcome.teacher for outcome in mine])),
                    "baseline": float(np.mean([outcome.baseline for outcome in mine])),
                    "difference": float(differences.mean()),
                    "interval": mean_interval(differences),
                    "better_in": sum(outcome.lower > 0 for outcome in mine),
                    "worse_in": sum(outcome.upper < 0 for outcome in mine),
                }
            )
        return sorted(rows, key=lambda row: -row["difference"])

    def to_json(self) -> dict[str, Any]:
        """The document of `distill compare --json`."""
        facts = {name: getattr(self, name) for name in ("spec", "metric", "higher_is_better", "trials", "epochs")}
        return {**facts, "methods": self.table(), "outcomes": [asdict(outcome) for outcome in self.outcomes]}


def compare(
    spec: Spec, methods: Sequence[str], num_seeds: int, workspace: str, ray_address: str | None = None
) -> Comparison:
    """Train every method with every seed, from `spec.seed` on; what is there is reused.

    Raises InputError for a method that there is not, before anything is spent.
    """
    from distill_platform.evaluate.measures import measures_of
    from distill_platform.tasks import TASKS

    seeds = range(spec.seed, spec.seed + num_seeds)
    specs = {(method, seed): method_spec(spec, method, seed) for seed in seeds for method in methods}
    place = Workspace.at(workspace, ray_address=ray_address or spec.resources.ray_address)
    outcomes = []
    with track("compare", len(specs), "students") as advance:
        for (method, seed), wanted in specs.items():
            outcomes.append(_outcome(method, seed, spine.resolved(wanted, ray_address), place))
            advance(1)
    order = {method: number for number, method in enumerate(methods)}
    metric = measures_of(TASKS[spec.task]).headline
    return Comparison(
        spec=spec.name,
        metric=metric,
        higher_is_better=measures_of(TASKS[spec.task]).metrics[metric].higher_is_better,
        trials=spec.sweep.trials,
        epochs=spec.train.epochs,
        outcomes=tuple(sorted(outcomes, key=lambda outcome: (order[outcome.method], outcome.seed))),
    )


def method_spec(spec: Spec, method: str, seed: int) -> Spec:
    """The spec of one method and seed.

    Raises InputError for a loss that there is not, SpecError for one that cannot be set so.
    """
    from distill_platform.objective import LOSSES
    from distill_platform.spec.loading import checked_spec

    names = [] if method == TASK else method.split("+")
    for name in names:
        if name not in LOSSES:
            close = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(
                f"no loss is called {name!r}; {hint}methods are {TASK}, {', '.join(LOSSES)}, or several by +"
            )
    values = spec.to_json()
    own = values["objective"]
    values["objective"] = {
        TASK: own.get(TASK, {"weight": 1.0}),
        **{name: own.get(name, {"weight": 1.0}) for name in names},
    }
    values["sweep"]["space"] = _space(spec, names)
    values["seed"] = seed
    return checked_spec(values, f"method {method}")


def mean_interval(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float] | None:
    """Two-sided 95% interval of the mean of independent values, by Student's t; None of a single one."""
    if len(values) < 2:
        return None
    centre, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread
    return (centre - reach, centre + reach)


def _space(spec: Spec, names: Sequence[str]) -> dict[str, Any]:
    """What a method's trials search: what the spec has of students, training and these losses, and their weights."""
    if spec.sweep.trials == 1:
        return {}
    given = spec.to_json()["sweep"]["space"]
    kept = {
        path: found
        for path, found in given.items()
        if not path.startswith("objective.") or path.split(".")[1] in (TASK, *names)
    }
    weights = {f"objective.{name}.weight": {"loguniform": list(WEIGHTS)} for name in names}
    return {**weights, **kept}


def _outcome(method: str, seed: int, spec: Spec, place: Workspace) -> Outcome:
    from distill_platform.cache import open_manifest
    from distill_platform.evaluate.bounds import TWO_SIDED_95, difference_interval
    from distill_platform.evaluate.evaluation import Evaluation

    made = spine.distil(spec, place, alone=method == TASK)
    caches = [artifact for step, artifact in made.items() if step.startswith("cache")]
    evaluation = Evaluation.load(made["evaluate"])
    measures = evaluation.measures
    metric = measures.headline
    value = {role: figures[metric]["value"] for role, figures in evaluation.summary.items()}
    answers = {role: evaluation.models[role].answers for role in ("student", "baseline")}
    sign = 1 if measures.metrics[metric].higher_is_better else -1
    ends = difference_interval(
        measures, metric, evaluation.labels, answers["student"], answers["baseline"], 1.0, TWO_SIDED_95
    )
    lower, upper = sorted((sign * ends.lower, sign * ends.upper))
    return Outcome(
        method=method,
        seed=seed,
        teacher=value.get("teacher"),
        baseline=value["baseline"],
        student=value["student"],
        difference=sign * (value["student"] - value["baseline"]),
        lower=lower,
        upper=upper,
        settings=made["sweep"].read_json("winner.json")["settings"],
        codecs=tuple(open_manifest(cache).encoding.codec for cache in caches),
        cache_bytes=sum(cache.size_bytes() for cache in caches),
        evaluation=made["evaluate"].uri,
    )
