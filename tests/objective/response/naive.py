"""Every response loss as its paper writes it, one number at a time, in plain Python; and what topk keeps, unrounded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill_platform.cache import TopKTarget

Row = Sequence[float]
Settings = Mapping[str, Any]


def exact_topk(teacher: Tensor, keep: int) -> TopKTarget:
    """What topk keeps, in full precision."""
    values, ids = teacher.topk(keep)
    tail = (teacher - values[..., :1]).scatter(-1, ids, torch.nan)
    kept_out = tail.nan_to_num(-torch.inf)
    tail_lse, at_2 = kept_out.logsumexp(-1), (kept_out / 2).logsumexp(-1)
    return TopKTarget(ids, values - values[..., :1], tail_lse, at_2, tail.nanmean(-1), teacher.shape[-1])


def softmax(row: Row, temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def z_scores(row: Row) -> list[float]:
    mean, deviation = statistics.fmean(row), statistics.pstdev(row)
    return [(value - mean) / deviation for value in row]


def kl(p: Row, q: Row) -> float:
    return sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True) if pi > 0)


def mixed(p: Row, q: Row, share: float) -> list[float]:
    return [share * pi + (1 - share) * qi for pi, qi in zip(p, q, strict=True)]


def jensen_shannon(p: Row, q: Row, settings: Settings) -> float:
    beta = settings["beta"]
    middle = mixed(p, q, beta)
    return beta * kl(p, middle) + (1 - beta) * kl(q, middle)


DIVERGENCES: dict[str, Callable[[Row, Row, Settings], float]] = {
    "soft_targets": lambda p, q, _: kl(p, q),
    "reverse_kl": lambda p, q, _: kl(q, p),
    "jensen_shannon": jensen_shannon,
    "skewed_kl": lambda p, q, settings: kl(p, mixed(p, q, settings["alpha"])),
    "skewed_reverse_kl": lambda p, q, settings: kl(q, mixed(q, p, settings["alpha"])),
}
"""Of the teacher's distribution p and the student's q, at one position."""


def naive(name: str, student: Tensor, teacher: Tensor, labels: Tensor, **settings: Any) -> float:
    """A loss of logits [N, C] and labels [N], -1 for none."""
    students, teachers, known = student.double().tolist(), teacher.double().tolist(), labels.tolist()
    if settings.get("standardize"):
        students, teachers = [z_scores(row) for row in students], [z_scores(row) for row in teachers]
    if name == "logit_mse":
        return _logit_mse(students, teachers, settings["centered"])
    temperature = settings["temperature"]
    p = [softmax(row, temperature) for row in teachers]
    q = [softmax(row, temperature) for row in students]
    if name == "dist":
        return _dist(p, q, settings) * temperature**2
    if name == "dkd":
        return _dkd(p, q, known, settings) * temperature**2
    return statistics.fmean(DIVERGENCES[name](pi, qi, settings) for pi, qi in zip(p, q, strict=True)) * temperature**2


def _logit_mse(students: Sequence[Row], teachers: Sequence[Row], centered: bool) -> float:
    total = 0.0
    for z, v in zip(students, teachers, strict=True):
        offset = statistics.fmean(z) - statistics.fmean(v) if centered else 0.0
        total += sum((zi - vi - offset) ** 2 for zi, vi in zip(z, v, strict=True)) / len(z)
    return total / len(students)


def _dist(p: Sequence[Row], q: Sequence[Row], settings: Settings) -> float:
    inter = statistics.fmean(1 - statistics.correlation(pi, qi) for pi, qi in zip(p, q, strict=True))
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    intra = statistics.fmean(1 - statistics.correlation(pj, qj) for pj, qj in columns)
    return float(settings["beta"] * inter + settings["gamma"] * intra)


def _dkd(p: Sequence[Row], q: Sequence[Row], labels: Sequence[int], settings: Settings) -> float:
    total, counted = 0.0, 0
    for pi, qi, label in zip(p, q, labels, strict=True):
        if label == -1:
            continue
        counted += 1
        rest_p = [value / (1 - pi[label]) for place, value in enumerate(pi) if place != label]
        rest_q = [value / (1 - qi[label]) for place, value in enumerate(qi) if place != label]
        target = kl([pi[label], 1 - pi[label]], [qi[label], 1 - qi[label]])
        total += settings["alpha"] * target + settings["beta"] * kl(rest_p, rest_q)
    return total / counted
