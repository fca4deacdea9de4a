"""What is measured where every token has a label of its own: language models.

The logits of a test split are too many to keep, so what is kept of a model are sums over each block's labelled tokens.
Every metric is a ratio of such sums over all blocks: a token counts alike in a long and in a short block.

    labels   [N, 2]: labelled tokens, and the bytes that they stand for (0 where the data does not say)
    answers  [N, 4]: the columns of TOKEN_SUMS

Axes: B or N blocks, T positions, V vocabulary. A new metric is one entry of TOKEN_METRICS.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from distill_platform.evaluate.metrics import Answers, Array, Labels, Metric
from distill_platform.tasks import UNLABELLED

TOKEN_SUMS = ("nll", "right", "agreed", "kl")
"""Of a block's labelled tokens: summed negative log-likelihood in nats; how many were predicted right, and as the
teacher predicts them; summed KL(teacher || model) in nats, at T = 1."""

NLL, RIGHT, AGREED, KL = range(len(TOKEN_SUMS))
NUM_TOKENS, NUM_BYTES = range(2)


def each_token(logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """What TOKEN_SUMS are sums of, `[B, T, 4]` float64: zero where labels `[B, T]` are UNLABELLED.

    `logits` and `teacher` are raw, `[B, T, V]`. A token's perplexity needs differences of large logits: float64.
    """
    log_p, teacher_log_p = logits.double().log_softmax(-1), teacher.double().log_softmax(-1)
    counted = labels != UNLABELLED
    nll = -log_p.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    teacher_p = teacher_log_p.exp()
    # where the teacher rules a token out, 0 times -inf is 0
    kl = torch.where(teacher_p > 0, teacher_p * (teacher_log_p - log_p), 0.0).sum(-1)
    predicted = logits.argmax(-1)
    right, agreed = (predicted == labels).double(), (predicted == teacher.argmax(-1)).double()
    return torch.where(counted[..., None], torch.stack([nll, right, agreed, kl], dim=-1), 0.0)


def one_more_sums(labels: Labels, answers: Answers, good: bool) -> Answers:
    """Each block with one token more, or less, predicted right, and as the teacher does."""
    sums, columns = np.array(answers), [RIGHT, AGREED]
    sums[:, columns] = np.clip(sums[:, columns] + (1 if good else -1), 0, labels[:, [NUM_TOKENS]])
    return sums


def _sums(answer: int, label: int) -> Callable[[Labels, Answers], Array]:
    def statistics(labels: Labels, answers: Answers) -> Array:
        return np.stack([answers[:, answer], labels[:, label]], axis=1).astype(np.float64)

    return statistics


def _ratio(means: Array) -> Array:
    """First mean over second; NaN where there is nothing to divide by."""
    total, counted = means[..., 0], means[..., 1]
    ratio: Array = np.divide(total, counted, out=np.full(np.shape(total), math.nan), where=counted > 0)
    return ratio


def _perplexity(means: Array) -> Array:
    return np.asarray(np.exp(_ratio(means)))


def _bits(means: Array) -> Array:
    return np.asarray(_ratio(means) / math.log(2))


TOKEN_METRICS: dict[str, Metric] = {
    "perplexity": Metric(
        _sums(NLL, NUM_TOKENS), _perplexity, False, 1.0, False, "exp of the mean negative log-likelihood of a token"
    ),
    "bits_per_byte": Metric(
        _sums(NLL, NUM_BYTES), _bits, False, 0.0, False,
        "negative log-likelihood in bits over the bytes that the tokens stand for: comparable between vocabularies",
    ),
    "accuracy": Metric(_sums(RIGHT, NUM_TOKENS), _ratio, True, 1.0, True, "share of tokens that are predicted"),
    "log_loss": Metric(
        _sums(NLL, NUM_TOKENS), _ratio, False, 0.0, False, "mean negative log-likelihood of a token, in nats"
    ),
    "teacher_agreement": Metric(
        _sums(AGREED, NUM_TOKENS), _ratio, True, 1.0, True, "share of tokens predicted as the teacher predicts them"
    ),
    "kl_to_teacher": Metric(
        _sums(KL, NUM_TOKENS), _ratio, False, 0.0, False, "mean KL(teacher || model) of a token, in nats, at T = 1"
    ),
}  # fmt: skip
