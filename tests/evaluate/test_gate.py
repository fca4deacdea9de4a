from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from distill_platform.errors import FormatError, GateError
from distill_platform.evaluate.bounds import ONE_SIDED_95, paired_difference_interval, proportion_interval
from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.gate import Check, Verdict, judge, parse_gate


def checked(text: str, evaluation: Evaluation, min_examples: int = 100) -> Check:
    return judge([parse_gate(text, evaluation.measures)], evaluation, min_examples).checks[0]


def changed(evaluation: Evaluation, role: str, **changes: object) -> Evaluation:
    model = dataclasses.replace(evaluation.models[role], **changes)
    return dataclasses.replace(evaluation, models={**evaluation.models, role: model})


def test_accuracy_is_judged_by_its_exact_lower_bound(evaluation: Evaluation) -> None:
    check = checked("accuracy >= 0.90", evaluation)
    assert check.passed
    assert (check.value, check.limit) == (0.96, 0.9)
    assert check.bound == proportion_interval(384, 400, ONE_SIDED_95).lower
    assert check.reason == (
        "Holds: the student's accuracy is 0.9600 on 400 test examples (95% interval 0.9359 to 0.9770); "
        "with 95% confidence it is at least 0.9399; at least 0.9000 is wanted, which leaves 0.0399 to spare."
    )


def test_a_value_that_reaches_the_limit_does_not_pass_without_proof(evaluation: Evaluation) -> None:
    check = checked("accuracy >= 0.95", evaluation)
    assert check.value > check.limit > check.bound
    assert not check.passed
    assert check.reason.startswith("Not proved: ")
    assert check.reason.endswith(
        "The measured value reaches it, the bound falls 0.0101 short: more test examples would narrow it."
    )


def test_a_value_below_the_limit_fails_and_says_by_how_much(evaluation: Evaluation) -> None:
    check = checked("accuracy >= 0.97", evaluation)
    assert not check.passed
    assert check.reason.startswith("Fails: ")
    assert check.reason.endswith("and it is missed by 0.0301.")


def test_a_gate_against_the_teacher_is_judged_on_the_paired_difference(evaluation: Evaluation) -> None:
    # The student errs on rows 0 to 15, the teacher on 0 to 9: six examples differ.
    bound = paired_difference_interval(0, 6, 400, ONE_SIDED_95).lower
    check = checked("accuracy >= teacher - 0.05", evaluation)
    assert (check.value, check.bound, check.limit) == (pytest.approx(-0.015), pytest.approx(bound), -0.05)
    assert check.passed
    assert "the student's accuracy is 0.9600 and the teacher's 0.9750 on the same 400 test examples" in check.reason
    assert "the student's less the teacher's is -0.0150 (95% interval" in check.reason
    assert f"with 95% confidence it is at least {bound:.4f}; at least -0.0500 is wanted" in check.reason
    assert not checked("accuracy >= teacher - 0.015", evaluation).passed  # the point would do, its bound does not
    assert checked("accuracy >= baseline + 0.02", evaluation).passed


def test_other_metrics_are_compared_on_resampled_examples(evaluation: Evaluation) -> None:
    check = checked("macro_f1 >= teacher - 0.05", evaluation)
    assert check.passed
    assert -0.05 < check.bound < check.value == pytest.approx(-0.015, abs=0.001)
    loss = checked("log_loss <= 2 * teacher", evaluation)
    assert loss.bound > loss.value
    assert "the student's less 2 times the teacher's is" in loss.reason


def test_lower_is_better_metrics_are_judged_by_their_upper_bound(evaluation: Evaluation) -> None:
    check = checked("brier <= 2", evaluation)
    assert check.passed
    assert check.value < check.bound < 2


def test_latency_is_judged_by_an_order_statistic(evaluation: Evaluation) -> None:
    check = checked("latency_ms_p95 <= 2", evaluation)
    assert check.passed
    assert check.bound == pytest.approx(1.195)  # the 196th of 200 sorted calls
    assert "1.189 ms over 200 timed calls" in check.reason
    assert not checked("latency_ms_p95 <= 1.19", evaluation).passed


def test_latency_against_a_model_needs_both_bounds_apart(evaluation: Evaluation) -> None:
    assert not checked("latency_ms_p50 <= teacher", evaluation).passed  # as fast is not proof of as fast
    slow = changed(evaluation, "teacher", latency_ms=tuple(3.0 + 0.01 * call for call in range(200)))
    check = checked("latency_ms_p50 <= 0.5 * teacher", slow)
    assert check.passed
    assert check.limit == pytest.approx(0.5 * (3.0 + 0.01 * 85))  # the 86th is the lower bound of its median


def test_too_few_timed_calls_prove_nothing_and_the_reason_says_how_many_would(evaluation: Evaluation) -> None:
    few = changed(evaluation, "student", latency_ms=(0.1,) * 58)
    check = checked("latency_ms_p95 <= 2", few)
    assert not check.passed
    assert check.bound is None
    assert check.reason.endswith("but there is no bound: time more calls, 59 at the least.")
    assert not checked("latency_ms_p95 <= 2", changed(evaluation, "student", latency_ms=())).passed


def test_sizes_are_exact(evaluation: Evaluation) -> None:
    check = checked("size_bytes <= 0.1 * teacher", evaluation)
    assert check.passed
    assert (check.value, check.bound, check.limit) == (4_000, 4_000, 4_000)
    assert "4,000, counted exactly, and the teacher's is 40,000" in check.reason
    check = checked("num_parameters <= 999", evaluation)
    assert check.reason == (
        "Fails: the student's num_parameters is 1,000, counted exactly; at most 999 is wanted, and it is missed by 1."
    )


@pytest.mark.parametrize("text", ["accuracy >= 0.5", "macro_f1 >= teacher - 0.5", "log_loss <= 100"])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_nan_logits_pass_no_gate(evaluation: Evaluation, text: str, role: str) -> None:
    logits = evaluation.models[role].answers.copy()
    logits[0, 0] = math.nan
    check = checked(text, changed(evaluation, role, answers=logits))
    uses_it = role == "student" or "teacher" in text
    assert check.passed != uses_it
    if uses_it:
        assert check.bound is None
        assert "some logits are not finite numbers" in check.reason


def test_too_few_examples_fail_whatever_was_measured(evaluation: Evaluation) -> None:
    check = checked("accuracy >= 0.5", evaluation, min_examples=401)
    assert not check.passed
    assert check.reason == "Not proved: the test split has 400 examples, and at least 401 are wanted."
    assert checked("accuracy >= 0.5", evaluation, min_examples=400).passed


def test_a_first_promotion_has_no_champion_to_match_and_says_so(evaluation: Evaluation) -> None:
    verdict = judge([parse_gate("accuracy >= champion - 0.01")], evaluation, 100)
    assert verdict.passed
    assert verdict.champion_digest is None
    assert verdict.checks[0].reason == ("Holds: there is no champion yet, so a first promotion has none to match.")


def test_a_champion_is_compared_with_and_named_in_the_verdict(evaluation: Evaluation) -> None:
    champion = dataclasses.replace(evaluation.models["teacher"], name="champion", digest="champion-digest")
    with_champion = dataclasses.replace(evaluation, models={**evaluation.models, "champion": champion})
    verdict = judge([parse_gate("accuracy >= champion")], with_champion, 100)
    assert not verdict.passed
    assert verdict.champion_digest == "champion-digest"


def test_a_missing_model_fails_and_is_named(evaluation: Evaluation) -> None:
    alone = dataclasses.replace(evaluation, models={"student": evaluation.models["student"]})
    check = checked("accuracy >= baseline - 0.5", alone)
    assert not check.passed
    assert check.reason == "Not proved: the evaluation holds no baseline to compare with."


def test_all_gates_must_pass(evaluation: Evaluation) -> None:
    good, bad = parse_gate("accuracy >= 0.9"), parse_gate("size_bytes <= 3999")
    assert judge([good, good], evaluation, 100).passed
    assert not judge([good, bad, good], evaluation, 100).passed


def test_no_gate_and_no_student_are_refused(evaluation: Evaluation) -> None:
    with pytest.raises(GateError, match="there is no gate, so nothing would be proved"):
        judge([], evaluation, 100)
    without = dataclasses.replace(evaluation, models={"teacher": evaluation.models["teacher"]})
    with pytest.raises(GateError, match="holds no student to judge, only teacher"):
        judge([parse_gate("accuracy >= 0.9")], without, 100)


def test_a_verdict_survives_json_and_binds_the_digests(evaluation: Evaluation) -> None:
    gates = [parse_gate(text) for text in ("accuracy >= 0.9", "accuracy >= champion", "latency_ms_p50 <= 2")]
    verdict = judge(gates, evaluation, 100)
    saved = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert saved["format"] == 1
    assert Verdict.from_json(saved) == verdict
    assert (verdict.student_digest, verdict.data_digest, verdict.num_examples) == ("student-digest", "data-digest", 400)
    with pytest.raises(FormatError, match="this verdict has format 7, this release reads 1; run the gate step again"):
        Verdict.from_json({**saved, "format": 7})


def test_the_same_evaluation_gets_the_same_verdict(evaluation: Evaluation) -> None:
    gates = [parse_gate("macro_f1 >= teacher - 0.05"), parse_gate("log_loss <= 3")]
    again = dataclasses.replace(evaluation, labels=np.array(evaluation.labels))
    assert judge(gates, evaluation, 100) == judge(gates, again, 100)


def test_perplexity_is_judged_against_a_share_more_than_the_teachers(token_evaluation: Evaluation) -> None:
    check = checked("perplexity <= 1.05 * teacher", token_evaluation, 50)  # it is exp(.02) times the teacher's
    assert check.passed
    teacher = token_evaluation.summary["teacher"]["perplexity"]["value"]
    assert check.value == pytest.approx((math.exp(0.02) - 1.05) * teacher)
    assert check.value < check.bound < check.limit == 0
    assert "on the same 60 test blocks; the student's less 1.05 times the teacher's is -0." in check.reason
    assert not checked("perplexity <= 1.02 * teacher", token_evaluation, 50).passed
    assert checked("kl_to_teacher <= 0.06", token_evaluation, 50).passed
    assert checked("accuracy >= teacher - 0.05", token_evaluation, 50).passed


def test_bits_per_byte_of_data_that_counts_none_prove_nothing(token_evaluation: Evaluation) -> None:
    assert checked("bits_per_byte <= 0.6", token_evaluation, 50).passed
    labels = token_evaluation.labels * [1, 0]
    check = checked("bits_per_byte <= 0.6", dataclasses.replace(token_evaluation, labels=labels), 50)
    assert not check.passed
    assert check.reason.endswith("but there is no bound: the data does not hold what it is measured by.")


def test_few_blocks_are_few_examples(token_evaluation: Evaluation) -> None:
    check = checked("perplexity <= 99", token_evaluation, 61)
    assert check.reason == "Not proved: the test split has 60 blocks, and at least 61 are wanted."


def test_the_worst_subgroup_is_judged_by_its_own_lower_bound(grouped: Evaluation) -> None:
    check = checked("worst_group_accuracy >= 0.75", grouped)
    assert check.passed
    assert (check.value, check.bound) == (0.84, proportion_interval(84, 100, ONE_SIDED_95).lower)
    assert "the student's worst_group_accuracy is 0.8400, in subgroup south, on 400 test examples" in check.reason
    assert not checked("worst_group_accuracy >= 0.8", grouped).passed
    assert checked("accuracy >= 0.9", grouped).passed


def test_the_worst_subgroup_is_compared_with_a_model_subgroup_by_subgroup(grouped: Evaluation) -> None:
    check = checked("worst_group_accuracy >= teacher - 0.15", grouped)
    assert check.passed
    assert check.bound == paired_difference_interval(0, 6, 100, ONE_SIDED_95).lower
    assert not checked("worst_group_accuracy >= teacher - 0.1", grouped).passed


def test_subgroups_that_are_small_or_not_there_prove_nothing(evaluation: Evaluation) -> None:
    check = checked("worst_group_accuracy >= 0.5", evaluation)
    assert not check.passed
    assert "the data has no subgroups; set data.subgroup" in check.reason
    few = np.full(400, 0)
    few[:19] = 1
    small = dataclasses.replace(evaluation, subgroups=few, subgroup_names=("north", "south", "west"))
    check = checked("worst_group_accuracy >= 0.1", small)
    assert not check.passed
    assert check.reason == (
        "Not proved: each subgroup needs at least 20 examples in the test split, and south has 19, west has 0."
    )
