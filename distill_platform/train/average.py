"""A student's own average as its teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from distill_platform.models import Network
from distill_platform.train.teachers import LiveTeacher

NOBODY = "ema"
"""In place of a digest: it is no artifact."""


class AverageTeacher(LiveTeacher):
    """The exponential moving average of a student's weights, asked for what it says of the student's own inputs.

    After step t it is `decay` of what it was and 1 - decay of the student, with decay at most (1 + t) / (10 + t):
    an average that began with random weights would else remember them for long. Buffers are the student's.

    Tarvainen and Valpola 2017, arXiv:1703.01780, section 2; the warm-up as in TensorFlow's ExponentialMovingAverage.

    network: the student, on its device. The other arguments are those of LiveTeacher.
    """

    def __init__(
        self, network: Network, decay: float, layers: Mapping[str, str], sample: Tensor, precision: str = "float32"
    ) -> None:
        super().__init__(copy.deepcopy(network), NOBODY, layers, sample, precision)
        self.decay = decay

    @torch.no_grad()
    def follow(self, network: Network, step: int) -> None:
        """Take in the student's weights after its `step`-th step, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)
        for kept, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
