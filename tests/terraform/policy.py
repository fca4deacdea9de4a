"""A small evaluator of IAM policies, for those in golden/: identity policy and bucket policy of one account together.

An explicit Deny in either refuses; else an Allow in the identity policy is needed. Only the operators that our policies
use are known; any other raises, so that a policy is never judged by half.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "policies.json"
ACCOUNT, REGION = "123456789012", "eu-central-1"
OVER_TLS = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}
CREATES = {"s3:if-none-match": "*", "s3:ObjectCreationOperation": "true"}
REPLACES = {"s3:ObjectCreationOperation": "true"}


@dataclass(frozen=True)
class Request:
    """What somebody wants to do. `resource` is an ARN; `context` holds the condition keys that the request has."""

    role: str
    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def bucket_arn(bucket: str) -> str:
    """The ARN of one of dev's buckets."""
    return f"arn:aws:s3:::distill-dev-{bucket}-{ACCOUNT}-{REGION}"


def s3(role: str, action: str, where: str, how: Mapping[str, str] | None = None) -> Request:
    """A request to S3 over TLS; `where` is `<bucket>/<key>`, or a bucket alone."""
    bucket, slash, key = where.partition("/")
    how = CREATES if how is None and action == "PutObject" else how or {}
    return Request(role, f"s3:{action}", f"{bucket_arn(bucket)}{slash}{key}", {**OVER_TLS, **how})


@cache
def policies() -> dict[str, Any]:
    """The rendered policies of dev: roles by service account, buckets by name."""
    return json.loads(GOLDEN.read_text())


ADMINISTRATOR = "an administrator"
_EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def is_allowed(request: Request) -> bool:
    """Whether IAM would let it through; an ADMINISTRATOR's own policy allows everything."""
    own = _EVERYTHING if request.role == ADMINISTRATOR else policies()["roles"][request.role]
    identity = _effects(own, request)
    buckets = [_effects(document, request) for document in policies()["buckets"].values()]
    return "Allow" in identity and "Deny" not in identity.union(*buckets)


def _effects(document: Mapping[str, Any], request: Request) -> set[str]:
    return {statement["Effect"] for statement in document["Statement"] if _applies(statement, request)}


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
    if "Principal" in statement:
        assert (statement["Principal"], statement["Effect"]) == ("*", "Deny"), "a bucket grants nobody anything"
    suffix = request.role.removeprefix("distill-")
    context = {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/distill-dev-{suffix}", **request.context}
    return (
        any(_like(pattern.lower(), request.action.lower()) for pattern in _list(statement["Action"]))
        and any(_like(pattern, request.resource) for pattern in _list(statement["Resource"]))
        and all(
            _holds(operator, context.get(key), _list(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    if operator == "Null":
        return [str(value is None).lower()] == wanted
    if value is None:  # a negated operator holds for a key that is not there, all others do not
        return operator == "ArnNotEquals"
    if operator in ("StringEquals", "Bool"):
        return value in wanted
    if operator == "StringLike":
        return any(_like(pattern, value) for pattern in wanted)
    if operator == "ArnNotEquals":
        return not any(_like(pattern, value) for pattern in wanted)
    if operator == "NumericLessThan":
        return any(float(value) < float(limit) for limit in wanted)
    raise NotImplementedError(f"condition operator {operator}")


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
