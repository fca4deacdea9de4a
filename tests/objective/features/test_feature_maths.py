"""What every feature loss keeps, whatever it compares: zero where both agree, true gradients, short formats, shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill_platform.objective.features.attention import attention_weights, spatial_attention
from distill_platform.objective.features.hidden_states import hidden_cosine, hidden_mse
from distill_platform.objective.features.hint import half_squared_distance
from distill_platform.objective.features.rkd import angle_relation, distance_relation

Compare = Callable[..., Tensor]

VECTORS, TOKENS, MAPS, WEIGHTS = (5, 4), (3, 4, 2), (2, 3, 4, 4), (2, 2, 3, 3)
CASES = [
    pytest.param(half_squared_distance, VECTORS, id="hint of vectors"),
    pytest.param(half_squared_distance, TOKENS, id="hint of tokens"),
    pytest.param(half_squared_distance, MAPS, id="hint of maps"),
    pytest.param(spatial_attention, MAPS, id="attention of maps"),
    pytest.param(attention_weights, WEIGHTS, id="attention weights"),
    pytest.param(distance_relation, VECTORS, id="distances"),
    pytest.param(angle_relation, VECTORS, id="angles"),
    pytest.param(hidden_mse, TOKENS, id="hidden states"),
    pytest.param(hidden_cosine, TOKENS, id="hidden states by cosine"),
]


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("loss", "shape"), CASES)
def test_zero_and_without_gradient_where_student_and_teacher_agree(loss: Compare, shape: tuple[int, ...]) -> None:
    student = random(shape, 0).requires_grad_()
    value = loss(student, student.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-9
    assert loss(student, random(shape, 1)).item() > 1e-3


@pytest.mark.parametrize(("loss", "shape"), CASES)
def test_gradients_are_those_of_finite_differences(loss: Compare, shape: tuple[int, ...]) -> None:
    teacher = random(shape, 1)
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), random(shape, 0).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("loss", "shape"), CASES)
def test_short_formats_are_computed_in_float32(loss: Compare, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    student, teacher = random(shape, 0, dtype), random(shape, 1, dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student.double(), teacher.double()).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "shape"), [(half_squared_distance, TOKENS), (hidden_mse, TOKENS), (hidden_cosine, TOKENS)]
)
def test_padding_changes_nothing_and_gets_no_gradient(loss: Compare, shape: tuple[int, ...]) -> None:
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, False, False]])
    student, teacher = random(shape, 0), random(shape, 1)
    garbage = torch.where(mask[..., None], student, 1e9).requires_grad_()
    value = loss(garbage, torch.where(mask[..., None], teacher, -1e9), mask)
    kept = [loss(student[row, :length], teacher[row, :length]) * length for row, length in enumerate((2, 4, 1))]
    assert value.item() == pytest.approx(sum(kept).item() / 7)  # type: ignore[union-attr]
    value.backward()
    assert garbage.grad is not None
    assert (garbage.grad[~mask] == 0).all()
    assert (garbage.grad[mask] != 0).any()


SIZES = st.integers(1, 4)


@settings(deadline=None, max_examples=25)
@given(st.lists(SIZES, min_size=4, max_size=4), st.sampled_from([case.values for case in CASES]), st.integers(0, 99))
def test_any_shape_gives_one_finite_number_that_is_not_negative(
    sizes: list[int], case: tuple[Compare, tuple[int, ...]], seed: int
) -> None:
    loss, like = case
    shape = tuple(sizes[: len(like)])
    if loss is attention_weights:
        shape = (*shape[:3], shape[2])
    student, teacher = random(shape, seed).requires_grad_(), random(shape, seed + 1)
    value = loss(student, teacher)
    value.backward()
    assert value.shape == ()
    assert value.item() >= -1e-12
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
