"""Figures by subgroup, and the bound of the worst."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from distill_platform.evaluate.bounds import (
    ONE_SIDED_95,
    TWO_SIDED_95,
    paired_difference_interval,
    proportion_interval,
)
from distill_platform.evaluate.evaluation import Evaluation, table
from distill_platform.evaluate.measures import CLASSES
from distill_platform.evaluate.subgroups import rows_by_group, worst_group, worst_group_difference


def logits_of(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.eye(4)[np.where(right, labels, (labels + 1) % 4)]


def test_rows_by_group_leaves_out_what_has_no_subgroup_and_keeps_groups_that_do_not_occur() -> None:
    found = rows_by_group(np.array([1, 0, -1, 1]), ("north", "south", "west"))
    assert {name: rows.tolist() for name, rows in found.items()} == {"north": [1], "south": [0, 3], "west": []}


def test_each_subgroup_has_the_figures_of_its_own_examples(grouped: Evaluation) -> None:
    # 400 examples, the first 100 in "south"; the student is wrong on rows 0 to 15
    south = grouped.by_subgroup["south"]["student"]["accuracy"]
    ends = proportion_interval(84, 100, TWO_SIDED_95)
    assert (south["value"], south["lower"], south["upper"]) == (0.84, ends.lower, ends.upper)
    assert grouped.by_subgroup["north"]["student"]["accuracy"]["value"] == 1
    rows = grouped.groups["south"]
    expected = CLASSES.metrics["log_loss"].function(grouped.labels[rows], grouped.models["teacher"].answers[rows])
    assert grouped.by_subgroup["south"]["teacher"]["log_loss"]["value"] == expected


def test_the_worst_subgroup_is_in_summary_and_table(grouped: Evaluation) -> None:
    assert grouped.summary["student"]["worst_group_accuracy"]["value"] == 0.84
    row = table(grouped)[-1]
    assert row["worst_group_accuracy"] == 0.84
    assert row["subgroups"]["south"]["num_examples"] == 100
    assert row["subgroups"]["south"]["accuracy"] == 0.84
    assert row["subgroups"]["north"]["accuracy_interval"] == list(proportion_interval(300, 300, TWO_SIDED_95))


def test_the_worst_subgroups_bound_is_the_lowest_of_each_ones_own() -> None:
    labels = np.zeros(150, np.int64)
    right = np.ones(150, bool)
    right[:5] = right[50:58] = False
    groups = {"a": np.arange(50), "b": np.arange(50, 150)}
    value, name, found = worst_group(CLASSES, labels, logits_of(labels, right), groups, ONE_SIDED_95)
    assert (value, name) == (0.9, "a")
    assert found.lower == proportion_interval(45, 50, ONE_SIDED_95).lower
    assert found.upper == proportion_interval(92, 100, 0.95).upper  # the lowest of two, each at half of the error


def test_the_bound_passes_a_student_whose_worst_subgroup_is_at_the_limit_one_time_in_twenty_at_most() -> None:
    rng, simulations, passed = np.random.default_rng(0), 150, 0
    labels, groups = np.zeros(240, np.int64), {str(n): np.arange(60 * n, 60 * n + 60) for n in range(4)}
    for _ in range(simulations):
        right = rng.random(240) < np.repeat([0.8, 1.0, 1.0, 1.0], 60)  # the least favourable: only one is at risk
        passed += worst_group(CLASSES, labels, logits_of(labels, right), groups, ONE_SIDED_95)[2].lower > 0.8
    assert passed / simulations <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / simulations)


def test_against_another_model_each_subgroup_is_paired() -> None:
    labels = np.zeros(200, np.int64)
    groups = {"a": np.arange(100), "b": np.arange(100, 200)}
    theirs = np.arange(200) >= 10  # wrong on ten of a
    ours = theirs & (np.arange(200) < 197)  # and on three of b besides
    answers = logits_of(labels, ours), logits_of(labels, theirs)
    found = worst_group_difference(CLASSES, labels, *answers, groups, 1.0, ONE_SIDED_95)
    in_a, in_b = (paired_difference_interval(0, lost, 100, ONE_SIDED_95) for lost in (0, 3))
    assert found == (in_b.lower, in_a.upper)


def test_logits_that_are_not_finite_leave_no_worst_subgroup(grouped: Evaluation) -> None:
    student = grouped.models["student"]
    answers = student.answers.copy()
    answers[0, 0] = math.nan
    value, name, found = worst_group(CLASSES, grouped.labels, answers, grouped.groups, ONE_SIDED_95)
    assert math.isnan(value)
    assert name == ""
    assert math.isnan(found.lower)
    models = {**grouped.models, "student": dataclasses.replace(student, answers=answers)}
    broken = dataclasses.replace(grouped, models=models)
    assert table(broken)[-1]["worst_group_accuracy"] is None


def test_examples_that_are_all_of_no_subgroup_have_no_worst_one(grouped: Evaluation) -> None:
    nobody = dataclasses.replace(grouped, subgroups=np.full(400, -1))
    assert math.isnan(nobody.summary["student"]["worst_group_accuracy"]["value"])
    south = table(nobody)[-1]["subgroups"]["south"]
    assert (south["num_examples"], south["accuracy"]) == (0, None)
    answers = nobody.models["student"].answers
    found = worst_group_difference(CLASSES, nobody.labels, answers, answers, nobody.groups, 1.0, ONE_SIDED_95)
    assert math.isnan(found.lower)
