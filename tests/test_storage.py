"""One behaviour, local and on S3: whole objects, and one winner of a create."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distill_platform.errors import InputError, NotFound, StorageError
from distill_platform.storage import LocalStorage, S3Storage, Storage, is_remote, open_file, open_storage, transfer
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


def test_stat_gives_sizes_and_ages_by_name(storage: Storage) -> None:
    storage.write("a/b.json", b"old")
    time.sleep(2.1)  # S3 keeps whole seconds
    storage.write("a/c.json", b"newer")
    storage.write("b", b"")
    found = storage.stat("a")
    assert {name: stored.size_bytes for name, stored in found.items()} == {"a/b.json": 3, "a/c.json": 5}
    assert 1 <= found["a/b.json"].age_s - found["a/c.json"].age_s <= 30
    assert list(storage.stat()) == storage.list()


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


def test_an_object_says_its_size(storage: Storage) -> None:
    storage.write("f", b"12345")
    storage.write("f.longer", b"")
    assert (storage.size_bytes("f"), storage.size_bytes("f.longer")) == (5, 0)
    with pytest.raises(NotFound, match="f.long: nothing is stored there"):
        storage.size_bytes("f.long")


def test_a_large_file_goes_in_parts_and_no_part_is_left(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 2**20)
    storage = S3Storage(BUCKET, "large")
    content = bytes(range(256)) * 50_000  # 12.8 MB
    (tmp_path / "up").write_bytes(content)
    storage.upload(tmp_path / "up", "f")
    assert storage.client.head_object(Bucket=BUCKET, Key="large/f")["ETag"].endswith('-3"')
    storage.download("f", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert storage.unfinished_uploads(older_than_s=0) == []


def test_an_upload_in_parts_that_fails_leaves_neither_object_nor_parts(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 2**20)
    storage = S3Storage(BUCKET, "failing")
    (tmp_path / "up").write_bytes(bytes(12 * 2**20))
    real = storage.client.upload_part

    def refuse_the_last(**request: Any) -> Any:
        if request["PartNumber"] == 3:
            answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "UploadPart")  # type: ignore[arg-type]
        return real(**request)

    monkeypatch.setattr(storage.client, "upload_part", refuse_the_last)
    with pytest.raises(StorageError, match="failing/f: access denied"):
        storage.upload(tmp_path / "up", "f")
    assert storage.list() == []
    assert storage.unfinished_uploads(older_than_s=0) == []


def test_what_a_killed_upload_left_on_s3_is_found_by_its_folder_and_removed(s3_uri: str) -> None:
    storage = open_storage(s3_uri)
    assert isinstance(storage, S3Storage)
    for name in ("shards/a", "shards/b", "shards2/c"):
        storage.client.create_multipart_upload(Bucket=BUCKET, Key=storage.key(name))
    found = storage.unfinished_uploads("shards", older_than_s=60)
    assert [upload.name for upload in found] == ["shards/a", "shards/b"]
    for upload in found:
        storage.abort_upload(upload)
        storage.abort_upload(upload)
    assert [upload.name for upload in storage.unfinished_uploads()] == ["shards2/c"]
    assert storage.list() == []


def test_what_a_killed_upload_left_on_disk_is_found_by_its_age_and_removed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("shards/a", b"whole")
    for name, age_s in (("shards/.tmp-old", 7200), ("shards/.tmp-new", 0), (".tmp-elsewhere", 7200)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    found = storage.unfinished_uploads("shards", older_than_s=3600)
    assert [upload.name for upload in found] == ["shards/.tmp-old"]
    assert 7200 <= found[0].age_s < 7300
    for upload in found:
        storage.abort_upload(upload)
        storage.abort_upload(upload)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [".tmp-new", "a"]


def test_a_failed_download_leaves_no_litter(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        storage.download("absent", tmp_path / "down" / "f")
    assert list((tmp_path / "down").iterdir()) == []


def test_storages_that_descend_from_one_share_its_client(s3_uri: str) -> None:
    storage = S3Storage(BUCKET, "a")
    assert storage.child("b").child("c").client is storage.client


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf"])
def test_a_timeout_that_is_no_number_is_refused(given: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_S3_TIMEOUT_S", given)
    with pytest.raises(InputError, match=f"DISTILL_S3_TIMEOUT_S is '{given}'; wanted a number of seconds above 0"):
        S3Storage(BUCKET, "x").read("f")


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
