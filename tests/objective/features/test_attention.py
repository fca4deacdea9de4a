"""Attention transfer: of maps, and of a transformer's attention weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.attention import attention_weights, spatial_attention


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_maps_follow_equation_2_one_number_at_a_time() -> None:
    student, teacher = random(2, 3, 2, 2), random(2, 5, 2, 2, seed=1)
    total = 0.0
    for own, wanted in zip(student, teacher, strict=True):
        maps = []
        for values in (own, wanted):
            each = [sum(float(c[y, x]) ** 2 for c in values) for y in range(2) for x in range(2)]
            length = math.sqrt(sum(value**2 for value in each))
            maps.append([value / length for value in each])
        total += sum((a - b) ** 2 for a, b in zip(*maps, strict=True)) / 2
    assert spatial_attention(student, teacher).item() == pytest.approx(total / 2)


def test_maps_that_look_elsewhere_are_one_apart_whatever_their_scale() -> None:
    left, right = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    left[..., 0, 0], right[..., 1, 1] = 5.0, 0.01
    assert spatial_attention(left, right).item() == pytest.approx(1.0)
    assert spatial_attention(100 * left, left).item() == pytest.approx(0.0, abs=1e-6)


def test_maps_of_other_sizes_are_averaged_down_to_the_smaller() -> None:
    student, teacher = random(2, 3, 8, 4), random(2, 3, 4, 4, seed=1)
    own = F.avg_pool2d((student**2).sum(1, keepdim=True), (2, 1)).sqrt()
    assert spatial_attention(student, teacher).item() == pytest.approx(spatial_attention(own, teacher).item())


def weights(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed).softmax(-1)


def test_attention_weights_follow_equation_7_head_by_head() -> None:
    student, teacher = weights(2, 3, 4, 4), weights(2, 3, 4, 4, seed=1)
    total = sum((float(a) - float(b)) ** 2 for a, b in zip(student.flatten(), teacher.flatten(), strict=True))
    assert attention_weights(student, teacher).item() == pytest.approx(total / (2 * 3 * 4 * 4))


@pytest.mark.parametrize("shape", [(2, 6, 4, 4), (2, 4, 4)])
def test_where_heads_differ_in_number_their_means_are_compared(shape: tuple[int, ...]) -> None:
    student, teacher = weights(2, 3, 4, 4), weights(*shape, seed=1)
    mean = teacher.mean(1) if teacher.ndim == 4 else teacher
    assert attention_weights(student, teacher).item() == pytest.approx(attention_weights(student.mean(1), mean).item())


def test_queries_and_keys_of_padding_do_not_count() -> None:
    student, teacher = weights(1, 2, 4, 4), weights(1, 2, 4, 4, seed=1)
    mask = torch.tensor([[True, True, True, False]])
    wanted = attention_weights(student[..., :3, :3], teacher[..., :3, :3]).item()
    student[..., 3, :], teacher[..., :, 3] = 7.0, -7.0
    assert attention_weights(student, teacher, mask).item() == pytest.approx(wanted)


def test_a_teachers_weights_are_cut_to_the_students_tokens() -> None:
    loss = FEATURES["attention"].build(Fit((2, 6, 6), (2, 6, 6), is_attention=True), {})
    student, teacher = weights(1, 2, 4, 4), weights(1, 2, 6, 6, seed=1)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert loss(Pair(student, teacher, mask), {}).item() == attention_weights(student, teacher[..., :4, :4]).item()


@pytest.mark.parametrize("fit", [Fit((4,), (4,)), Fit((6, 4), (6, 4)), Fit((3, 4, 4), (6, 4))])
def test_layers_that_are_neither_maps_nor_weights_are_refused(fit: Fit) -> None:
    with pytest.raises(ModelError, match=r"wanted two maps \[D, H, W\], or layers that give attention weights"):
        FEATURES["attention"].build(fit, {})
