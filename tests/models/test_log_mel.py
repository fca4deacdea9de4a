"""Log-mel frames against naive sums, and against the bands of another library."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models import LogMel
from distill_platform.models.log_mel import FLOOR, mel_bands, windowed_fourier

FORM = InputSpec("audio", (1000,), "int16", -32767, 32767, sample_rate=8000)


def sounds() -> torch.Tensor:
    raw = torch.randint(-20_000, 20_000, (3, 1000), generator=torch.Generator().manual_seed(0))
    raw[1, 500:], raw[2, 81:] = -(2**15), -(2**15)
    return raw.to(torch.int16)


def naive_frame(samples: list[float], window: int, num_points: int, bands: np.ndarray) -> list[float]:  # type: ignore[type-arg]
    samples = samples + [0.0] * (window - len(samples))
    energies = []
    for frequency in range(num_points // 2 + 1):
        total = 0j
        for at in range(window):
            hann = math.sin(math.pi * at / window) ** 2
            total += hann * samples[at] * cmath.exp(-2j * math.pi * frequency * at / num_points)
        energies.append(abs(total) ** 2)
    return [math.log(max(FLOOR, float(np.dot(band, energies)))) for band in bands]


def test_frames_are_the_logarithm_of_band_energies_standardised_over_the_sound() -> None:
    settings = LogMel(num_mels=6, window_ms=10, hop_ms=10)
    values, mask = settings.module(FORM)(sounds())
    assert values.shape == (3, *settings.shape(FORM)) == (3, 6, 13)
    assert mask.sum(1).tolist() == [13, 7, 2]
    bands = mel_bands(6, 128, 8000).double().numpy()
    for row, (length, count) in enumerate([(1000, 13), (500, 7), (81, 2)]):
        samples = (sounds()[row, :length].double() / 2**15).tolist()
        frames = np.array([naive_frame(samples[80 * t : 80 * t + 80], 80, 128, bands) for t in range(count)])
        wanted = (frames - frames.mean()) / frames.std()
        assert np.abs(values[row, :, :count].T.numpy() - wanted).max() < 1e-3
        assert (values[row, :, count:] == 0).all()


def test_how_long_the_padding_is_changes_nothing() -> None:
    settings = LogMel()
    longer = torch.full((3, 2000), -(2**15), dtype=torch.int16)
    longer[:, :1000] = sounds()
    short, mask = settings.module(FORM)(sounds())
    long, long_mask = settings.module(FORM)(longer)
    assert torch.allclose(long[..., : short.shape[-1]], short, atol=1e-5)
    assert torch.equal(long_mask[:, : mask.shape[1]], mask)
    assert not long_mask[:, mask.shape[1] :].any()


def test_loudness_changes_nothing_and_silence_is_finite() -> None:
    module = LogMel().module(FORM)
    quiet = (sounds().float() / 4).round().to(torch.int16)
    quiet[sounds() == -(2**15)] = -(2**15)
    assert torch.allclose(module(sounds()).values, module(quiet).values, atol=0.05)
    assert module(torch.zeros(1, 1000, dtype=torch.int16)).values.abs().max() < 0.01


@pytest.mark.parametrize(("num_mels", "rate"), [(40, 8000), (64, 16000)])
def test_bands_are_those_of_htk(num_mels: int, rate: int) -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    points = 512
    wanted = audio_utils.mel_filter_bank(points // 2 + 1, num_mels, 0, rate / 2, rate, norm=None, mel_scale="htk")
    assert np.abs(mel_bands(num_mels, points, rate).numpy().T - wanted).max() < 1e-5


def test_the_fourier_product_is_torchs_transform() -> None:
    samples = torch.randn(100)
    wanted = torch.fft.rfft(samples * torch.hann_window(100), n=128)
    real, imaginary = (windowed_fourier(100, 128) @ samples).chunk(2)
    assert torch.allclose(real, wanted.real, atol=1e-4)
    assert torch.allclose(imaginary, wanted.imag, atol=1e-4)


def test_sound_of_an_unknown_rate_is_refused() -> None:
    with pytest.raises(ModelError, match="sample_rate 0, wanted samples per second"):
        LogMel().module(InputSpec("audio", (1000,), "int16", -32767, 32767, sample_rate=0))
