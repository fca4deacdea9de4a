"""The gate: what a student is proved to reach, before it may be promoted.

A gate passes on proof only: the one-sided 95% bound of the student, not its measured value, has to reach the limit.
Against another model the bound is of the difference on the same examples. All gates must pass, each at its own 95%: a
student that deserves to fail even one passes them all with a chance of 5% at most, without any correction
(intersection–union test; Berger 1982, Technometrics 24:295–300).

How a gate is written stands in gate_grammar, and how the worst of several subgroups is bounded in subgroups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill_platform.errors import FormatError, GateError
from distill_platform.evaluate.bounds import (
    ONE_SIDED_95,
    TWO_SIDED_95,
    Interval,
    difference_interval,
    metric_intervals,
    quantile_interval,
    samples_needed,
)
from distill_platform.evaluate.evaluation import Evaluation, ModelResult, finite_or_none
from distill_platform.evaluate.gate_grammar import EXACT, Gate
from distill_platform.evaluate.gate_grammar import parse_gate as parse_gate
from distill_platform.evaluate.latency import QUANTILES, latency_quantile
from distill_platform.evaluate.subgroups import MIN_SUBGROUP_EXAMPLES, worst_group, worst_group_difference

VERDICT_FORMAT = 1


@dataclass(frozen=True)
class Check:
    """How one gate was judged. A figure is None where there is none, or none that is finite.

    `bound` decided against `limit`. For a metric compared with another model on the same examples, `value`, `bound` and
    `limit` are differences, student minus factor times model; otherwise they are the student's own.
    """

    gate: str
    metric: str
    value: float | None
    bound: float | None
    limit: float | None
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The judgement on one student, bound to its digest, to the data, and to the champion it was compared with."""

    passed: bool
    student_digest: str
    champion_digest: str | None
    data_digest: str
    num_examples: int
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"format": VERDICT_FORMAT, **asdict(self), "checks": [asdict(check) for check in self.checks]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Verdict:
        """What `to_json` gave. Raises FormatError for another version."""
        if saved.get("format") != VERDICT_FORMAT:
            raise FormatError(
                f"this verdict has format {saved.get('format')!r}, this release reads {VERDICT_FORMAT}; "
                "run the gate step again with this release"
            )
        fields = {name: value for name, value in saved.items() if name not in ("format", "checks")}
        return cls(**fields, checks=tuple(Check(**check) for check in saved["checks"]))


def judge(gates: Sequence[Gate], evaluation: Evaluation, min_examples: int) -> Verdict:
    """Whether the student of `evaluation` is proved to pass every gate; `min_examples` counts test examples.

    Raises GateError if there is no gate or no student, for then there is nothing to prove.
    """
    if not gates:
        raise GateError("there is no gate, so nothing would be proved; give one, such as `accuracy >= teacher - 0.05`")
    if "student" not in evaluation.models:
        raise GateError(f"the evaluation holds no student to judge, only {', '.join(evaluation.models) or 'nothing'}")
    checks = tuple(_check(gate, evaluation, min_examples) for gate in gates)
    champion = evaluation.models.get("champion")
    return Verdict(
        passed=all(check.passed for check in checks),
        student_digest=evaluation.models["student"].digest,
        champion_digest=champion.digest if champion else None,
        data_digest=evaluation.data_digest,
        num_examples=len(evaluation.ids),
        checks=checks,
    )


@dataclass(frozen=True)
class _Evidence:
    """What was found for one gate; value, interval, bound and limit are on the scale on which they are compared."""

    facts: str
    value: float
    interval: Interval  # two-sided 95%, for the reader
    bound: float  # one-sided 95%, which decides
    limit: float
    show: Callable[[float], str]
    remedy: str
    missing: str = ""  # why there would be no bound


def _check(gate: Gate, evaluation: Evaluation, min_examples: int) -> Check:
    if gate.model == "champion" and "champion" not in evaluation.models:
        return _not_compared(gate, True, "Holds: there is no champion yet, so a first promotion has none to match.")
    if gate.model and gate.model not in evaluation.models:
        return _not_compared(gate, False, f"Not proved: the evaluation holds no {gate.model} to compare with.")
    if is_quality(gate.metric) and (few := _too_few(gate, evaluation, min_examples)):
        return _not_compared(gate, False, f"Not proved: {few}.")
    evidence = _evidence(gate, evaluation)
    passed = math.isfinite(evidence.bound) and math.isfinite(evidence.limit) and _margin(gate, evidence) >= 0
    return Check(
        gate=gate.text,
        metric=gate.metric,
        value=finite_or_none(evidence.value),
        bound=finite_or_none(evidence.bound),
        limit=finite_or_none(evidence.limit),
        passed=passed,
        reason=_reason(gate, evidence, passed),
    )


def is_quality(metric: str) -> bool:
    """Whether a gate's metric is measured on test examples, and not a cost."""
    return metric not in QUANTILES and metric not in EXACT


def _too_few(gate: Gate, evaluation: Evaluation, min_examples: int) -> str | None:
    """What keeps anything from being proved; None if there are enough examples."""
    num_examples, unit = len(evaluation.ids), evaluation.measures.unit
    if num_examples < min_examples:
        return f"the test split has {num_examples:,} {unit}, and at least {min_examples:,} are wanted"
    if not gate.is_of_worst_group:
        return None
    if not evaluation.groups:
        return "the data has no subgroups; set data.subgroup to the column that names them, or take the gate out"
    small = [
        f"{name} has {len(rows):,}" for name, rows in evaluation.groups.items() if len(rows) < MIN_SUBGROUP_EXAMPLES
    ]
    if small:
        return f"each subgroup needs at least {MIN_SUBGROUP_EXAMPLES} {unit} in the test split, and {', '.join(small)}"
    return None


def _not_compared(gate: Gate, passed: bool, reason: str) -> Check:
    return Check(gate.text, gate.metric, None, None, None, passed, reason)


def _evidence(gate: Gate, evaluation: Evaluation) -> _Evidence:
    student, other = evaluation.models["student"], evaluation.models.get(gate.model or "")
    if gate.metric in QUANTILES:
        return _latency(gate, student, other)
    if gate.metric in EXACT:
        return _exact(gate, student, other)
    return _difference(gate, evaluation, student, other) if other else _alone(gate, evaluation, student)


def _alone(gate: Gate, evaluation: Evaluation, student: ModelResult) -> _Evidence:
    measures, labels = evaluation.measures, evaluation.labels
    found, of_group = evaluation.summary["student"][gate.metric], ""
    if gate.is_of_worst_group:
        _, name, bounds = worst_group(measures, labels, student.answers, evaluation.groups, ONE_SIDED_95)
        of_group = f", in subgroup {name}," if name else ""
    else:
        bounds = metric_intervals(measures, [gate.metric], labels, student.answers, ONE_SIDED_95)[gate.metric]
    return _Evidence(
        facts=f"the student's {gate.metric} is {found['value']:.4f}{of_group} on {_tested(evaluation)}",
        value=found["value"],
        interval=Interval(found["lower"], found["upper"]),
        bound=_deciding(gate, bounds),
        limit=gate.offset,
        show="{:.4f}".format,
        remedy=f"more test {measures.unit} would narrow it",
        missing=_missing(student),
    )


def _difference(gate: Gate, evaluation: Evaluation, student: ModelResult, other: ModelResult) -> _Evidence:
    own, theirs = (evaluation.summary[name][gate.metric]["value"] for name in ("student", str(gate.model)))
    measures, labels = evaluation.measures, evaluation.labels

    def between(confidence: float) -> Interval:
        answers = (student.answers, other.answers)
        if gate.is_of_worst_group:
            return worst_group_difference(measures, labels, *answers, evaluation.groups, gate.factor, confidence)
        return difference_interval(measures, gate.metric, labels, *answers, gate.factor, confidence)

    interval, bounds = between(TWO_SIDED_95), between(ONE_SIDED_95)
    value = own - gate.factor * theirs
    return _Evidence(
        facts=f"the student's {gate.metric} is {own:.4f} and the {gate.model}'s {theirs:.4f} on the same "
        f"{_tested(evaluation)}; the student's less {_times(gate)}the {gate.model}'s is {value:+.4f}",
        value=value,
        interval=interval,
        bound=_deciding(gate, bounds),
        limit=gate.offset,
        show="{:+.4f}".format,
        remedy=f"more test {measures.unit} would narrow it",
        missing=_missing(student, other),
    )


def _tested(evaluation: Evaluation) -> str:
    return f"{len(evaluation.ids):,} test {evaluation.measures.unit}"


def _missing(*models: ModelResult) -> str:
    if all(np.isfinite(model.answers).all() for model in models):
        return "the data does not hold what it is measured by"
    return "some logits are not finite numbers"


def _latency(gate: Gate, student: ModelResult, other: ModelResult | None) -> _Evidence:
    """Two models are timed one after the other, not in pairs: each bound then takes half of the 5%."""
    quantile = QUANTILES[gate.metric]
    confidence = TWO_SIDED_95 if other else ONE_SIDED_95
    value, limit = latency_quantile(student.latency_ms, quantile), gate.offset
    facts = f"the student's {gate.metric} is {value:.4g} ms over {len(student.latency_ms):,} timed calls"
    if other:
        theirs = quantile_interval(other.latency_ms, quantile, confidence).lower
        limit += gate.factor * theirs
        facts += f", and the {gate.model}'s is at least {theirs:.4g} ms over {len(other.latency_ms):,}"
    return _Evidence(
        facts=facts,
        value=value,
        interval=quantile_interval(student.latency_ms, quantile, TWO_SIDED_95),
        bound=quantile_interval(student.latency_ms, quantile, confidence).upper,
        limit=limit,
        show="{:.4g} ms".format,
        remedy=f"time more calls, {samples_needed(quantile, confidence)} at the least",
        missing=f"time more calls, {samples_needed(quantile, confidence)} at the least",
    )


def _exact(gate: Gate, student: ModelResult, other: ModelResult | None) -> _Evidence:
    """A size is counted, not estimated: it is its own bound."""
    value = float(getattr(student, gate.metric))
    limit, facts = gate.offset, f"the student's {gate.metric} is {value:,.0f}, counted exactly"
    if other:
        theirs = float(getattr(other, gate.metric))
        limit += gate.factor * theirs
        facts += f", and the {gate.model}'s is {theirs:,.0f}"
    return _Evidence(facts, value, Interval(value, value), value, limit, "{:,.0f}".format, "")


def _reason(gate: Gate, evidence: _Evidence, passed: bool) -> str:
    show, side = evidence.show, "at least" if gate.higher_is_better else "at most"
    wanted = f"{side} {show(evidence.limit)} is wanted"
    if not (math.isfinite(evidence.bound) and math.isfinite(evidence.limit)):
        return f"Not proved: {evidence.facts}; {wanted}, but there is no bound: {evidence.missing}."
    sure = ""
    if evidence.interval.lower < evidence.interval.upper:
        low, high = show(evidence.interval.lower), show(evidence.interval.upper)
        sure = f" (95% interval {low} to {high}); with 95% confidence it is {side} {show(evidence.bound)}"
    start = f"{evidence.facts}{sure}; {wanted}"
    margin = show(abs(_margin(gate, evidence))).lstrip("+")
    if passed:
        return f"Holds: {start}, which leaves {margin} to spare."
    if sure and _margin(gate, evidence, evidence.value) >= 0:
        return f"Not proved: {start}. The measured value reaches it, the bound falls {margin} short: {evidence.remedy}."
    return f"Fails: {start}, and it is missed by {margin}."


def _margin(gate: Gate, evidence: _Evidence, figure: float | None = None) -> float:
    """By how much the bound, or another figure, is better than the limit; negative where it is worse."""
    beyond = (evidence.bound if figure is None else figure) - evidence.limit
    return beyond if gate.higher_is_better else -beyond


def _deciding(gate: Gate, bounds: Interval) -> float:
    return bounds.lower if gate.higher_is_better else bounds.upper


def _times(gate: Gate) -> str:
    return "" if gate.factor == 1 else f"{gate.factor:g} times "
