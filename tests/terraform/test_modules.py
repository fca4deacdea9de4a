"""`terraform test` in each module: what its variables refuse, and what must hold whatever they are."""

from __future__ import annotations

import re

import pytest

from tests.terraform.conftest import TERRAFORM, Terraform, plugin_dir

MODULES = sorted(folder.name for folder in TERRAFORM.glob("modules/*/"))


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_module_refuses_and_holds_what_its_tests_say(terraform: Terraform, module: str) -> None:
    terraform(f"modules/{module}", "init", "-input=false", f"-plugin-dir={plugin_dir()}")
    assert re.search(r"Success! [1-9]\d* passed, 0 failed", terraform(f"modules/{module}", "test"))


@pytest.mark.parametrize("module", MODULES)
def test_every_validation_has_a_test_that_it_refuses(module: str) -> None:
    folder = TERRAFORM / "modules" / module
    variables = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', (folder / "variables.tf").read_text(), re.M | re.S)
    constrained = {name for name, block in variables if "validation {" in block}
    tests = "\n".join(path.read_text() for path in folder.glob("tests/*.tftest.hcl"))
    assert constrained == set(re.findall(r"expect_failures = \[var\.(\w+)\]", tests))
