"""Every request that a real run makes of S3 is one that the role of its step may make, by the rendered policies.

The run is on moto, which enforces no policy: what it was asked is recorded, and judged here. So a policy that would
stop the platform is found before AWS finds it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from distill_platform.collect import remove, survey
from distill_platform.runs import STEPS
from distill_platform.storage import open_storage
from tests.integration.conftest import SPEC, finish, start
from tests.terraform.policy import OVER_TLS, Request, bucket_arn, is_allowed

pytestmark = pytest.mark.slow

ROLE_OF = {
    **dict.fromkeys(("prepare", "teacher", "cache"), "distill-cacher"),
    **dict.fromkeys(("baseline", "sweep", "compress"), "distill-trainer"),
    **dict.fromkeys(("evaluate", "gate"), "distill-gate"),
    **dict.fromkeys(("register", "promote"), "distill-promoter"),
}
WORKSPACE, MODELS = (bucket_arn(bucket).removeprefix("arn:aws:s3:::") for bucket in ("workspace", "models"))
_ENTRY = re.compile(r"/runs/[^/]+/(\w+)(?:-[^/]+)?\.(json|log|failed\.json)$")


class Recorder:
    """moto behind a list of what it was asked, as IAM would see it: action, resource, condition keys."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __call__(self, environ: dict[str, str], respond: Callable[..., object]) -> Iterable[bytes]:
        path, query = unquote(environ["PATH_INFO"]), parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        action, context = _as_iam_sees_it(environ["REQUEST_METHOD"], "/" in path[1:].rstrip("/"), query)
        if "HTTP_IF_NONE_MATCH" in environ:
            context["s3:if-none-match"] = environ["HTTP_IF_NONE_MATCH"]
        self.asked.append((f"s3:{action}", f"arn:aws:s3:::{path.strip('/')}", {**OVER_TLS, **context}))
        return self._moto(environ, respond)

    def take(self) -> list[tuple[str, str, dict[str, str]]]:
        """What was asked since the last time."""
        taken, self.asked = self.asked, []
        return taken

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()


def _as_iam_sees_it(method: str, has_key: bool, query: dict[str, list[str]]) -> tuple[str, dict[str, str]]:
    if not has_key:
        if method == "GET" and "uploads" in query:
            return "ListBucketMultipartUploads", {}
        if method in ("GET", "HEAD"):
            return "ListBucket", {"s3:prefix": query.get("prefix", [""])[0]}
        return f"{method} of a bucket", {}  # which no role may do, whatever it is
    if method in ("GET", "HEAD"):
        return "GetObject", {}
    if method == "DELETE":
        return ("AbortMultipartUpload" if "uploadId" in query else "DeleteObject"), {}
    is_part_or_begin = "partNumber" in query or "uploads" in query
    return "PutObject", {"s3:ObjectCreationOperation": str(not is_part_or_begin).lower()}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recording S3."""
    made = Recorder()
    yield made
    made.close()


@pytest.fixture
def s3_uri(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> str:
    """The models bucket of dev, where `tracking_uri` lets MLflow's clients put model files."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", recorder.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for bucket in (WORKSPACE, MODELS):
        boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{MODELS}"


def test_a_run_and_a_collection_ask_for_nothing_that_their_roles_may_not(
    recorder: Recorder, s3_uri: str, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path / "scratch"))
    spec = tmp_path / "wine.yaml"
    spec.write_text(SPEC)
    recorder.take()
    finish(start(spec, f"s3://{WORKSPACE}"))
    asked = list(_by_role(recorder.take()))
    assert {role for role, *_ in asked} == set(ROLE_OF.values())
    assert any(resource.endswith("/MLmodel") and action == "s3:PutObject" for _, action, resource, _ in asked)

    storage = open_storage(f"s3://{WORKSPACE}")
    storage.write(f"artifacts/cache/{'0' * 64}/shards/left.bin", b"a build that never committed")
    recorder.take()
    assert [each.kind for each in remove(storage, survey(storage, 0.0).garbage, 0.0)] == ["unfinished"]
    asked += [("distill-collector", *each) for each in recorder.take()]

    refused = {
        (role, action, resource)
        for role, action, resource, context in asked
        if not is_allowed(Request(role, action, resource, context))
    }
    assert not refused


def _by_role(asked: list[tuple[str, str, dict[str, str]]]) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Each request with the role of the step it was made in: a step ends as its entry in the run's folder is written.

    What the process that drives all steps does after the last of them is nobody's here: in a cluster it is no pod.
    """
    entries = [_ENTRY.search(resource) if action == "s3:PutObject" else None for action, resource, _ in asked]
    ends = [index for index, entry in enumerate(entries) if entry and entry[1] in STEPS and entry[2] == "json"]
    assert len(ends) == len(STEPS)
    for index, (request, entry) in enumerate(zip(asked[: ends[-1] + 1], entries, strict=False)):
        step = next(step for step, end in zip(STEPS, ends, strict=True) if index <= end)
        if entry and entry[1] in STEPS:  # the log of a step is written once more after its entry
            step = entry[1]
        yield ROLE_OF[step], *request
