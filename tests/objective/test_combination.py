"""How much each of several teachers counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from distill_platform.cache import DenseTarget, TopKTarget
from distill_platform.data.schema import UNLABELLED
from distill_platform.objective.combination import (
    confidence_weights,
    label_log_probability,
    mixture_weights,
    routed_weights,
)
from distill_platform.objective.response.soft_targets import soft_targets


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_weighted_sum_of_losses_pulls_as_the_loss_for_the_mixture_does() -> None:
    student, first, second = logits(6, 5).requires_grad_(), logits(6, 5, seed=1), logits(6, 5, seed=2)
    weighted = 0.3 * soft_targets(student, first, 2.0) + 0.7 * soft_targets(student, second, 2.0)
    mixture = (0.3 * (first / 2).softmax(-1) + 0.7 * (second / 2).softmax(-1)).log() * 2
    (of_sum,) = torch.autograd.grad(weighted, student)
    (of_mixture,) = torch.autograd.grad(soft_targets(student, mixture, 2.0), student)
    assert torch.allclose(of_sum, of_mixture, atol=1e-12)


def test_learned_weights_make_the_labels_most_probable() -> None:
    log_p = logits(3, 400).mul(1.5).sigmoid().log()
    found = mixture_weights(log_p)

    def loss(free: np.ndarray) -> float:
        weights = torch.from_numpy(free).softmax(0)
        return -float(torch.logsumexp(weights.log()[:, None] + log_p, 0).mean())

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).fun
    assert math.isclose(float(found.sum()), 1, rel_tol=1e-6)
    assert loss(found.double().log().numpy()) <= best + 1e-6


def test_a_teacher_that_is_always_the_better_one_takes_all_the_learned_weight() -> None:
    better = torch.full((100,), -0.1)
    assert mixture_weights(torch.stack([better, better - 1]))[0] > 0.99


@settings(max_examples=30, deadline=None)
@given(num_teachers=st.integers(2, 5), num_examples=st.integers(1, 8), seed=st.integers(0, 999))
def test_confidence_is_the_papers_formula_and_sums_to_one(num_teachers: int, num_examples: int, seed: int) -> None:
    log_p = logits(num_teachers, num_examples, seed=seed).abs().neg()
    labels = torch.zeros(num_examples, dtype=torch.int64)
    labels[-1] = UNLABELLED
    found = confidence_weights(log_p, labels)
    for example in range(num_examples - 1):
        losses = [math.exp(-float(log_p[teacher, example])) for teacher in range(num_teachers)]
        wanted = [(1 - loss / sum(losses)) / (num_teachers - 1) for loss in losses]
        assert found[:, example].tolist() == pytest.approx(wanted, rel=1e-5)
    assert found[:, -1].tolist() == pytest.approx([1 / num_teachers] * num_teachers)
    assert torch.allclose(found.sum(0), torch.ones(num_examples))


def test_each_example_is_routed_to_the_teacher_of_its_subgroup() -> None:
    weights = routed_weights(torch.tensor([0, 2, 1, 2, -1]), teacher_of_subgroup=[1, 0, 1], num_teachers=2)
    assert weights.tolist() == [[0, 0, 1, 0, 0.5], [1, 1, 0, 1, 0.5]]


def test_a_label_is_as_probable_by_the_k_largest_as_by_all_logits_and_shares_the_tail_alike_beyond() -> None:
    dense = logits(1, 6)
    kept, ids = dense.topk(2)
    top, tail = dense.max(), dense.scatter(1, ids, -torch.inf)
    others = [int(each) for each in range(6) if each not in ids[0].tolist()]
    target = TopKTarget(
        ids=ids,
        logits=kept - top,
        tail_lse=tail.logsumexp(-1) - top,
        tail_lse_at_2=(tail / 2).logsumexp(-1) - top / 2,
        tail_mean=dense[:, others].mean(-1) - top,
        num_classes=6,
    )
    exact = dense.log_softmax(-1)
    inside = label_log_probability(target, ids[:, 1])
    assert inside.item() == pytest.approx(float(exact[0, ids[0, 1]]), abs=1e-5)
    tail_mass = float(exact[0, others].exp().sum())
    outside = label_log_probability(target, torch.tensor([others[0]]))
    assert outside.item() == pytest.approx(math.log(tail_mass / 4), abs=1e-5)


def test_positions_without_a_label_say_nothing() -> None:
    target = DenseTarget(logits(2, 3, 4))
    labels = torch.tensor([[0, 1, UNLABELLED], [UNLABELLED, 2, 3]])
    found = label_log_probability(target, labels)
    assert found[labels == UNLABELLED].tolist() == [0, 0]
    assert found[0, 1].item() == pytest.approx(float(target.logits[0, 1].log_softmax(-1)[1]), abs=1e-6)
