"""Views of texts and sounds: what they may change, what stays, and that they are the same bits everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data.schema import PADDING, InputSpec
from distill_platform.data.transforms import TRANSFORMS
from distill_platform.data.views import Views, augment
from distill_platform.errors import DataError

TEXT = InputSpec("text", (24,), "uint8", 0.0, 255.0)
SOUND = InputSpec("audio", (50,), "int16", -32767.0, 32767.0, sample_rate=100)
TOKENS = InputSpec("tokens", (8,), "int32", 0.0, 256.0)
ON_SOUNDS = [{"name": "gain", "fraction": 0.4}, {"name": "time_shift", "seconds": 0.1}, {"name": "noise", "std": 0.01}]


def texts(given_texts: list[str]) -> torch.Tensor:
    rows = np.zeros((len(given_texts), TEXT.shape[0]), np.uint8)
    for row, text in zip(rows, given_texts, strict=True):
        cut = text.encode()[: TEXT.shape[0]].decode(errors="ignore").encode()
        row[: len(cut)] = list(cut)
    return torch.from_numpy(rows)


def sounds(num: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    rows = rng.integers(-32767, 32768, (num, SOUND.shape[0])).astype(np.int16)
    rows[np.arange(SOUND.shape[0]) >= rng.integers(1, SOUND.shape[0] + 1, num)[:, None]] = PADDING["audio"]
    return torch.from_numpy(rows)


def seen(inputs: torch.Tensor, spec: InputSpec, *transforms: dict[str, object], seed: int = 0) -> torch.Tensor:
    """View 1 of inputs whose keys are their numbers."""
    keys = torch.zeros(len(inputs), 16, dtype=torch.uint8)
    keys[:, :2] = torch.arange(len(inputs))[:, None] // torch.tensor([1, 256]) % 256
    return augment(inputs, keys, torch.ones(len(inputs), dtype=torch.int64), Views.of(2, seed, transforms), spec)


def read(row: torch.Tensor) -> str:
    return bytes(row.tolist()).rstrip(b"\0").decode()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_a_text_with_typos_is_text_and_no_longer_and_keeps_all_but_letters(
    given_texts: list[str], rate: float, seed: int
) -> None:
    inputs = texts(given_texts)
    shown = seen(inputs, TEXT, {"name": "typos", "rate": rate}, seed=seed)

    def others(text: str) -> str:
        return "".join(one for one in text if not (one.isascii() and one.isalpha()))

    for before, after in zip(inputs, shown, strict=True):
        assert len(read(after)) <= len(read(before))
        assert others(read(after)) == others(read(before))
        assert (len(read(after)) > 0) == (len(read(before)) > 0)
        assert not after[len(bytes(after.tolist()).rstrip(b"\0")) :].any()


def test_typos_are_as_many_as_asked_for_and_of_three_kinds() -> None:
    inputs = texts(["abcdefghijklmnopqrstuvwx"] * 900)
    assert torch.equal(seen(inputs, TEXT, {"name": "typos", "rate": 0}), inputs)
    shown = [read(row) for row in seen(inputs, TEXT, {"name": "typos", "rate": 0.1})]
    left_out = sum(24 - len(text) for text in shown)
    assert left_out == pytest.approx(900 * 24 * 0.1 / 3, rel=0.15)
    same_length = [text for text in shown if len(text) == 24]
    assert any(sorted(text) == sorted(read(inputs[0])) != list(text) for text in same_length)
    assert any(set(text) < set(read(inputs[0])) for text in same_length)
    upper = [read(row) for row in seen(texts(["ABCDEFGH"] * 50), TEXT, {"name": "typos", "rate": 1})]
    assert all(text.isupper() for text in upper)


def test_views_of_sounds_leave_padding_alone_and_make_none() -> None:
    inputs = sounds(400)
    shown = seen(inputs, SOUND, *ON_SOUNDS)
    assert shown.dtype == torch.int16
    assert torch.equal(shown == PADDING["audio"], inputs == PADDING["audio"])
    assert not torch.equal(shown, inputs)
    assert torch.equal(seen(inputs, SOUND, {"name": "gain", "fraction": 0}), inputs)


def test_gain_is_one_factor_for_each_sound() -> None:
    inputs = torch.full((300, 50), 1000, dtype=torch.int16)
    shown = seen(inputs, SOUND, {"name": "gain", "fraction": 0.5})
    assert (shown == shown[:, :1]).all()
    assert shown.min() >= 500
    assert shown.max() <= 1500
    assert shown.double().mean() == pytest.approx(1000, rel=0.05)


def test_a_shift_in_time_moves_samples_within_their_sound() -> None:
    inputs = torch.arange(1, 51, dtype=torch.int16).repeat(200, 1)
    inputs[:, 40:] = PADDING["audio"]
    shown = seen(inputs, SOUND, {"name": "time_shift", "seconds": 0.05})
    found = set()
    for row in shown[:, :40].tolist():
        (shift,) = {value - place for place, value in enumerate(row, 1) if value}
        found.add(shift)
        assert row == [place + shift if 1 <= place + shift <= 40 else 0 for place in range(1, 41)]
    assert found == set(range(-5, 6))


@pytest.mark.parametrize(
    ("spec", "digest"),
    [(TEXT, "0491356f2320dbc5"), (SOUND, "d4f61c3c6cb1669d")],
    ids=["text", "audio"],
)
def test_views_are_the_same_bits_in_every_release_and_on_every_machine(spec: InputSpec, digest: str) -> None:
    if spec is TEXT:
        shown = seen(texts([f"some words, {n}" for n in range(64)]), spec, {"name": "typos", "rate": 0.3})
    else:
        samples = (torch.arange(64 * 50) * 7919 % 65535 - 32767).to(torch.int16).reshape(64, 50)
        shown = seen(samples, spec, *ON_SOUNDS)
    assert hashlib.sha256(shown.numpy().tobytes()).hexdigest()[:16] == digest


def test_a_view_does_not_depend_on_the_batch_or_on_the_room_behind_it() -> None:
    inputs = texts([f"some words, {n}" for n in range(64)])
    transform = {"name": "typos", "rate": 0.3}
    whole = seen(inputs, TEXT, transform)
    assert torch.equal(seen(inputs[:5], TEXT, transform), whole[:5])
    wide = InputSpec("text", (40,), "uint8", 0.0, 255.0)
    padded = torch.cat([inputs, torch.zeros(64, 16, dtype=torch.uint8)], dim=1)
    assert torch.equal(seen(padded, wide, transform)[:, :24], whole)


@pytest.mark.parametrize(("spec", "allowed"), [(TEXT, "typos"), (SOUND, "gain, noise, time_shift"), (TOKENS, "none")])
def test_transforms_that_do_not_fit_are_refused(spec: InputSpec, allowed: str) -> None:
    arguments = {"mixup": {"alpha": 1}, "cutmix": {"alpha": 1}, "typos": {"rate": 0.1}, "gain": {"fraction": 0.1}}
    for name, given_arguments in arguments.items():
        if spec.kind in TRANSFORMS[name].kinds:
            continue
        with pytest.raises(
            DataError, match=f"{name} cannot be applied to inputs of kind .*; allowed there: {allowed}$"
        ):
            Views.of(2, 0, [{"name": name, **given_arguments}]).check(spec)
