from __future__ import annotations

import re

import pytest

from distill_platform.errors import GateError
from distill_platform.evaluate.gate_grammar import Gate, parse_gate
from distill_platform.evaluate.measures import CLASSES, TOKENS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy >= 0.90", Gate("accuracy >= 0.90", "accuracy", ">=", None, 1.0, 0.9)),
        ("accuracy >= teacher", Gate("accuracy >= teacher", "accuracy", ">=", "teacher", 1.0, 0.0)),
        (" accuracy>=teacher-0.05 ", Gate("accuracy>=teacher-0.05", "accuracy", ">=", "teacher", 1.0, -0.05)),
        ("macro_f1  >= baseline + .01", Gate("macro_f1 >= baseline + .01", "macro_f1", ">=", "baseline", 1.0, 0.01)),
        ("size_bytes <= 0.5 * teacher", Gate("size_bytes <= 0.5 * teacher", "size_bytes", "<=", "teacher", 0.5, 0.0)),
        ("brier <= 1.1*champion + 1e-3", Gate("brier <= 1.1*champion + 1e-3", "brier", "<=", "champion", 1.1, 1e-3)),
        ("size_bytes <= 200_000", Gate("size_bytes <= 200_000", "size_bytes", "<=", None, 1.0, 200_000)),
        ("latency_ms_p95 <= 2", Gate("latency_ms_p95 <= 2", "latency_ms_p95", "<=", None, 1.0, 2.0)),
    ],
)  # fmt: skip
def test_gates_of_every_form_are_read(text: str, expected: Gate) -> None:
    assert parse_gate(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accurcy >= 0.9", "gate `accurcy >= 0.9`, character 1: wanted a metric (accuracy, macro_precision"),
        ("accurcy >= 0.9", "got 'accurcy'; did you mean 'accuracy'?"),
        ("latency_p95 <= 2", "did you mean 'latency_ms_p95'?"),
        ("", "gate ``, character 1: wanted a metric"),
        ("accuracy 0.9", "character 10: wanted an operator (>=), got '0.9'"),
        ("accuracy > 0.9", "character 10: wanted an operator (>=), got '>'"),
        ("accuracy >=", "character 12: wanted a number or a model (teacher, baseline, champion), got 'the end'"),
        ("accuracy >= teecher", "character 13: wanted a number or a model"),
        ("accuracy >= teecher", "got 'teecher'; did you mean 'teacher'?"),
        ("accuracy >= -0.5", "wanted a number or a model (teacher, baseline, champion), got '-'"),
        ("accuracy >= teacher - ", "character 23: wanted the margin, a number such as 0.05, got 'the end'"),
        ("accuracy >= teacher - x", "character 23: wanted the margin, a number such as 0.05, got 'x'"),
        ("accuracy >= 90%", "character 13: accuracy is at most 1, so no student reaches 90; write a share"),
        ("accuracy >= 0.9%", "character 16: wanted the end, got '%'; a number has no unit, and a gate has one limit"),
        ("size_bytes <= 200kB", "character 18: wanted the end, got 'kB'"),
        ("size_bytes <= 0 * teacher", "character 15: a model is taken times a number above 0, as in `0.5 * teacher`"),
        ("size_bytes <= 0.5 * student", "character 21: wanted a model (teacher, baseline, champion), got 'student'"),
        ("accuracy <= 0.9", "character 10: of accuracy more is better, so write `accuracy >= …`, not '<='"),
        ("log_loss >= 0.9", "character 10: of log_loss less is better, so write `log_loss <= …`, not '>='"),
        ("size_bytes >= 9", "character 12: of size_bytes less is better, so write `size_bytes <= …`, not '>='"),
    ],
)  # fmt: skip
def test_a_gate_that_cannot_be_read_is_refused_with_its_place_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(GateError, match=re.escape(message)):
        parse_gate(text)


def test_language_models_have_gates_of_their_own() -> None:
    text = "perplexity <= 1.05 * teacher"
    assert parse_gate(text, TOKENS) == Gate(text, "perplexity", "<=", "teacher", 1.05, 0.0)
    assert parse_gate("bits_per_byte <= 2.2", TOKENS).offset == 2.2
    assert parse_gate("worst_group_perplexity <= 9", TOKENS).op == "<="
    assert parse_gate("worst_group_accuracy >= 0.8").is_of_worst_group


@pytest.mark.parametrize(
    ("text", "is_of_tokens", "message"),
    [
        ("perplexity <= 3", False, "1: perplexity is not measured where each example has one class; metrics are acc"),
        ("macro_f1 >= 0.9", True, "1: macro_f1 is not measured where every token has a label; metrics are perplexity,"),
        ("worst_group_accuracy >= 0.9", True, "worst_group_accuracy is not measured where every token has a label"),
        ("perplexity <= 0.9", True, "character 15: perplexity is at least 1, so no student reaches 0.9"),
        ("perplexity >= 2", True, "of perplexity less is better, so write `perplexity <= …`, not '>='"),
        ("perplexty <= 2", True, "got 'perplexty'; did you mean 'perplexity'?"),
        ("worst_group_accuracy >= 1.5", False, "worst_group_accuracy is at most 1, so no student reaches 1.5"),
    ],
)  # fmt: skip
def test_a_metric_of_another_task_is_refused_naming_those_that_there_are(
    text: str, is_of_tokens: bool, message: str
) -> None:
    with pytest.raises(GateError, match=re.escape(message)):
        parse_gate(text, TOKENS if is_of_tokens else CLASSES)
