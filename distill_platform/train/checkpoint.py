"""A Trainer's state at rest: one safetensors file, then a pointer that names it and its hash, written last.

The pointer decides which checkpoint counts, by generation and never by clock; a file that it does not name is ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from distill_platform.errors import Corrupt, FormatError, NotFound
from distill_platform.fingerprint import sha256_bytes
from distill_platform.storage import Storage

CHECKPOINT_FORMAT = 1
POINTER = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run of training, in a folder of their own."""

    storage: Storage

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Keep this state in place of the one before. Killed at any moment, one of the two counts."""
        before = self._pointer()
        data = save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        sha256 = sha256_bytes(data)
        generation = before["generation"] + 1 if before else 1
        name = f"checkpoint-{generation:06d}.safetensors"
        self.storage.write(name, data)
        pointer = {
            "format": CHECKPOINT_FORMAT,
            "generation": generation,
            "file": name,
            "sha256": sha256,
            "position": position,
        }
        self.storage.write(POINTER, json.dumps(pointer, allow_nan=False).encode())
        if before:
            self.storage.delete(before["file"])

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last state kept, or None. Raises Corrupt if its bytes changed, FormatError for another version."""
        pointer = self._pointer()
        if pointer is None:
            return None
        data = self.storage.read(pointer["file"])
        if (got := sha256_bytes(data)) != pointer["sha256"]:
            raise Corrupt(
                f"{self.storage.uri}/{pointer['file']}: sha256 is {got[:12]}, wanted {pointer['sha256'][:12]}; the "
                "bytes changed after they were written. `distill retry STEP` drops the unfinished work and starts over"
            )
        return load_tensors(data), pointer["position"]

    def _pointer(self) -> dict[str, Any] | None:
        where = f"{self.storage.uri}/{POINTER}"
        try:
            pointer = json.loads(self.storage.read(POINTER))
        except NotFound:
            return None
        except ValueError as error:
            raise Corrupt(f"{where} is not JSON ({error}); `distill retry STEP` starts the step over") from error
        if pointer.get("format") != CHECKPOINT_FORMAT:
            raise FormatError(f"{where} has format {pointer.get('format')!r}, this release reads {CHECKPOINT_FORMAT}")
        return dict(pointer)
