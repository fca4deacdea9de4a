"""Commands that look into what steps made: a sweep's trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_platform.cli import console
from distill_platform.cli.options import Debug, Json, RunOption, Workspace
from distill_platform.errors import InputError

if TYPE_CHECKING:
    from distill_platform.artifact import Artifact

sweep_app = typer.Typer(name="sweep", help="What a sweep tried.", no_args_is_help=True)


@sweep_app.callback()
def _sweep() -> None:
    """What a sweep tried."""


@sweep_app.command()
def results(
    run: RunOption = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Of the students without a teacher.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Copy the Parquet file to this one.")] = None,
    workspace: Workspace = "./runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The trials of a run's sweep, best first."""
    from distill_platform.sweep.results import TRIALS_FILE, read_trials

    artifact = artifact_of(workspace, run, "baseline" if baseline else "sweep")
    if output is not None:
        output.write_bytes(artifact.read(TRIALS_FILE))
    trials = sorted(
        read_trials(artifact), key=lambda trial: -(trial["score"] if trial["score"] is not None else -1e308)
    )
    if as_json:
        console.print_json({"uri": artifact.uri, "digest": artifact.digest, "trials": trials})
        return
    rows = [
        (
            trial["member"],
            trial["status"],
            console.figure(trial["metrics"].get("val_accuracy")),
            console.figure(trial["metrics"].get("kl_to_teacher")),
            trial["epochs"],
            console.figure(trial["seconds"], 1),
            trial["size_bytes"],
            ", ".join(f"{path}={_short(value)}" for path, value in trial["settings"].items()),
        )
        for trial in trials
    ]
    columns = ("trial", "status", "val accuracy", "KL to teacher", "epochs", "seconds", "bytes", "settings")
    console.print_table(artifact.uri, columns, rows)


def artifact_of(workspace: str, run_id: str | None, step: str) -> Artifact:
    """The artifact that a run has for a step. Raises InputError if it has none."""
    from distill_platform.artifact import open_artifact
    from distill_platform.runs import read_run
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    run = read_run(storage, run_id)
    entry: dict[str, Any] = run.steps.get(step, {})
    artifact = open_artifact(storage, step, entry["key"], entry["digest"]) if "key" in entry else None
    if artifact is None:
        if step in run.steps:
            raise InputError(f"the {step} artifact of run {run.id} is gone; run its spec again to make it")
        raise InputError(f"run {run.id} ({run.status}) has no {step} yet; it has: {', '.join(run.steps) or 'nothing'}")
    return artifact


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
