"""Both environments validate and plan; what the mock can do of dev is made and unmade; its policies are golden.

$DISTILL_UPDATE_GOLDEN=1 writes golden/policies.json anew: read the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.terraform.conftest import Terraform
from tests.terraform.policy import ACCOUNT, GOLDEN, REGION

pytestmark = pytest.mark.slow

ENVS = ("dev", "prod")
ALWAYS_ON = ["api", "audit", "authenticator", "controllerManager", "scheduler"]


@pytest.fixture(scope="module", params=ENVS)
def plan(request: pytest.FixtureRequest, terraform: Terraform) -> Plan:
    """The plan of each environment."""
    return Plan(request.param, terraform.plan(f"envs/{request.param}"))


class Plan:
    """What would be made, by type."""

    def __init__(self, env: str, document: dict[str, Any]) -> None:
        self.env = env
        self.resources = list(_resources(document["planned_values"]["root_module"]))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The values of all resources of a type; at least one."""
        found = [resource["values"] for resource in self.resources if resource["type"] == kind]
        assert found, f"{self.env} plans no {kind}"
        return found

    def one(self, kind: str) -> dict[str, Any]:
        """The values of the only resource of a type."""
        (found,) = self.of(kind)
        return found


@pytest.mark.parametrize("env", ENVS)
def test_environment_validates(terraform: Terraform, env: str) -> None:
    found = json.loads(terraform(f"envs/{env}", "validate", "-json"))
    assert (found["valid"], found["diagnostics"]) == (True, [])


def test_environment_refuses_a_region_that_is_none(terraform: Terraform) -> None:
    with pytest.raises(AssertionError, match="region must be one of AWS, such as eu-central-1"):
        terraform("envs/dev", "plan", "-input=false", "-var=region=frankfurt")


def test_control_plane_is_private_logged_and_encrypted(plan: Plan) -> None:
    cluster = plan.one("aws_eks_cluster")
    assert cluster["vpc_config"][0]["endpoint_private_access"]
    assert not cluster["vpc_config"][0]["endpoint_public_access"]
    assert sorted(cluster["enabled_cluster_log_types"]) == ALWAYS_ON
    assert cluster["encryption_config"][0]["resources"] == ["secrets"]
    assert cluster["access_config"][0]["bootstrap_cluster_creator_admin_permissions"] is False


def test_nodes_keep_pods_from_their_metadata_and_encrypt_their_volumes(plan: Plan) -> None:
    for template in plan.of("aws_launch_template"):
        assert template["metadata_options"][0]["http_tokens"] == "required"
        assert template["metadata_options"][0]["http_put_response_hop_limit"] == 1
        assert template["block_device_mappings"][0]["ebs"][0]["encrypted"] == "true"


def test_gpu_and_spot_pools_scale_from_none_and_are_tainted(plan: Plan) -> None:
    costly = 0
    for group in plan.of("aws_eks_node_group"):
        pool = group["labels"]["distill.platform/pool"]
        taints = {taint["key"]: (taint["value"], taint["effect"]) for taint in group["taint"]}
        gpu, spot = group["ami_type"] == "AL2023_x86_64_NVIDIA", group["capacity_type"] == "SPOT"
        assert ("nvidia.com/gpu" in group["labels"]) is gpu
        assert (taints.get("nvidia.com/gpu") == ("true", "NO_SCHEDULE")) is gpu
        assert (taints.get("distill.platform/pool") == (pool, "NO_SCHEDULE")) is spot
        assert (group["scaling_config"][0]["min_size"] == 0) is (gpu or spot)
        costly += gpu
    assert costly


def test_buckets_are_private_versioned_encrypted_and_logged(plan: Plan) -> None:
    assert len(plan.of("aws_s3_bucket")) == 4
    for kind in ("public_access_block", "versioning", "server_side_encryption_configuration", "policy"):
        assert len(plan.of(f"aws_s3_bucket_{kind}")) == 4
    for block in plan.of("aws_s3_bucket_public_access_block"):
        rules = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        assert all(block[rule] for rule in rules)
    assert len(plan.of("aws_s3_bucket_logging")) == 3


def test_no_lifecycle_expires_a_current_object_but_a_log(plan: Plan) -> None:
    lifecycles = plan.of("aws_s3_bucket_lifecycle_configuration")
    assert sum(bool(rule["expiration"]) for lifecycle in lifecycles for rule in lifecycle["rule"]) == 1
    (of_logs,) = [given for given in plan.resources if given["address"].endswith("_lifecycle_configuration.logs")]
    assert of_logs["values"]["rule"][0]["expiration"][0]["days"] >= 30
    for lifecycle in lifecycles:
        for rule in lifecycle["rule"]:
            assert not rule["transition"]
            assert rule["abort_incomplete_multipart_upload"][0]["days_after_initiation"] >= 2


def test_models_alone_are_locked(plan: Plan) -> None:
    locked = [bucket["bucket"] for bucket in plan.of("aws_s3_bucket") if bucket.get("object_lock_enabled")]
    assert locked == [f"distill-{plan.env}-models-{ACCOUNT}-{REGION}"]
    assert plan.one("aws_s3_bucket_object_lock_configuration")["rule"][0]["default_retention"][0]["days"] >= 1


def test_database_is_private_and_its_password_in_no_state(plan: Plan) -> None:
    database = plan.one("aws_db_instance")
    assert not database["publicly_accessible"]
    assert database["storage_encrypted"]
    assert database["manage_master_user_password"]
    assert database.get("password") is None


def test_images_never_change_under_their_tag(plan: Plan) -> None:
    for repository in plan.of("aws_ecr_repository"):
        assert repository["image_tag_mutability"] == "IMMUTABLE"
        assert repository["image_scanning_configuration"][0]["scan_on_push"]


def test_keys_rotate(plan: Plan) -> None:
    assert all(key["enable_key_rotation"] for key in plan.of("aws_kms_key"))


def test_each_service_account_gets_its_role(plan: Plan) -> None:
    accounts = {(given["namespace"], given["service_account"]) for given in plan.of("aws_eks_pod_identity_association")}
    ours = {"cacher", "trainer", "gate", "promoter", "mlflow", "collector"}
    assert accounts == {("distill", f"distill-{name}") for name in ours} | {("kube-system", "cluster-autoscaler")}


def test_prod_is_protected_where_dev_is_not(plan: Plan) -> None:
    prod = plan.env == "prod"
    database = plan.one("aws_db_instance")
    assert database["deletion_protection"] is prod
    assert database["multi_az"] is prod
    assert database["skip_final_snapshot"] is not prod
    assert all(bucket["force_destroy"] is not prod for bucket in plan.of("aws_s3_bucket"))
    assert len(plan.of("aws_nat_gateway")) == (3 if prod else 1)


def test_dev_is_made_and_unmade_and_its_policies_are_the_golden_ones(on_mock: Terraform) -> None:
    on_mock("envs/dev", "apply", "-input=false", "-auto-approve", "-parallelism=20")
    outputs = json.loads(on_mock("envs/dev", "output", "-json"))
    state = json.loads(on_mock("envs/dev", "show", "-json"))
    on_mock("envs/dev", "destroy", "-input=false", "-auto-approve", "-parallelism=20")
    left = json.loads(on_mock("envs/dev", "show", "-json"))

    made = {
        resource["type"] for resource in _resources(state["values"]["root_module"]) if resource["mode"] == "managed"
    }
    assert {"aws_eks_cluster", "aws_eks_node_group", "aws_db_instance", "aws_s3_bucket_policy", "aws_iam_role"} <= made
    assert "values" not in left
    overlay = outputs["k8s_overlay"]["value"]
    assert overlay["workspace_uri"] == f"s3://distill-dev-workspace-{ACCOUNT}-{REGION}"
    assert overlay["service_accounts"]["distill-trainer"] == f"arn:aws:iam::{ACCOUNT}:role/distill-dev-trainer"
    assert overlay["node_taints"]["gpu-spot"] == {"distill.platform/pool": "gpu-spot", "nvidia.com/gpu": "true"}

    rendered = _golden(outputs, state)
    if os.environ.get("DISTILL_UPDATE_GOLDEN"):
        GOLDEN.write_text(rendered)
    assert rendered == GOLDEN.read_text(), "policies changed: set DISTILL_UPDATE_GOLDEN=1 and read the difference"


def _golden(outputs: dict[str, Any], state: dict[str, Any]) -> str:
    """The policies with keys by the names of their aliases, and the secret without its random end."""
    policies = outputs["policies"]["value"]
    rendered = {
        **{kind: {name: json.loads(text) for name, text in policies[kind].items()} for kind in ("roles", "buckets")},
        "secret": outputs["k8s_overlay"]["value"]["mlflow_db_secret"],
    }
    text = json.dumps(rendered, indent=1, sort_keys=True)
    for resource in _resources(state["values"]["root_module"]):
        if resource["type"] == "aws_kms_alias":
            alias = resource["values"]
            text = text.replace(alias["target_key_arn"].rsplit("/", 1)[1], alias["name"].removeprefix("alias/"))
    return re.sub(r"(:secret:)[^\"]+", r"\1mlflow", text) + "\n"


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", ())
    for child in module.get("child_modules", ()):
        yield from _resources(child)
