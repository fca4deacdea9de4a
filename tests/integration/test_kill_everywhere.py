"""SIGKILL at every storage call of a cache build, and at random moments of a larger one: run again, it is the same.

A point is the moment before a storage call, after it, or before the fsync of a file that is half written.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import ray

from distill_platform.artifact import Artifact
from distill_platform.storage import open_storage
from tests.integration.builds import (
    Build,
    assert_every_row_once,
    build_and_die,
    build_over_ray,
    built,
    committed,
    make_inputs,
)

NEVER = 0
QUICK_EVERY = 7
"""The quick test takes every seventh point."""
AT_ONCE = 2


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def small(request: pytest.FixtureRequest, tmp_path: Path, s3_uri: str) -> Build:
    """460 rows in six shards."""
    place = str(tmp_path / "place") if request.param == "local" else s3_uri
    return make_inputs(f"{place}/inputs", (200, 60, 30), num_views=2, rows_per_shard=90).at(f"{place}/undisturbed")


def undisturbed(build: Build, folder: Path) -> tuple[Artifact, int]:
    """The cache as it is built when nothing happens, and the number of points on the way."""
    for name in ("warm", "counted"):  # the second one finds data and teacher in this machine's scratch, as all after it
        process = build.start(build_and_die, NEVER, str(folder / name))
        process.join()
        assert process.exitcode == 0
        if name == "warm":
            for stored in open_storage(build.workspace_uri).list():
                open_storage(build.workspace_uri).delete(stored)
    return built(build), int((folder / "counted").read_text())


def kill_at(build: Build, points: Sequence[int], wanted: Artifact) -> None:
    """For each point kill a build there, run it again, and compare; AT_ONCE builds side by side."""
    place = build.workspace_uri.rpartition("/")[0]
    for first in range(0, len(points), AT_ONCE):
        builds = {n: build.at(f"{place}/{n}") for n in points[first : first + AT_ONCE]}
        killed = {n: each.start(build_and_die, n) for n, each in builds.items()}
        for n, process in killed.items():
            process.join()
            assert process.exitcode == -signal.SIGKILL, n
        for n, each in builds.items():
            before = committed(each)
            assert before is None or before.digest == wanted.digest, n
        again = {n: each.start(build_and_die, NEVER) for n, each in builds.items()}
        for n, process in again.items():
            process.join()
            assert process.exitcode == 0, n
        for n, each in builds.items():
            found = built(each)
            assert (found.digest, found.record["files"]) == (wanted.digest, wanted.record["files"]), n


def test_killed_at_some_storage_calls_a_build_continues_to_the_same_bytes(small: Build, tmp_path: Path) -> None:
    wanted, num_points = undisturbed(small, tmp_path)
    assert assert_every_row_once(wanted, small, tmp_path) == 200 * 2 + 60
    assert num_points > 100
    kill_at(small, range(1, num_points + 1, QUICK_EVERY), wanted)


@pytest.mark.slow
def test_killed_at_every_storage_call_a_build_continues_to_the_same_bytes(small: Build, tmp_path: Path) -> None:
    wanted, num_points = undisturbed(small, tmp_path)
    assert assert_every_row_once(wanted, small, tmp_path) == 200 * 2 + 60
    kill_at(small, range(1, num_points + 1), wanted)
    print(f"{num_points} kills, each followed by a build: the same {wanted.digest[:12]}")


RANDOM_KILLS = 100


def workers_at_work() -> list[psutil.Process]:
    """Ray workers of this session that hold a teacher."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def kill_at_random(build: Build, rng: random.Random, most_s: float, most_kills: int, kills: Counter[str]) -> None:
    """Start a build again and again, each time killed at a random moment, until it is committed."""
    while committed(build) is None:
        driver = build.start(build_over_ray)
        while kills.total() < most_kills:
            driver.join(rng.uniform(0, most_s))
            if driver.exitcode is not None:
                break
            workers = workers_at_work()
            if workers and rng.random() < 0.3:  # Ray starts it again; the driver goes on
                rng.choice(workers).kill()
                kills["worker"] += 1
                continue
            assert driver.pid is not None
            os.kill(driver.pid, signal.SIGKILL)
            markers = open_storage(build.workspace_uri).list("work")
            kills["driver, between shards" if markers else "driver, before or after all shards"] += 1
            break
        driver.join()
        assert driver.exitcode in (0, -signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_a_larger_build_ends_with_the_same_bytes(ray_session: None, tmp_path: Path) -> None:
    """Drivers and Ray workers, 100 kills: 122,000 rows in 244 shards by two workers."""
    address = ray.get_runtime_context().gcs_address
    larger = make_inputs(f"{tmp_path}/inputs", (60_000, 2_000, 30), num_views=2, rows_per_shard=500)
    for name in ("warm", "undisturbed"):
        started = time.monotonic()
        driver = larger.at(f"{tmp_path}/{name}", address).start(build_over_ray)
        driver.join()
        assert driver.exitcode == 0
        most_s = time.monotonic() - started
    wanted = built(larger.at(f"{tmp_path}/undisturbed"))
    assert assert_every_row_once(wanted, larger, tmp_path) == 60_000 * 2 + 2_000
    rng, kills, builds, started = random.Random(0), Counter[str](), 0, time.monotonic()
    while kills.total() < RANDOM_KILLS:
        build = larger.at(f"{tmp_path}/{builds}", address)
        kill_at_random(build, rng, most_s, RANDOM_KILLS, kills)
        found = built(build)
        assert (found.digest, found.record["files"]) == (wanted.digest, wanted.record["files"])
        builds += 1
    print(f"{dict(kills)} kills in {builds} builds of {most_s:.1f} s, {time.monotonic() - started:.0f} s")
