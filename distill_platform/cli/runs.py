"""Commands over runs: start one, see what it would do, follow it, stop it, try a step of it again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_platform.cli import console
from distill_platform.cli.options import (
    Debug,
    Json,
    Overrides,
    Ray,
    RunId,
    RunOption,
    SpecPath,
    TrackingUri,
    Workspace,
)
from distill_platform.errors import InputError, NotFound, QualityError

if TYPE_CHECKING:
    from distill_platform.runs import RunStatus
    from distill_platform.spec import Spec

VERDICT_FAILED = QualityError.exit_code


def run(
    spec: SpecPath,
    workspace: Workspace = "./runs",
    overrides: Overrides = None,
    ray: Ray = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a spec: every step that is not done yet, from data to a promoted student."""
    from distill_platform.spec import load_spec

    _run(load_spec(spec, overrides or ()), workspace, ray, tracking_uri, as_json, debug)


def plan(
    spec: SpecPath,
    workspace: Workspace = "./runs",
    overrides: Overrides = None,
    ray: Ray = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a run would do and what is done already, before anything is spent."""
    from distill_platform import spine
    from distill_platform.spec import load_spec

    planned = spine.plan(load_spec(spec, overrides or ()), workspace, ray_address=ray, tracking_uri=tracking_uri)
    if as_json:
        console.print_json(planned)
    else:
        _show_plan(planned)


def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("spec.yaml")) -> None:
    """Write a commented spec to start from: handwritten digits, done in two minutes on a laptop."""
    from distill_platform.spec import template

    try:
        with path.open("x") as file:
            file.write(template())
    except FileExistsError:
        raise InputError(f"{path} exists; name another file") from None
    except FileNotFoundError:
        raise InputError(f"{path.parent} is no folder; make it first") from None
    typer.echo(f"wrote {path}; next: distill plan {path}, then distill run {path}")


def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    from distill_platform.spec import json_schema

    console.print_json(json_schema())


def status(run_id: RunId = None, workspace: Workspace = "./runs", as_json: Json = False, debug: Debug = False) -> None:
    """Show the steps of a run; without one, the newest runs."""
    from distill_platform import runs
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    if run_id is not None:
        _show_run(_as_json(runs.read_run(storage, run_id)), as_json)
        return
    found = [_as_json(run) for run in runs.read_runs(storage)]
    if as_json:
        console.print_json(found)
        return
    rows = [(each["run"], each["status"], each["started_at"], ", ".join(each["steps"])) for each in reversed(found)]
    console.print_table(f"Runs in {workspace}, newest first", ("run", "status", "started", "steps"), rows)


def logs(
    run_id: RunId = None,
    step: Annotated[str | None, typer.Option(help="Of this step alone.")] = None,
    workspace: Workspace = "./runs",
    debug: Debug = False,
) -> None:
    """Print what a run logged so far."""
    from distill_platform import runs
    from distill_platform.storage import open_storage

    typer.echo(runs.read_log(open_storage(workspace), run_id, step), nl=False)


def stop(run_id: RunId = None, workspace: Workspace = "./runs", as_json: Json = False, debug: Debug = False) -> None:
    """Ask a run to stop in order, wherever it runs; running its spec again continues it."""
    from distill_platform import runs
    from distill_platform.storage import open_storage

    asked = runs.request_stop(open_storage(workspace), run_id)
    if as_json:
        console.print_json({"run": asked, "stop": "requested"})
    else:
        typer.echo(f"asked {asked} to stop; `distill status {asked}` says when it did")


def retry(
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step to start over.")],
    run_id: RunOption = None,
    workspace: Workspace = "./runs",
    ray: Ray = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a run's spec again, with what its unfinished STEP left behind dropped first."""
    from distill_platform import runs, spine
    from distill_platform.spec import load_spec_json
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    before = runs.read_run(storage, run_id)
    if before.status == "running":
        raise InputError(f"run {before.id} is still at work; `distill stop {before.id}` first")
    spec = load_spec_json(before.spec, f"{before.id}/run.json")
    planned = spine.plan(spec, workspace, ray_address=ray, tracking_uri=tracking_uri)
    rows = {row["step"]: row for row in planned["steps"]}
    if step not in rows:
        raise InputError(f"no step is called {step!r}; steps are {', '.join(rows)}")
    if rows[step]["status"] == "ready":
        raise InputError(f"step {step} of run {before.id} is done; there is nothing to retry")
    if rows[step]["key"]:
        left = storage.child(f"work/{step}/{rows[step]['key']}")
        for name in left.list():
            left.delete(name)
    _run(spec, workspace, ray, tracking_uri, as_json, debug)


def report(
    run_id: RunId = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Copy the page to this file.")] = None,
    workspace: Workspace = "./runs",
    debug: Debug = False,
) -> None:
    """Say where a run's report is, or copy it."""
    from distill_platform import runs
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    found = runs.read_run(storage, run_id)
    folder = storage.child(f"runs/{found.id}")
    if not folder.exists("report.html"):
        raise NotFound(f"run {found.id} has no report: it is {found.status}, and the gate step writes it")
    if output is not None:
        folder.download("report.html", output)
    typer.echo(str(output or f"{folder.uri}/report.html"))


COMMANDS = (run, plan, init, status, logs, stop, retry, report, schema)


def _run(spec: Spec, workspace: str, ray: str | None, tracking_uri: str | None, as_json: bool, debug: bool) -> None:
    """Run a spec with progress on stderr, show what it came to, and end with the verdict's exit code."""
    from distill_platform import spine

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a pod that is deleted ends in order, as by Ctrl-C
    with console.shown_progress(debug):
        result = spine.run(spec, workspace, ray_address=ray, tracking_uri=tracking_uri)
    document = result.to_json()
    if as_json:
        console.print_json(document)
    else:
        _show_result(document)
    if not result.passed:
        raise typer.Exit(VERDICT_FAILED)


def _show_plan(planned: dict[str, Any]) -> None:
    rows = [(row["step"], row["status"], row["key"] and row["key"][:12], row["uri"]) for row in planned["steps"]]
    console.print_table(f"{planned['spec']} in {planned['workspace']}", ("step", "status", "key", "artifact"), rows)
    trials = planned["trials"]
    each = f"of {trials['epochs_each']} epochs at most"
    console.print_facts(
        {
            **_cache_facts(planned["cache"]),
            "trials": f"{trials['sweep']} with the teacher and {trials['baseline']} without, {each}",
            **{name.replace("_", " "): value for name, value in planned["resolved"].items()},
        }
    )


def _cache_facts(size: dict[str, Any] | None) -> dict[str, str]:
    if size is None:
        return {"cache": "none: students ask a teacher themselves"}
    if size["bytes"] is None:
        return {"cache": "size unknown until data and teacher are there"}
    about = "" if size["exact"] else "about "
    each = "output" if size["units_per_row"] == 1 else f"token, {size['units_per_row']} tokens per row"
    unit = f"codec {size['codec']}, {size['bytes_per_unit']:,} bytes per {each}"
    facts = {
        "cache": f"{about}{size['bytes']:,} bytes in {size['rows']:,} rows; {unit}",
        "cache pays": f"from {size['pays_from_trials']} trials on, against a live teacher",
    }
    if not size["fits_in_memory"]:
        facts["note"] = "the cache is more than half of this machine's memory; set train.order: windowed"
    return facts


def _show_result(document: dict[str, Any]) -> None:
    console.print_models(document["metrics"])
    verdict, steps = document["verdict"], document["steps"]
    console.print_checks(verdict)
    reused = sum(step["status"] == "reused" for step in steps.values())
    facts = {
        "verdict": "passed" if verdict["passed"] else "FAILED: nothing is registered or promoted",
        "steps": f"{len(steps)}, of which {reused} reused",
    }
    if model := document["model"]:
        facts["model"] = f"{model['name']} version {model['version']} ({', '.join(model['aliases']) or 'no alias'})"
    rows = document["metrics"]
    if console.is_below(rows["student"], rows["baseline"]):
        facts["note"] = "the student is below the one trained without a teacher: distillation did not help here"
    if (promotion := document["promotion"]) and promotion["status"] == "withheld":
        facts["not promoted"] = promotion["reason"]
    console.print_facts({**facts, "report": document["report"]})


def _as_json(found: RunStatus) -> dict[str, Any]:
    """A RunStatus as a JSON document."""
    return {
        "run": found.id,
        "status": found.status,
        "started_at": found.started_at,
        "steps": found.steps,
        "end": found.end,
        "spec": found.spec,
    }


def _show_run(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.print_json(found)
        return
    rows = [
        (name, step["status"], console.figure(step["seconds"], 1), step.get("uri") or step.get("error"))
        for name, step in found["steps"].items()
    ]
    console.print_table(f"{found['run']}: {found['status']}", ("step", "status", "seconds", "artifact"), rows)
    if found["end"] and found["end"].get("error"):
        typer.echo(found["end"]["error"])
