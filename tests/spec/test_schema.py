"""What editors are given, what `distill init` writes, and what reading a spec may cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from distill_platform.spec import json_schema, load_spec, template


def test_every_key_is_described():
    schema = json_schema()
    sections = {"Spec": schema, **schema["$defs"]}
    bare = [
        f"{section}.{key}"
        for section, body in sections.items()
        for key, value in body.get("properties", {}).items()
        if not value.get("description")
    ]
    assert len(sections) > 15
    assert bare == []


def test_the_template_is_a_spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(template())
    spec = load_spec(path)
    assert (spec.name, spec.data.source, spec.sweep.trials, spec.data.views.num) == ("digits", "sklearn:digits", 12, 4)


def test_the_example_of_the_digits_is_what_init_writes():
    example = Path(__file__).parents[2] / "examples" / "digits.yaml"
    assert load_spec(example) == load_spec(template())


def test_the_schema_loads_neither_torch_nor_ray():
    code = (
        "import sys, distill_platform.spec as spec; spec.json_schema(); spec.template();"
        "print([name for name in ('torch', 'ray', 'mlflow', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_sweep_takes_for_granted_of_worst_group_training_is_what_the_spec_says():
    from distill_platform.spec.schema import WorstGroupSpec
    from distill_platform.train.worst_group import STEP_SIZE

    assert WorstGroupSpec().step_size == STEP_SIZE


def test_a_sweep_may_go_by_validation_loss(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(template())
    assert load_spec(path, ["sweep.metric=val_loss"]).sweep.metric == "val_loss"
