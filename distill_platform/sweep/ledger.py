"""The truth about a sweep's members. Every entry is created if absent, so no entry ever changes.

    members/000003.json        what member 3 is: its settings
    rungs/000003-0006.json     its metric after 6 epochs, where halving looks
    results/000003.json        how it ended: finished, stopped or failed, with metrics and files

After a kill the search is rebuilt from these. Order is by number and epoch, never by clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from distill_platform.errors import Corrupt
from distill_platform.storage import Storage

Result = Mapping[str, Any]
"""status (finished | stopped | failed), score, metrics, reports, epochs, seconds, num_parameters, size_bytes, files,
reason."""


@dataclass
class LedgerState:
    """All entries at one moment."""

    members: dict[int, dict[str, Any]] = field(default_factory=dict)
    rungs: dict[int, dict[int, float]] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[int]:
        """Members that were asked for and have not ended."""
        return sorted(set(self.members) - set(self.results))


@dataclass(frozen=True)
class Ledger:
    """The entries of one sweep, in a folder of their own."""

    storage: Storage

    def add_member(self, number: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Enter a member; gives the settings that count, which are another's if the entry was there."""
        return cast("dict[str, Any]", self._create(f"members/{number:06d}.json", {"settings": settings})["settings"])

    def report(self, number: int, epochs: int, score: float) -> None:
        """Enter a member's score (higher is better) after so many epochs."""
        self._create(f"rungs/{number:06d}-{epochs:06d}.json", {"score": score})

    def end(self, number: int, result: Result) -> Result:
        """Enter how a member ended; gives the result that counts: the first one."""
        return self._create(f"results/{number:06d}.json", dict(result))

    def result(self, number: int) -> Result | None:
        """How a member ended, or None while it has not."""
        name = f"results/{number:06d}.json"
        return self._read(name) if self.storage.exists(name) else None

    def state(self) -> LedgerState:
        """Every entry, read from storage."""
        state = LedgerState()
        for name in self.storage.list():
            kind, _, entry = name.partition("/")
            if kind == "members":
                state.members[int(entry[:6])] = self._read(name)["settings"]
            elif kind == "results":
                state.results[int(entry[:6])] = self._read(name)
            elif kind == "rungs":
                number, epochs = (int(part) for part in entry.removesuffix(".json").split("-"))
                state.rungs.setdefault(epochs, {})[number] = self._read(name)["score"]
        return state

    def _create(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        if self.storage.create(name, json.dumps(entry, sort_keys=True, allow_nan=False).encode()):
            return entry
        return self._read(name)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", json.loads(self.storage.read(name)))
        except ValueError as error:
            raise Corrupt(
                f"{self.storage.uri}/{name} is not JSON ({error}); delete it to train that member again"
            ) from error
