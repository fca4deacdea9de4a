"""`distill cache …`: what a cache holds, whether it is sound, whether its teacher still says so, and what can go."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from distill_platform.artifact import Artifact, Draft, ancestors, artifact_key, produce
from distill_platform.cli.app import build_app
from distill_platform.data.columns import read_columns, write_columns
from distill_platform.runs import Run
from distill_platform.storage import LocalStorage
from tests.integration.builds import build_alone, built, make_inputs

Distill = Callable[..., Result]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, session_scratch: Path) -> tuple[LocalStorage, Artifact]:
    """A workspace with a cache of 460 rows in six shards, which a run refers to."""
    uri = str(tmp_path_factory.mktemp("filled"))
    build = make_inputs(uri, (200, 60, 30), num_views=2, rows_per_shard=90).at(uri)
    build = replace(build, environment={**build.environment, "DISTILL_SCRATCH": str(session_scratch)})
    process = build.start(build_alone)
    process.join()
    assert process.exitcode == 0
    workspace = LocalStorage(Path(uri))
    cache = built(build)
    run = Run(workspace, "blobs-20260101-000000-abcd", {})
    entry = {"step": "cache", "status": "ran", "seconds": 1.0, "uri": cache.uri, "key": cache.key}
    run.storage.create("cache.json", json.dumps({**entry, "digest": cache.digest}).encode())
    run.storage.create("end.json", b'{"status": "done"}')
    return workspace, cache


@pytest.fixture
def distill(filled: tuple[LocalStorage, Artifact], monkeypatch: pytest.MonkeyPatch) -> Distill:
    """A cache command on that workspace."""
    monkeypatch.setenv("DISTILL_WORKSPACE", filled[0].uri)
    app = build_app()
    return lambda *words: CliRunner().invoke(app, ["cache", *(str(word) for word in words)])


def commit_changed(workspace: LocalStorage, cache: Artifact, shard: str, change: Callable[[Any], Any]) -> Artifact:
    """The same cache with one shard's logits changed, sound by every checksum, under a key of its own."""

    def body(draft: Draft) -> None:
        for name in cache.files:
            draft.write(name, cache.read(name))
        columns = read_columns(draft.path(shard))
        write_columns(draft.path(shard), {**columns, "logits": change(columns["logits"])})

    inputs = {step: artifact for step, artifact in ancestors(workspace, cache).items() if step != "cache"}
    return produce(workspace, "cache", 99, {}, {"data": inputs["prepare"], "teacher": inputs["teacher"]}, body)[0]


def test_inspect_says_what_a_cache_holds_and_whom_it_belongs_to(
    filled: tuple[LocalStorage, Artifact], distill: Distill
) -> None:
    _, cache = filled
    found = json.loads(distill("inspect", "--json").stdout)
    assert (found["uri"], found["key"], found["digest"]) == (cache.uri, cache.key, cache.digest)
    assert (found["encoding"]["codec"], found["encoding"]["num_classes"], found["num_rows"]) == ("dense", 3, 460)
    assert found["bytes_per_row"] == round(cache.size_bytes(*cache.files_under("shards")) / 460, 2)
    assert found["size_bytes"] == cache.size_bytes() > 460 * (18 + 6)
    assert found["teacher"] == cache.record["inputs"]["teacher"]["digest"]
    assert {"layers", "precision", "parity", "splits", "mixes"} <= set(found)
    assert found["libraries"]["torch"]
    shown = distill("inspect").stdout
    for words in (cache.digest[:12], "codec dense", "460 rows", "200 examples, 2 views", "float32", "torch "):
        assert words in shown


def test_a_cache_is_found_by_the_start_of_its_key(filled: tuple[LocalStorage, Artifact], distill: Distill) -> None:
    _, cache = filled
    assert json.loads(distill("inspect", "--key", cache.key[:9], "--json").stdout)["uri"] == cache.uri
    unknown = distill("verify", "--key", "nothing")
    assert (unknown.exit_code, cache.key[:12] in unknown.stderr) == (2, True)
    assert "0 caches of" in unknown.stderr
    assert distill("verify", "--key", "a", "--run", "b").exit_code == 2


def test_verify_reads_every_file_again(filled: tuple[LocalStorage, Artifact], distill: Distill) -> None:
    _, cache = filled
    assert json.loads(distill("verify", "--json").stdout) == {"uri": cache.uri, "rows": 460, "intact": True}
    for name in cache.files:
        path = Path(cache.uri) / cache.record["files"][name]["path"]
        intact = path.read_bytes()
        path.write_bytes(intact[:9] + bytes([intact[9] ^ 1]) + intact[10:])
        done = distill("verify")
        path.write_bytes(intact)
        assert (done.exit_code, path.name in done.stderr) == (1, True)


def test_an_audit_passes_what_the_teacher_still_says(filled: tuple[LocalStorage, Artifact], distill: Distill) -> None:
    done = distill("audit", "--rows", 40, "--seed", 3, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["passed"], found["num_wrong"]) == (True, 0)
    assert 30 < found["num_rows"] <= 40  # drawn rows, each counted once
    assert "the teacher says the same" in distill("audit", "--rows", 40).stdout


def test_an_audit_that_finds_a_deviation_ends_with_3(filled: tuple[LocalStorage, Artifact], distill: Distill) -> None:
    workspace, cache = filled
    changed = commit_changed(
        workspace, cache, "shards/val-0000000000.parquet", lambda logits: np.roll(logits, 1, axis=0)
    )
    assert distill("verify", "--key", changed.key).exit_code == 0
    done = distill("audit", "--key", changed.key, "--rows", 460)
    assert (done.exit_code, "FAILED" in done.stdout) == (3, True)
    assert json.loads(distill("audit", "--key", changed.key, "--rows", 460, "--json").stdout)["passed"] is False
    for name in workspace.list(f"artifacts/cache/{changed.key}"):
        workspace.delete(name)


def test_gc_shows_and_then_removes_what_nothing_refers_to(
    filled: tuple[LocalStorage, Artifact], distill: Distill
) -> None:
    workspace, _ = filled
    unused, _ = produce(workspace, "cache", 98, {}, {}, lambda draft: draft.write("a", b"a" * 1234))
    dead = f"artifacts/cache/{artifact_key('cache', 97, {}, {})}"
    workspace.write(f"{dead}/shards/a.bin", b"half")
    assert distill("gc").stdout == f"{workspace.uri}: nothing to remove\n"  # all younger than a week
    before = workspace.list()
    shown = distill("gc", "--grace-hours", 0)
    assert workspace.list() == before
    assert shown.exit_code == 0
    assert "no artifact and no run refers to it" in shown.stdout
    assert "nothing was removed: the same with --delete removes it" in shown.stdout
    document = json.loads(distill("gc", "--grace-hours", 0, "--json").stdout)
    assert document["deleted"] is False
    assert {each["name"]: each["kind"] for each in document["garbage"]} == {
        f"artifacts/cache/{unused.key}": "unreferenced",
        dead: "unfinished",
    }
    removed = distill("gc", "--grace-hours", 0, "--delete").stdout
    assert f"removed {document['size_bytes']:,} bytes, 2 of 2 shown" in removed
    assert not {name for name in workspace.list("artifacts") if unused.key in name or name.startswith(dead)}
    assert json.loads(distill("verify", "--json").stdout)["rows"] == 460


def test_gc_says_which_runs_it_waits_for(filled: tuple[LocalStorage, Artifact], distill: Distill) -> None:
    workspace, _ = filled
    unused, _ = produce(workspace, "cache", 96, {}, {}, lambda draft: draft.write("a", b"a"))
    run = Run(workspace, "blobs-20260102-000000-abcd", {})
    shown = distill("gc", "--grace-hours", 0, "--delete").stdout
    assert f"no cache is removed while a run may yet choose it; under way: {run.id}" in shown
    run.storage.create("end.json", b'{"status": "done"}')
    assert json.loads(distill("gc", "--grace-hours", 0, "--delete", "--json").stdout)["garbage"][0]["name"] == (
        f"artifacts/cache/{unused.key}"
    )
