from __future__ import annotations

import dataclasses
import json

import pytest

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import FormatError

SCHEMA = Schema(
    InputSpec("features", (2,), "float32", -1.5, 3.0, ("a", "b"), (1.0, 4.5)),
    ("cat", "dog"),
    {"train": {"cat": 3, "dog": 4}, "val": {"cat": 1, "dog": 1}, "test": {"cat": 1, "dog": 2}},
    (0.1, 1 / 3),
    (1.0, 2.0),
)


def test_a_schema_survives_json() -> None:
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA


def test_a_schema_of_another_version_is_refused() -> None:
    with pytest.raises(FormatError, match="has format 2, this release reads 1; prepare the data again"):
        Schema.from_json({**SCHEMA.to_json(), "format": 2})


def test_what_an_earlier_release_did_not_say_has_its_default() -> None:
    stored = SCHEMA.to_json()
    for name in ("num_unlabelled", "num_left_out", "num_cut", "subgroup_names", "tokenizer_digest"):
        del stored[name]
    del stored["input"]["sample_rate"]
    assert Schema.from_json(json.loads(json.dumps(stored))) == SCHEMA


def test_unlabelled_examples_are_of_train() -> None:
    assert SCHEMA.num_examples == {"train": 7, "val": 2, "test": 3}
    assert dataclasses.replace(SCHEMA, num_unlabelled=5).num_examples == {"train": 12, "val": 2, "test": 3}
