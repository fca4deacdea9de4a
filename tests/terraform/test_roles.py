"""Who may do what: the rendered policies of dev (golden/policies.json), judged action by action.

`test_plan.py` renders them anew and holds the golden file to it.
"""

from __future__ import annotations

import json

import pytest

from tests.terraform.policy import ACCOUNT, ADMINISTRATOR, OVER_TLS, REGION, REPLACES, Request, is_allowed, policies, s3

ROLES = ("cacher", "trainer", "gate", "promoter", "mlflow", "collector")
KEY = "0" * 64
OBJECTS = {
    "prepared data": f"workspace/artifacts/prepare/{KEY}/splits/train-00000.0123456789ab.parquet",
    "test split": f"workspace/artifacts/prepare/{KEY}/splits/test-00000.0123456789ab.parquet",
    "teacher": f"workspace/artifacts/teacher/{KEY}/model/weights.0123456789ab.safetensors",
    "cache manifest": f"workspace/artifacts/cache/{KEY}/manifest.0123456789ab.json",
    "cache record": f"workspace/artifacts/cache/{KEY}/record.json",
    "baseline": f"workspace/artifacts/baseline/{KEY}/record.json",
    "student": f"workspace/artifacts/sweep/{KEY}/record.json",
    "shipped": f"workspace/artifacts/compress/{KEY}/record.json",
    "evaluation": f"workspace/artifacts/evaluate/{KEY}/record.json",
    "verdict": f"workspace/artifacts/gate/{KEY}/record.json",
    "registration": f"workspace/artifacts/register/{KEY}/record.json",
    "promotion": f"workspace/artifacts/promote/{KEY}/record.json",
    "log": "workspace/registry/digits/000001.json",
    "sweep work": f"workspace/work/sweep/{KEY}/members/000001.json",
    "cache work": f"workspace/work/cache/{KEY}/shards/000001.json",
    "gate work": f"workspace/work/gate/{KEY}/left.json",
    "cache lease": f"workspace/leases/cache/{KEY}/00000001.json",
    "sweep lease": f"workspace/leases/sweep/{KEY}/00000001.json",
    "register lease": "workspace/leases/register/digits/00000001.json",
    "run": "workspace/runs/digits-1/run.json",
    "run's sweep entry": "workspace/runs/digits-1/sweep.json",
    "run's gate entry": "workspace/runs/digits-1/gate.json",
    "entry of a run's second teacher": "workspace/runs/digits-1/teacher-large.json",
    "raw data": "data/images/1.png",
    "model": "models/mlflow/1/0123/artifacts/model/MLmodel",
    "models elsewhere": "models/other/file",
}

# Of each object: who may read, who may create, who may delete. Nobody else may.
TABLE = {
    "prepared data": ("cacher trainer gate promoter", "cacher", "collector"),
    "test split": ("gate", "cacher", "collector"),
    "teacher": ("cacher trainer gate promoter", "cacher", "collector"),
    "cache manifest": ("cacher trainer gate promoter", "cacher", "collector"),
    "cache record": ("cacher trainer gate promoter collector", "cacher collector", "collector"),
    "baseline": ("trainer gate promoter collector", "trainer", ""),
    "student": ("trainer gate promoter collector", "trainer", ""),
    "shipped": ("trainer gate promoter collector", "trainer", ""),
    "evaluation": ("gate promoter collector", "gate", ""),
    "verdict": ("gate promoter collector", "gate", ""),
    "registration": ("gate promoter collector", "promoter", ""),
    "promotion": ("gate promoter collector", "promoter", ""),
    "log": ("gate promoter", "promoter", ""),
    "sweep work": ("trainer", "trainer", "trainer collector"),
    "cache work": ("cacher", "cacher", "cacher collector"),
    "gate work": ("gate", "gate", "gate collector"),
    "cache lease": ("cacher collector", "cacher collector", "cacher collector"),
    "sweep lease": ("trainer collector", "trainer collector", "trainer collector"),
    "register lease": ("promoter collector", "promoter collector", "promoter collector"),
    "run": ("cacher trainer gate promoter collector", "cacher trainer gate promoter", ""),
    "run's sweep entry": ("cacher trainer gate promoter collector", "trainer", ""),
    "run's gate entry": ("cacher trainer gate promoter collector", "gate", ""),
    "entry of a run's second teacher": ("cacher trainer gate promoter collector", "cacher", ""),
    "raw data": ("cacher", "", ""),
    "model": ("gate promoter mlflow", "promoter", ""),
    "models elsewhere": ("", "", ""),
}


@pytest.mark.parametrize("action", ["GetObject", "PutObject", "DeleteObject"])
@pytest.mark.parametrize("name", OBJECTS)
def test_each_role_does_what_the_table_says_and_nothing_else(name: str, action: str) -> None:
    wanted = TABLE[name][("GetObject", "PutObject", "DeleteObject").index(action)].split()
    assert [role for role in ROLES if is_allowed(s3(f"distill-{role}", action, OBJECTS[name]))] == [
        role for role in ROLES if role in wanted
    ]


@pytest.mark.parametrize("name", ["cache record", "cache manifest", "student", "verdict", "log"])
def test_a_commit_without_if_none_match_is_refused_to_those_who_may_create_it(name: str) -> None:
    for role in TABLE[name][1].split():
        assert is_allowed(s3(f"distill-{role}", "PutObject", OBJECTS[name]))
        assert not is_allowed(s3(f"distill-{role}", "PutObject", OBJECTS[name], REPLACES))


def test_parts_of_a_large_commit_need_no_if_none_match() -> None:
    starts = {"s3:ObjectCreationOperation": "false"}  # what creating the upload, and a part of it, look like
    assert is_allowed(s3("distill-trainer", "PutObject", OBJECTS["student"], starts))


@pytest.mark.parametrize(
    "action",
    [
        *("DeleteObjectVersion", "PutObjectAcl", "PutObjectRetention", "BypassGovernanceRetention"),
        *("PutObjectLegalHold", "PutBucketPolicy", "PutLifecycleConfiguration", "DeleteBucket"),
    ],
)
def test_no_role_undoes_what_protects_objects(action: str) -> None:
    for role in ROLES:
        for where in (*OBJECTS.values(), "workspace", "models", "data"):
            assert not is_allowed(s3(f"distill-{role}", action, where)), (role, where)


@pytest.mark.parametrize("transport", [{"aws:SecureTransport": "false"}, {"s3:TlsVersion": "1.1"}])
@pytest.mark.parametrize("name", ["raw data", "model", "teacher"])
def test_nothing_goes_without_tls_1_2(name: str, transport: dict[str, str]) -> None:
    for role in TABLE[name][0].split():
        assert not is_allowed(s3(f"distill-{role}", "GetObject", OBJECTS[name], transport))


def test_a_missing_object_is_a_404_to_all_who_wait_for_one() -> None:
    for role in ("cacher", "trainer", "gate", "promoter", "collector"):
        assert is_allowed(s3(f"distill-{role}", "ListBucket", "workspace"))


def test_mlflow_lists_model_files_alone() -> None:
    assert is_allowed(s3("distill-mlflow", "ListBucket", "models", {"s3:prefix": "mlflow/1/"}))
    assert not is_allowed(s3("distill-mlflow", "ListBucket", "models", {"s3:prefix": ""}))
    assert not is_allowed(s3("distill-mlflow", "ListBucket", "workspace", {"s3:prefix": "mlflow/1/"}))


@pytest.mark.parametrize(
    ("action", "name", "refused"),
    [
        ("DeleteObject", "verdict", True),
        ("DeleteObject", "cache record", True),
        ("DeleteObject", "log", True),
        ("DeleteObjectVersion", "student", True),
        ("DeleteObjectVersion", "log", True),
        ("DeleteObject", "sweep work", False),
        ("DeleteObject", "raw data", False),
    ],
)
def test_the_bucket_refuses_even_an_administrator(action: str, name: str, refused: bool) -> None:
    assert is_allowed(s3(ADMINISTRATOR, action, OBJECTS[name])) is not refused


def test_only_mlflow_reads_the_databases_password() -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/distill-dev/mlflow"
    through = {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}
    assert [role for role in ROLES if is_allowed(Request(f"distill-{role}", "kms:Decrypt", key, through))] == ["mlflow"]
    resource = policies()["secret"]
    asked = {role: is_allowed(Request(f"distill-{role}", "secretsmanager:GetSecretValue", resource)) for role in ROLES}
    assert [role for role, allowed in asked.items() if allowed] == ["mlflow"]


@pytest.mark.parametrize(
    ("key", "decrypts", "encrypts"),
    [
        ("workspace", "cacher trainer gate promoter collector", "cacher trainer gate promoter collector"),
        ("models", "gate promoter mlflow", "promoter"),
        ("mlflow", "", ""),  # by Secrets Manager, and not by S3
        ("images", "", ""),
    ],
)
def test_keys_are_used_through_s3_by_who_needs_them(key: str, decrypts: str, encrypts: str) -> None:
    through_s3 = {**OVER_TLS, "kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    for action, wanted in (("Decrypt", decrypts), ("GenerateDataKey", encrypts)):
        resource = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/distill-dev/{key}"
        asked = [f"distill-{role}" for role in ROLES]
        allowed = [role for role in asked if is_allowed(Request(role, f"kms:{action}", resource, through_s3))]
        assert allowed == [role for role in asked if role.removeprefix("distill-") in wanted.split()]
        assert not any(is_allowed(Request(role, f"kms:{action}", resource, OVER_TLS)) for role in asked)


def test_no_policy_names_an_action_or_a_resource_by_a_bare_wildcard() -> None:
    for role, document in policies()["roles"].items():
        for statement in document["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            assert "*" not in json.dumps(actions), (role, actions)
            for resource in [resources] if isinstance(resources, str) else resources:
                assert resource.startswith("arn:aws:"), (role, resource)
                assert "*" not in resource.split("/")[0], (role, resource)
