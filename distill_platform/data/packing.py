"""Documents of tokens packed into blocks of one length, for language modelling: no token is lost, none is there twice.

Documents follow each other, each with its end-of-text token, through a *group* of up to GROUP_BLOCKS blocks. A group
ends where a document ends, if that document fits into a group at all; a longer one fills groups of its own, and its
rest begins the next. Groups are what splits are drawn from: blocks that go on from one another stay in one split, and
packing starts anew in each.

A block's targets are the tokens that follow its own, the last of them the first one of the next block; the last token
of a group has none. Axes: T tokens of a block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from distill_platform.data.blocks import Block
from distill_platform.data.schema import PADDING, UNLABELLED
from distill_platform.data.tokenizers import Tokenizer, Tokens
from distill_platform.errors import DataError

GROUP_BLOCKS = 64
_NOTHING: Tokens = np.empty((0, 2), np.int32)


@dataclass(frozen=True)
class Document:
    """A text, in parts for a long one; `where` to find it; the split that a column says it is in."""

    where: str
    texts: Iterable[str]
    split: str | None = None


class Packer:
    """Makes groups of `size` tokens or less from documents."""

    def __init__(self, size: int, tokenizer: Tokenizer) -> None:
        self.size, self.tokenizer = size, tokenizer
        self._parts: list[Tokens] = []
        self._num = 0
        self._where = ""

    def add(self, document: Document) -> Iterator[tuple[str, Tokens]]:
        """The groups that a document completes, each with where its first document is.

        Raises DataError for a document without text.
        """
        rest = _NOTHING
        for part in _encoded(document, self.tokenizer):
            rest = np.concatenate([rest, part])
            while len(rest) > self.size:
                yield from self.close()
                yield document.where, rest[: self.size]
                rest = rest[self.size :]
        if self._num + len(rest) > self.size:
            yield from self.close()
        self._where = self._where if self._parts else document.where
        self._parts.append(rest)
        self._num += len(rest)

    def close(self) -> Iterator[tuple[str, Tokens]]:
        """What was begun, as a group."""
        if self._parts:
            yield self._where, np.concatenate(self._parts)
        self._parts, self._num = [], 0


def pack(documents: Iterable[Document], tokenizer: Tokenizer, length: int) -> Iterator[Block]:
    """Blocks of rows, a group each: inputs and targets `[n, length]` int32, PADDING["tokens"] behind the group's end.

    Rows are named by their group's content and their place in it. Documents of different splits share no group. One
    that raises DataError while it is read becomes a fault.
    """
    packers: dict[str | None, Packer] = {}
    faults: list[tuple[str, str]] = []
    for document in documents:
        packer = packers.setdefault(document.split, Packer(GROUP_BLOCKS * length, tokenizer))
        try:
            for where, tokens in packer.add(document):
                yield _block(tokens, where, document.split, length)
        except DataError as error:
            faults.append(("unreadable text", str(error)))
    for split, packer in packers.items():
        for where, tokens in packer.close():
            yield _block(tokens, where, split, length)
    if faults:
        yield Block(np.empty((0, length), np.int32), [], [], faults=faults)


def _encoded(document: Document, tokenizer: Tokenizer) -> Iterator[Tokens]:
    """The tokens of a document, and the one that ends it."""
    is_empty = True
    for text in document.texts:
        is_empty = is_empty and not text
        yield tokenizer.encode(text)
    if is_empty:
        raise DataError(f"{document.where} (it is empty)")
    yield np.array([[tokenizer.end_of_text, 0]], np.int32)


def _block(tokens: Tokens, where: str, split: str | None, length: int) -> Block:
    """A group as rows."""
    num = -(-len(tokens) // length)
    inputs, targets = np.full((2, num * length), PADDING["tokens"], np.int32)
    targets[:] = UNLABELLED
    num_bytes = np.zeros(num * length, np.int32)
    inputs[: len(tokens)] = tokens[:, 0]
    targets[: len(tokens) - 1], num_bytes[: len(tokens) - 1] = tokens[1:].T
    name = hashlib.sha256(np.ascontiguousarray(tokens[:, 0]).tobytes()).hexdigest()
    return Block(
        inputs.reshape(num, length),
        [None] * num,
        [f"{where} block {number}" for number in range(num)],
        ids=[f"{name}:{number}" for number in range(num)],
        groups=[name] * num,
        splits=[split] * num if split is not None else None,
        targets=targets.reshape(num, length),
        num_bytes=num_bytes.reshape(num, length).sum(axis=1, dtype=np.int32),
    )
