"""A spec is read whole, or refused with everything that is wrong with it."""

from __future__ import annotations

import json

import pytest

from distill_platform.errors import SpecError
from distill_platform.spec import load_spec, load_spec_json

BROKEN = """\
name: small
studnet: {name: mlp}
data:
  source: sklearn:wine
  image_size: [8]
teacher:
  model: {name: mpl}
  floor: 2
train:
  lr: fast
  epochs: 1.5
  seed: x
  clip_norm: -1
cache: {codec: dens, dtype: int8}
compress: {weights: float23}
gates: {checks: [acuracy >= 0.9], min_examples: no}
"""

ONE_TEACHER = "wanted one of model (train it), weights (load it) and ema (the student's average)"


def test_all_faults_of_a_file_are_reported_together_by_line_and_path(faults):
    lines = faults(BROKEN)
    assert lines[0] == "spec:1  student: missing; wanted a mapping with name"
    assert lines[1].startswith(
        'spec:2  studnet: unknown key; did you mean "student"? allowed here: cache, combine, compress, '
    )
    assert lines[2:10] == [
        "spec:5  data.image_size.1: missing; wanted an integer >= 1",
        "spec:8  teacher.floor: got 2 (an integer), wanted a number >= 0 and <= 1",
        'spec:10  train.lr: got "fast" (a string), wanted a number > 0',
        "spec:11  train.epochs: got 1.5 (a number), wanted an integer >= 1",
        'spec:12  train.seed: got "x" (a string), wanted an integer >= 0 or "auto"',
        "spec:13  train.clip_norm: got -1 (an integer), wanted a number > 0 or null",
        'spec:14  cache.dtype: got "int8" (a string), wanted one of float16, float32',
        'spec:15  compress.weights: got "float23" (a string), wanted one of float32, float16, bfloat16',
    ]
    assert lines[10:] == ['spec:16  gates.min_examples: got "no" (a string), wanted an integer >= 1']


def test_the_files_name_stands_before_the_line(tmp_path, small):
    path = tmp_path / "wine.yaml"
    path.write_text(small + "seed: -1\n")
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert str(raised.value) == f"{path}:12  seed: got -1 (an integer), wanted an integer >= 0"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split={by: hash, column: x}", "data.split.column: unknown key; allowed here: by, test, val"),
        (
            "data.split={by: hsh}",
            'data.split: got {"by": "hsh"}, wanted a mapping with by: one of column, hash, sources',
        ),
        (
            "data.split={val: 0.1}",
            "data.split: the kind is missing; wanted a mapping with by: one of column, hash, sources",
        ),
        (
            "data.split={by: hash, val: 0.5, test: 0.5}",
            "data.split: val 0.5 + test 0.5 leaves nothing to train on; wanted a sum below 1",
        ),
        (
            "data.views={num: 3}",
            "data.views: num is 3, but augment names no transform: all views would be equal; give some",
        ),
        (
            "data.views={augment: [{name: shift, pixels: 1}]}",
            "data.views: augment names transforms, but num is 1: view 0 is never augmented; set num to 2 or more",
        ),
        (
            "teacher.weights=s3://models/t",
            f"teacher: got model and weights; {ONE_TEACHER}",
        ),
        ("teacher={}", f"teacher: got none of them; {ONE_TEACHER}"),
        ("student=mlp", 'student: got "mlp" (a string), wanted a mapping with name'),
        ("registry=null", "registry: got null, wanted a mapping with model, tracking_uri, promote"),
        ("registry.promote=yes", 'registry.promote: got "yes" (a string), wanted true or false'),
        ("gates.checks=[]", "gates.checks: got [] (a list), wanted a non-empty list, each a string"),
        ("train.lr=.nan", 'train.lr: got ".nan" (a string), wanted a number > 0'),
        ("train.epochs=true", "train.epochs: got true (a boolean), wanted an integer >= 1"),
        ("objective={task: {}}", "objective.task.weight: missing; wanted a number >= 0 or a mapping with from, to"),
        (
            "name=a b",
            "name: got \"a b\" (a string), wanted up to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or a digit",
        ),
    ],
)
def test_a_wrong_value_says_what_was_got_and_wanted(faults, small, override, message):
    assert [line.split("  ", 1)[1] for line in faults(small, override)] == [message]


@pytest.mark.parametrize("text", ["\n", "- a\n- b\n", "just text\n"])
def test_a_document_that_is_no_mapping_is_refused(faults, text):
    (line,) = faults(text)
    assert "wanted a mapping; `distill init` writes one to start from" in line


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match=r"no such file; `distill init .*wine.yaml` writes a spec to start from"):
        load_spec(str(tmp_path / "wine.yaml"))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "spec.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(SpecError, match="byte 6 is not UTF-8; wanted a YAML text"):
        load_spec(tmp_path / "spec.yaml")


def test_what_is_stored_is_read_back_equal(small_with):
    spec = small_with(
        "data.views={num: 2, augment: [{name: noise, std: 0.1}]}",
        "sweep.space={train.lr: {loguniform: [1e-4, 1e-2]}, student.hidden: {choice: [[4], [8]]}}",
    )
    stored = json.loads(json.dumps(spec.to_json()))
    assert load_spec_json(stored) == spec
    assert load_spec_json(stored).to_json() == spec.to_json()


def test_a_stored_spec_that_was_changed_by_hand_is_refused(small_with):
    stored = small_with().to_json() | {"seed": "one"}
    with pytest.raises(SpecError, match=r'run.json:1  seed: got "one" \(a string\), wanted an integer >= 0'):
        load_spec_json(stored, "run.json")


def test_a_spec_cannot_be_changed(small_with):
    with pytest.raises(ValueError, match="frozen"):
        small_with().train.lr = 1.0
