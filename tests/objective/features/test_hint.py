"""FitNets hints: half the squared distance to a learned regressor's guess."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.hint import half_squared_distance


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return FEATURES["hint"].build(Fit(student, teacher), {})


def test_half_the_squares_over_all_values() -> None:
    student, teacher = random(2, 3, 2, 2).double(), random(2, 3, 2, 2, seed=1).double()
    total = sum((float(a) - float(b)) ** 2 for a, b in zip(student.flatten(), teacher.flatten(), strict=True))
    assert half_squared_distance(student, teacher).item() == pytest.approx(total / 2 / 24)


def test_maps_of_other_widths_meet_through_a_convolution_of_single_positions() -> None:
    loss = build((4, 6, 6), (5, 6, 6))
    assert isinstance(loss.regressor, nn.Conv2d)
    assert loss.regressor.weight.shape == (5, 4, 1, 1)
    student, teacher = random(2, 4, 6, 6), random(2, 5, 6, 6, seed=1)
    guess = torch.einsum("oi,bihw->bohw", loss.regressor.weight[:, :, 0, 0], student)
    guess = guess + loss.regressor.bias[:, None, None]  # type: ignore[index]
    assert loss(Pair(student, teacher), {}).item() == pytest.approx(((guess - teacher) ** 2).mean().item() / 2)


def test_maps_of_other_sizes_are_averaged_down_to_the_smaller() -> None:
    loss = build((4, 8, 3), (4, 4, 6))
    student, teacher = random(2, 4, 8, 3), random(2, 4, 4, 6, seed=1)
    small = F.avg_pool2d(student, (2, 1)), F.avg_pool2d(teacher, (1, 2))
    assert loss(Pair(student, teacher), {}).item() == pytest.approx(loss(Pair(*small), {}).item())


def test_the_regressor_can_learn_a_teacher_that_is_linear_in_the_student() -> None:
    loss = build((6, 3), (6, 5))
    student = random(8, 6, 3)
    pair = Pair(student, student @ random(3, 5, seed=1))
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(pair, {})
        value.backward()
        return value

    optimizer.step(closure)
    assert loss(pair, {}).item() < 1e-5


def test_tokens_that_a_batch_was_cut_by_are_left_out_of_the_teachers() -> None:
    loss = build((6, 3), (6, 3))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    student, teacher = random(2, 3, 3), random(2, 6, 3, seed=1)
    cut = loss(Pair(student, teacher, mask), {})
    assert cut.item() == pytest.approx(loss(Pair(student, teacher[:, :3], mask), {}).item())


@pytest.mark.parametrize(
    ("student", "teacher", "mask", "message"),
    [
        ((2, 3, 4), (2, 5, 4), None, "3 tokens of the student and 5 of the teacher do not correspond"),
        ((2, 5, 4), (2, 3, 4), (2, 5), "5 tokens of the student and 3 of the teacher do not correspond"),
        ((2, 5, 4), (2, 5, 4), (2, 6), "has 5 positions where inputs have 6 tokens.*pooled"),
    ],
)
def test_tokens_that_do_not_correspond_are_refused(
    student: tuple[int, ...], teacher: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    counted = torch.ones(mask, dtype=torch.bool) if mask else None
    with pytest.raises(ModelError, match=message):
        build((9, 4), (9, 4))(Pair(random(*student), random(*teacher), counted), {})


@pytest.mark.parametrize(
    "fit",
    [Fit((4,), (4, 3)), Fit((3, 4, 4), (5, 6)), Fit((2, 3, 3), (2, 3, 3), is_attention=True)],
)
def test_layers_of_other_kinds_are_refused_with_their_shapes(fit: Fit) -> None:
    with pytest.raises(ModelError, match=r"cannot compare \[.*wanted two vectors \[D\], two sequences"):
        FEATURES["hint"].build(fit, {})
