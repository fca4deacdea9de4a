"""Where a run keeps what it makes: storage, the run that records its steps, and the Ray that does its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distill_platform.artifact import Artifact, Draft, artifact_key, open_artifact, produce
from distill_platform.runs import Run, log
from distill_platform.storage import Storage, open_storage


@dataclass(frozen=True)
class Workspace:
    """A place and its circumstances; none of them is part of any key. Without a run, steps are not recorded."""

    storage: Storage
    run: Run | None = None
    ray_address: str | None = None
    tracking_uri: str | None = None

    @classmethod
    def at(cls, uri: str, ray_address: str | None = None, tracking_uri: str | None = None) -> Workspace:
        """The workspace of a URI, with nothing running in it."""
        return cls(open_storage(uri), None, ray_address, tracking_uri)

    def produce(
        self,
        step: str,
        version: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact | str],
        body: Callable[[Draft], None],
        ran: bool | None = None,
        which: str = "",
    ) -> Artifact:
        """The step's artifact, made by `body` if it is not there, and recorded in the run.

        ran: what the record says of a step whose effect lies elsewhere (the registry).
        which: of several times that a run does this step, in the run's record; no part of the key.
        """

        def make() -> tuple[Artifact, bool]:
            return produce(self.storage, step, version, config, inputs, body, on_wait=self._say_waiting(step))

        if self.run is None:
            return make()[0]
        with self.run.step(f"{step}-{which}" if which else step) as record:
            artifact, made = make()
            record(artifact, made if ran is None else ran)
        return artifact

    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self.run is not None and self.run.should_stop()

    def _say_waiting(self, step: str) -> Callable[[str], None]:
        return lambda holder: log.info("step %s: %s is at the same work; waiting for it", step, holder)


class NotMade(Exception):
    """A step's artifact is not there, in a workspace where nothing is made."""

    def __init__(self, step: str, key: str) -> None:
        super().__init__(f"{step} {key}")
        self.key = key


class DryWorkspace(Workspace):
    """A workspace that finds artifacts and makes none: step functions called in it say what is to be done."""

    def produce(
        self,
        step: str,
        version: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact | str],
        body: Callable[[Draft], None],
        ran: bool | None = None,
        which: str = "",
    ) -> Artifact:
        """The step's artifact. Raises NotMade if it is not there."""
        key = artifact_key(step, version, config, inputs)
        found = open_artifact(self.storage, step, key)
        if found is None:
            raise NotMade(step, key)
        return found
