"""An artifact is whole or absent, names what went in, and gives back exactly what was put in."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distill_platform.artifact import Artifact, Draft, ancestors, artifact_key, open_artifact, produce, put_file
from distill_platform.errors import Corrupt, FormatError, NotFound
from distill_platform.storage import LocalStorage


@pytest.fixture
def workspace(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "workspace")


def write_two_files(draft: Draft) -> None:
    draft.write("folder/a.bin", b"aaa")
    draft.write_json("b.json", {"b": 1})
    draft.metrics["accuracy"] = 0.5


def make(workspace: LocalStorage, body: Any = write_two_files, **config: Any) -> Artifact:
    return produce(workspace, "step", 1, config, {}, body)[0]


def test_what_was_put_in_comes_out(workspace: LocalStorage) -> None:
    artifact = make(workspace)
    assert artifact.read("folder/a.bin") == b"aaa"
    assert artifact.read_json("b.json") == {"b": 1}
    assert artifact.fetch("folder/a.bin").read_bytes() == b"aaa"
    assert (artifact.fetch_folder("folder") / "a.bin").read_bytes() == b"aaa"
    assert artifact.files == ["b.json", "folder/a.bin"]
    assert artifact.size_bytes("folder/a.bin") == 3
    assert artifact.metrics == {"accuracy": 0.5}
    assert artifact.record["libraries"]["torch"]


def test_a_second_call_reuses_and_another_config_does_not(workspace: LocalStorage) -> None:
    calls: list[int] = []

    def body(draft: Draft) -> None:
        calls.append(1)
        write_two_files(draft)

    first, made = produce(workspace, "step", 1, {"a": 1}, {}, body)
    again, made_again = produce(workspace, "step", 1, {"a": 1}, {}, body)
    assert (made, made_again, len(calls)) == (True, False, 1)
    assert first.digest == again.digest
    others = [
        produce(workspace, "step", 2, {"a": 1}, {}, body)[0],
        produce(workspace, "step", 1, {"a": 2}, {}, body)[0],
        produce(workspace, "step", 1, {"a": 1}, {"x": first}, body)[0],
        produce(workspace, "other", 1, {"a": 1}, {}, body)[0],
    ]
    assert len({first.key, *(other.key for other in others)}) == 5
    assert {other.digest for other in others} == {first.digest}


def test_the_key_follows_the_digest_of_inputs_and_not_their_place(workspace: LocalStorage) -> None:
    one, two = make(workspace, a=1), make(workspace, a=2)
    assert one.digest == two.digest
    assert artifact_key("s", 1, {}, {"x": one}) == artifact_key("s", 1, {}, {"x": two})


def test_a_body_that_raises_commits_nothing_and_keeps_its_work(workspace: LocalStorage) -> None:
    def half(draft: Draft) -> None:
        draft.write("a", b"half")
        draft.work.write("progress", b"1 of 2")
        raise RuntimeError("killed")

    def rest(draft: Draft) -> None:
        assert draft.work.read("progress") == b"1 of 2"
        draft.write("a", b"whole")

    with pytest.raises(RuntimeError, match="killed"):
        make(workspace, half)
    assert open_artifact(workspace, "step", artifact_key("step", 1, {}, {})) is None
    artifact = make(workspace, rest)
    assert artifact.read("a") == b"whole"
    assert workspace.list("work") == []
    assert workspace.list("leases") == []


def test_many_writers_of_one_key_end_with_one_artifact(workspace: LocalStorage) -> None:
    barrier, bodies = threading.Barrier(6), []

    def write(writer: int) -> str:
        def body(draft: Draft) -> None:
            bodies.append(writer)
            draft.write("a", f"from {writer}".encode())

        barrier.wait()
        return produce(workspace, "step", 1, {}, {}, body)[0].read("a").decode()

    with ThreadPoolExecutor(6) as pool:
        read = set(pool.map(write, range(6)))
    assert len(read) == 1
    assert len(bodies) == 1


def test_a_writer_that_lost_its_lease_overwrites_nothing(
    workspace: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit wins even if two bodies ran to their end."""
    monkeypatch.setattr("distill_platform.lease.Lease.check", lambda lease: None)

    def slow(draft: Draft) -> None:
        draft.write("a", b"late")
        monkeypatch.setattr("distill_platform.lease._is_over", lambda *given: True)  # believed dead
        assert make(workspace, lambda other: other.write("a", b"first")).read("a") == b"first"

    late, _ = produce(workspace, "step", 1, {}, {}, slow)
    assert late.read("a") == b"first"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_every_flipped_payload_file_is_refused_by_name(workspace: LocalStorage) -> None:
    artifact = make(workspace)
    for name in artifact.files:
        path = Path(artifact.uri) / artifact.record["files"][name]["path"]
        flip(path)
        for read in (artifact.read, artifact.fetch):
            with pytest.raises(Corrupt, match=rf"{path.name}: sha256 is .*, wanted .*; the bytes changed"):
                read(name)


def test_a_damaged_or_newer_record_is_refused(workspace: LocalStorage) -> None:
    artifact = make(workspace)
    record = Path(artifact.uri) / "record.json"
    good = json.loads(record.read_text())
    for changed, error, message in (
        ({**good, "digest": "0" * 64}, Corrupt, "the bytes changed"),
        ({**good, "facts": {"std": 9.0}}, Corrupt, "record.json: sha256 is .*the bytes changed"),
        ({**good, "format": 99}, FormatError, "has format 99, this release reads 1"),
    ):
        record.write_text(json.dumps(changed))
        with pytest.raises(error, match=message):
            open_artifact(workspace, "step", artifact.key)
    record.write_text("{")
    with pytest.raises(Corrupt, match="is not JSON"):
        open_artifact(workspace, "step", artifact.key)


def test_a_digest_that_changed_since_is_refused(workspace: LocalStorage) -> None:
    artifact = make(workspace)
    with pytest.raises(Corrupt, match="it was made again since"):
        open_artifact(workspace, "step", artifact.key, digest="1" * 64)


def test_a_file_that_is_not_there_is_said_with_those_that_are(workspace: LocalStorage) -> None:
    with pytest.raises(NotFound, match=r"has no payload file 'c'; it has b.json, folder/a.bin"):
        make(workspace).read("c")


def test_ancestors_are_found_by_digest(workspace: LocalStorage) -> None:
    data, _ = produce(workspace, "prepare", 1, {}, {"source": "f" * 64}, write_two_files)
    teacher, _ = produce(workspace, "teacher", 1, {}, {"data": data}, write_two_files)
    cache, _ = produce(workspace, "cache", 1, {}, {"data": data, "teacher": teacher}, write_two_files)
    assert list(ancestors(workspace, cache)) == ["prepare", "teacher", "cache"]
    for name in data.storage.list():
        data.storage.delete(name)
    with pytest.raises(NotFound, match="was made from it, and it is gone; run the spec again"):
        ancestors(workspace, cache)


def test_a_driver_that_meets_anothers_commit_takes_it_though_its_own_work_is_gone(workspace: LocalStorage) -> None:
    """The other one took over, committed and cleaned up while this one was at work."""

    def overtaken(draft: Draft) -> None:
        draft.work.write("progress", b"1 of 2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("distill_platform.lease._is_over", lambda *given: True)  # believed dead
            make(workspace, lambda other: other.write("a", b"first"))
        draft.work.read("progress")

    late, made = produce(workspace, "step", 1, {}, {}, overtaken)
    assert (late.read("a"), made) == (b"first", False)


def test_an_artifact_whose_stored_file_is_gone_is_not_committed(workspace: LocalStorage) -> None:
    def body(draft: Draft) -> None:
        draft.path("a").write_bytes(b"a")
        draft.adopt("a", put_file(draft.storage, "a", draft.path("a")))
        draft.path("a").unlink()
        draft.storage.delete(draft.stored["a"]["path"])

    with pytest.raises(NotFound, match="is gone before the commit; `distill retry step` drops what is left"):
        make(workspace, body)
    assert open_artifact(workspace, "step", artifact_key("step", 1, {}, {})) is None


def test_a_record_that_was_copied_under_another_key_is_refused(workspace: LocalStorage) -> None:
    artifact = make(workspace, a=1)
    copy = workspace.child(f"artifacts/step/{'0' * 64}")
    for name in artifact.storage.list():
        copy.write(name, artifact.storage.read(name))
    with pytest.raises(Corrupt, match=f"is the record of step/{artifact.key[:12]}; it was copied here"):
        open_artifact(workspace, "step", "0" * 64)


@pytest.mark.parametrize("damage", ["[]", "no seal"])
def test_a_damaged_record_is_no_traceback(workspace: LocalStorage, damage: str) -> None:
    artifact = make(workspace, a=2)
    record = {name: value for name, value in artifact.record.items() if name != "seal"}
    artifact.storage.write("record.json", json.dumps(record if damage == "no seal" else []).encode())
    with pytest.raises(Corrupt, match=r"record\.json"):
        open_artifact(workspace, "step", artifact.key)
