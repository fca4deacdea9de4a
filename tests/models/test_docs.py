"""docs/models.md says what there is."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_platform.models import MODELS
from distill_platform.models.builders import LIBRARIES, TOLD
from distill_platform.models.huggingface import huggingface
from distill_platform.models.preprocess import PREPROCESSING

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def rows(section: str) -> dict[str, list[str]]:
    """First cell, its quotes off -> the other cells, of all tables of a section."""
    text = PAGE.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


def defaults_of(builder: Any) -> dict[str, Any]:
    given = list(inspect.signature(builder).parameters.values())
    options = [each for each in given if each.kind is inspect.Parameter.KEYWORD_ONLY and each.name not in TOLD]
    return {each.name: list(each.default) if isinstance(each.default, tuple) else each.default for each in options}


def test_the_table_has_every_model_and_nothing_else() -> None:
    assert list(rows("Our own")) == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_table_has_each_models_inputs_arguments_and_defaults(name: str) -> None:
    kinds, arguments, _ = rows("Our own")[name]
    assert tuple(kinds.split(", ")) == MODELS[name].kinds
    said: dict[str, Any] = {}
    for each in re.findall("`([^`]*)`", arguments):
        said |= yaml.safe_load(each)
    assert said == defaults_of(MODELS[name].build)


def test_the_table_has_every_library_with_its_inputs() -> None:
    found = {name.partition(":")[0]: cells for name, cells in rows("Of other libraries").items() if ":" in name}
    assert found.keys() == {*LIBRARIES, "import"}
    assert all(tuple(found[name][0].split(", ")) == LIBRARIES[name].kinds for name in LIBRARIES)


def test_the_arguments_of_hugging_face_models_are_those_there_are() -> None:
    said = {name: cells[0] for name, cells in rows("Of other libraries").items() if ":" not in name}
    wanted = defaults_of(huggingface)
    assert said.keys() == wanted.keys()
    assert {name: yaml.safe_load(text.strip("`")) for name, text in said.items()} == wanted


def test_every_kind_of_preprocessing_is_described() -> None:
    assert list(rows("What happens to raw inputs")) == list(PREPROCESSING)


def test_the_guides_model_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = PAGE.split("## Add a model", 1)[1]
    code = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    line = re.search(r"`\"linear\": (Architecture\(.*?\)\)),`", guide)
    assert code
    assert line
    from torch import nn

    from distill_platform.models import builders
    from tests.models.kinds import model_for, raw_batch

    scope: dict[str, Any] = {"nn": nn, "math": math, "Architecture": builders.Architecture}
    exec(f"{textwrap.dedent(code[1])}\nmade = {line[1]}", scope)
    monkeypatch.setitem(builders.MODELS, "linear", scope["made"])
    for kind in ("image", "features"):
        assert model_for("linear", kind).build()(raw_batch(kind))["logits"].values.shape == (5, 2)
