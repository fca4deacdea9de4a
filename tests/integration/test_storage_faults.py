"""Storage behind a proxy that harms its requests: nothing fails that a later try can mend, nothing wrong is delivered.

Against moto always; against a real gateway where $DISTILL_TEST_S3_ENDPOINT names one, with credentials in AWS_*.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from distill_platform.artifact import AT_REST, Artifact, Draft, produce
from distill_platform.errors import Corrupt
from distill_platform.storage import Storage, connection, open_storage, transfer
from tests.fault_proxy import FaultProxy, Request, Script, burst, flips
from tests.services import BUCKET

KIB, MIB = 2**10, 2**20
BURST = 8


@dataclass(frozen=True)
class Service:
    """An S3 and the smallest part that it takes in an upload."""

    endpoint: str
    part_bytes: int


@pytest.fixture(params=["moto", pytest.param("gateway", marks=pytest.mark.slow)])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
    if request.param == "moto":
        request.getfixturevalue("s3_uri")
        monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
        return Service(request.getfixturevalue("s3_endpoint"), 64 * KIB)
    endpoint = os.environ.get("DISTILL_TEST_S3_ENDPOINT")
    if endpoint is None:
        pytest.skip("DISTILL_TEST_S3_ENDPOINT names no gateway")
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    return Service(endpoint, 5 * MIB)


@pytest.fixture
def proxy(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(connection, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(transfer, "PART_BYTES", service.part_bytes)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with FaultProxy(service.endpoint, seed=1) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


def use_everything(storage: Storage, large: bytes, folder: Path) -> None:
    """Every call of a storage once, each with what it has to give."""
    storage.write("small", b"small content")
    assert storage.read("small") == b"small content"
    assert storage.create("once", b"mine")
    assert not storage.create("once", b"another's")
    (folder / "up").write_bytes(large)
    storage.upload(folder / "up", "large")
    storage.download("large", folder / "down")
    assert (folder / "down").read_bytes() == large
    storage.download("small", folder / "small")
    assert (folder / "small").read_bytes() == b"small content"
    assert storage.list() == ["large", "once", "small"]
    assert storage.size_bytes("large") == len(large)
    assert not storage.exists("absent")
    storage.delete("small")
    assert not storage.exists("small")


@pytest.mark.parametrize("fault", ["503", "reset before", "answer lost", "reset within", "truncated"])
def test_eight_faults_in_a_row_on_every_request_are_survived(
    fault: str, service: Service, proxy: FaultProxy, tmp_path: Path
) -> None:
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    large = random.Random(0).randbytes(3 * service.part_bytes + 1)
    proxy.follow(burst(fault, BURST))
    use_everything(storage, large, tmp_path)
    assert proxy.counts[fault] >= 100
    left = storage.unfinished_uploads(older_than_s=-60)
    for upload in left:
        storage.abort_upload(upload)
    assert bool(left) == (fault in ("answer lost", "reset within", "truncated"))  # uploads whose id never arrived
    assert storage.unfinished_uploads(older_than_s=-60) == []


def test_eight_hangs_in_a_row_are_survived(
    service: Service, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_S3_TIMEOUT_S", "0.4")
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    large = random.Random(0).randbytes(3 * service.part_bytes + 1)
    (tmp_path / "up").write_bytes(large)
    storage.upload(tmp_path / "up", "large")
    proxy.follow(burst("hang", BURST))
    storage.download("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == large
    assert storage.create("once", b"mine")
    assert proxy.counts["hang"] == BURST * 6  # HEAD, four parts, PUT


def make_artifact(storage: Storage, sizes: dict[str, int]) -> Artifact:
    def body(draft: Draft) -> None:
        for name, size in sizes.items():
            draft.write(name, random.Random(name).randbytes(size))

    return produce(storage, "step", 1, {}, {}, body)[0]


def deliver(artifact: Artifact, proxy: FaultProxy, script: Callable[[int], Script], num_flips: int) -> int:
    """Read and fetch all files again and again until that many bits were flipped; gives the number of deliveries."""
    wanted = {name: random.Random(name).randbytes(artifact.size_bytes(name)) for name in artifact.files}
    deliveries = 0
    with pytest.MonkeyPatch.context() as patch:
        scratch = os.environ["DISTILL_SCRATCH"]
        while proxy.counts["flip"] < num_flips:
            patch.setenv("DISTILL_SCRATCH", f"{scratch}/{deliveries}")
            proxy.follow(script(deliveries))
            for name, content in wanted.items():
                assert artifact.read(name) == content, name
                assert artifact.fetch(name).read_bytes() == content, name
                deliveries += 2
    return deliveries


@pytest.mark.parametrize("num_flips", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_delivered(
    num_flips: int,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 64 * KIB)  # of downloads: what is put stays below a part
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path))
    sizes = {"empty": 0, "small.bin": 1_000, "part.bin": 64 * KIB, "two.bin": 65 * KIB, "five.bin": 300 * KIB}
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "PART_BYTES", 16 * MIB)
        artifact = make_artifact(open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}"), sizes)
    ranged: set[str] = set()

    def script(seed: int) -> Script:
        flip = flips(seed, rate=0.5, length=BURST)

        def noting_ranges(request: Request, number: int) -> str | None:
            fault = flip(request, number)
            ranged.update({request.range} if fault else ())
            return fault

        return noting_ranges

    deliveries = deliver(artifact, proxy, script, num_flips)
    record_property("flips", proxy.counts["flip"])
    record_property("deliveries", deliveries)
    assert proxy.counts["flip"] >= num_flips
    assert len(ranged - {""}) == 6  # both parts of the one and all five of the other, which share the first


@pytest.mark.parametrize("service", [pytest.param("gateway", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("mode", ["when_supported", "when_required"])
def test_a_bit_that_is_flipped_on_its_way_up_is_not_stored(
    mode: str, service: Service, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gateway alone: moto compares no checksum."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", mode)
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    large = random.Random(0).randbytes(3 * service.part_bytes + 1)
    (tmp_path / "up").write_bytes(large)
    proxy.follow(lambda request, number: "flip request" if request.method == "PUT" and number < BURST else None)
    storage.upload(tmp_path / "up", "large")
    storage.write("small", b"small content")
    assert storage.create("once", b"mine")
    assert proxy.counts["flip request"] == BURST * 6
    storage.download("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == large
    assert (storage.read("small"), storage.read("once")) == (b"small content", b"mine")


def test_what_is_damaged_at_rest_is_refused_after_three_tries(proxy: FaultProxy, tmp_path: Path) -> None:
    artifact = make_artifact(open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}"), {"f.bin": 1_000})
    path = artifact.record["files"]["f.bin"]["path"]
    artifact.storage.write(path, b"other bytes")
    for read in (artifact.read, artifact.fetch):
        gets: list[Request] = []

        def count(request: Request, number: int, gets: list[Request] = gets) -> None:
            gets.extend([request] if request.is_get_of_object else [])

        proxy.follow(count)
        with pytest.raises(Corrupt, match="the bytes changed after they were written"):
            read("f.bin")
        assert len(gets) == AT_REST


def test_an_object_that_is_replaced_halfway_is_fetched_again_from_its_beginning(
    proxy: FaultProxy, service: Service, tmp_path: Path
) -> None:
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    old, new = (random.Random(seed).randbytes(3 * service.part_bytes + 1) for seed in (1, 2))
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).write_bytes(content)
    storage.upload(tmp_path / "old", "f")
    direct = boto3.client("s3", endpoint_url=service.endpoint)
    replaced: list[str] = []

    def replace_before_the_second_part(request: Request, number: int) -> None:
        if request.range.startswith(f"bytes={service.part_bytes}-") and not replaced:
            replaced.append(request.range)
            direct.put_object(Bucket=BUCKET, Key=request.path.split("/", 2)[2], Body=new)

    proxy.follow(replace_before_the_second_part)
    storage.download("f", tmp_path / "down")
    assert replaced
    assert (tmp_path / "down").read_bytes() == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "new", "old"]
