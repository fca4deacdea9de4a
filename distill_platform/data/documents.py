"""Text to be learnt as it stands: `text:FILE_OR_FOLDER`, each .txt or .txt.gz file a document, packed into tokens."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from distill_platform.data.blocks import Block, ReadOptions, Source
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.packing import Document, pack
from distill_platform.data.schema import InputSpec
from distill_platform.data.tokenizers import DEFAULT, Tokenizer, open_tokenizer
from distill_platform.errors import DataError

TEXT_SUFFIXES = (".txt", ".txt.gz")
FILES_PER_PIECE = 256
PART_CHARACTERS = 1 << 20
"""A long document is tokenised in parts of about so many characters, each to the end of a line."""
DEFAULT_LENGTH = 128
"""Tokens of a block."""


def open_documents(source: str, options: ReadOptions) -> Source:
    """`text:FILE_OR_FOLDER_URI`. Raises DataError for options that documents have no use for."""
    options.refuse_all_but(source, "length", "tokenizer")
    files = find_files(source.removeprefix("text:"), TEXT_SUFFIXES)
    pieces = tuple(tuple(files[start : start + FILES_PER_PIECE]) for start in range(0, len(files), FILES_PER_PIECE))
    return token_source(source, _documents, pieces, total_bytes(files), options)


def token_source(
    source: str,
    documents: Callable[[Any], Iterator[Document]],
    pieces: tuple[Any, ...],
    stored_bytes: int | None,
    options: ReadOptions,
) -> Source:
    """A source of blocks of tokens, packed from the documents of each piece.

    Raises DataError for a transfer set, and for a tokenizer that cannot be had.
    """
    if not options.labelled:
        raise DataError(f"{source}: data.transfer is for examples without labels, and text is its own; add it to data")
    tokenizer = open_tokenizer(options.tokenizer or DEFAULT)
    length, num_tokens = options.length or DEFAULT_LENGTH, len(tokenizer.vocabulary)
    return Source(
        source,
        InputSpec("tokens", (length,), "int32", 0.0, num_tokens - 1.0),
        pieces,
        partial(_read, documents, tokenizer, length),
        None,
        stored_bytes,
        class_names=tokenizer.vocabulary,
        count_classes=lambda: num_tokens,
        tokenizer_digest=tokenizer.digest,
    )


def _read(
    documents: Callable[[Any], Iterator[Document]], tokenizer: Tokenizer, length: int, piece: Any
) -> Iterator[Block]:
    return pack(documents(piece), tokenizer, length)


def _documents(piece: tuple[StoredFile, ...]) -> Iterator[Document]:
    for file in piece:
        yield Document(file.name, _parts(file))


def _parts(file: StoredFile) -> Iterator[str]:
    """A file's text; raises DataError for what cannot be unpacked or is not UTF-8."""
    opened = gzip.open if file.name.lower().endswith(".gz") else io.open
    try:
        with file.local() as path, opened(path, "rt", encoding="utf-8", newline="") as stream:
            while part := stream.read(PART_CHARACTERS):
                yield part + stream.readline()
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} (no UTF-8: {error.reason})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file.name} ({error})") from error
