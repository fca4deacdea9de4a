"""Tokenizers: every id has a name, every byte of a text is some token's, and what is not there is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data.tokenizers import ByteTokenizer, FastTokenizer, open_tokenizer
from distill_platform.errors import DataError
from distill_platform.fingerprint import sha256_file
from tests.data.small_files import write_tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> FastTokenizer:
    opened = open_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    assert isinstance(opened, FastTokenizer)
    return opened


@given(TEXT)
def test_bytes_are_tokens_and_the_end_of_text_is_none_of_them(text: str) -> None:
    tokens = ByteTokenizer().encode(text)
    assert bytes(tokens[:, 0].tolist()) == text.encode()
    assert (tokens[:, 1] == 1).all()
    assert ByteTokenizer().vocabulary[65] == "<0x41>"
    assert len(ByteTokenizer().vocabulary) == ByteTokenizer().end_of_text + 1 == 257


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_the_bytes_of_a_texts_tokens_add_up_to_the_texts(fast: FastTokenizer, text: str) -> None:
    tokens = fast.encode(text)
    assert tokens[:, 1].sum() == len(text.encode())
    assert (tokens[:, 1] >= 0).all()
    assert fast.backend.decode(tokens[:, 0].tolist()) == text


def test_a_token_stands_for_the_bytes_it_ends(fast: FastTokenizer) -> None:
    tokens = fast.encode("the größer")
    named = [(fast.vocabulary[number], count) for number, count in tokens.tolist()]
    assert named[0] == ("the", 3)
    alone = [fast.backend.decode([number]) for number, _ in tokens.tolist()]
    assert "".join(alone) == "the größer"
    assert [count for _, count in named] == [len(text.encode()) for text in alone]


def test_what_a_tokenizer_drops_is_counted_with_the_token_behind_it(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"?": 0, "the": 1, "größe": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = FastTokenizer(backend, ("?", "the", "größe"), 0, "")
    assert tokenizer.encode(" the  größe \n").tolist() == [[1, 4], [2, 2 + 7 + 2]]
    assert tokenizer.encode("  ").tolist() == []


def test_truncation_that_a_tokenizer_was_saved_with_is_off(fast: FastTokenizer) -> None:
    assert len(fast.encode("x y z " * 50)) > 100


def test_the_vocabulary_is_in_the_order_of_ids_and_the_digest_of_the_file(tmp_path: Path) -> None:
    name = write_tokenizer(tmp_path)
    opened = open_tokenizer(name)
    assert opened.vocabulary[opened.end_of_text] == "<|end|>"
    assert [opened.backend.token_to_id(token) for token in opened.vocabulary] == list(range(len(opened.vocabulary)))  # type: ignore[attr-defined]
    assert opened.digest == sha256_file(tmp_path / "tokenizer.json")


def test_tokenizers_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(DataError) as error:
            open_tokenizer(name)
        return str(error.value)

    assert "data.tokenizer is 'byte'; wanted bytes, or hf:FOLDER_OR_ID[@revision]" in refusal("byte")
    (tmp_path / "empty").mkdir()
    assert "holds no tokenizer.json" in refusal(f"hf:{tmp_path}/empty")
    name = write_tokenizer(tmp_path / "t", end_of_text="</s>")
    assert "ends texts with '</s>', which its vocabulary does not hold" in refusal(name)
    (tmp_path / "t" / "tokenizer_config.json").write_text("{}")
    assert "names no eos_token" in refusal(name)
    (tmp_path / "t" / "tokenizer.json").write_text("{}")
    assert "cannot be read" in refusal(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs the extra hf: pip install 'distill-platform[hf]'" in refusal(name)


def test_a_tokenizer_of_the_hub_is_asked_for_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    write_tokenizer(tmp_path)
    asked: list[tuple[str, str, Any]] = []

    def download(identity: str, file: str, revision: str | None) -> str:
        asked.append((identity, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    here, there = open_tokenizer(f"hf:{tmp_path}"), open_tokenizer("hf:some/name@v1")
    assert np.array_equal(there.encode("the"), here.encode("the"))
    assert asked == [("some/name", "tokenizer.json", "v1"), ("some/name", "tokenizer_config.json", "v1")]

    def unreachable(identity: str, file: str, revision: str | None) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(DataError, match=r"hf:some/name is no local folder, nor to be had from the hub \(no network\)"):
        open_tokenizer("hf:some/name")
