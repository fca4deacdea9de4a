"""YAML as people mean it: no surprises of version 1.1, no repeated keys, no objects."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_platform.spec.source import read_scalar, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("+3.0", 3.0),
        ("010", 10),
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("y", "y"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    read = read_scalar(text)
    assert (type(read), read) == (type(value), value)


@given(st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_python_writes_is_read_back(number):
    read = read_scalar(repr(number))
    assert type(read) is type(number)
    assert read == number
    assert math.copysign(1, read) == math.copysign(1, number)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_fault(text):
    document = read_yaml(text)
    assert () in document.lines
    assert all(fault.message for fault in document.faults)


def test_quotes_keep_text():
    assert read_yaml("a: '1e-3'\nb: \"true\"\nc: |\n  1\n").value == {"a": "1e-3", "b": "true", "c": "1\n"}


def test_each_value_knows_its_line():
    lines = read_yaml("a:\n  b: 1\n\n  c: [1,\n    2]\n").lines
    assert lines == {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "c"): 4, ("a", "c", 0): 4, ("a", "c", 1): 5}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nseed: 1\nname: b\n", "spec:1  name is given on line 1 and again on line 3"),
        ("data:\n  source: a\n  source: b\n", "spec:1  data: data.source is given on line 2 and again on line 3"),
        ("a: 1\n? [x]\n: 2\n", "spec:1  line 2 has a key that is no text; wanted `key: value`"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "spec:1  a: the tag tag:yaml.org,2002:python/object/apply:os.system is not read here; write a plain value",
        ),
        (
            "a: &x 1\nb: *x\n",
            "spec:1  not YAML: anchors and aliases are not read here; write the value out at column 4",
        ),
        (
            "a: [1\nb: 2\n",
            "spec:2  not YAML: while parsing a flow sequence, expected ',' or ']', but got ':' at column 2",
        ),
        ("a: 1\n\tb: 2\n", "spec:2  not YAML: "),
        ("a: 1\nb: '\x01'\n", "spec:2  not YAML: special characters are not allowed (character 1)"),
        ("a: 1\n---\nb: 1\n", "spec:2  not YAML: expected a single document in the stream, "),
    ],
)
def test_what_is_not_read(faults, text, line):
    assert faults(text)[0].startswith(line)
