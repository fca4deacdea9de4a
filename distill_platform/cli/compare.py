"""Methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distill_platform.cli import console
from distill_platform.cli.options import Debug, Json, Overrides, Ray, SpecPath, Workspace
from distill_platform.errors import InputError


def compare(
    spec: SpecPath,
    methods: Annotated[
        str, typer.Option(help="Losses by name, several joined by +, or task (no teacher); separated by commas.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the spec's on.")] = 3,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a page with a plot here.")] = None,
    workspace: Workspace = "./runs",
    overrides: Overrides = None,
    ray: Ray = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the same student by several methods, with the same budget each, and compare them on the test split."""
    from distill_platform.compare import compare as run_comparison
    from distill_platform.evaluate.comparison import render_comparison
    from distill_platform.spec import load_spec

    wanted = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if not wanted:
        raise InputError("--methods names none; wanted losses separated by commas, such as soft_targets,dkd")
    with console.shown_progress(debug):
        compared = run_comparison(load_spec(spec, overrides or ()), wanted, seeds, workspace, ray)
    document = compared.to_json()
    if output is not None:
        output.write_text(render_comparison(document))
    if as_json:
        console.print_json(document)
    else:
        _show(document, output)


def _show(document: dict[str, Any], output: Path | None) -> None:
    metric, rows = document["metric"], document["methods"]
    shown = [
        (
            row["method"],
            console.figure(row[metric]),
            f"{row['difference']:+.4f}",
            "[{:+.4f}, {:+.4f}]".format(*row["interval"]) if row["interval"] else None,
            f"{row['better_in']} of {row['seeds']}",
            f"{row['worse_in']} of {row['seeds']}",
        )
        for row in rows
    ]
    columns = ("method", metric, "better by", "95% over seeds", "better in", "worse in")
    console.print_table(f"{document['spec']}: {metric} on the test split", columns, shown)
    facts: dict[str, object] = {
        "teacher": console.figure(rows[0]["teacher"]),
        "baseline": f"{console.figure(rows[0]['baseline'])}, of students without a teacher",
        "budget": f"{document['trials']} trials of {document['epochs']} epochs each",
    }
    console.print_facts({**facts, "page": output} if output else facts)
