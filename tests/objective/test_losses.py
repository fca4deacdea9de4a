"""Losses against naive loops, zero where student and teacher agree, and the limit that the paper states."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_platform.objective.losses import soft_targets


def naive_soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Sum over classes, mean over examples, in float64, one number at a time."""
    total = 0.0
    for row_s, row_t in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        z_s = sum(math.exp(value / temperature) for value in row_s)
        z_t = sum(math.exp(value / temperature) for value in row_t)
        for value_s, value_t in zip(row_s, row_t, strict=True):
            p, q = math.exp(value_t / temperature) / z_t, math.exp(value_s / temperature) / z_s
            total += p * (math.log(p) - math.log(q))
    return total / len(student) * temperature**2


def logits(rows: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator) * 3, torch.randn(rows, classes, generator=generator) * 3


@given(st.integers(1, 7), st.integers(2, 9), st.floats(0.5, 16), st.integers(0, 1000))
def test_soft_targets_equals_the_naive_loop(rows: int, classes: int, temperature: float, seed: int) -> None:
    student, teacher = logits(rows, classes, seed)
    wanted = naive_soft_targets(student, teacher, temperature)
    exact = soft_targets(student.double(), teacher.double(), temperature)
    assert exact.item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert soft_targets(student, teacher, temperature).item() == pytest.approx(
        wanted, rel=1e-4, abs=1e-6 * temperature**2
    )


def test_soft_targets_is_zero_with_zero_gradient_where_student_is_teacher() -> None:
    student, _ = logits(5, 10, 0)
    student.requires_grad_()
    loss = soft_targets(student, student.detach().clone(), 4.0)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_soft_targets_gradient_approaches_logit_matching_at_high_temperature() -> None:
    """Hinton et al. 2015, equation 4: for zero-mean logits dC/dz is (z - v) / (N T^2), times T^2 here."""
    student, teacher = (values - values.mean(-1, keepdim=True) for values in logits(4, 6, 1))
    student.requires_grad_()
    soft_targets(student, teacher, 1000.0).backward()
    assert student.grad is not None
    wanted = (student.detach() - teacher) / 6 / len(student)
    assert torch.allclose(student.grad, wanted, rtol=0.02, atol=1e-3)


def test_soft_targets_passes_gradcheck() -> None:
    student, teacher = (values.double() for values in logits(3, 4, 2))
    assert torch.autograd.gradcheck(lambda z: soft_targets(z, teacher, 2.0), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_targets_of_short_formats_is_computed_in_fp32(dtype: torch.dtype) -> None:
    student, teacher = (values.to(dtype) for values in logits(8, 50, 3))
    loss = soft_targets(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_soft_targets(student.float(), teacher.float(), 4.0), rel=1e-4)


def test_tiny_teacher_probabilities_do_not_underflow() -> None:
    teacher = torch.tensor([[0.0, -40.0]], dtype=torch.float16)
    student = torch.tensor([[-40.0, 0.0]], dtype=torch.float16)
    assert soft_targets(student, teacher, 1.0).item() == pytest.approx(40.0, rel=1e-3)


def test_masked_positions_count_neither_in_sum_nor_in_mean() -> None:
    student, teacher = logits(6, 5, 4)
    mask = torch.tensor([True, True, False, True, False, False])
    changed = student.clone()
    changed[~mask] = 1e4
    wanted = soft_targets(student[mask], teacher[mask], 3.0)
    assert torch.allclose(soft_targets(changed, teacher, 3.0, mask), wanted)


def test_temperature_may_be_a_tensor() -> None:
    student, teacher = logits(6, 5, 5)
    assert torch.allclose(soft_targets(student, teacher, torch.tensor(3.0)), soft_targets(student, teacher, 3.0))
