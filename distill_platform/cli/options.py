"""Options that mean the same in every command that has them."""

from __future__ import annotations

from typing import Annotated

import typer

DEBUG = "distill_platform.debug"


def _remember_debug(ctx: typer.Context, given: bool) -> bool:
    ctx.meta[DEBUG] = given
    return given


SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="The spec's YAML file, local or s3://.")]
RunId = Annotated[str | None, typer.Argument(metavar="RUN", help="A run's id; the newest without one.")]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="A run's id; the newest without one.")]
Workspace = Annotated[
    str,
    typer.Option(
        "--workspace", "-w", envvar="DISTILL_WORKSPACE", metavar="URI", help="Where runs are kept: a folder or s3://."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override a field of the spec; may be given several times."),
]
Ray = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster; without it Ray starts on this machine.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="MLflow; default $MLFLOW_TRACKING_URI, else the workspace."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_remember_debug, help="Show where an error came from, and all log lines.")
]
