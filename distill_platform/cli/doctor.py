"""What works here, what does not, and what to do about it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer

from distill_platform.cli import console
from distill_platform.cli.options import Debug, Json, Ray, TrackingUri, Workspace
from distill_platform.errors import DistillError, StorageError

FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing looked at. status: ok, failed (a run would not work), or absent (a run works without)."""

    what: str
    status: str
    detail: str
    advice: str = ""


def doctor(
    workspace: Workspace = "./runs",
    ray: Ray = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Try Ray, storage, registry, scratch and GPU as a run would use them. Exit code 1 if one that is needed fails."""
    findings = [
        _try("storage", lambda: _storage(workspace), "correct --workspace, or the credentials in the environment"),
        _try("scratch", _scratch, "set DISTILL_SCRATCH to a folder on a local disk with space"),
        _try("registry", lambda: _registry(workspace, tracking_uri), "correct --tracking-uri or MLFLOW_TRACKING_URI"),
        _try("ray", lambda: _ray(ray), "correct --ray, or leave it out to run on this machine"),
        _gpu(),
    ]
    if as_json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        rows = [(found.what, found.status, found.detail, found.advice) for found in findings]
        console.print_table("", ("what", "status", "detail", "what to do"), rows)
    if any(found.status == "failed" for found in findings):
        raise typer.Exit(DistillError.exit_code)


def _try(what: str, check: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(what, "ok", check())
    except DistillError as error:
        return Finding(what, "failed", str(error), advice)


def _storage(workspace: str) -> str:
    """Write, read, list and delete; and of two creations under one name, exactly one must win."""
    from distill_platform.storage import open_storage

    storage = open_storage(workspace).child(f"doctor/{uuid.uuid4().hex}")
    storage.write("probe", b"1")
    first, second = storage.create("once", b"first"), storage.create("once", b"second")
    same = storage.read("probe") == b"1" and storage.list() == ["once", "probe"]
    for name in storage.list():
        storage.delete(name)
    if not same:
        raise StorageError(f"{storage.uri} does not give back what was written to it")
    if (first, second) != (True, False):
        raise StorageError(f"{storage.uri} does not honour If-None-Match: two runs could overwrite each other")
    return f"{workspace}: read, write and create-if-absent work"


def _scratch() -> str:
    from distill_platform.scratch import scratch_dir

    folder = scratch_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".tmp-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}") from error
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise StorageError(f"{folder} has {free / 1e9:.1f} GB free, wanted {FREE_BYTES / 1e9:.1f}")
    return f"{folder}: {free / 1e9:.0f} GB free"


def _registry(workspace: str, tracking_uri: str | None) -> str:
    from distill_platform.registry.mlflow_registry import open_registry, without_credentials

    registry = open_registry(workspace, tracking_uri)
    registry.versions("doctor")
    return f"{without_credentials(registry.tracking_uri)} answers"


def _ray(address: str | None) -> str:
    from distill_platform.cluster import connect, resources

    connect(address)
    num_cpus, num_gpus = resources()
    return f"{address or 'a local session'}: {num_cpus:g} CPUs, {num_gpus:g} GPUs"


def _gpu() -> Finding:
    from distill_platform.spec import this_machine

    machine = this_machine()
    if not machine.num_gpus:
        return Finding("gpu", "absent", f"none here, but {machine.num_cpus:g} CPUs", "small students train on CPUs")
    return Finding("gpu", "ok", f"{machine.num_gpus:g} GPUs, {machine.gpu_precision}")
