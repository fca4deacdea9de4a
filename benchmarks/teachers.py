"""A made teacher over a large vocabulary: next-token logits whose 50 draws hold about 12 distinct ids.

A token's context, from its input, is a vector of H dimensions; its logits are the context times a random output layer,
plus Zipf's law as the layer's bias: a few probable ids and a long tail. Rows differ in sharpness. The scale of the
contexts is searched so that 50 draws from a row's softmax hold the wanted number of distinct ids in the mean: that
number is what decides how many bytes a sample of it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HIDDEN = 64
PIXELS_PER_TOKEN = 32
TOPICS = 8
"""Dimensions in which contexts differ: few, so that a student can learn them from the tokens of a benchmark."""
NUM_DRAWS = 50
SEED = 1
"""Of the tokens that the teacher is made for."""
CHUNK_ENTRIES = 1 << 24
"""Logits held at once: 64 MiB."""


@dataclass(frozen=True)
class TokenTeacher:
    """embed `[P, H]`, weight `[V, H]`, bias `[V]`; scale: of the contexts."""

    embed: Tensor
    weight: Tensor
    bias: Tensor
    scale: float

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.bias)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Raw inputs, uint8 `[…, P]` -> last hidden states `[…, H]` fp32."""
        values = (inputs.float() - 127.5) / 73.9
        sharpness = torch.exp(0.3 * values[..., :1])
        return self.scale * sharpness * (values[..., 1:] @ self.embed[1:])

    def logits(self, hidden: Tensor) -> Tensor:
        """`[…, H]` -> `[…, V]` fp32."""
        return F.linear(hidden, self.weight, self.bias)


def token_teacher(vocabulary: int, num_tokens: int, wanted_distinct: float = 12) -> TokenTeacher:
    """A teacher whose 50 draws hold `wanted_distinct` distinct ids in the mean over `num_tokens` random tokens.

    Tokens differ a lot: some hold one id, some forty. The mean over others is right within its standard error.
    """
    rng = torch.Generator().manual_seed(0)
    topics = torch.randn(PIXELS_PER_TOKEN, TOPICS, generator=rng) / PIXELS_PER_TOKEN**0.5
    embed = topics @ torch.randn(TOPICS, HIDDEN, generator=rng) / TOPICS**0.5
    weight = torch.randn(vocabulary, HIDDEN, generator=rng) / HIDDEN**0.5
    zipf = -torch.log(torch.arange(1.0, vocabulary + 1))
    bias = zipf[torch.randperm(vocabulary, generator=rng)]
    inputs = random_tokens(num_tokens, SEED)
    low, high = 0.5, 64.0
    for _ in range(8):
        scale = (low * high) ** 0.5
        teacher = TokenTeacher(embed, weight, bias, scale)
        many = distinct_draws(teacher, inputs) > wanted_distinct  # the larger the scale, the fewer
        low, high = (scale, high) if many else (low, scale)
    return teacher


def random_tokens(num_tokens: int, seed: int) -> Tensor:
    """Raw inputs of tokens, uint8 `[N, P]`."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num_tokens, PIXELS_PER_TOKEN), generator=rng, dtype=torch.uint8)


def distinct_draws(teacher: TokenTeacher, inputs: Tensor) -> float:
    """Mean over tokens of the expected number of distinct ids in 50 independent draws."""
    step = max(1, CHUNK_ENTRIES // teacher.vocabulary)
    total = 0.0
    for part in inputs.split(step):
        missed = (1 - teacher.logits(teacher.hidden(part)).softmax(-1).double()) ** NUM_DRAWS
        total += float((1 - missed).sum())
    return total / len(inputs)
