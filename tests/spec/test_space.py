"""A sweep may set student, objective and train fields, to values that these fields take."""

from __future__ import annotations

import json

import pytest

OBJECTIVE = "objective={task: {weight: 0.5}, soft_targets: {weight: 0.5}}"


def space(**dimensions: object) -> str:
    return "sweep.space=" + json.dumps({path.replace("__", "."): kind for path, kind in dimensions.items()})


def test_a_space_over_all_three_sections(small_with):
    spec = small_with(
        OBJECTIVE,
        space(
            objective__soft_targets__temperature={"uniform": [1, 8]},
            train__lr={"loguniform": [1e-4, 0.1]},
            train__batch_size={"logint": [16, 128]},
            student__hidden={"choice": [[8], [16]]},
            student__dropout={"uniform": [0, 0.5]},
        ),
    )
    temperature = spec.sweep.space["objective.soft_targets.temperature"]
    assert (temperature.kind, temperature.values) == ("uniform", (1.0, 8.0))
    assert spec.to_json()["sweep"]["space"]["train.batch_size"] == {"logint": [16, 128]}


def test_whole_students_may_be_swept(small_with):
    students = {"choice": [{"name": "mlp", "hidden": [4]}, {"name": "mlp", "hidden": [8, 8]}]}
    assert small_with(space(student=students)).sweep.space["student"].kind == "choice"


@pytest.mark.parametrize(
    ("path", "dimension", "message"),
    [
        (
            "data.seed",
            {"int": [1, 2]},
            "would rebuild the data for every trial, and the teacher runs once; swept may be student, objective, train",
        ),
        ("teacher.model.hidden", {"choice": [[1]]}, "would rebuild the teacher for every trial"),
        ("cache.dtype", {"choice": ["float32"]}, "would rebuild the cache for every trial"),
        ("gates.min_examples", {"int": [1, 2]}, "may not be swept; allowed here: objective.…, student.…, train.…"),
        ("trian.lr", {"uniform": [1, 2]}, "names no field of the spec; "),
        (
            "train.lrr",
            {"uniform": [1, 2]},
            'names no field of the spec; did you mean "train.lr"? allowed here: train.b',
        ),
        ("train.lr.high", {"uniform": [1, 2]}, 'names no field of the spec; did you mean "train.lr"?'),
        ("train", {"choice": [{"epochs": 1}]}, "names no field of the spec; "),
        (
            "train.epochs",
            {"int": [1, 9]},
            "may not be swept: trials, and the baseline, are compared at equal epochs",
        ),
        (
            "objective.soft_target.weight",
            {"uniform": [0, 1]},
            'names no field of the spec; did you mean "objective.soft_targets.weight"? allowed here: '
            "objective.soft_targets.standardize, objective.soft_targets.temperature, objective.soft_targets.weight, ",
        ),
        ("student.hiden", {"choice": [[8]]}, "may become [8], but: model 'mlp' has no argument 'hiden'; did you mean"),
        ("student.name", {"choice": ["mpl"]}, "may become \"mpl\", but: no model is called 'mpl'; did you mean 'mlp'?"),
        ("train.lr", {"uniform": [0, 1]}, "may become 0.0, but: got 0.0 (a number), wanted a number > 0"),
        (
            "train.momentum",
            {"uniform": [0.5, 1]},
            "may become 1.0, but: got 1.0 (a number), wanted a number >= 0 and < 1",
        ),
        ("train.batch_size", {"uniform": [8, 64]}, "may become 8.0, but: got 8.0 (a number), wanted an integer >= 1"),
        (
            "train.optimizer",
            {"choice": ["adam", "lion"]},
            'may become "lion", but: got "lion" (a string), wanted one of sgd, adam, adamw',
        ),
        (
            "objective.soft_targets.temperature",
            {"uniform": [-1, 4]},
            "may become -1.0, but: got -1.0 (a number), wanted a number > 0",
        ),
    ],
)
def test_what_may_not_be_swept(faults, small, path, dimension, message):
    lines = faults(small, OBJECTIVE, space(**{path: dimension}))
    assert lines[0].startswith(f"--set  sweep.space.{path}: {message}")


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"uniform": [1, 1]}, "uniform: got [1.0, 1.0], wanted [low, high] with low < high"),
        ({"loguniform": [0, 1]}, "loguniform: got [0.0, 1.0], wanted low > 0, because zero has no logarithm"),
        ({"logint": [0, 8]}, "logint: got [0, 8], wanted low > 0, because zero has no logarithm"),
        ({}, "got none; wanted exactly one of uniform, loguniform, int, logint, choice"),
        (
            {"uniform": [0, 1], "choice": [1]},
            "got uniform, choice; wanted exactly one of uniform, loguniform, int, logint, choice",
        ),
    ],
)
def test_a_dimension_that_is_none(faults, small, dimension, message):
    (line,) = faults(small, space(train__lr=dimension))
    assert line == f"--set  sweep.space.train.lr: {message}"


def test_a_misspelt_kind(faults, small):
    (line,) = faults(small, space(train__lr={"unifrm": [0, 1]}))
    assert line == (
        '--set  sweep.space.train.lr.unifrm: unknown key; did you mean "uniform"? '
        "allowed here: choice, int, logint, loguniform, uniform"
    )


def test_a_fault_of_the_section_itself_is_not_repeated_for_every_dimension(faults, small):
    temperature = space(objective__soft_targets__temperature={"uniform": [1, 8]})
    assert faults(small, OBJECTIVE, temperature, "objective.task.label_smoothing=x") == [
        '--set  objective.task.label_smoothing: got "x" (a string), wanted a number >= 0 and <= 1'
    ]


def test_many_trials_of_one_setting_are_refused(faults, small):
    (line,) = faults(small, "sweep={trials: 5}")
    assert line == "--set  sweep: 5 trials with an empty space would all be the same; give space, or trials: 1"


def test_without_a_sweep_there_is_one_trial(small_with):
    assert small_with().sweep.trials == 1


def test_a_sweep_over_a_scheduled_field_replaces_it_whole(faults, small, small_with):
    scheduled = "objective={soft_targets: {weight: 1, temperature: {from: 8, to: 1}}}"
    plain = space(objective__soft_targets__temperature={"uniform": [1, 8]})
    assert small_with(scheduled, plain).sweep.space["objective.soft_targets.temperature"].kind == "uniform"
    between = {"choice": [2, {"from": 8, "to": 2, "shape": "cosine"}]}
    assert small_with(scheduled, space(objective__soft_targets__temperature=between))
    (line,) = faults(small, scheduled, space(objective__soft_targets__temperature={"choice": [{"from": 0, "to": 2}]}))
    assert "may become {" in line
    assert line.endswith("but: got 0 (an integer), wanted a number > 0")
    (line,) = faults(small, scheduled, space(**{"objective.soft_targets.temperature.to": {"uniform": [1, 2]}}))
    assert 'names no field of the spec; did you mean "objective.soft_targets.temperature"?' in line


def test_layers_may_not_be_swept(faults, small):
    hinted = "objective={hint: {weight: 1, layers: {a: b}}}"
    (line,) = faults(small, hinted, space(objective__hint__layers={"choice": [{"a": "b"}]}))
    assert line.startswith("--set  sweep.space.objective.hint.layers: names no field of the spec; ")
