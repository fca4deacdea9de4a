"""A saved model of every kind of input, given what a user has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.errors import ModelError
from distill_platform.models import Student
from tests.models.kinds import INPUTS, MODEL_OF, model_for, raw_batch


def student(kind: str) -> Student:
    model = model_for(MODEL_OF[kind], kind)
    return Student(model, model.build(1))


@pytest.mark.parametrize("kind", MODEL_OF)
def test_raw_arrays_as_the_data_has_them_are_taken(kind: str) -> None:
    raw, judge = raw_batch(kind, 300), student(kind)
    logits = judge.logits(raw.numpy())
    assert logits.shape == ((300, 12, 11) if kind == "tokens" else (300, 2))
    with torch.inference_mode():
        output = judge.network(raw)["logits"]
    counted = output.mask.numpy() if output.mask is not None else ...
    assert np.allclose(logits[counted], output.values.numpy()[counted], atol=1e-5)
    assert np.allclose(judge.probabilities(raw.numpy()).sum(-1), 1, atol=1e-5)
    assert len(judge.predict(raw.numpy())) == 300
    assert judge.logits(raw.numpy()[:0]).shape == (0, *logits.shape[1:])


def test_texts_are_read_as_utf8_and_cut_between_characters() -> None:
    judge = student("text")
    long = "ü" * 20
    raw = torch.tensor([list(text.encode()[:24].ljust(24, b"\0")) for text in ("abc", long, "x")], dtype=torch.uint8)
    assert np.allclose(judge.logits(["abc", long, "x"]), judge.logits(raw.numpy()), atol=1e-6)
    assert np.allclose(judge.logits(["€" * 9]), judge.logits(["€" * 8]), atol=1e-6)
    assert judge.predict(["abc", "x"]) == judge.predict(["abc", long, "x"])[::2]


def test_sounds_of_any_length_are_taken_as_samples_or_as_parts_of_full_scale() -> None:
    judge = student("audio")
    sounds = [np.arange(-300, 300, dtype=np.int16), np.full(5000, 99, np.int16), np.array([7], np.int16)]
    logits = judge.logits(sounds)
    assert np.allclose(logits, judge.logits([sound / 32767 for sound in sounds]), atol=1e-4)
    assert np.allclose(logits[1], judge.logits([sounds[1][:1600]])[0], atol=1e-5)
    assert np.allclose(logits[0], judge.logits(sounds[:1])[0], atol=1e-5)


def test_a_language_model_names_the_token_that_follows_each_sequence() -> None:
    judge = student("tokens")
    sequences = [[1, 2, 3], [4], [*range(11), 0]]
    logits = judge.logits(sequences)
    assert (logits[0, 3:] == 0).all()
    wanted = [f"<{logits[row, len(ids) - 1].argmax()}>" for row, ids in enumerate(sequences)]
    assert judge.predict(sequences) == wanted


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("text", ["a", "b\0c"], r"NUL in a text \(input 1\)"),
        ("text", [""], r"empty text \(input 0\)"),
        ("text", "abc", "inputs are a str, wanted a list of strings, or bytes"),
        ("text", [b"abc"], "wanted a list of strings"),
        ("text", ["\ud800"], "no text in Unicode"),
        ("text", np.eye(24, dtype=np.uint8), "hold 0 before the end of a sequence"),
        ("audio", [np.zeros((2, 3))], "wanted a list of sounds of one axis"),
        ("audio", [[0.5, 2.0]], r"sample beyond 1 \(input 0\)"),
        ("audio", [[float("nan")]], r"not finite \(input 0\)"),
        ("audio", [[40_000]], "beyond 16 bits"),
        ("audio", [[1], [0.5]], "all int16 or all real numbers"),
        ("audio", [np.array([], np.int16)], r"empty sound \(input 0\)"),
        ("tokens", [[1, 11]], r"hold ids 1\.\.11, wanted 0\.\.10"),
        ("tokens", [[1.5]], "wanted ids"),
        ("tokens", [[*range(11), 1, 2]], "an input has 13 tokens, the model takes up to 12"),
        ("tokens", [[1, -1, 2]], "hold -1 before the end"),
    ],
)
def test_inputs_that_cannot_be_are_refused(kind: str, inputs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        student(kind).logits(inputs)


def test_nothing_follows_no_token() -> None:
    with pytest.raises(ModelError, match="input 1 holds no token"):
        student("tokens").predict([[1], []])


def test_every_kind_of_input_has_a_model_here() -> None:
    assert MODEL_OF.keys() == INPUTS.keys()
