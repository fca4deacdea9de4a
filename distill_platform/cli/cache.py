"""Commands over a teacher's cache: what it holds, is it sound, does the teacher still say so, what can go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill_platform.cli import console
from distill_platform.cli.artifacts import artifact_of
from distill_platform.cli.options import Debug, Json, RunOption, Workspace
from distill_platform.errors import InputError, QualityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_platform.artifact import Artifact
    from distill_platform.collect import Garbage, Survey
    from distill_platform.storage import Storage
    from distill_platform.teacher.audit import AuditReport

DEVIATION_FOUND = QualityError.exit_code

Key = Annotated[str | None, typer.Option("--key", metavar="PREFIX", help="A cache by the start of its key.")]

app = typer.Typer(name="cache", help="A teacher's outputs at rest.", no_args_is_help=True)


@app.command()
def inspect(
    run: RunOption = None,
    key: Key = None,
    workspace: Workspace = "./runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """What a run's cache holds, and whom it belongs to."""
    document = _describe(_cache_of(workspace, run, key))
    if as_json:
        console.print_json(document)
    else:
        console.print_table("", ("cache", document["uri"]), _rows(document))


@app.command()
def verify(
    run: RunOption = None,
    key: Key = None,
    workspace: Workspace = "./runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read every file of a run's cache again, against the hashes that it was committed with."""
    from distill_platform.cache import verify_cache

    artifact = _cache_of(workspace, run, key)
    rows = verify_cache(artifact)
    if as_json:
        console.print_json({"uri": artifact.uri, "rows": rows, "intact": True})
    else:
        typer.echo(f"{artifact.uri}: {rows:,} rows, all as they were written")


@app.command()
def audit(
    run: RunOption = None,
    key: Key = None,
    num_rows: Annotated[int, typer.Option("--rows", min=1, help="Rows that the teacher answers again.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which rows: the same ones for the same seed.")] = 0,
    workspace: Workspace = "./runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let the teacher answer a sample of rows again, and compare; ends with 3 if it says something else now."""
    from distill_platform.storage import open_storage
    from distill_platform.teacher.audit import audit_cache

    artifact = _cache_of(workspace, run, key)
    storage = open_storage(workspace)
    data, teacher = (_input_of(storage, artifact, name) for name in ("data", "teacher"))
    report = audit_cache(artifact, data, teacher, num_rows, seed)
    if as_json:
        console.print_json({"uri": artifact.uri, **report.to_json()})
    else:
        console.print_table("", ("audit of", artifact.uri), _audit_rows(report))
    if not report.passed:
        raise typer.Exit(DEVIATION_FOUND)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is shown; without it nothing is.")] = False,
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", min=0, help="Leave what was written in the last so many hours.")
    ] = 7 * 24,
    workspace: Workspace = "./runs",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what nothing in a workspace refers to: unused caches, and what killed builds left; --delete removes it."""
    from distill_platform import collect
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    found = collect.survey(storage, grace_hours * 3600)
    removed = collect.remove(storage, found.garbage, grace_hours * 3600) if delete else []
    if as_json:
        shown = removed if delete else found.garbage
        document = {"workspace": storage.uri, "deleted": delete, "runs_under_way": found.runs}
        sizes = {"size_bytes": collect.total_bytes(shown), "garbage": [each.to_json() for each in shown]}
        console.print_json({**document, **sizes})
    else:
        _show_garbage(storage.uri, found, removed, delete)


def _show_garbage(uri: str, found: Survey, removed: Sequence[Garbage], delete: bool) -> None:
    from distill_platform.collect import total_bytes

    rows = [(each.name, each.kind, len(each.objects), _bytes(each.size_bytes), each.why) for each in found.garbage]
    if rows:
        console.print_table(f"Garbage in {uri}", ("name", "kind", "objects", "bytes", "why"), rows)
    if not rows:
        typer.echo(f"{uri}: nothing to remove")
    elif delete:
        typer.echo(f"removed {total_bytes(removed):,} bytes, {len(removed)} of {len(rows)} shown")
        if len(removed) < len(rows):
            typer.echo("the others were taken up again while this looked")
    else:
        typer.echo(f"{total_bytes(found.garbage):,} bytes; nothing was removed: the same with --delete removes it")
    if found.runs:
        typer.echo(f"no cache is removed while a run may yet choose it; under way: {', '.join(found.runs)}")


def _cache_of(workspace: str, run: str | None, key: str | None) -> Artifact:
    """The cache of a run, or the one whose key begins so."""
    if key is None:
        return artifact_of(workspace, run, "cache")
    if run is not None:
        raise InputError("--run and --key both name a cache; give one of them")
    from distill_platform.artifact import RECORD, open_artifact
    from distill_platform.storage import open_storage

    storage = open_storage(workspace)
    known = [name.split("/")[2] for name in storage.list("artifacts/cache") if name.endswith(f"/{RECORD}")]
    found = [each for each in known if each.startswith(key)]
    if len(found) != 1:
        shown = ", ".join(each[:12] for each in found or known) or "none"
        raise InputError(f"{len(found)} caches of {storage.uri} have a key that begins with {key!r}; known: {shown}")
    artifact = open_artifact(storage, "cache", found[0])
    assert artifact is not None
    return artifact


def _input_of(workspace: Storage, artifact: Artifact, name: str) -> Artifact:
    from distill_platform.artifact import open_artifact

    given = artifact.record["inputs"][name]
    found = open_artifact(workspace, given["step"], given["key"], given["digest"])
    if found is None:
        raise InputError(f"the {name} that {artifact.uri} was made from is gone; run the spec again to make it")
    return found


def _describe(artifact: Artifact) -> dict[str, Any]:
    """All that is known of a cache, as a JSON document. bytes_per_row: of stored shards, keys and headers included."""
    from distill_platform.cache import open_manifest

    manifest = open_manifest(artifact)
    num_rows = sum(split.num_examples * split.num_views for split in manifest.splits.values())
    return {
        "uri": artifact.uri,
        "key": artifact.key,
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes(),
        "num_rows": num_rows,
        "bytes_per_row": round(artifact.size_bytes(*artifact.files_under("shards")) / max(1, num_rows), 2),
        **manifest.to_json(),
        **{name: artifact.record[name] for name in ("libraries", "machine", "committed_at", "seconds")},
    }


def _rows(document: dict[str, Any]) -> list[tuple[str, object]]:
    """A cache's document for people."""
    encoding = {name: value for name, value in document["encoding"].items() if value}
    layers = [f"{name} {list(shape)}" for name, shape in document["layers"].items()]
    return [
        ("digest", document["digest"][:12]),
        ("teacher", document["teacher"][:12]),
        ("data", document["data"][:12]),
        ("encoding", _short(encoding)),
        ("layers", ", ".join(layers) or None),
        ("teacher's precision", document["precision"]),
        ("mixed pairs", "yes" if document["mixes"] else "no"),
        ("views", _short(document["views"]) if document["views"] else None),
        ("checked before commit", _short(document["parity"]) or None),
        ("size", f"{document['size_bytes']:,} bytes, {document['num_rows']:,} rows"),
        ("bytes per row", document["bytes_per_row"]),
        *((f"split {name}", _describe_split(split)) for name, split in document["splits"].items()),
        ("committed", f"{document['committed_at']}, after {document['seconds']:,} s"),
        ("libraries", _short(document["libraries"])),
        ("manifest format", document["format"]),
    ]


def _audit_rows(report: AuditReport) -> list[tuple[str, object]]:
    """An audit's report for people."""
    changed = [f"{name} {then}, now {now}" for name, (then, now) in report.libraries.items() if then != now]
    drawn = f", {report.num_redrawn} drawn anew" if report.num_redrawn else ""
    return [
        ("rows asked again", f"{report.num_rows:,} in {report.num_shards} shards{drawn}"),
        (
            "worst deviation",
            f"{report.worst_deviation:.3g} of the row's largest magnitude, the codec's loss included",
        ),
        ("tolerance", f"{report.tolerance:.3g} beyond that, for {report.precision}"),
        ("libraries", ", ".join(changed) or "the versions that it was built with"),
        *(("not what the teacher says", wrong) for wrong in report.wrong),
        ("verdict", "the teacher says the same" if report.passed else f"FAILED: {report.num_wrong} rows are wrong"),
    ]


def _describe_split(split: dict[str, Any]) -> str:
    return f"{split['num_examples']:,} examples, {split['num_views']} views, {len(split['shards'])} shards"


def _short(value: Any) -> str:
    """A value of a document in one line: `a 1, b 2.5e-06`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(inner) for inner in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(size_bytes: int | None) -> str | None:
    return None if size_bytes is None else f"{size_bytes:,}"
