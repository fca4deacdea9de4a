"""What steps ask for before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_platform import fits, steps
from distill_platform.errors import GateError
from distill_platform.spec import load_spec, template
from distill_platform.workspace import Workspace
from tests.models.kinds import schema_of


@pytest.mark.parametrize(
    ("metric", "of_baseline"),
    [("val_accuracy", "val_accuracy"), ("val_loss", "val_loss"), ("kl_to_teacher", "val_accuracy")],
)
def test_the_baseline_is_ranked_as_the_sweep_is_where_that_needs_no_teacher(
    metric: str, of_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(template())
    asked: list[Any] = []
    monkeypatch.setattr(steps, "_sweep", lambda *given: asked.append(given))
    spec: Any = load_spec(path, [f"sweep.metric={metric}"])
    nothing: Any = None
    steps.baseline(spec, nothing, Workspace.at(str(tmp_path)))
    steps.sweep(spec, nothing, nothing, Workspace.at(str(tmp_path)))
    assert [(step, found) for step, _, _, _, found, *_ in asked] == [("baseline", of_baseline), ("sweep", metric)]


def test_a_gate_over_subgroups_is_refused_where_the_data_has_none() -> None:
    alike, told_apart = schema_of("features"), replace(schema_of("features"), subgroup_names=("x", "y"))
    gates = "gates.checks=[accuracy >= 0.9, worst_group_accuracy >= 0.8]"
    fits._check_subgroups(load_spec(template(), [gates]), told_apart)
    fits._check_subgroups(load_spec(template()), alike)
    with pytest.raises(GateError, match=r"gate `worst_group_accuracy >= 0.8` .* sklearn:digits is .* data.subgroup"):
        fits._check_subgroups(load_spec(template(), [gates]), alike)
