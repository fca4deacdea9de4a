"""A step's output: payload files, then record.json, written last and created only if absent.

    <workspace>/artifacts/<step>/<key>/model.0123456789ab.safetensors     payload, named by its content
    <workspace>/artifacts/<step>/<key>/record.json                        the commit
    <workspace>/work/<step>/<key>/…                                       what an unfinished step can continue from
    <workspace>/runs/<run>/<step>.json                                    what a run did at that step

`key` names what went in: sha256 of step, step version, config, digests of inputs, sources of user modules.
`digest` names what came out: sha256 over the payload's names and hashes, timings left out. Training is not reproducible
to the bit across machines, so the first commit under a key wins, and what later steps trust is the digest.

Because payload names carry their content, a writer that loses the race overwrites nothing of the winner's.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from distill_platform import lease as leases
from distill_platform.errors import Corrupt, FormatError, LeaseLost, NotFound, StorageError
from distill_platform.fingerprint import fingerprint, sha256_bytes, sha256_file
from distill_platform.scratch import make_once
from distill_platform.storage import ATTEMPTS, LocalStorage, Storage

RECORD = "record.json"
RECORD_FORMAT = 1
TIMINGS = "timings/"
"""Payload files below this folder say how long things took: verified as all others, and no part of the digest."""
LIBRARIES = ("torch", "ray", "pyarrow", "numpy", "optuna", "safetensors", "scikit-learn")

AT_REST = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Artifact:
    """A committed artifact. `storage` is the folder that holds it."""

    storage: Storage
    step: str
    key: str
    digest: str
    record: Mapping[str, Any]

    @property
    def uri(self) -> str:
        """Where it is kept."""
        return self.storage.uri

    @property
    def files(self) -> list[str]:
        """Names of its payload files."""
        return sorted(self.record["files"])

    @property
    def metrics(self) -> dict[str, float]:
        """Figures of the record, for people; what later steps rely on is in the payload."""
        return dict(self.record["metrics"])

    def files_under(self, folder: str) -> list[str]:
        """Names of its payload files in a folder."""
        return [name for name in self.files if name.startswith(f"{folder}/")]

    def size_bytes(self, *names: str) -> int:
        """Bytes of the named payload files; of all without names."""
        return sum(int(self.record["files"][name]["size_bytes"]) for name in names or self.files)

    def read(self, name: str) -> bytes:
        """A payload file's bytes. Raises Corrupt if they are not those that were committed.

        Bytes that were damaged on their way are read again.
        """
        entry = self._entry(name)

        def read() -> tuple[bytes, str]:
            data = self.storage.read(entry["path"])
            return data, sha256_bytes(data)

        return _until_sound(f"{self.uri}/{entry['path']}", entry["sha256"], read)

    def read_json(self, name: str) -> Any:
        """A JSON payload file, verified as `read` does."""
        return json.loads(self.read(name))

    def fetch(self, name: str) -> Path:
        """A payload file on this machine's disk, verified as `read` does; fetched once per machine."""
        if isinstance(self.storage, LocalStorage):
            return self.local_copy(name, self.storage.root)
        entry = self._entry(name)
        scratch_name = f"files/{entry['sha256']}{PurePosixPath(name).suffix}"
        return make_once(scratch_name, lambda path: self.download(name, path), self.size_bytes(name))

    def fetch_folder(self, folder: str) -> Path:
        """The payload files of a folder under their own names, on this machine's disk, verified as `read` does."""
        names = self.files_under(folder)

        def copy(temporary: Path) -> None:
            for name in names:
                self.download(name, temporary / PurePosixPath(name).relative_to(folder))

        fetched = fingerprint({name: self.sha256(name) for name in names})
        return make_once(f"folders/{fetched}", copy, self.size_bytes(*names))

    def download(self, name: str, path: Path) -> None:
        """Get a payload file into `path`, verified as `read` does."""
        entry = self._entry(name)

        def fetch() -> tuple[None, str]:
            self.storage.download(entry["path"], path)
            return None, sha256_file(path)

        _until_sound(f"{self.uri}/{entry['path']}", entry["sha256"], fetch)

    def local_copy(self, name: str, folder: Path) -> Path:
        """A payload file to read from, verified as `read` does: the stored one itself if it is on this machine's
        disk, else one that is downloaded into `folder`."""
        entry = self._entry(name)
        if not isinstance(self.storage, LocalStorage):
            path = folder / uuid.uuid4().hex  # two names may hold the same content
            self.download(name, path)
            return path
        where, stored = f"{self.uri}/{entry['path']}", self.storage.path(str(entry["path"]))
        if not stored.is_file():
            raise NotFound(f"{where}: the record names it, and it is not there")
        _until_sound(where, entry["sha256"], lambda: (None, sha256_file(stored)))
        return stored

    def sha256(self, name: str) -> str:
        """The committed hash of a payload file."""
        return str(self._entry(name)["sha256"])

    def as_input(self) -> dict[str, str]:
        """How a later step's key and record name this one."""
        return {"step": self.step, "key": self.key, "digest": self.digest}

    def _entry(self, name: str) -> dict[str, Any]:
        try:
            return dict(self.record["files"][name])
        except KeyError:
            raise NotFound(f"{self.uri} has no payload file {name!r}; it has {', '.join(self.files)}") from None


@dataclass
class Draft:
    """An artifact in the making. Write files below `folder`, and facts for people into `facts` and `metrics`."""

    storage: Storage
    work: Storage
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None
    """Raises LeaseLost once another driver has taken this work over."""

    def path(self, name: str) -> Path:
        """The local path to write a payload file to."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, data: bytes) -> None:
        """Add a payload file."""
        self.path(name).write_bytes(data)

    def write_json(self, name: str, value: Any) -> None:
        """Add a JSON payload file."""
        self.write(name, json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())

    def adopt(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add a payload file that `put_file` stored already (a shard that another process uploaded)."""
        self.stored[name] = dict(entry)


def put_file(storage: Storage, name: str, local_path: Path) -> dict[str, Any]:
    """Upload a payload file under its content's name; gives its entry for the record.

    JSON, such as a cache's manifest, is created and never replaced, so that a bucket's policy may demand it.
    """
    sha256 = sha256_file(local_path)
    pure = PurePosixPath(name)
    path = str(pure.with_name(f"{pure.stem}.{sha256[:12]}{pure.suffix}"))
    if pure.suffix == ".json":
        storage.create(path, local_path.read_bytes())
    else:
        storage.upload(local_path, path)
    return {"path": path, "sha256": sha256, "size_bytes": local_path.stat().st_size}


def artifact_key(step: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, Artifact | str]) -> str:
    """What names a step's output: see the module's docstring. Inputs are artifacts or digests."""
    digests = {name: given if isinstance(given, str) else given.digest for name, given in inputs.items()}
    return fingerprint({"step": step, "version": version, "config": dict(config), "inputs": digests})


def open_artifact(workspace: Storage, step: str, key: str, digest: str | None = None) -> Artifact | None:
    """The committed artifact of that key, or None.

    Raises FormatError for a record of another version, and Corrupt if the record does not match itself or `digest`.
    """
    folder = workspace.child(f"artifacts/{step}/{key}")
    try:
        data = folder.read(RECORD)
    except NotFound:
        return None
    where = f"{folder.uri}/{RECORD}"
    try:
        record = json.loads(data)
    except ValueError as error:
        raise Corrupt(f"{where} is not JSON ({error}); restore it, or delete {folder.uri} to make it again") from error
    if not isinstance(record, dict):
        raise Corrupt(f"{where} holds {type(record).__name__}, wanted a record; restore it, or delete {folder.uri}")
    if record.get("format") != RECORD_FORMAT:
        raise FormatError(
            f"{where} has format {record.get('format')!r}, this release reads {RECORD_FORMAT}; "
            "use the release that wrote it"
        )
    _verify(where, fingerprint({name: value for name, value in record.items() if name != "seal"}), record.get("seal"))
    if (record["step"], record["key"]) != (step, key):
        raise Corrupt(
            f"{where} is the record of {record['step']}/{record['key'][:12]}; it was copied here. Delete the folder "
            f"{folder.uri}, and it is made again"
        )
    _verify(where, payload_digest(record["files"]), record["digest"])
    if digest is not None and digest != record["digest"]:
        raise Corrupt(f"{where} holds digest {record['digest'][:12]}, wanted {digest[:12]}; it was made again since")
    return Artifact(folder, step, key, record["digest"], record)


def ancestors(workspace: Storage, artifact: Artifact) -> dict[str, Artifact]:
    """Everything that an artifact descends from, itself included, by step name, the first step first.

    Of several artifacts of one step, the first has the step's name, each other `<step>-<beginning of its key>`.

    Raises NotFound if one of them is gone, Corrupt if one has another digest than its descendant was made from.
    """
    found: dict[str, Artifact] = {}
    for given in artifact.record["inputs"].values():
        if isinstance(given, dict):
            parent = open_artifact(workspace, given["step"], given["key"], given["digest"])
            if parent is None:
                where = f"{workspace.uri}/artifacts/{given['step']}/{given['key']}"
                raise NotFound(f"{where}: {artifact.uri} was made from it, and it is gone; run the spec again")
            for known in ancestors(workspace, parent).values():
                found |= _named(known, found)
    return {**found, **_named(artifact, found)}


def _named(artifact: Artifact, found: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """An artifact by the name that it has among others; nothing if it is one of them."""
    if any(known.key == artifact.key for known in found.values()):
        return {}
    return {artifact.step if artifact.step not in found else f"{artifact.step}-{artifact.key[:8]}": artifact}


def payload_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over names and hashes of payload files, those below timings/ left out; order and place do not matter."""
    return fingerprint({name: entry["sha256"] for name, entry in files.items() if not name.startswith(TIMINGS)})


def produce(
    workspace: Storage,
    step: str,
    version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact | str],
    body: Callable[[Draft], None],
    on_wait: Callable[[str], None] | None = None,
) -> tuple[Artifact, bool]:
    """The artifact of this key, and whether it had to be made; `body` fills a Draft when it is not there.

    A lease keeps a second process from doing the same work: it waits, then finds the artifact. A body that raises
    commits nothing; what it left under `work` is what the next try continues from.
    """
    key = artifact_key(step, version, config, inputs)
    if found := open_artifact(workspace, step, key):
        return found, False
    name = f"leases/{step}/{key}"
    with leases.hold(workspace, name, on_wait=on_wait) as lease:
        found = open_artifact(workspace, step, key)
        try:
            artifact = found or _make(workspace, step, key, version, config, inputs, body, lease)
        except (LeaseLost, StorageError):  # a driver that took over may have committed, and cleaned up under this one
            found = open_artifact(workspace, step, key)
            if found is None:
                raise
            artifact = found
    leases.forget(workspace, name)
    return artifact, found is None


def _make(
    workspace: Storage,
    step: str,
    key: str,
    version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact | str],
    body: Callable[[Draft], None],
    lease: leases.Lease,
) -> Artifact:
    folder, work = workspace.child(f"artifacts/{step}/{key}"), workspace.child(f"work/{step}/{key}")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"distill-{step}-") as local:
        draft = Draft(folder, work, Path(local), check=lease.check)
        body(draft)
        lease.check()
        files = {**draft.stored, **_upload(draft)}
    if gone := {str(entry["path"]) for entry in files.values()} - set(folder.list()):
        raise NotFound(
            f"{folder.uri}/{min(gone)}: it was stored for this artifact, and is gone before the commit; "
            f"`distill retry {step}` drops what is left of the build and starts it over"
        )
    record = {
        "format": RECORD_FORMAT,
        "step": step,
        "version": version,
        "key": key,
        "digest": payload_digest(files),
        "config": dict(config),
        "inputs": {name: given if isinstance(given, str) else given.as_input() for name, given in inputs.items()},
        "files": files,
        "facts": draft.facts,
        "metrics": draft.metrics,
        "libraries": library_versions(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "committed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
    }
    sealed = {**record, "seal": fingerprint(record)}
    folder.create(RECORD, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode())
    artifact = open_artifact(workspace, step, key)
    assert artifact is not None
    for name in work.list():
        work.delete(name)
    return artifact


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results may depend on; recorded, not keyed."""
    return {name: metadata.version(name) for name in ("distill-platform", *LIBRARIES)}


def _upload(draft: Draft) -> dict[str, dict[str, Any]]:
    names = sorted(path.relative_to(draft.folder).as_posix() for path in draft.folder.rglob("*") if path.is_file())
    return {name: put_file(draft.storage, name, draft.folder / name) for name in names}


def _until_sound(where: str, sha256: str, read: Callable[[], tuple[T, str]]) -> T:
    """What `read` gives once its hash is `sha256`.

    What is damaged on its way differs from try to try, what is damaged at rest does not: raises Corrupt when the same
    wrong bytes came AT_REST times, or wrong ones ATTEMPTS times.
    """
    seen: Counter[str] = Counter()
    while True:
        value, got = read()
        if got == sha256:
            return value
        seen[got] += 1
        if seen[got] == AT_REST or seen.total() == ATTEMPTS:
            _verify(where, got, sha256)


def _verify(where: str, got: str, wanted: str | None) -> None:
    if got != wanted:
        raise Corrupt(
            f"{where}: sha256 is {got[:12]}, wanted {str(wanted)[:12]}; the bytes changed after they were written. "
            "Restore the file, or delete the artifact's folder, the one that holds record.json, to make it again"
        )
