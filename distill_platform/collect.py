"""What can be removed from a workspace, first as a listing, then in an order that leaves nothing half there.

    unreferenced    a committed cache that no artifact descends from and no run names; the teacher can fill it again
    unfinished      files and work of a build that ended without a commit, and that nobody is at
    leftover        beside a committed artifact: files that its record does not name (a writer that lost the race), and
                    work that was not cleaned up
    upload          an upload that did not end: a multipart upload on S3, a temporary file on disk

What is younger than the grace period stays, by the clock of the storage that keeps it. Everything about one key is
removed under the lease that builds of that key hold, so no build meets a half-removed one, and two collections at once
are as good as one. What names files goes before the files: record, then work, then payload. A collection that is
killed leaves an `unfinished` for the next one.

A run that is under way and has no cache yet may find and use any: no cache is removed meanwhile. For a run that starts
in the middle of a collection, the records are taken away first, then references are read again, and a record that is
wanted after all is put back; only then payload goes. Readers outside any run (`read_dataset` in somebody's notebook)
are not seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

from distill_platform import lease as leases
from distill_platform.artifact import RECORD, Artifact, open_artifact
from distill_platform.errors import Corrupt, NotFound
from distill_platform.runs import read_run
from distill_platform.storage import Storage, Stored, UnfinishedUpload

GRACE_S = 7 * 24 * 3600.0
"""A build that was killed can be continued for a week."""
UPLOAD_GRACE_S = 3600.0
"""A living writer's upload looks like a dead one's: younger ones stay, whatever the grace period."""
COLLECTED = ("cache",)
"""Steps whose committed artifacts are removed once nothing refers to them; those of the others are small or costly."""

Kind = Literal["unreferenced", "unfinished", "leftover", "upload"]
Place = tuple[str, str]
"""(step, key)."""

_PLACE = re.compile(r"(?:artifacts|work)/([^/]+)/([0-9a-f]{64})/.+")


@dataclass(frozen=True)
class Garbage:
    """What can be removed together. `objects` are names in the workspace; size_bytes is None where it is not known."""

    kind: Kind
    name: str
    objects: tuple[str, ...]
    size_bytes: int | None
    why: str
    upload: UnfinishedUpload | None = None

    def to_json(self) -> dict[str, Any]:
        """For people and scripts."""
        return {
            "kind": self.kind,
            "name": self.name,
            "num_objects": len(self.objects),
            "size_bytes": self.size_bytes,
            "why": self.why,
        }


@dataclass(frozen=True)
class Survey:
    """What was found; `runs` are those under way that may yet use a cache, so that none is in `garbage`."""

    garbage: tuple[Garbage, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class _References:
    """What must stay, read at one moment: committed artifacts, what they and runs name, runs that may name more."""

    records: Mapping[Place, Artifact]
    named: frozenset[Place]
    runs: tuple[str, ...]

    def wants(self, place: Place) -> bool:
        return place in self.named or bool(self.runs)


def survey(workspace: Storage, grace_s: float = GRACE_S) -> Survey:
    """What can be removed; removes nothing. grace_s: what is younger stays.

    Raises Corrupt or FormatError if a record or a run's entry cannot be read: what it refers to is then not known.
    """
    objects = {**workspace.stat("artifacts"), **workspace.stat("work")}
    references = _read_references(workspace, grace_s)
    places = _by_place(objects)
    found = [
        garbage
        for place in sorted(places)
        for garbage in _garbage_of(place, places[place], references, grace_s)
        if not leases.may_be_held(workspace, _lease(place))
    ]
    uploads = [_as_garbage(upload) for upload in workspace.unfinished_uploads("", max(grace_s, UPLOAD_GRACE_S))]
    return Survey((*found, *uploads), references.runs)


def remove(workspace: Storage, garbage: Iterable[Garbage], grace_s: float = GRACE_S) -> list[Garbage]:
    """Remove what a survey found, and is garbage still; gives what was removed.

    What somebody has taken up since is left as it is. Raises LeaseLost if this process was away for so long that
    another took over what it was removing.
    """
    removed = []
    caches: list[Garbage] = []
    for each in garbage:
        if each.upload is not None:
            workspace.abort_upload(each.upload)
            removed.append(each)
        elif each.kind == "unreferenced":
            caches.append(each)
        else:
            removed += _remove_dead(workspace, each, grace_s)
    return removed + _remove_unreferenced(workspace, caches, grace_s)


def total_bytes(garbage: Iterable[Garbage]) -> int:
    """Bytes of all of it, as far as they are known."""
    return sum(each.size_bytes or 0 for each in garbage)


def _garbage_of(
    place: Place, objects: Mapping[str, Stored], references: _References, grace_s: float
) -> Iterator[Garbage]:
    """What of one key's objects can go, if nobody holds its lease."""
    step, key = place
    folder, artifact = f"artifacts/{step}/{key}", references.records.get(place)
    if artifact is None:
        if objects and _youngest_s(objects.values()) >= grace_s:
            yield _garbage("unfinished", folder, objects, objects, "a build that ended before its commit")
        return
    kept = {f"{folder}/{RECORD}", *(f"{folder}/{entry['path']}" for entry in artifact.record["files"].values())}
    left = [name for name, stored in objects.items() if name not in kept and stored.age_s >= grace_s]
    if left:
        yield _garbage("leftover", folder, left, objects, "the committed record names none of it")
    record = objects.get(f"{folder}/{RECORD}")
    old = record is not None and record.age_s >= grace_s
    if step in COLLECTED and old and not references.wants(place):
        yield _garbage("unreferenced", folder, kept & set(objects), objects, "no artifact and no run refers to it")


def _remove_dead(workspace: Storage, garbage: Garbage, grace_s: float) -> list[Garbage]:
    """Remove what an ended build left, as far as it is garbage once the lease is held."""
    place = _place_of(garbage)
    lease = leases.acquire_free(workspace, _lease(place))
    if lease is None:
        return []
    try:
        artifact = open_artifact(workspace, *place)
        records = {} if artifact is None else {place: artifact}
        now = _garbage_of(place, _objects_of(workspace, place), _References(records, frozenset({place}), ()), grace_s)
        found = [each for each in now if each.kind == garbage.kind]
        for each in found:
            _delete(workspace, lease, each.objects)
        return found
    finally:
        lease.release()


def _remove_unreferenced(workspace: Storage, caches: Sequence[Garbage], grace_s: float) -> list[Garbage]:
    """Take the records away, look again at what refers to them, put back what is wanted, remove the rest."""
    removed: list[Garbage] = []
    held: list[tuple[Garbage, leases.Lease]] = []
    records: dict[str, bytes] = {}
    with ExitStack() as after:
        for each in caches:
            if lease := leases.acquire_free(workspace, _lease(_place_of(each))):
                after.callback(lease.release)
                held.append((each, lease))
        after.callback(lambda: [workspace.create(name, data) for name, data in records.items()])
        for each, _ in held:
            with suppress(NotFound):  # another collection has been here
                records[_record(each)] = workspace.read(_record(each))
                workspace.delete(_record(each))
        references = _read_references(workspace, grace_s) if records else None
        for each, lease in held:
            if references and _record(each) in records and not references.wants(_place_of(each)):
                del records[_record(each)]
                _delete(workspace, lease, set(each.objects) - {_record(each)})
                removed.append(each)
    return removed


def _delete(workspace: Storage, lease: leases.Lease, names: Iterable[str]) -> None:
    """What names files goes before the files: work before payload; in work JSON first, `results/` before `models/`."""
    for name in sorted(sorted(names, reverse=True), key=lambda name: (name[:5] != "work/", name[-5:] != ".json")):
        lease.check()
        workspace.delete(name)


def _read_references(workspace: Storage, grace_s: float) -> _References:
    runs = workspace.stat("runs")
    named = {place for name in runs if (place := _named_by(workspace, name))}
    under_way = tuple(_runs_that_may_use_a_cache(workspace, runs, grace_s))
    records = {}
    for name in workspace.list("artifacts"):
        match = _PLACE.fullmatch(name)
        if match and name.endswith(f"/{RECORD}"):
            artifact = open_artifact(workspace, match[1], match[2])
            if artifact is not None:
                records[match[1], match[2]] = artifact
    for artifact in records.values():
        inputs = artifact.record["inputs"].values()
        named |= {(given["step"], given["key"]) for given in inputs if isinstance(given, dict)}
    return _References(records, frozenset(named), under_way)


def _named_by(workspace: Storage, name: str) -> Place | None:
    """What a run's entry of a collected step names."""
    step = name.rsplit("/", 1)[-1].removesuffix(".json")
    if step not in COLLECTED:
        return None
    try:
        return step, str(json.loads(workspace.read(name))["key"])
    except NotFound:
        return None
    except (ValueError, KeyError) as error:
        raise Corrupt(
            f"{workspace.uri}/{name} is no entry of a run ({error}); delete it if that run is over"
        ) from error


def _runs_that_may_use_a_cache(workspace: Storage, objects: Mapping[str, Stored], grace_s: float) -> Iterator[str]:
    """Runs under way that have not come to the end of their cache step."""
    for run in sorted({name.split("/")[1] for name in objects}):
        mine = {name: stored for name, stored in objects.items() if name.startswith(f"runs/{run}/")}
        over = f"runs/{run}/end.json" in mine or all(f"runs/{run}/{step}.json" in mine for step in COLLECTED)
        silent = _youngest_s(mine.values()) > max(
            grace_s, leases.SILENT_S
        )  # a run at work flushes its log every second
        if not over and not silent and read_run(workspace, run).status == "running":
            yield run


def _by_place(objects: Mapping[str, Stored]) -> dict[Place, dict[str, Stored]]:
    found: dict[Place, dict[str, Stored]] = {}
    for name, stored in objects.items():
        if match := _PLACE.fullmatch(name):
            found.setdefault((match[1], match[2]), {})[name] = stored
    return found


def _objects_of(workspace: Storage, place: Place) -> dict[str, Stored]:
    step, key = place
    return {**workspace.stat(f"artifacts/{step}/{key}"), **workspace.stat(f"work/{step}/{key}")}


def _garbage(kind: Kind, folder: str, names: Iterable[str], objects: Mapping[str, Stored], why: str) -> Garbage:
    chosen = tuple(sorted(names))
    return Garbage(kind, folder, chosen, sum(objects[name].size_bytes for name in chosen), why)


def _as_garbage(upload: UnfinishedUpload) -> Garbage:
    why = f"an upload that was begun {upload.age_s / 3600:.0f} hours ago and did not end"
    return Garbage("upload", upload.name, (upload.name,), None, why, upload)


def _youngest_s(objects: Iterable[Stored]) -> float:
    return min((stored.age_s for stored in objects), default=0.0)


def _place_of(garbage: Garbage) -> Place:
    _, step, key = garbage.name.split("/")
    return step, key


def _record(garbage: Garbage) -> str:
    return f"{garbage.name}/{RECORD}"


def _lease(place: Place) -> str:
    return f"leases/{place[0]}/{place[1]}"
