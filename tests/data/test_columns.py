"""Columns come back as they were written, whatever their encoding, and lie on a machine once."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.data.columns import map_columns, read_columns, write_columns
from distill_platform.errors import Corrupt, FormatError, StorageError
from distill_platform.storage import LocalStorage, S3Storage, Storage, open_storage

Columns = dict[str, Any]
ROWS = 300


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "workspace")
    return open_storage(request.getfixturevalue("s3_uri"))


def columns(seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    return {
        "key": np.repeat(rng.integers(0, 256, (ROWS // 3, 16), np.uint8), 3, axis=0),
        "view": np.tile(np.arange(3, dtype=np.int16), ROWS // 3),
        "logits": rng.normal(size=(ROWS, 5)).astype(np.float16),
        "map": rng.integers(0, 60_000, (ROWS, 2, 3), np.uint16),
        "id": [f"{seed}-{row}" for row in range(ROWS)],
    }


def make(storage: Storage, num_shards: int = 4, **options: Any) -> tuple[Artifact, list[str]]:
    def body(draft: Draft) -> None:
        for shard in range(num_shards):
            write_columns(draft.path(f"shards/{shard}.parquet"), columns(shard), **options)

    artifact, _ = produce(storage, "cache", 1, {"num_shards": num_shards, **options}, {}, body)
    return artifact, artifact.files_under("shards")


def count_downloads(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is downloaded from now on; what is read in place does not count."""
    names: list[str] = []
    real = type(artifact.storage).download

    def download(self: Storage, name: str, path: Path) -> None:
        names.append(name)
        real(self, name, path)

    monkeypatch.setattr(type(artifact.storage), "download", download)
    return names


@pytest.mark.parametrize(
    "options",
    [{}, {"compressed": ["logits", "id"]}, {"dictionary": ["key"]}, {"compressed": ["key"], "dictionary": ["key"]}],
)
def test_a_shard_gives_back_what_was_written(tmp_path: Path, options: dict[str, Any]) -> None:
    path, written = tmp_path / "shard.parquet", columns(0)
    write_columns(path, written, **options)
    read = read_columns(path)
    assert read.pop("id") == written.pop("id")
    for name, values in written.items():
        assert read[name].dtype == values.dtype
        assert np.array_equal(read[name], values)
    assert list(read_columns(path, ["view"])) == ["view"]


def test_a_column_is_encoded_as_it_is_asked_for_and_others_are_not(tmp_path: Path) -> None:
    write_columns(tmp_path / "shard.parquet", columns(0), compressed=["view"], dictionary=["key"])
    group = pq.ParquetFile(tmp_path / "shard.parquet").metadata.row_group(0)
    found = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert {name: column.compression for name, column in found.items()} == {
        **dict.fromkeys(("key", "logits", "map", "id"), "UNCOMPRESSED"),
        "view": "ZSTD",
    }
    assert [name for name, column in found.items() if column.has_dictionary_page] == ["key"]
    assert found["key"].total_compressed_size < 0.6 * ROWS * 16
    assert found["view"].total_compressed_size < 0.5 * ROWS * 2


@pytest.mark.parametrize("options", [{}, {"compressed": ["logits"], "dictionary": ["key"]}])
def test_columns_of_many_shards_come_one_after_the_other(storage: Storage, options: dict[str, Any]) -> None:
    artifact, shards = make(storage, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = map_columns(artifact, shards, ["key", "logits", "map"])
    for name, values in mapped.items():
        wanted = torch.from_numpy(np.concatenate([columns(shard)[name] for shard in range(4)]))
        assert values.dtype == wanted.dtype
        assert torch.equal(values.view(torch.uint8), wanted.view(torch.uint8)), name
        assert values.is_contiguous()
    again = map_columns(artifact, list(reversed(shards)), ["logits"])["logits"]
    assert torch.equal(again[:ROWS], mapped["logits"][3 * ROWS :])


def test_shards_without_rows_are_no_trouble(tmp_path: Path) -> None:
    def body(draft: Draft) -> None:
        for shard, rows in enumerate((0, 2, 0)):
            write_columns(draft.path(f"shards/{shard}.parquet"), {"a": np.arange(rows, dtype=np.int32)})

    artifact, _ = produce(LocalStorage(tmp_path / "workspace"), "cache", 1, {}, {}, body)
    assert map_columns(artifact, artifact.files, ["a"])["a"].tolist() == [0, 1]
    assert map_columns(artifact, artifact.files[:1], ["a"])["a"].tolist() == []


def test_shards_of_the_same_content_are_no_trouble(storage: Storage) -> None:
    def body(draft: Draft) -> None:
        for shard in range(4):
            write_columns(draft.path(f"shards/{shard}.parquet"), {"a": np.ones((5, 2), np.float16)})

    artifact, _ = produce(storage, "cache", 1, {"equal": True}, {}, body)
    assert map_columns(artifact, artifact.files, ["a"])["a"].sum() == 40


def test_each_shard_is_downloaded_once_and_only_columns_stay(
    s3_uri: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, shards = make(open_storage(s3_uri))
    assert isinstance(artifact.storage, S3Storage)
    downloads = count_downloads(artifact, monkeypatch)
    map_columns(artifact, shards, ["key", "view", "logits"])
    assert sorted(downloads) == sorted(artifact.record["files"][shard]["path"] for shard in shards)
    map_columns(artifact, shards, ["logits", "key"])
    assert len(downloads) == len(shards)
    map_columns(artifact, shards, ["key", "map"])
    assert len(downloads) == 2 * len(shards)
    files = {path.name for path in scratch.rglob("*") if path.is_file() and ".locks" not in path.parts}
    assert files == {"values", "layout.json", ".budget"}
    assert sum(path.stat().st_size for path in scratch.rglob("values")) == 4 * ROWS * (16 + 2 + 10 + 12)


def test_a_flipped_byte_is_refused_by_the_hash_of_the_shard(tmp_path: Path, scratch: Path) -> None:
    artifact, shards = make(LocalStorage(tmp_path / "workspace"))
    path = artifact.fetch(shards[2])
    _flip(path, len(path.read_bytes()) // 2)
    with pytest.raises(Corrupt, match=rf"{path.name}: sha256 is .*, wanted .*; the bytes changed"):
        map_columns(artifact, shards, ["logits"])
    assert list(scratch.rglob("values")) == []


@pytest.mark.parametrize("options", [{}, {"compressed": ["logits"]}, {"dictionary": ["logits"]}])
def test_a_flipped_byte_is_refused_by_the_checksum_of_its_page(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "shard.parquet"
    write_columns(path, {"logits": columns(0)["logits"]}, **options)
    _flip(path, path.stat().st_size // 3)
    with pytest.raises(Corrupt, match=r"shard.parquet: a page does not hold what was written"):
        read_columns(path)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_shards_that_differ_in_layout_are_refused(tmp_path: Path) -> None:
    def body(draft: Draft) -> None:
        write_columns(draft.path("shards/0.parquet"), {"a": np.zeros((2, 3), np.float16)})
        write_columns(draft.path("shards/1.parquet"), {"a": np.zeros((2, 3), np.float32)})

    artifact, _ = produce(LocalStorage(tmp_path / "workspace"), "cache", 1, {}, {}, body)
    with pytest.raises(FormatError, match=r"1\.\w+\.parquet has the columns .*<f4.*, the shards before it have .*<f2"):
        map_columns(artifact, artifact.files, ["a"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_map_is_shared_and_read_only(tmp_path: Path) -> None:
    artifact, shards = make(LocalStorage(tmp_path / "workspace"))
    logits = map_columns(artifact, shards, ["logits"])["logits"]
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert [line.split()[1] for line in maps] == ["r--s"]
    assert logits.sum().isfinite()


MAP = """
import sys
from distill_platform.artifact import open_artifact
from distill_platform.data.columns import map_columns
from distill_platform.storage import open_storage
artifact = open_artifact(open_storage(sys.argv[1]), "cache", sys.argv[2])
columns = map_columns(artifact, artifact.files, ["logits"])
print(float(columns["logits"].float().sum()), flush=True)
sys.stdin.read()
"""


def test_a_column_stays_while_a_process_maps_it_and_can_go_after(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, one_shards = make(LocalStorage(tmp_path / "one"), num_shards=1)
    two, two_shards = make(LocalStorage(tmp_path / "two"), num_shards=2)
    budget = two.size_bytes(*two_shards) + 100
    monkeypatch.setenv("DISTILL_SCRATCH_GB", str(budget / 1e9))
    logits = map_columns(one, one_shards, ["logits"])["logits"]
    part = logits[3:]
    del logits
    gc.collect()
    with pytest.raises(StorageError, match="do not fit"):
        map_columns(two, two_shards, ["logits"])
    assert torch.equal(part, torch.from_numpy(columns(0)["logits"][3:]))
    del part
    gc.collect()
    map_columns(two, two_shards, ["logits"])
    assert len(list(scratch.rglob("values"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_a_column_are_counted_once_for_all_processes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "workspace")

    def body(draft: Draft) -> None:
        write_columns(draft.path("shards/0.parquet"), {"logits": np.ones((2**20, 16), np.float16)})

    artifact, _ = produce(storage, "cache", 1, {}, {}, body)
    map_columns(artifact, artifact.files, ["logits"])
    command = [sys.executable, "-c", MAP, storage.uri, artifact.key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, text=True, env=os.environ.copy(), **pipes) for _ in range(2)]  # type: ignore[call-overload]
    try:
        for process in running:
            assert float(process.stdout.readline()) == 2**24
        shares = [_share_bytes(process.pid) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert all(12 * 2**20 < share < 20 * 2**20 for share in shares)  # of 32 MiB, each has half


def _share_bytes(pid: int) -> int:
    """What a process is charged for its maps of `values`: the pages it uses, each divided by its users."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    maps = (line for line in lines if line.endswith("/values"))
    return sum(next(int(entry.split()[1]) * 1024 for entry in lines if entry.startswith("Pss:")) for _ in maps)
