"""What steps ask for before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_platform import steps
from distill_platform.errors import GateError
from distill_platform.spec import load_spec, template
from distill_platform.workspace import Workspace


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
    gates = ["accuracy >= 0.9", "worst_group_accuracy >= 0.8"]
    steps._check_gates(gates, True, "rows.csv")
    steps._check_gates(gates[:1], False, "rows.csv")
    with pytest.raises(GateError, match=r"gate `worst_group_accuracy >= 0.8` .* rows.csv is .* set data.subgroup"):
        steps._check_gates(gates, False, "rows.csv")
