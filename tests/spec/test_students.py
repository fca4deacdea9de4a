"""How students start, learn in parts and for subgroups, and are put right: what a spec may say of it."""

from __future__ import annotations

import pytest

from distill_platform.spec.loading import load_spec_json

SUBGROUPS = "data={source: rows.csv, label: y, subgroup: clinic}"
MIXED = "data={source: rows.csv, label: y, subgroup: clinic, views: {num: 2, augment: [{name: mixup}]}}"


@pytest.mark.parametrize(
    "start",
    [
        "{from: random}",
        "{from: weights, uri: ./models/given}",
        "{from: teacher}",
        "{from: teacher, layers: [0, 2, 4], importance: activations}",
    ],
)
def test_a_start_is_stored_as_it_was_written(small_with, start):
    spec = small_with(f"start={start}")
    stored = spec.to_json()
    assert stored["start"]["from"] == start[1:-1].split(",")[0].removeprefix("from: ")
    assert load_spec_json(stored) == spec


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["start={from: techer}"], 'start: got {"from": "techer"}, wanted a mapping with from: one of'),
        (["start={layers: evenly}"], "start: the kind is missing; wanted a mapping with from: one of random"),
        (["start={from: weights}"], "start.uri: missing; wanted a string"),
        (["start={from: teacher, uri: x}"], "start.uri: unknown key; allowed here: from, importance, layers"),
        (["start={from: teacher, layers: [0, -1]}"], "start.layers"),
        (
            ["start={from: teacher}", "teacher={ema: 0.9}"],
            "start.from: got teacher, and teacher.ema has no weights before the student",
        ),
        (
            ["train.parts={stem: {lr_factor: -1}}"],
            "train.parts.stem.lr_factor: got -1 (an integer), wanted a number >= 0",
        ),
        (["train.parts={stem: {lr: 1}}"], "train.parts.stem.lr: unknown key"),
        (["train.worst_group={}"], "train.worst_group: needs data.subgroup"),
        (["teacher.train.worst_group={}"], "teacher.train.worst_group: needs data.subgroup"),
        ([SUBGROUPS, "train.worst_group={step_size: 0}"], "train.worst_group.step_size: got 0 (an integer), wanted a"),
        (
            ["sweep={trials: 1, metric: val_worst_group_accuracy}"],
            "sweep.metric: val_worst_group_accuracy needs data.subgroup",
        ),
        ([MIXED, "train.worst_group={}"], "train.worst_group: weighs an example by its subgroup, and mixup in data"),
        (
            ["sweep={trials: 2, space: {train.worst_group: {choice: [null, {step_size: 0.1}]}}}"],
            "sweep.space.train.worst_group: needs data.subgroup",
        ),
        (["compress.class_bias={a: 0.5, b: 0.6}"], "compress: class_bias has shares that sum to 1.1, wanted 1"),
        (["compress.class_bias=aut"], "compress.class_bias"),
        (
            ["task=language_modelling", "compress.class_bias=auto"],
            "compress.class_bias: is for classes, and task language_modelling has tokens",
        ),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(faults, small, overrides, message):
    found = faults(small, *overrides)
    assert any(message in fault for fault in found), found


def test_worst_group_training_of_data_with_subgroups_is_taken(small_with):
    assert small_with(SUBGROUPS, "train.worst_group={}").train.worst_group.step_size == 0.01
