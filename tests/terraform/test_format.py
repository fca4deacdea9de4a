"""terraform/ is formatted, documented and free of findings."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from types import ModuleType

import pytest

from tests.terraform.conftest import TERRAFORM


def test_every_file_is_formatted(terraform_binary: str) -> None:
    command = [terraform_binary, "fmt", "-check", "-recursive", "-diff", str(TERRAFORM)]
    done = subprocess.run(command, env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_readme_tells_the_inputs_and_outputs_of_its_module() -> None:
    docs = _docs()
    assert len(docs.readmes()) == 10
    for readme in docs.readmes():
        assert readme.read_text() == docs.rendered(readme), f"{readme}: run `python terraform/docs.py`"


def test_no_account_and_no_secret_is_written_down() -> None:
    for path in TERRAFORM.rglob("*.tf"):
        found = re.findall(r"\b\d{12}\b|AKIA\w{16}|password *= *\"", path.read_text())
        assert not found, f"{path}: {found}"


def test_every_exception_from_a_check_says_why() -> None:
    for path in TERRAFORM.rglob("*.tf"):
        for line in path.read_text().splitlines():
            if "checkov:skip" in line:
                assert re.search(r"#checkov:skip=CKV2?_AWS_\d+: \S.{8,}", line), f"{path}: {line}"


@pytest.mark.slow
def test_checkov_finds_nothing() -> None:
    checkov = os.environ.get("DISTILL_CHECKOV") or shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed; put it on the PATH, or its path in DISTILL_CHECKOV")
    command = [checkov, "-d", str(TERRAFORM), "--compact", "--quiet", "--skip-download", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout)
    reports = found if isinstance(found, list) else [found]  # one for each kind of thing that it found to check
    failed = [check for report in reports for check in report["results"]["failed_checks"]]
    assert not [f"{check['check_id']} {check['file_path']} {check['resource']}" for check in failed]
    assert sum(report["summary"]["passed"] for report in reports) > 300


def _docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terraform_docs", TERRAFORM / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
