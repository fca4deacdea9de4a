"""`distill models layers`: the names that specs take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distill_platform import steps
from distill_platform.cli.app import build_app
from distill_platform.models import save_model
from distill_platform.spec import load_spec, resolve, this_machine
from distill_platform.workspace import Workspace
from tests.models.kinds import model_for

SPEC = """\
name: wine
data: {source: sklearn:wine}
teacher: {model: {name: mlp, hidden: [32]}, train: {epochs: 1}}
student: {name: mlp, hidden: [4]}
gates: {checks: [accuracy >= 0.01]}
"""


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return lambda *words: CliRunner().invoke(build_app(), ["models", "layers", *words])


def named(output: str) -> dict[str, dict[str, Any]]:
    return {role: {each["name"]: each for each in found} for role, found in json.loads(output).items()}


def test_the_layers_of_a_specs_models_are_listed_once_its_data_is_prepared(layers: Callable[..., Result]) -> None:
    refused = layers("spec.yaml")
    assert refused.exit_code == 2
    assert "`distill run spec.yaml` prepares it first" in refused.output
    steps.prepare(resolve(load_spec("spec.yaml"), this_machine()), Workspace.at("./runs"))
    several = layers("spec.yaml", "--json", "--set", "teachers={deep: {model: {name: mlp, hidden: [8, 8]}}}")
    assert list(named(several.stdout)) == ["teacher", "deep", "student"]
    assert list(named(layers("spec.yaml", "--json", "--set", "teacher={ema: 0.9}").stdout)) == ["student"]
    found = named(layers("spec.yaml", "--json", "--set", "student.hidden=[5]").stdout)
    assert found["teacher"]["1"] == {
        "name": "1",
        "type": "Linear",
        "shape": [32],
        "attention": False,
        "num_parameters": 13 * 32 + 32,
    }
    assert found["student"]["1"]["shape"] == [5]
    assert "Linear" in layers("spec.yaml").stdout


def test_the_layers_of_a_saved_model_are_listed_without_its_weights(
    layers: Callable[..., Result], tmp_path: Path
) -> None:
    model = model_for("transformer", "text")
    save_model(tmp_path / "model", model, model.build())
    (tmp_path / "model" / "weights.safetensors").unlink()
    found = named(layers(str(tmp_path / "model"), "--json").stdout)
    assert found["model"]["blocks.0.attention"]["attention"]
    assert found["model"]["blocks.0"]["shape"] == [24, 16]


def test_what_is_neither_is_refused(layers: Callable[..., Result], tmp_path: Path) -> None:
    refused = layers(str(tmp_path / "nothing"))
    assert refused.exit_code == 2
    assert "holds no model.json; wanted a spec" in refused.output
