"""Rules that hold for the source as a whole; what import-linter can say is in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distill_platform

PACKAGE = Path(distill_platform.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_the_evaluate_step_alone_opens_the_test_split() -> None:
    users = [name for name, text in SOURCES.items() if re.search(r"\bopen_test\b", text)]
    assert users == ["data/examples.py", "steps.py"]
    body = SOURCES["steps.py"].split("\ndef ")
    assert [step.split("(")[0] for step in body if "open_test(" in step] == ["evaluate"]


FORBIDDEN = (
    r"^\s*(import|from) (pickle|cloudpickle|joblib|dill)\b",
    r"torch\.load\(",
    r"allow_pickle=True",
    r"trust_remote_code",
    r"yaml\.load\(",
    r"(?<!\.)\b(eval|exec)\(",
)


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_nothing_that_can_run_what_it_reads(forbidden: str) -> None:
    assert [name for name, text in SOURCES.items() if re.search(forbidden, text, re.MULTILINE)] == []


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    code = "import sys, distill_platform; print(sorted({'torch', 'ray', 'mlflow', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_module_and_its_public_functions_and_classes_say_what_they_do() -> None:
    silent = []
    for name, text in SOURCES.items():
        tree = ast.parse(text)
        definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        public = [node for node in definitions if not node.name.startswith("_")]
        silent += [f"{name}: {node.name}" for node in public if not ast.get_docstring(node)]
        silent += [name] if text and not ast.get_docstring(tree) else []
    assert silent == []
