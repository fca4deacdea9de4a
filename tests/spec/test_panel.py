"""Several teachers, the student's own average, generations: what goes together."""

from __future__ import annotations

import pytest

SECOND = "teachers={deep: {model: {name: mlp, hidden: [8, 8]}}}"


def test_several_teachers_are_combined_by_their_mean_unless_the_spec_says_otherwise(small_with):
    spec = small_with(SECOND)
    assert list(spec.all_teachers) == ["teacher", "deep"]
    assert spec.combine.by == "mean"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("combine={by: fixed, weights: {teacher: 0.5, deep: 0.6}}", "combine: weights sum to 1.1, wanted 1"),
        ("combine={by: fixed}", "combine: by is fixed; weights is wanted with fixed, and with nothing else"),
        ("combine={by: mean, weights: {teacher: 1}}", "combine: by is mean; weights is wanted with fixed"),
        (
            "combine={by: fixed, weights: {teacher: 0.5, dep: 0.5}}",
            "combine.weights: got shares of teacher, dep; wanted",
        ),
        (
            "combine={by: subgroup, routes: {young: dep}}",
            'combine.routes.young: no teacher has this name; did you mean "deep"',
        ),
        ("combine={by: subgroup, routes: {young: deep}}", "combine.by: subgroup needs data.subgroup"),
        ("teachers={teacher: {model: {name: mlp}}}", "teachers.teacher: is the name of the first teacher"),
        ("teachers={deep: {ema: 0.9}}", "teachers.deep.ema: is for `teacher` alone"),
        ("teachers={deep: {model: {name: mpl}}}", "teachers.deep.model.name: no model is called 'mpl'"),
    ],
)
def test_a_combination_that_does_not_fit_the_teachers_is_refused(faults, small, override, message):
    found = faults(small, SECOND, override)
    assert any(message in fault for fault in found), found


def test_a_combination_of_one_teacher_is_refused(faults, small):
    (fault,) = faults(small, "combine={by: confidence}")
    assert "combine: got by: confidence with one teacher" in fault


def test_confidence_asks_for_a_cache_that_says_how_probable_a_label_is(faults, small):
    found = faults(
        small,
        SECOND,
        "combine={by: confidence}",
        "cache.codec=sampled",
        "objective={soft_targets: {weight: 1, temperature: 1}}",
    )
    assert any("combine.by: cannot be computed from what cache.codec" in fault for fault in found), found


def test_a_students_own_average_has_nothing_to_cache_compare_or_hand_on(faults, small):
    given = ("teacher={ema: 0.99}", SECOND, "cache.codec=dense", "sweep={trials: 1, generations: 2}")
    found = faults(small, *given, "gates.checks=[accuracy >= teacher - 0.05]")
    for path in ("teachers:", "cache:", "sweep.generations:", "gates.checks.0:"):
        assert any(path in fault for fault in found), (path, found)


def test_what_a_live_teacher_says_is_not_stored(faults, small, small_with):
    assert small_with("cache={live: true}").cache.live
    (fault,) = faults(small, "cache={live: true, codec: int4}")
    assert "cache.live: true stores nothing" in fault
