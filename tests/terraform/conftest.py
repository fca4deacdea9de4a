"""Terraform on a mock of AWS. Skipped, with the reason, where terraform or the AWS provider is not on this machine.

The provider is looked for in $DISTILL_TF_PLUGIN_DIR, then in the folders where terraform itself looks for plugins, and
never downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

TERRAFORM = Path(__file__).parents[2] / "terraform"
PROVIDER = "registry.terraform.io/hashicorp/aws"
PLUGIN_FOLDERS = (
    *("~/.terraform.d/plugins", "~/.local/share/terraform/plugins"),
    *("/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins"),
)

# What the mock cannot do, and how it is left out: terraform merges files called *_override.tf into what they name.
LEFT_OUT = {
    "modules/cluster": """
        resource "aws_eks_addon" "daemon"                         { for_each = {} }  # no such API in moto
        resource "aws_eks_addon" "deployment"                     { for_each = {} }
        resource "aws_eks_access_entry" "admin"                   { for_each = {} }  # no such API in moto
        resource "aws_eks_pod_identity_association" "autoscaler"  { count = 0 }      # no such API in moto
    """,
    "modules/iam": """
        resource "aws_eks_pod_identity_association" "this"        { for_each = {} }
    """,
    # moto forgets the field by which the provider sees that a lifecycle has settled: it waits until it gives up
    "modules/bucket": """
        resource "aws_s3_bucket_lifecycle_configuration" "this"   { count = 0 }
    """,
    "modules/storage": """
        resource "aws_s3_bucket_lifecycle_configuration" "logs"   { count = 0 }
    """,
    # moto's clusters have no security group to let in
    "modules/registry": """
        resource "aws_vpc_security_group_ingress_rule" "cluster"  { count = 0 }
    """,
}


@dataclass(frozen=True)
class Terraform:
    """A copy of terraform/ to run in, both environments initialised, pointed at the mock."""

    root: Path
    environment: dict[str, str]

    def __call__(self, folder: str, *arguments: str) -> str:
        """What terraform prints; fails the test with all of it unless terraform succeeds."""
        command = ["terraform", f"-chdir={self.root / folder}", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def plan(self, folder: str) -> dict[str, Any]:
        """The plan of a fresh environment, as JSON."""
        self(folder, "plan", "-input=false", "-out=plan")
        return json.loads(self(folder, "show", "-json", "plan"))


@cache
def plugin_dir() -> Path | None:
    """The folder above the registry's host name that holds the AWS provider, if there is one."""
    given = os.environ.get("DISTILL_TF_PLUGIN_DIR")
    folders = [Path(folder).expanduser() for folder in ((given,) if given else PLUGIN_FOLDERS)]
    return next((folder for folder in folders if any((folder / PROVIDER).rglob("terraform-provider-aws_v5*"))), None)


@pytest.fixture(scope="session")
def terraform_binary() -> str:
    """terraform itself."""
    found = shutil.which("terraform")
    if found is None:
        pytest.skip("terraform is not installed")
    return found


@pytest.fixture(scope="session")
def terraform(terraform_binary: str, aws_mock: str, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """terraform/ as it is, pointed at the mock: good for a plan."""
    return _initialised(tmp_path_factory.mktemp("terraform"), {}, AWS_ENDPOINT_URL=aws_mock)


@pytest.fixture(scope="session")
def on_mock(terraform_binary: str, aws_mock: str, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """terraform/ less what the mock cannot do: good for an apply."""
    return _initialised(tmp_path_factory.mktemp("mocked"), LEFT_OUT, AWS_ENDPOINT_URL=aws_mock)


@pytest.fixture(scope="session")
def aws_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto with AWS's managed policies, in a process of its own."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/moto-api/", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _initialised(folder: Path, left_out: dict[str, str], **extra: str) -> Terraform:
    plugins = plugin_dir()
    if plugins is None:
        pytest.skip("no AWS provider 5.x on this machine: set DISTILL_TF_PLUGIN_DIR to a `terraform providers mirror`")
    shutil.copytree(TERRAFORM, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    for module, resources in left_out.items():
        lines = (line.split("#")[0].strip() for line in resources.splitlines())
        (folder / module / "left_out_override.tf").write_text("\n".join(lines))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
    environment = {
        **clean,
        "TF_CLI_CONFIG_FILE": os.devnull,
        "TF_IN_AUTOMATION": "1",
        "TF_CLI_ARGS": "-no-color",
        "TF_VAR_region": "eu-central-1",
        "TF_VAR_admin_role_arns": '["arn:aws:iam::123456789012:role/administrators"]',
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        **extra,
    }
    made = Terraform(folder, environment)
    for env in ("envs/dev", "envs/prod"):
        made(env, "init", "-input=false", "-backend=false", f"-plugin-dir={plugins}")
    return made


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (URLError, ConnectionError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
