"""Eight writers of one name, round after round: one of them has written it, all are told the same, none is told wrong.

On disk, on S3, and on S3 where answers to requests that were carried out get lost; against a real gateway where
$DISTILL_TEST_S3_ENDPOINT names one, with credentials in AWS_*.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import boto3
import pytest

from distill_platform import lease as leases
from distill_platform.artifact import Draft, produce
from distill_platform.collect import remove, survey
from distill_platform.storage import Storage, connection, open_storage
from tests.fault_proxy import FaultProxy, Request
from tests.integration.builds import Build, assert_every_row_once, build_alone, built, forks, make_inputs
from tests.services import BUCKET

NUM_WRITERS = 8
ROUNDS = [5, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]

Writer = Callable[[Storage, int, Barrier, int], list[Any]]


@pytest.fixture(
    params=["local", pytest.param("s3", marks=pytest.mark.slow), "s3, answers lost", "gateway", "gateway, answers lost"]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty place; the environment says how to get there."""
    if request.param == "local":
        yield str(tmp_path / "place")
        return
    if request.param.startswith("s3"):
        uri, endpoint = request.getfixturevalue("s3_uri"), request.getfixturevalue("s3_endpoint")
    elif endpoint := os.environ.get("DISTILL_TEST_S3_ENDPOINT"):
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    else:
        pytest.skip("DISTILL_TEST_S3_ENDPOINT names no gateway")
    if not request.param.endswith("lost"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        yield uri
        return
    with FaultProxy(endpoint, seed=1) as proxy:
        proxy.follow(lose_answers)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield uri
        print(f"{proxy.counts['answer lost']} answers lost")


def lose_answers(request: Request, number: int) -> str | None:
    """A third of the answers to PUT, whoever sent it."""
    return "answer lost" if request.method == "PUT" and (number * 7 + len(request.path)) % 3 == 0 else None


def race(writer: Writer, place: str, num_rounds: int, folder: Path) -> list[list[Any]]:
    """What each of the writers, a process each, was told in each round."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    barrier = forks().Barrier(NUM_WRITERS)
    processes = [
        forks().Process(
            target=_write, args=(writer, environment, place, number, barrier, num_rounds, folder), daemon=True
        )
        for number in range(NUM_WRITERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * NUM_WRITERS
    told = [json.loads((folder / f"{number}.json").read_text()) for number in range(NUM_WRITERS)]
    return [list(each) for each in zip(*told, strict=True)]


def _write(
    writer: Writer,
    environment: dict[str, str],
    place: str,
    number: int,
    barrier: Barrier,
    num_rounds: int,
    folder: Path,
) -> None:
    os.environ.update(environment)
    connection.LONGEST_WAIT_S = 0.1
    told = writer(open_storage(place), number, barrier, num_rounds)
    (folder / f"{number}.json").write_text(json.dumps(told))


def create_own_bytes(storage: Storage, number: int, barrier: Barrier, num_rounds: int) -> list[Any]:
    told = []
    for turn in range(num_rounds):
        barrier.wait()
        won = storage.create(f"{turn}.json", f"writer {number}".encode())
        told.append((won, storage.read(f"{turn}.json").decode()))
    return told


@pytest.mark.parametrize("num_rounds", ROUNDS)
def test_one_of_eight_has_created_the_object_and_every_one_knows(place: str, tmp_path: Path, num_rounds: int) -> None:
    started = time.monotonic()
    for turn, told in enumerate(race(create_own_bytes, place, num_rounds, tmp_path)):
        assert [won for won, _ in told].count(True) == 1
        winner = [won for won, _ in told].index(True)
        stored = open_storage(place).read(f"{turn}.json").decode()
        assert {stored, *(seen for _, seen in told)} == {f"writer {winner}"}
    print(f"{num_rounds} rounds of {NUM_WRITERS} creates in {time.monotonic() - started:.1f} s")


class _NoLease:
    def check(self) -> None:
        """All are at it at once."""


@contextmanager
def no_lease(*_: Any, **__: Any) -> Iterator[_NoLease]:
    yield _NoLease()


def commit_without_lease(storage: Storage, number: int, barrier: Barrier, num_rounds: int) -> list[Any]:
    """Nobody commits before all have written their own payload beside a common one."""
    leases.hold = no_lease  # type: ignore[assignment]
    told = []

    def body(draft: Draft) -> None:
        draft.write("who", f"writer {number}".encode())
        draft.write("what", b"the same of all")
        barrier.wait()

    for turn in range(num_rounds):
        artifact, _ = produce(storage, "cache", 1, {"turn": turn}, {}, body)
        told.append((artifact.digest, artifact.read("who").decode(), artifact.read("what").decode()))
        barrier.wait()
    return told


@pytest.mark.parametrize("num_rounds", ROUNDS)
def test_of_eight_commits_at_once_one_counts_for_all(place: str, tmp_path: Path, num_rounds: int) -> None:
    started = time.monotonic()
    rounds = race(commit_without_lease, place, num_rounds, tmp_path)
    assert [len({tuple(each) for each in told}) for told in rounds] == [1] * num_rounds
    seconds = time.monotonic() - started
    workspace = open_storage(place)
    records = [name for name in workspace.list("artifacts") if name.endswith("/record.json")]
    assert len(records) == num_rounds
    losers = [each for each in survey(workspace, grace_s=0).garbage if each.kind == "leftover"]
    assert sum(len(each.objects) for each in losers) == num_rounds * (NUM_WRITERS - 1)
    remove(workspace, losers, grace_s=0)
    assert len(workspace.list("artifacts")) == num_rounds * 3
    print(f"{num_rounds} rounds of {NUM_WRITERS} commits in {seconds:.1f} s")


def produce_under_lease(storage: Storage, number: int, barrier: Barrier, num_rounds: int) -> list[Any]:
    leases.hold = partial(leases.hold, ttl_s=2.0)  # waiters look five times a second
    told = []
    for turn in range(num_rounds):
        barrier.wait()
        artifact, made = produce(
            storage, "cache", 1, {"turn": turn}, {}, lambda draft: draft.write("who", f"writer {number}".encode())
        )
        told.append((made, artifact.read("who").decode()))
    return told


@pytest.mark.parametrize("num_rounds", ROUNDS)
def test_of_eight_that_want_an_artifact_one_makes_it(place: str, tmp_path: Path, num_rounds: int) -> None:
    started = time.monotonic()
    for told in race(produce_under_lease, place, num_rounds, tmp_path):
        makers = [number for number, (made, _) in enumerate(told) if made]
        assert len(makers) == 1
        assert {who for _, who in told} == {f"writer {makers[0]}"}
    assert open_storage(place).list("leases") == []
    print(f"{num_rounds} rounds of {NUM_WRITERS} under a lease in {time.monotonic() - started:.1f} s")


def build_without_lease(build: Build) -> None:
    leases.hold = no_lease  # type: ignore[assignment]
    build_alone(build)


@pytest.mark.parametrize("num_rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_eight_builds_of_one_cache_at_once_end_with_one(place: str, tmp_path: Path, num_rounds: int) -> None:
    """All fill the same shards, nobody kept out by a lease."""
    build = make_inputs(f"{place}/inputs", (200, 60, 30), num_views=2, rows_per_shard=90)
    for turn in range(num_rounds):
        this = build.at(f"{place}/{turn}")
        processes = [this.start(build_without_lease) for _ in range(NUM_WRITERS)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * NUM_WRITERS
        assert assert_every_row_once(built(this), build, tmp_path) == 200 * 2 + 60
