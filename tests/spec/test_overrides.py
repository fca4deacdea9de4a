"""`--set a.b=value` is part of the spec like any line of it."""

from __future__ import annotations

import pytest


def test_values_are_read_as_yaml(small_with):
    spec = small_with("train.lr=1e-2", "student.hidden=[4, 4]", "registry={promote: false}", "train.clip_norm=null")
    assert (spec.train.lr, spec.student.args, spec.registry.promote) == (0.01, {"hidden": [4, 4]}, False)
    assert spec.train.clip_norm is None


def test_the_last_one_wins(small_with):
    assert small_with("seed=1", "seed=2").seed == 2


def test_a_value_may_hold_equals_signs(small_with):
    assert small_with("data.source=images:a=b").data.source == "images:a=b"


def test_faults_name_the_override_and_come_last(faults, small):
    assert faults(small + "seed: -1\n", "train.lr=x", "registry.promte=false") == [
        "spec:12  seed: got -1 (an integer), wanted an integer >= 0",
        '--set  train.lr: got "x" (a string), wanted a number > 0',
        '--set  registry.promte: unknown key; did you mean "promote"? allowed here: model, promote, tracking_uri',
    ]


def test_a_fault_inside_an_overridden_section_is_the_overrides(faults, small):
    assert faults(small, "student={hidden: [4]}") == ["--set  student.name: missing; wanted a string"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "--set  train.lr: wanted a.b=value"),
        ("=3", "--set  =3: wanted a.b=value"),
        ("a..b=3", "--set  a..b=3: wanted a.b=value"),
        ("name.first=x", '--set  name.first: name is "small" (a string), which has no keys; set it as a whole'),
        (
            "gates.checks.0=x",
            '--set  gates.checks.0: gates.checks is ["accuracy >= 0.8"] (a list), which has no keys; set it as a whole',
        ),
        (
            "student.hidden=[1",
            "--set  student.hidden: not YAML: while parsing a flow sequence, "
            "expected ',' or ']', but got '<stream end>' at column 3",
        ),
    ],
)
def test_an_override_that_fits_nowhere(faults, small, override, message):
    assert faults(small, override) == [message]
