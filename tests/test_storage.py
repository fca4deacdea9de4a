"""One behaviour, local and on S3: whole objects, and one winner of a create."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distill_platform.errors import InputError, NotFound, StorageError
from distill_platform.storage import LocalStorage, S3Storage, Storage, is_remote, open_file, open_storage
from tests.services import BUCKET


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3_uri: str) -> Storage:
    return LocalStorage(tmp_path / "store") if request.param == "local" else open_storage(s3_uri)


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"two")
    assert storage.read("a/b.json") == b"two"
    assert storage.exists("a/b.json")
    assert not storage.exists("a")


def test_what_is_not_there_is_not_found(storage: Storage, tmp_path: Path) -> None:
    for call in (lambda: storage.read("x"), lambda: storage.download("x", tmp_path / "x")):
        with pytest.raises(NotFound, match="nothing is stored there"):
            call()
    assert not (tmp_path / "x").exists()
    storage.delete("x")


def test_list_gives_names_below_a_folder_and_no_other(storage: Storage) -> None:
    for name in ("runs/1/a.json", "runs/1/b.json", "runs/10/c.json", "other"):
        storage.write(name, b"")
    assert storage.list("runs/1") == ["runs/1/a.json", "runs/1/b.json"]
    assert storage.list() == ["other", "runs/1/a.json", "runs/1/b.json", "runs/10/c.json"]
    assert storage.child("runs").list("1") == ["1/a.json", "1/b.json"]
    assert storage.list("nothing") == []


def test_files_go_up_and_down_whole(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * 100_000)
    storage.upload(tmp_path / "up", "f")
    storage.download("f", tmp_path / "below" / "down")
    assert (tmp_path / "below" / "down").read_bytes() == b"x" * 100_000


def test_create_tells_one_of_many_writers_that_it_won(storage: Storage) -> None:
    for number in range(20):
        barrier = threading.Barrier(8)

        def race(writer: int, number: int = number, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return storage.create(f"round-{number}", f"writer {writer}".encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert won.count(True) == 1
        assert storage.read(f"round-{number}") == f"writer {won.index(True)}".encode()


def test_create_of_the_bytes_that_are_there_is_no_loss(storage: Storage) -> None:
    assert storage.create("f", b"mine")
    assert storage.create("f", b"mine")
    assert not storage.create("f", b"other")


def test_a_retried_put_that_meets_its_own_object_has_won(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to the first PUT is lost; the second is refused by what the first one stored."""
    storage = S3Storage(BUCKET, "retried")
    real, lost = storage.client.put_object, []

    def put_and_lose_the_answer(**request: Any) -> Any:
        answer = real(**request)
        if not lost:
            lost.append(answer)
            raise ConnectionResetError("reset by peer")
        return answer

    monkeypatch.setattr(storage.client, "put_object", put_and_lose_the_answer)
    assert storage.create("manifest.json", b"nonce 1")
    assert lost


def test_eight_503_in_a_row_are_survived(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = S3Storage(BUCKET, "busy")
    storage.write("f", b"content")
    real, failures = storage.client.get_object, iter(range(8))
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)

    def busy(**request: Any) -> Any:
        if next(failures, None) is not None:
            answer = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
            raise ClientError(answer, "GetObject")  # type: ignore[arg-type]
        return real(**request)

    monkeypatch.setattr(storage.client, "get_object", busy)
    assert storage.read("f") == b"content"


def test_a_missing_bucket_is_said_and_not_retried(s3_uri: str) -> None:
    with pytest.raises(StorageError, match="the bucket 'nowhere' does not exist; make it, or correct the workspace"):
        open_storage("s3://nowhere/x").read("f")


def test_a_failed_write_leaves_the_old_object_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("f", b"old")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        storage.write("f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert storage.read("f") == b"old"


@pytest.mark.parametrize("name", ["../f", "/etc/passwd", "a/../../f", ""])
def test_names_cannot_leave_the_storage(storage: Storage, name: str) -> None:
    with pytest.raises(StorageError, match="no name inside a storage"):
        storage.read(name)


def test_a_storage_travels_to_workers(storage: Storage) -> None:
    storage.write("f", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("f") == b"1"


def test_uris() -> None:
    assert isinstance(open_storage("s3://bucket/a/b"), S3Storage)
    assert open_storage("s3://bucket/a/b/").uri == "s3://bucket/a/b"
    assert open_storage("file:///tmp/x").uri == open_storage("/tmp/x").uri == "/tmp/x"
    assert is_remote("s3://bucket")
    assert not is_remote("./runs")
    assert open_file("s3://bucket/a/f.yaml")[1] == "f.yaml"
    with pytest.raises(InputError, match="has the scheme 'gs'; known are"):
        open_storage("gs://bucket")
    with pytest.raises(InputError, match="names no bucket"):
        open_storage("s3:///x")
