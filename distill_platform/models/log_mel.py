"""Sound as a picture over time: the logarithm of the energy in bands that are spaced as the ear hears them.

Written as two convolution-like products with fixed weights (a windowed discrete Fourier transform, then the bands), so
that it runs, and exports, wherever a convolution does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models.prepared import Prepared

FULL_SCALE = 2**15
FLOOR = 1e-10
"""Of a band's energy before the logarithm, about -100 dB of full scale: digital silence stays finite."""


@dataclass(frozen=True)
class LogMel:
    """Samples `[B, L]` -> `[B, num_mels, frames]` and the mask of frames.

    Frame t is the window that begins at sample t * hop; it counts if that sample is before the end of the sound, and
    what its window holds beyond the end is silence. So how much padding follows changes nothing.

    Each sound is brought to mean 0 and standard deviation 1 over its own bands and frames: loudness and microphone
    gain go, the shape of the spectrum stays, and no statistics of the training data are needed.
    """

    kind: ClassVar[str] = "log_mel"
    num_ids: ClassVar[int] = 0
    files: ClassVar[dict[str, bytes]] = {}
    num_mels: int = 40
    window_ms: float = 25.0
    hop_ms: float = 10.0

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        return (self.num_mels, math.ceil(input.shape[0] / self.hop(input)))

    def hop(self, input: InputSpec) -> int:
        """Samples from one frame to the next."""
        return max(1, round(self.hop_ms * input.sample_rate / 1000))

    def window(self, input: InputSpec) -> int:
        """Samples of a frame."""
        return max(2, round(self.window_ms * input.sample_rate / 1000))

    def module(self, input: InputSpec) -> nn.Module:
        """Raises ModelError for sound whose sample rate is not known."""
        if input.sample_rate <= 0:
            raise ModelError(f"audio inputs have sample_rate {input.sample_rate}, wanted samples per second")
        return _LogMel(self, input)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


class _LogMel(nn.Module):
    fourier: Tensor
    bands: Tensor

    def __init__(self, settings: LogMel, input: InputSpec) -> None:
        super().__init__()
        assert input.padding is not None
        self.padding, self.hop, self.window = input.padding, settings.hop(input), settings.window(input)
        num_points = 1 << (self.window - 1).bit_length()
        self.register_buffer("fourier", windowed_fourier(self.window, num_points), persistent=False)
        self.register_buffer("bands", mel_bands(settings.num_mels, num_points, input.sample_rate), persistent=False)

    def forward(self, raw: Tensor) -> Prepared:
        # in float32 whatever the rest is computed in: energies span ten powers of ten
        with torch.autocast("cpu" if raw.is_meta else raw.device.type, enabled=False):
            counts = raw != self.padding
            samples = torch.where(counts, raw.float() / FULL_SCALE, 0.0)
            mask = counts[:, :: self.hop]
            missing = (mask.shape[1] - 1) * self.hop + self.window - samples.shape[1]
            if missing > 0:
                samples = F.pad(samples, (0, missing))
            spectrum = F.conv1d(samples[:, None], self.fourier[:, None], stride=self.hop)[..., : mask.shape[1]]
            real, imaginary = spectrum.chunk(2, dim=1)
            energies = (self.bands @ (real.square() + imaginary.square())).clamp(min=FLOOR).log()
            return Prepared(_standardized(energies, mask), mask)


def windowed_fourier(window: int, num_points: int) -> Tensor:
    """Real and imaginary parts `[2 * (num_points / 2 + 1), window]` of the Fourier transform of a Hann window's samples
    that zeros fill up to `num_points`.
    """
    time = torch.arange(window, dtype=torch.float64)
    frequency = torch.arange(num_points // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / num_points * frequency[:, None] * time
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * time / window)
    return torch.cat([hann * angle.cos(), -hann * angle.sin()]).float()


def mel_bands(num_mels: int, num_points: int, sample_rate: int) -> Tensor:
    """Triangular bands `[num_mels, num_points / 2 + 1]` over the frequencies of a Fourier transform, each of height 1,
    their corners evenly spaced in mel from 0 to half the sample rate.

    The mel scale is HTK's, 2595 log10(1 + f / 700 Hz): Young et al., The HTK Book, equation 5.13.
    """
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mels = torch.linspace(0, highest, num_mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, num_points // 2 + 1, dtype=torch.float64)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def _standardized(energies: Tensor, mask: Tensor) -> Tensor:
    """`[B, M, F]` with mean 0 and standard deviation 1 over what counts of each sound, and 0 where nothing counts."""
    counts = mask[:, None].to(energies.dtype)
    num_values = (counts.sum((1, 2), keepdim=True) * energies.shape[1]).clamp(min=1)
    centred = (energies - (energies * counts).sum((1, 2), keepdim=True) / num_values) * counts
    spread = (centred.square().sum((1, 2), keepdim=True) / num_values).sqrt()
    return centred / spread.clamp(min=1e-3)
