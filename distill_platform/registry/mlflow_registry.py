"""Registered versions in MLflow: a view that a team already looks at. Who is champion, the promotion log decides.

A version is one MLflow run that holds the folder `model` (folder.py). The run ends once everything is uploaded, and
only then is the version created, with all its tags in one call. So a version with the tag `distill.complete` is whole,
and a kill leaves at worst a run without a version: one that has ended is given its version by the next `register`, one
that has not is marked as killed.

MLflow can make no version "unless it exists". The caller holds a lease around `register`; should two processes get
past it all the same, both versions hold the same digest, and the lower number is the one that counts from then on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill_platform.errors import RegistryError, StorageError
from distill_platform.registry import log
from distill_platform.registry.folder import import_mlflow, verify_folder, write_version_folder
from distill_platform.storage import Storage, is_remote, open_storage

FOLDER = "model"
ARTIFACTS = "/mlflow/artifacts/"
CHAMPION, CHALLENGER = "champion", "challenger"
DIGEST_TAG, MANIFEST_TAG, COMPLETE_TAG = "distill.digest", "distill.manifest", "distill.complete"


@dataclass(frozen=True)
class Version:
    """A complete registered version. `digest` is that of the artifact it was made from."""

    model: str
    number: int
    run_id: str
    digest: str
    source: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def tracking_uri_for(workspace_uri: str, given: str | None = None) -> str:
    """The MLflow to use: `given`, else `$MLFLOW_TRACKING_URI`, else a sqlite file in a local workspace.

    Raises RegistryError if the workspace is shared with other machines and the registry is a file of this one.
    """
    chosen = given or os.environ.get("MLFLOW_TRACKING_URI")
    if is_remote(workspace_uri):
        if not chosen or urlsplit(chosen).scheme in ("", "file", "sqlite"):
            raise RegistryError(
                f"the workspace {workspace_uri} is shared, and the registry is "
                f"{without_credentials(chosen) if chosen else 'not set'}; wanted one that every machine reaches: "
                "set MLFLOW_TRACKING_URI to a tracking server such as https://mlflow.example.com"
            )
        return chosen
    return chosen or f"sqlite:///{open_storage(workspace_uri).uri}/mlflow/mlflow.db"


def open_registry(workspace_uri: str, given: str | None = None) -> ModelRegistry:
    """The registry of a workspace, see `tracking_uri_for`. Without a server, model files lie in the workspace too."""
    tracking_uri = tracking_uri_for(workspace_uri, given)
    has_server = urlsplit(tracking_uri).scheme in ("http", "https", "databricks")
    return ModelRegistry(tracking_uri, None if has_server else f"{open_storage(workspace_uri).uri}/mlflow/artifacts")


def without_credentials(text: str) -> str:
    """The text with `user:password@` taken out of every URI in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


class ModelRegistry:
    """Versions and aliases of models in one MLflow. Nothing is opened or made before the first call.

    `artifact_root` is where model files go if the tracking server does not decide that itself.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None = None) -> None:
        self.tracking_uri, self.artifact_root = tracking_uri, artifact_root

    @cached_property
    def client(self) -> Any:
        """MLflow's client."""
        if (database := self._sqlite_file()) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        return import_mlflow().MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def register(
        self,
        model: str,
        student_folder: Path,
        *,
        digest: str,
        documents: Mapping[str, Path | bytes],
        tags: Mapping[str, str],
    ) -> Version:
        """Register the student in `student_folder` with its documents; the version there is, if `digest` is known.

        `documents` are spec.yaml, lineage.json, verdict.json, report.html. Killed at any point, the next call completes
        it. Hold a lease around this (`lease.hold`): see the module's docstring.

        Raises PromotionRefused unless verdict.json is a pass for `digest`, and what `load_student_folder` raises for a
        student that cannot be loaded.
        """
        log.require_passed(model, digest, _verdict(model, documents))
        if (known := self._find(model, digest)) is not None:
            return known
        with self._errors(f"registering {model}"):
            self._make_registered_model(model)
            experiment = self._experiment(model)
            run = self._uploaded_run(experiment, digest)
            if run is None:
                with tempfile.TemporaryDirectory(prefix="distill-register-") as staging:
                    seal = write_version_folder(Path(staging) / FOLDER, student_folder, digest, documents)
                    run = self._upload(experiment, Path(staging), {DIGEST_TAG: digest, MANIFEST_TAG: seal})
            stored = {DIGEST_TAG: digest, MANIFEST_TAG: run.data.tags[MANIFEST_TAG], COMPLETE_TAG: "true"}
            source = f"{run.info.artifact_uri}/{FOLDER}"
            self.client.create_model_version(model, source, run_id=run.info.run_id, tags={**tags, **stored})
        registered = self._find(model, digest)
        assert registered is not None
        return registered

    def versions(self, model: str) -> list[Version]:
        """The model's complete versions by number, one per digest; what others registered in MLflow is left out."""
        log.log_folder(model)
        if (database := self._sqlite_file()) is not None and not database.exists():
            return []
        found: dict[str, Version] = {}
        with self._errors(f"listing versions of {model}"):
            aliases = self._aliases(model)
            for entity in sorted(self._entities(model), key=lambda entity: int(entity.version)):
                number, tags = int(entity.version), dict(entity.tags)
                if COMPLETE_TAG in tags:
                    names = tuple(sorted(alias for alias, target in aliases.items() if target == number))
                    version = Version(model, number, entity.run_id, tags[DIGEST_TAG], entity.source, names, tags)
                    found.setdefault(version.digest, version)
        return list(found.values())

    def get(self, model: str, ref: str) -> Version:
        """A version by number, alias or full digest: "3", ":3", "champion", "@champion". Raises RegistryError."""
        versions = self.versions(model)
        wanted = ref.lstrip("@:")
        for version in versions:
            if wanted in (str(version.number), version.digest, *version.aliases):
                return version
        numbers = ", ".join(str(version.number) for version in versions) or "none"
        aliases = ", ".join(sorted(alias for version in versions for alias in version.aliases)) or "none"
        if not versions:
            raise RegistryError(
                f"{without_credentials(self.tracking_uri)} has no registered version of {model!r}; "
                "`distill models list` shows what there is, and a run that passes its gates registers one"
            )
        raise RegistryError(
            f"{model} has no version {ref!r} in {without_credentials(self.tracking_uri)}; "
            f"it has versions {numbers} and aliases {aliases}"
        )

    def sync(self, storage: Storage, model: str) -> dict[str, int]:
        """Set `champion` and `challenger` to what the log says; gives alias -> version.

        The challenger is the newest version, unless that one is champion. A log that moved meanwhile is read again, so
        of two syncs at once neither leaves an older champion behind.

        Raises RegistryError if MLflow does not have the champion of the log; the alias is then taken away.
        """
        while True:
            champion = log.champion(storage, model)
            versions = self.versions(model)
            wanted = _wanted_aliases(versions, champion.digest if champion else None)
            with self._errors(f"setting aliases of {model}"):
                self._set_aliases(model, wanted)
            if log.champion(storage, model) == champion:
                break
        if champion is not None and CHAMPION not in wanted:
            raise RegistryError(
                f"{model}: the log's champion, version {champion.version} ({champion.digest[:12]}), is not in "
                f"{without_credentials(self.tracking_uri)}; run its spec again to register it"
            )
        return wanted

    def download(self, version: Version, folder: Path) -> None:
        """Fetch a version's folder to `folder`, which appears whole and verified or not at all.

        Raises Corrupt for a file that is missing or not the one that was registered, StorageError if the version's
        files are not where they were put, and RegistryError if something is at `folder` already.
        """
        if folder.exists():
            raise RegistryError(f"{folder} exists; name a folder that is not there yet")
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = f"{version.model} version {version.number}"
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as temporary:
            with self._errors(f"fetching {where} from {version.source}"):
                fetched = self._fetch(version, Path(temporary))
            verify_folder(fetched, where, digest=version.digest, seal=version.tags[MANIFEST_TAG])
            fetched.rename(folder)

    def _fetch(self, version: Version, folder: Path) -> Path:
        """A version's files below `folder`. MLflow keeps absolute paths; in a workspace that was moved or copied since,
        its own files count, not those that the path leads to."""
        _, separator, below = version.source.partition(ARTIFACTS)
        own = Path(self.artifact_root or "") / below
        if self.artifact_root and separator and own.is_dir():
            return Path(shutil.copytree(own, folder / FOLDER))
        return Path(self.client.download_artifacts(version.run_id, FOLDER, str(folder)))

    def _find(self, model: str, digest: str) -> Version | None:
        return next((version for version in self.versions(model) if version.digest == digest), None)

    def _sqlite_file(self) -> Path | None:
        prefix = "sqlite:///"
        return Path(self.tracking_uri.removeprefix(prefix)) if self.tracking_uri.startswith(prefix) else None

    def _make_registered_model(self, model: str) -> None:
        with _unless("RESOURCE_ALREADY_EXISTS"):
            self.client.create_registered_model(model)

    def _experiment(self, model: str) -> str:
        name = f"distill/{model}"
        if (found := self.client.get_experiment_by_name(name)) is None:
            root = f"{self.artifact_root}/{model}" if self.artifact_root else None
            with _unless("RESOURCE_ALREADY_EXISTS"):
                self.client.create_experiment(name, artifact_location=root)
            found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _uploaded_run(self, experiment: str, digest: str) -> Any | None:
        """A run that an earlier call uploaded and did not live to register. Unfinished ones are marked as killed."""
        for run in self.client.search_runs([experiment], f"tags.`{DIGEST_TAG}` = '{digest}'"):
            if run.info.status == "FINISHED":
                return run
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, status="KILLED")
        return None

    def _upload(self, experiment: str, folder: Path, tags: dict[str, str]) -> Any:
        run = self.client.create_run(experiment, tags=tags)
        self.client.log_artifacts(run.info.run_id, str(folder))
        self.client.set_terminated(run.info.run_id, status="FINISHED")
        return run

    def _entities(self, model: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_model_versions(f"name='{model}'", page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _aliases(self, model: str) -> dict[str, int]:
        registered: Any = None
        with _unless("RESOURCE_DOES_NOT_EXIST"):
            registered = self.client.get_registered_model(model)
        return {alias: int(number) for alias, number in registered.aliases.items()} if registered else {}

    def _set_aliases(self, model: str, wanted: Mapping[str, int]) -> None:
        present = self._aliases(model)
        for alias in (CHAMPION, CHALLENGER):
            if alias in wanted and present.get(alias) != wanted[alias]:
                self.client.set_registered_model_alias(model, alias, str(wanted[alias]))
            elif alias in present and alias not in wanted:
                self.client.delete_registered_model_alias(model, alias)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """MLflow's errors as the platform's. Its messages quote the tracking URI, so the cause is left behind."""
        try:
            yield
        except import_mlflow().exceptions.MlflowException as error:
            where = without_credentials(self.tracking_uri)
            raise StorageError(f"MLflow at {where}, {doing}: {without_credentials(str(error))}") from None


def _wanted_aliases(versions: list[Version], champion_digest: str | None) -> dict[str, int]:
    wanted = {}
    if champion := next((version for version in versions if version.digest == champion_digest), None):
        wanted[CHAMPION] = champion.number
    if versions and versions[-1].digest != champion_digest:
        wanted[CHALLENGER] = versions[-1].number
    return wanted


def _verdict(model: str, documents: Mapping[str, Path | bytes]) -> dict[str, Any]:
    if "verdict.json" not in documents:
        raise RegistryError(
            f"{model}: the documents hold no verdict.json, only {', '.join(documents) or 'nothing'}; run the gate first"
        )
    given = documents["verdict.json"]
    return dict(json.loads(given if isinstance(given, bytes) else given.read_bytes()))


@contextmanager
def _unless(error_code: str) -> Iterator[None]:
    """Go on after an MlflowException of that code."""
    try:
        yield
    except import_mlflow().exceptions.MlflowException as error:
        if error.error_code != error_code:
            raise
