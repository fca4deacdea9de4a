"""Contrastive distillation: the critic, and a bank that is a function of what was seen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.crd import critic_loss

SETTINGS = {"feature_dim": 6, "num_negatives": 5, "temperature": 0.5, "momentum": 0.5}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(num_examples: int = 20, seed: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return FEATURES["crd"].build(Fit((4,), (7,), num_examples=num_examples, seed=seed), SETTINGS)


def pair(step: int = 0, index: tuple[int, ...] = (3, 11, 7)) -> Pair:
    size = len(index)
    return Pair(random(size, 4).float(), random(size, 7, seed=1).float(), None, torch.tensor(index), step)


def naive(positive: Tensor, negative: Tensor, counted: Tensor, num_examples: int, temperature: float) -> float:
    """Equation 17 with the h of equation 19, the expectation over negatives being their mean."""
    total, num = 0.0, negative.shape[1]

    def h(product: float) -> float:
        return math.exp(product / temperature) / (math.exp(product / temperature) + num / num_examples)

    for own, others, which in zip(positive.tolist(), negative.tolist(), counted.tolist(), strict=True):
        logs = [math.log(1 - h(other)) for other, counts in zip(others, which, strict=True) if counts]
        total -= math.log(h(own)) + num * (sum(logs) / len(logs) if logs else 0.0)
    return total / len(positive)


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(6, 50), st.floats(0.1, 2), st.integers(0, 99))
def test_the_critic_follows_equations_17_and_19(
    batch: int, num: int, num_examples: int, temperature: float, seed: int
) -> None:
    positive, negative = random(batch, seed=seed).tanh(), random(batch, num, seed=seed + 1).tanh()
    counted = random(batch, num, seed=seed + 2) > -1
    value = critic_loss(positive, negative, counted, num_examples, temperature).item()
    assert value == pytest.approx(naive(positive, negative, counted, num_examples, temperature))


def test_a_perfect_critic_costs_nothing_and_a_blind_one_what_chance_does() -> None:
    counted = torch.ones(2, 4, dtype=torch.bool)
    perfect = critic_loss(torch.full((2,), 9.0), torch.full((2, 4), -9.0), counted, 10, 0.1)
    assert perfect.item() == pytest.approx(0, abs=1e-6)
    blind = critic_loss(torch.zeros(2), torch.zeros(2, 4), counted, 4, 0.1)  # N = M: h is a half everywhere
    assert blind.item() == pytest.approx(5 * math.log(2))


def test_the_partition_is_a_factor_of_the_threshold() -> None:
    positive, negative, counted = random(3), random(3, 4, seed=1), torch.ones(3, 4, dtype=torch.bool)
    scaled = critic_loss(positive, negative, counted, 10, 0.5, math.log(2.5))
    assert scaled.item() == pytest.approx(critic_loss(positive, negative, counted, 4, 0.5).item())


def test_gradients_are_those_of_finite_differences() -> None:
    counted = random(3, 4, seed=2) > 0
    given_ = (random(3).requires_grad_(), random(3, 4, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda own, others: critic_loss(own, others, counted, 10, 0.5, 1.0), given_)


def test_short_formats_are_computed_in_float32() -> None:
    positive, negative, counted = random(3).bfloat16(), random(3, 4).bfloat16(), torch.ones(3, 4, dtype=torch.bool)
    value = critic_loss(positive, negative, counted, 10, 0.07)
    assert value.dtype == torch.float32
    wanted = critic_loss(positive.double(), negative.double(), counted, 10, 0.07).item()
    assert value.item() == pytest.approx(wanted, rel=1e-4)


def test_an_example_is_not_its_own_negative() -> None:
    values = []
    for own_row in (1.0, -1.0):
        loss = build(num_examples=3)  # so few that all rows are drawn, the example's own among them
        loss.log_partition.zero_()
        loss.bank[:, 0] *= own_row
        values.append(loss(pair(index=(0,)), SETTINGS).item())
    assert values[0] == values[1]


def test_negatives_are_a_function_of_seed_and_step() -> None:
    assert build()(pair(step=4), SETTINGS) == build()(pair(step=4), SETTINGS)
    values = {build(seed=seed)(pair(step=step), SETTINGS).item() for seed, step in [(3, 4), (3, 5), (4, 4)]}
    assert len(values) == 3


def test_a_row_of_the_bank_moves_by_the_momentum_to_what_was_said_last() -> None:
    loss, seen = build(), pair()
    before = loss.bank.clone()
    loss(seen, SETTINGS)
    newest = nn.functional.normalize(loss.student(seen.student), dim=-1)
    wanted = nn.functional.normalize(0.5 * before[0, 3] + 0.5 * newest[0], dim=-1)
    assert torch.allclose(loss.bank[0, 3], wanted, atol=1e-6)
    assert not torch.equal(loss.bank[1, 3], before[1, 3])
    untouched = [row for row in range(20) if row not in (3, 11, 7)]
    assert torch.equal(loss.bank[:, untouched], before[:, untouched])
    assert not loss.bank.requires_grad


def test_both_projections_learn_and_the_bank_is_kept_with_them() -> None:
    loss = build()
    student = random(3, 4).float().requires_grad_()
    loss(Pair(student, pair().teacher, None, pair().index), SETTINGS).backward()
    assert student.grad is not None
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert {"bank", "log_partition"} <= set(loss.state_dict())


def test_telling_examples_apart_can_be_learned() -> None:
    loss, seen = build(num_examples=8), Pair(random(8, 4).float(), random(8, 7, seed=1).float(), None, torch.arange(8))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    values = []
    for _ in range(80):
        optimizer.zero_grad()
        value = loss(seen, {**SETTINGS, "num_negatives": 8})
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[1]


def test_attention_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="compares vectors, not attention weights"):
        FEATURES["crd"].build(Fit((4, 4), (4, 4), is_attention=True), SETTINGS)
