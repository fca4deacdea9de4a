"""Builds of a cache, each in a process of its own that dies where it is told to.

Processes are forked from a server that has imported everything (multiprocessing's forkserver), so that hundreds of
builds cost seconds. A point is the moment before or after a call of the storage, and before a file's fsync, when it is
half written. What runs in the child is the cache step itself; `in_process` replaces Ray's transport alone, so that
every storage call is made by the process that counts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial, wraps
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import distill_platform.cache.reader
import distill_platform.sweep  # noqa: F401  loaded once, before the forks
from distill_platform import steps
from distill_platform.artifact import Artifact, open_artifact
from distill_platform.cluster import connect
from distill_platform.collect import remove, survey
from distill_platform.data.columns import read_columns
from distill_platform.data.examples import open_split
from distill_platform.spec import load_spec
from distill_platform.spec.resolve import Machine, resolve
from distill_platform.spec.schema import Spec
from distill_platform.storage import LocalStorage, S3Storage, Storage, open_storage
from distill_platform.teacher import fill
from distill_platform.workspace import Workspace
from tests.factory import make_data, make_teacher

SPEC = """
name: blobs
data:
  source: sklearn:wine
  views: {{num: {num_views}, augment: [{{name: noise, std: 0.05}}]}}
teacher: {{model: {{name: mlp, hidden: [32]}}}}
student: {{name: mlp, hidden: [4]}}
cache: {{codec: dense}}
resources: {{cache_workers: 2}}
gates: {{checks: [accuracy >= 0.5]}}
"""

CALLS = tuple(name for name in vars(Storage) if not name.startswith("_") and name != "child")


@dataclass(frozen=True)
class Build:
    """A cache to be built: where its data and teacher are, how it is cut, where it goes, what the process needs."""

    inputs_uri: str
    data_key: str
    teacher_key: str
    num_views: int
    rows_per_shard: int
    workspace_uri: str = ""
    ray_address: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def at(self, workspace_uri: str, ray_address: str | None = None) -> Build:
        """The same build in another workspace."""
        return replace(self, workspace_uri=workspace_uri, ray_address=ray_address)

    @property
    def spec(self) -> Spec:
        return resolve(load_spec(SPEC.format(num_views=self.num_views)), Machine(2, 0, "float32"))

    def input(self, step: str, key: str) -> Artifact:
        found = open_artifact(open_storage(self.inputs_uri), step, key)
        assert found is not None
        return found

    def start(self, target: Callable[..., None], *given: Any) -> ForkServerProcess:
        """A process that calls `target(build, …)`."""
        process = forks().Process(target=_in_environment, args=(self, target, *given), daemon=True)
        process.start()
        return process


@cache
def forks() -> multiprocessing.context.ForkServerContext:
    """Where processes come from: a server that has loaded this module, and the runner's, and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "boto3", "sklearn.metrics", "torch._dynamo", "tests.integration.builds"])
    return context


def make_inputs(uri: str, sizes: tuple[int, int, int], num_views: int, rows_per_shard: int) -> Build:
    """Data and a teacher for builds, made once."""
    storage = open_storage(uri)
    data = make_data(storage, sizes=sizes)
    teacher = make_teacher(storage, data)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "DISTILL_", "OMP_"))}
    return Build(uri, data.key, teacher.key, num_views, rows_per_shard, environment=kept)


def build_cache(build: Build) -> Artifact:
    """The cache step in this process, over Ray."""
    fill.plan_shards = partial(fill.plan_shards, rows_per_shard=build.rows_per_shard)  # type: ignore[attr-defined]
    workspace = Workspace.at(build.workspace_uri, ray_address=build.ray_address)
    data, teacher = build.input("prepare", build.data_key), build.input("teacher", build.teacher_key)
    return steps.cache(build.spec, data, teacher, workspace)


def in_process(make: Callable[[], Any], items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
    """As `over_workers`, with this process as the one worker."""
    call = make()
    return (call(item) for item in items)


def build_alone(build: Build) -> Artifact:
    """The cache step without Ray."""
    fill.over_workers = in_process  # type: ignore[attr-defined]
    steps._connect = lambda workspace: None
    return build_cache(build)


def build_and_die(build: Build, die_at: int, counted: str = "") -> None:
    """The cache step, killed at point `die_at`; writes how many points there were to the file `counted`."""
    points = _Points(die_at)
    points.watch()
    build_alone(build)
    if counted:
        Path(counted).write_text(str(points.passed))


def build_over_ray(build: Build) -> None:
    """The cache step as a driver of the Ray cluster at `ray_address`."""
    connect(build.ray_address)
    build_cache(build)


class _Points:
    """Counts the points that a process passes, and kills it at one of them."""

    def __init__(self, die_at: int) -> None:
        self.die_at, self.passed = die_at, 0

    def watch(self) -> None:
        for storage in (LocalStorage, S3Storage):
            for name in CALLS:
                setattr(storage, name, self._around(getattr(storage, name)))
        os.fsync = self._around(os.fsync)

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def watched(*given: Any, **named: Any) -> Any:
            self._pass()
            result = call(*given, **named)
            self._pass()
            return result

        return watched

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def built(build: Build) -> Artifact:
    """The one cache of a workspace, every file of it read and verified; what else is left there, gc removes."""
    storage = open_storage(build.workspace_uri)
    litter = [found for found in survey(storage, grace_s=0).garbage if found.kind == "leftover"]
    assert remove(storage, litter, grace_s=0) == litter
    artifact = committed(build)
    assert artifact is not None
    paths = [entry["path"] for entry in artifact.record["files"].values()]
    assert artifact.storage.list() == sorted(["record.json", *paths])
    folders = {name.split("/")[2] for name in storage.list("artifacts/cache")}
    assert folders == {artifact.key}
    assert storage.list("work") == []
    return artifact


def committed(build: Build) -> Artifact | None:
    """The cache that is committed in a workspace, if there is one; what its record names is there, byte by byte."""
    storage = open_storage(build.workspace_uri)
    records = [name for name in storage.list("artifacts/cache") if name.endswith("/record.json")]
    if not records:
        return None
    (record,) = records
    artifact = open_artifact(storage, "cache", record.split("/")[2])
    assert artifact is not None
    for name in artifact.files:
        artifact.read(name)
    return artifact


def assert_every_row_once(cache: Artifact, build: Build, folder: Path) -> int:
    """Every (example, view) of the data is in the cache once, in order; gives the number of rows."""
    data, num_rows = build.input("prepare", build.data_key), 0
    for split, num_views in (("train", build.num_views), ("val", 1)):
        wanted = [(bytes(key), view) for key in open_split(data, split).keys.numpy() for view in range(num_views)]
        found = []
        for name in sorted(cache.files_under("shards")):
            if name.startswith(f"shards/{split}-"):
                path = folder / Path(name).name
                path.write_bytes(cache.read(name))
                columns = read_columns(path, ["key", "view"])
                found += [(bytes(key), int(view)) for key, view in zip(columns["key"], columns["view"], strict=True)]
        assert found == wanted
        num_rows += len(found)
    return num_rows


def _in_environment(build: Build, target: Callable[..., None], *given: Any) -> None:
    os.environ.update(build.environment)
    target(build, *given)
