"""Texts as tokens: bytes as they are, or by a Hugging Face tokenizer that is read from its tokenizer.json alone.

No code of a model's repository is ever run. To add a tokenizer: a class with `encode`, and a line in `open_tokenizer`.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distill_platform.errors import DataError
from distill_platform.fingerprint import fingerprint, sha256_bytes

Tokens = NDArray[np.int32]
"""[n, 2]: ids, and how many bytes of UTF-8 each one stands for. The bytes of a text's tokens add up to the text's."""

DEFAULT = "bytes"


class Tokenizer(Protocol):
    """Makes text into ids; `vocabulary` names every id, `digest` is equal for equal tokenizers alone."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens in the order of their ids."""

    @property
    def end_of_text(self) -> int:
        """The id that ends a document; it stands for no byte."""

    @property
    def digest(self) -> str:
        """sha256 of what defines it."""

    def encode(self, text: str) -> Tokens:
        """A text, without any token before or behind it."""


@dataclass(frozen=True)
class ByteTokenizer:
    """Bytes of UTF-8 as ids 0 to 255, and 256 for the end of a text."""

    vocabulary: tuple[str, ...] = (*(f"<0x{byte:02X}>" for byte in range(256)), "<|endoftext|>")
    end_of_text: int = 256

    @property
    def digest(self) -> str:
        """sha256 of the vocabulary."""
        return fingerprint(list(self.vocabulary))

    def encode(self, text: str) -> Tokens:
        """One token for each byte."""
        ids = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        return np.stack([ids, np.ones_like(ids)], axis=1)


@dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of the `tokenizers` library, truncation and padding off."""

    backend: Any
    vocabulary: tuple[str, ...]
    end_of_text: int
    digest: str

    def encode(self, text: str) -> Tokens:
        """As the library does it; a token stands for the bytes from the end of the one before it to its own end."""
        encoded = self.backend.encode(text, add_special_tokens=False)
        if not encoded.ids:
            return np.empty((0, 2), np.int32)
        ends = np.maximum.accumulate([end for _, end in encoded.offsets])
        ends[-1] = len(text)
        widths = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        bytes_before = np.cumsum([0, *_utf8_widths(widths)])
        return np.stack([encoded.ids, np.diff(bytes_before[ends], prepend=0)], axis=1).astype(np.int32)


def open_tokenizer(name: str) -> Tokenizer:
    """`bytes`, or `hf:FOLDER_OR_ID` of a tokenizer, with `@revision` behind an id of the hub.

    Raises DataError for another name, and for a tokenizer that is not there, cannot be read or has no end of text.
    """
    if name == DEFAULT:
        return ByteTokenizer()
    if name.startswith("hf:"):
        return _open_fast(name)
    raise DataError(f"data.tokenizer is {name!r}; wanted {DEFAULT}, or hf:FOLDER_OR_ID[@revision]")


def _open_fast(name: str) -> FastTokenizer:
    if not importlib.util.find_spec("tokenizers"):
        raise DataError(f"data.tokenizer {name} needs the extra hf: pip install 'distill-platform[hf]'")
    from tokenizers import Tokenizer as Backend

    definition = _hub_file(name, "tokenizer.json")
    if definition is None:
        raise DataError(f"data.tokenizer: {name} holds no tokenizer.json; write it by save_pretrained of a fast one")
    try:
        backend = Backend.from_str(definition.decode())
    except Exception as error:  # the library raises nothing more special
        raise DataError(f"data.tokenizer: the tokenizer.json of {name} cannot be read ({error})") from error
    backend.no_truncation()
    backend.no_padding()
    ids = {number: token for token, number in backend.get_vocab(with_added_tokens=True).items()}
    vocabulary = tuple(ids.get(number, f"<unused {number}>") for number in range(max(ids) + 1))
    end = _end_of_text(name, json.loads(_hub_file(name, "tokenizer_config.json") or b"{}"))
    end_of_text = backend.token_to_id(end)
    if end_of_text is None:
        raise DataError(f"data.tokenizer: {name} ends texts with {end!r}, which its vocabulary does not hold")
    return FastTokenizer(backend, vocabulary, end_of_text, sha256_bytes(definition))


def _end_of_text(name: str, config: dict[str, Any]) -> str:
    """What a tokenizer's configuration calls its end of text; an encoder's separator serves as well."""
    for role in ("eos_token", "sep_token"):
        token = config.get(role)
        if token is not None:
            return str(token["content"] if isinstance(token, dict) else token)
    raise DataError(f"data.tokenizer: the tokenizer_config.json of {name} names no eos_token, which has to part texts")


def _hub_file(name: str, file: str) -> bytes | None:
    """A file of a local folder, or of the hub, where its cache or the network has it; None if it is not there."""
    place = name.removeprefix("hf:")
    if Path(place).is_dir():
        path = Path(place) / file
        return path.read_bytes() if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    identity, _, revision = place.partition("@")
    try:
        return Path(hf_hub_download(identity, file, revision=revision or None)).read_bytes()
    except RemoteEntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"data.tokenizer: {name} is no local folder, nor to be had from the hub ({error})") from error


def _utf8_widths(points: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bytes of UTF-8 of each code point."""
    return 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
