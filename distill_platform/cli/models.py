"""Commands over the registry and its promotion log, and over what models are made of."""

from __future__ import annotations

import getpass
import json
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_platform.cli import console
from distill_platform.cli.options import Debug, Json, Overrides, TrackingUri, Workspace

if TYPE_CHECKING:
    from distill_platform.registry.mlflow_registry import ModelRegistry
    from distill_platform.storage import Storage

app = typer.Typer(
    name="models", help="Registered models: which there are, and which is champion.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Ref = Annotated[str, typer.Argument(metavar="VERSION", help="A number, or an alias such as @champion.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the log for good.")]


@app.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Of this model alone.")] = None,
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """All versions of a model, or of all models of the workspace."""
    storage, registry = _open(workspace, tracking_uri)
    names = [model] if model else _models_of(storage)
    versions = [version for name in names for version in registry.versions(name)]
    if as_json:
        console.print_json([_plain(version) for version in versions])
        return
    for name in names:
        _say_if_out_of_step(storage, registry, name)
    rows = [(each.model, each.number, ", ".join(each.aliases) or None, each.digest[:12]) for each in versions]
    console.print_table("", ("model", "version", "aliases", "digest"), rows)


@app.command()
def show(
    model: Model,
    version: Ref = "@champion",
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """One version: where it lies, what it was made from, and the verdict that let it through."""
    storage, registry = _open(workspace, tracking_uri)
    found = registry.get(model, version)
    document = {**_plain(found), "verdict": _verdict(registry, found)}
    _say_if_out_of_step(storage, registry, model)
    if as_json:
        console.print_json(document)
        return
    verdict = document.pop("verdict")
    tags = document.pop("tags")
    console.print_table("", (model, f"version {found.number}"), [*document.items(), *tags.items()])
    console.print_checks(verdict)


@app.command()
def promote(
    model: Model,
    version: Ref,
    reason: Reason = "promoted by hand",
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a version champion, if its verdict passed against the present champion."""
    from distill_platform.registry import log

    storage, registry = _open(workspace, tracking_uri)
    found = registry.get(model, version)
    verdict = _verdict(registry, found)
    entry = log.promote(
        storage, model, version=found.number, digest=found.digest, verdict=verdict, by=_me(), reason=reason
    )
    registry.sync(storage, model)
    _say(asdict(entry), f"{model}: version {entry.version} is champion", as_json)


@app.command()
def rollback(
    model: Model,
    reason: Reason,
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Return to the champion before the present one, which then needs an approval to come back."""
    from distill_platform.registry import log

    storage, registry = _open(workspace, tracking_uri)
    entry = log.rollback(storage, model, by=_me(), reason=reason)
    registry.sync(storage, model)
    message = f"{model}: version {entry.version} is champion again, version {entry.previous_version} is rolled back"
    _say(asdict(entry), message, as_json)


@app.command()
def approve(
    model: Model,
    version: Ref,
    reason: Reason,
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a version that was rolled back be promoted again, once."""
    from distill_platform.registry import log

    storage, registry = _open(workspace, tracking_uri)
    found = registry.get(model, version)
    entry = log.approve(storage, model, found.digest, _me(), reason)
    _say(asdict(entry), f"{model}: version {found.number} may be promoted again", as_json)


@app.command()
def history(model: Model, workspace: Workspace = "./runs", as_json: Json = False, debug: Debug = False) -> None:
    """Every promotion, rollback and approval: when, by whom, why."""
    from distill_platform.registry import log
    from distill_platform.storage import open_storage

    entries = log.history(open_storage(workspace), model)
    if as_json:
        console.print_json([asdict(entry) for entry in entries])
        return
    rows = [
        (each.number, each.at, each.action, each.version, each.digest[:12], each.by, each.reason) for each in entries
    ]
    console.print_table(model, ("#", "at", "action", "version", "digest", "by", "reason"), rows)


@app.command()
def sync(
    model: Model,
    workspace: Workspace = "./runs",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Set MLflow's aliases to what the promotion log says."""
    storage, registry = _open(workspace, tracking_uri)
    aliases = registry.sync(storage, model)
    _say(
        aliases,
        f"{model}: " + (", ".join(f"{alias} = {number}" for alias, number in aliases.items()) or "none"),
        as_json,
    )


@app.command()
def layers(
    target: Annotated[
        str, typer.Argument(metavar="SPEC|FOLDER", help="A spec, a saved model's folder, or models:/name@champion.")
    ],
    workspace: Workspace = "./runs",
    overrides: Overrides = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The layers of a spec's models, or of a saved one: the names that cache.layers and feature losses take."""
    from distill_platform.cli.layers import models_of
    from distill_platform.models.listing import list_layers

    found = {role: list_layers(model) for role, model in models_of(target, workspace, overrides or ()).items()}
    if as_json:
        console.print_json({role: [asdict(layer) for layer in listed] for role, listed in found.items()})
        return
    columns = ("layer", "type", "gives for one input", "parameters", ":attention")
    for role, listed in found.items():
        rows = [
            (each.name, each.type, each.shape and list(each.shape), f"{each.num_parameters:,}", _yes(each.attention))
            for each in listed
        ]
        console.print_table(role, columns, rows)


def _open(workspace: str, tracking_uri: str | None) -> tuple[Storage, ModelRegistry]:
    from distill_platform.registry.mlflow_registry import open_registry
    from distill_platform.storage import open_storage

    return open_storage(workspace), open_registry(workspace, tracking_uri)


def _models_of(storage: Storage) -> list[str]:
    """Models that runs of the workspace name, and those that the promotion log knows."""
    from distill_platform.runs import list_runs, read_run

    logged = {name.split("/")[1] for name in storage.list("registry")}
    return sorted(logged | {read_run(storage, run).spec["registry"]["model"] for run in list_runs(storage)})


def _verdict(registry: ModelRegistry, version: Any) -> dict[str, Any]:
    """The verdict that is stored with a version."""
    from distill_platform.registry.folder import DOCUMENTS

    with tempfile.TemporaryDirectory(prefix="distill-verdict-") as temporary:
        folder = Path(temporary) / "version"
        registry.download(version, folder)
        return dict(json.loads((folder / DOCUMENTS / "verdict.json").read_bytes()))


def _yes(value: bool) -> str | None:
    return "yes" if value else None


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _plain(version: Any) -> dict[str, Any]:
    return {**asdict(version), "aliases": list(version.aliases), "tags": dict(version.tags)}


def _say(document: dict[str, Any], message: str, as_json: bool) -> None:
    if as_json:
        console.print_json(document)
    else:
        typer.echo(message)


def _say_if_out_of_step(storage: Storage, registry: ModelRegistry, model: str) -> None:
    """A note on stderr where MLflow's alias is not what the promotion log says; the log decides."""
    from distill_platform.registry import log

    entry = log.champion(storage, model)
    decided = entry.digest if entry else None
    shown = next((each.digest for each in registry.versions(model) if "champion" in each.aliases), None)
    if decided != shown:
        said, aliased = (digest[:12] if digest else "none" for digest in (decided, shown))
        typer.echo(
            f"note: the promotion log's champion of {model} is {said}, MLflow's alias says {aliased}; the log decides: "
            f"`distill models sync {model}`",
            err=True,
        )
