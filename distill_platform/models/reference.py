"""A model of the Hugging Face hub, pinned, or of a local folder in its layout: `hf:NAME@REVISION`, `hf:FOLDER`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_platform.errors import ModelError
from distill_platform.fingerprint import fingerprint, sha256_file
from distill_platform.models.optional import optional_library

PINNED = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Reference:
    """Where a model's files are: a folder, or a repository of the hub at one commit."""

    name: str
    place: str
    revision: str | None

    @classmethod
    def of(cls, name: str) -> Reference:
        """Of `hf:…`. Raises ModelError for what is no folder and no pinned name of the hub."""
        place, _, revision = name.removeprefix("hf:").partition("@")
        if Path(name.removeprefix("hf:")).is_dir():
            return cls(name, name.removeprefix("hf:"), None)
        if place.startswith(("/", ".", "~")):
            raise ModelError(f"{name}: there is no such folder; wanted one with config.json and *.safetensors")
        if not PINNED.fullmatch(revision):
            raise ModelError(
                f"{name} is no folder here, and as a model of the hub it is not pinned: got revision {revision!r}, "
                f"wanted the commit's 40 hex digits, hf:{place}@<commit>; a branch or tag may move"
            )
        return cls(name, place, revision)

    @property
    def source(self) -> str | None:
        """sha256 over a folder's configuration and weights, so that another model makes a new key; None for one of the
        hub, whose name says its commit.
        """
        if self.revision is not None:
            return None
        paths = sorted(path for path in Path(self.place).iterdir() if path.suffix in (".json", ".safetensors"))
        return fingerprint({path.name: sha256_file(path) for path in paths})

    def file(self, name: str) -> bytes | None:
        """A file's bytes, or None if the model has none of that name. Raises ModelError if the hub is not reached."""
        if self.revision is None:
            path = Path(self.place) / name
            return path.read_bytes() if path.is_file() else None
        with optional_library(self.name, "hf"):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        try:
            return Path(hf_hub_download(self.place, name, revision=self.revision)).read_bytes()
        except LocalEntryNotFoundError as error:
            raise ModelError(
                f"{self.name}: {name} is not in the hub's cache here, and the hub is out of reach"
            ) from error
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.name}: {name} cannot be had from the hub: {error}") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """As `file`, parsed. Raises ModelError for what is no JSON object."""
        data = self.file(name)
        if data is None:
            return None
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{self.name}: {name} is no JSON object ({error})") from error

    def config(self) -> dict[str, Any]:
        """Its config.json. Raises ModelError where there is none, or where it says not what kind of model it is."""
        config = self.json("config.json")
        if config is None or "model_type" not in config:
            raise ModelError(f"{self.name} holds no config.json that names a model_type; wanted a transformers model")
        return config
