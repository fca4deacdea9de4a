"""What can be removed from a workspace, and what a collection never touches."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from distill_platform import collect
from distill_platform import lease as leases
from distill_platform.artifact import Artifact, Draft, artifact_key, open_artifact, produce
from distill_platform.collect import Garbage, Survey, remove, survey, total_bytes
from distill_platform.errors import Corrupt
from distill_platform.runs import Run
from distill_platform.storage import LocalStorage, Storage, open_storage
from tests.services import BUCKET

DAY_S = 24 * 3600.0


@pytest.fixture(params=["local", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path, s3_uri: str) -> Storage:
    return LocalStorage(tmp_path / "workspace") if request.param == "local" else open_storage(s3_uri)


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "workspace")


def make(workspace: Storage, step: str, inputs: dict[str, Any] | None = None, **config: Any) -> Artifact:
    def body(draft: Draft) -> None:
        draft.write("shards/a.bin", b"a" * 1000)
        draft.write_json("manifest.json", {"step": step, **config})

    return produce(workspace, step, 1, config, inputs or {}, body)[0]


def leave_unfinished(workspace: Storage, step: str = "cache", **config: Any) -> str:
    """A build that dies after its first shard; gives its key."""

    def body(draft: Draft) -> None:
        draft.storage.write("shards/a.0123.bin", b"half")
        draft.work.write("shards/a.bin.json", b"{}")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        produce(workspace, step, 1, config, {}, body)
    return artifact_key(step, 1, config, {})


def grow_old(workspace: LocalStorage, prefix: str, age_s: float = 30 * DAY_S) -> None:
    then = time.time() - age_s
    for name in workspace.list(prefix):
        os.utime(workspace.path(name), (then, then))


def kinds(found: Survey) -> dict[str, str]:
    return {each.name.split("/")[1]: each.kind for each in found.garbage}


def add_run(workspace: Storage, run_id: str, cache: Artifact | None, over: bool = True) -> Run:
    run = Run(workspace, run_id, {})
    if cache is not None:
        entry = {"step": "cache", "status": "ran", "key": cache.key, "digest": cache.digest}
        run.storage.create("cache.json", json.dumps(entry).encode())
    if over:
        run.storage.create("end.json", b'{"status": "done"}')
    return run


def test_a_dry_look_removes_nothing_and_removal_removes_what_it_showed(workspace: Storage) -> None:
    kept = make(workspace, "prepare")
    cache = make(workspace, "cache", {"data": kept})
    key = leave_unfinished(workspace)
    before = workspace.list()
    found = survey(workspace, grace_s=0)
    assert workspace.list() == before
    assert {(each.kind, each.name) for each in found.garbage} == {
        ("unreferenced", f"artifacts/cache/{cache.key}"),
        ("unfinished", f"artifacts/cache/{key}"),
    }
    sizes = workspace.stat()
    assert total_bytes(found.garbage) == sum(sizes[name].size_bytes for each in found.garbage for name in each.objects)
    assert sorted(remove(workspace, found.garbage, grace_s=0), key=str) == sorted(found.garbage, key=str)
    assert open_artifact(workspace, "prepare", kept.key) is not None
    left = [name for name in workspace.list() if not name.startswith("leases/")]
    assert left == [name for name in before if name.startswith("artifacts/prepare/")]
    assert survey(workspace, grace_s=0).garbage == ()


def test_a_removed_cache_is_made_again(workspace: Storage) -> None:
    first = make(workspace, "cache")
    remove(workspace, survey(workspace, grace_s=0).garbage, grace_s=0)
    again = make(workspace, "cache")
    assert (again.digest, again.read("shards/a.bin")) == (first.digest, b"a" * 1000)


def test_what_an_artifact_or_a_run_refers_to_stays(workspace: Storage) -> None:
    used, named, forgotten = (make(workspace, "cache", name=name) for name in ("used", "named", "forgotten"))
    make(workspace, "sweep", {"cache": used, "other": "none"})
    add_run(workspace, "wine-20260101-000000-abcd", named)
    (found,) = survey(workspace, grace_s=0).garbage
    assert found.name == f"artifacts/cache/{forgotten.key}"
    assert len(remove(workspace, [found], grace_s=0)) == 1
    assert open_artifact(workspace, "cache", used.key)
    assert open_artifact(workspace, "cache", named.key)


def test_other_steps_artifacts_stay_though_nothing_refers_to_them(local: LocalStorage) -> None:
    for step in ("prepare", "teacher", "sweep", "compress"):
        make(local, step)
    assert survey(local, grace_s=0).garbage == ()


def test_files_that_the_record_does_not_name_go_and_the_artifact_stays_whole(workspace: Storage) -> None:
    teacher = make(workspace, "teacher")
    litter = {f"artifacts/teacher/{teacher.key}/shards/b.4567.bin", f"work/teacher/{teacher.key}/progress.json"}
    for name in litter:
        workspace.write(name, b"loser")
    (found,) = survey(workspace, grace_s=0).garbage
    assert (found.kind, set(found.objects), found.size_bytes) == ("leftover", litter, 10)
    remove(workspace, [found], grace_s=0)
    assert not litter & set(workspace.list())
    for name in teacher.files:
        assert teacher.read(name)


def test_what_is_younger_than_the_grace_period_stays(local: LocalStorage) -> None:
    cache, key = make(local, "cache", name="committed"), leave_unfinished(local)
    assert survey(local).garbage == ()
    grow_old(local, "", age_s=6 * DAY_S)
    assert survey(local).garbage == ()
    grow_old(local, "")
    assert kinds(survey(local)) == {"cache": "unfinished"}
    assert {each.name[-64:] for each in survey(local).garbage} == {cache.key, key}
    local.write(f"work/cache/{key}/shards/b.bin.json", b"{}")  # somebody went on with it an hour ago
    assert [each.kind for each in survey(local).garbage] == ["unreferenced"]


def test_a_build_under_way_is_never_touched(workspace: Storage) -> None:
    """Seen by a survey before it began, or not: its lease is held."""
    key = leave_unfinished(workspace)
    before = survey(workspace, grace_s=0)
    assert [each.kind for each in before.garbage] == ["unfinished"]

    def body(draft: Draft) -> None:
        assert survey(workspace, grace_s=0).garbage == ()
        assert remove(workspace, before.garbage, grace_s=0) == []
        assert draft.storage.read("shards/a.0123.bin") == b"half"
        assert draft.work.list() == ["shards/a.bin.json"]
        draft.write("rest", b"rest")

    made, _ = produce(workspace, "cache", 1, {}, {}, body)
    assert made.key == key
    assert remove(workspace, before.garbage, grace_s=0) == []  # unfinished then, committed now
    assert made.read("rest") == b"rest"


def test_a_holder_elsewhere_counts_until_its_beat_is_an_hour_old(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = leave_unfinished(local)
    name = f"leases/cache/{key}"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases.socket, "gethostname", lambda: "another")
        away = leases.acquire(local, name)
    away._stop.set()
    away._renewer.join()
    grow_old(local, "work")
    grow_old(local, "artifacts")
    grow_old(local, "leases", age_s=1800)
    assert survey(local).garbage == ()
    grow_old(local, "leases", age_s=7200)
    found = survey(local)
    assert [each.kind for each in found.garbage] == ["unfinished"]
    assert len(remove(local, found.garbage)) == 1
    with pytest.raises(leases.LeaseLost):
        away.check()  # if it comes back after all


def test_while_a_run_may_still_choose_its_cache_none_is_removed(local: LocalStorage) -> None:
    cache = make(local, "cache")
    run = add_run(local, "wine-20260101-000000-abcd", None, over=False)
    found = survey(local, grace_s=0)
    assert (found.garbage, found.runs) == ((), (run.id,))
    other = make(local, "cache", name="other")
    run.storage.create("cache.json", json.dumps({"key": other.key}).encode())
    assert [each.name for each in survey(local, grace_s=0).garbage] == [f"artifacts/cache/{cache.key}"]


def test_a_run_elsewhere_that_says_nothing_for_long_is_over(local: LocalStorage) -> None:
    make(local, "cache")
    run = add_run(local, "wine-20260101-000000-abcd", None, over=False)
    start = json.loads(run.storage.read("run.json"))
    run.storage.write("run.json", json.dumps({**start, "host": "another"}).encode())
    assert survey(local, grace_s=0).runs == (run.id,)
    grow_old(local, "runs")
    assert (survey(local, grace_s=0).runs, len(survey(local, grace_s=0).garbage)) == ((), 1)


@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_starts_in_the_middle_finds_its_cache_whole(
    workspace: Storage, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """It found the cache before the record was taken away, and is seen before any payload goes."""
    cache = make(workspace, "cache")
    found = survey(workspace, grace_s=0)
    real, looks = collect._read_references, []

    def look(*given: Any) -> Any:
        assert open_artifact(workspace, "cache", cache.key) is None
        looks.append(add_run(workspace, "wine-20260101-000000-abcd", cache if named else None, over=False))
        return real(*given)

    monkeypatch.setattr(collect, "_read_references", look)
    assert remove(workspace, found.garbage, grace_s=0) == []
    assert looks
    again = open_artifact(workspace, "cache", cache.key)
    assert again is not None
    assert [again.read(name) for name in again.files]


def test_a_collection_that_fails_puts_back_what_it_took(local: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(local, "cache")
    found = survey(local, grace_s=0)

    def fail(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "_read_references", fail)
    with pytest.raises(KeyboardInterrupt):
        remove(local, found.garbage, grace_s=0)
    assert open_artifact(local, "cache", cache.key) is not None
    assert not leases.may_be_held(local, f"leases/cache/{cache.key}")


def test_killed_anywhere_in_a_removal_no_committed_artifact_misses_a_file(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next collection removes the rest."""
    num_deletes = 0
    for number in range(100):
        cache = make(local, "cache")
        key = leave_unfinished(local, name="dead")
        found, deletes = survey(local, grace_s=0), iter(range(1, 100))
        real = LocalStorage.delete

        def delete(
            storage: LocalStorage, name: str, number: int = number, deletes: Any = deletes, real: Any = real
        ) -> None:
            if name.startswith(("artifacts", "work")) and next(deletes) > number:
                raise KeyboardInterrupt
            real(storage, name)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "delete", delete)
            try:
                remove(local, found.garbage, grace_s=0)
            except KeyboardInterrupt:
                num_deletes += 1
        if whole := open_artifact(local, "cache", cache.key):
            assert [whole.read(name) for name in whole.files]
        if local.exists(f"work/cache/{key}/shards/a.bin.json"):  # what would be adopted is there
            assert local.exists(f"artifacts/cache/{key}/shards/a.0123.bin")
        remove(local, survey(local, grace_s=0).garbage, grace_s=0)
        assert local.list("artifacts") + local.list("work") == []
        if number > num_deletes:
            break
    assert num_deletes == 5  # record, two payload files; marker, half a shard


def test_two_collections_at_once_are_as_good_as_one(workspace: Storage) -> None:
    for number in range(3):
        make(workspace, "cache", number=number)
    key = leave_unfinished(workspace)
    first, second = survey(workspace, grace_s=0), survey(workspace, grace_s=0)
    assert len(remove(workspace, first.garbage, grace_s=0)) == 4
    assert remove(workspace, second.garbage, grace_s=0) == []
    with leases.hold(workspace, f"leases/cache/{key}"):  # the other one is at it
        leave = [each for each in first.garbage if each.kind == "unfinished"]
        assert remove(workspace, leave, grace_s=0) == []


def test_uploads_that_did_not_end_go_after_an_hour_at_least(local: LocalStorage) -> None:
    make(local, "prepare")
    temporary = local.path("artifacts/prepare/.tmp-0123")
    temporary.write_bytes(b"half")
    assert survey(local, grace_s=0).garbage == ()
    os.utime(temporary, (time.time() - 7200,) * 2)
    (found,) = survey(local, grace_s=0).garbage
    assert (found.kind, found.size_bytes) == ("upload", None)
    assert "begun 2 hours ago" in found.why
    remove(local, [found], grace_s=0)
    assert not temporary.exists()


def test_multipart_uploads_that_did_not_end_are_found(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_storage(s3_uri)
    monkeypatch.setattr(collect, "UPLOAD_GRACE_S", -60.0)
    client, key = boto3.client("s3"), s3_uri.split("/", 3)[3] + "/artifacts/cache/x"
    client.create_multipart_upload(Bucket=BUCKET, Key=key)
    (found,) = survey(workspace, grace_s=-60).garbage
    assert (found.kind, found.name) == ("upload", "artifacts/cache/x")
    remove(workspace, [found], grace_s=-60)
    assert survey(workspace, grace_s=-60) == Survey((), ())


def test_an_unreadable_record_or_run_stops_the_collection(local: LocalStorage) -> None:
    """What it refers to is not known."""
    make(local, "cache")
    sweep = make(local, "sweep")
    record = f"artifacts/sweep/{sweep.key}/record.json"
    good = local.read(record)
    local.write(record, b"{")
    with pytest.raises(Corrupt, match="is not JSON"):
        survey(local, grace_s=0)
    local.write(record, good)
    local.write("runs/wine-20260101-000000-abcd/cache.json", b"{}")
    with pytest.raises(Corrupt, match="is no entry of a run"):
        survey(local, grace_s=0)


def test_garbage_as_a_document(local: LocalStorage) -> None:
    leave_unfinished(local)
    (found,) = survey(local, grace_s=0).garbage
    assert isinstance(found, Garbage)
    assert found.to_json() == {
        "kind": "unfinished",
        "name": found.name,
        "num_objects": 2,
        "size_bytes": 6,
        "why": "a build that ended before its commit",
    }
