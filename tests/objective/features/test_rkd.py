"""Relational distillation: distances of pairs and angles of triplets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.rkd import angle_relation, distance_relation

Points = list[list[float]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = random(5, 3), 4 * random(5, 7, seed=1) + 20


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) <= 1 else abs(difference) - 0.5


def naive_distances(student: Points, teacher: Points) -> float:
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    relative = []
    for points in (student, teacher):
        distances = {(i, j): math.dist(points[i], points[j]) for i, j in pairs}
        mean = sum(distances.values()) / len(pairs)
        relative.append({pair: value / mean for pair, value in distances.items()})
    return sum(huber(relative[0][pair] - relative[1][pair]) for pair in pairs) / len(pairs)


def naive_angles(student: Points, teacher: Points) -> float:
    def cosine(points: Points, i: int, j: int, k: int) -> float:
        first = [a - b for a, b in zip(points[i], points[j], strict=True)]
        second = [a - b for a, b in zip(points[k], points[j], strict=True)]
        return sum(a * b for a, b in zip(first, second, strict=True)) / (math.hypot(*first) * math.hypot(*second))

    triplets = [(i, j, k) for i in range(5) for j in range(5) for k in range(5) if len({i, j, k}) == 3]
    return sum(huber(cosine(student, *each) - cosine(teacher, *each)) for each in triplets) / len(triplets)


def test_distances_follow_equations_4_to_6() -> None:
    wanted = naive_distances(STUDENT.tolist(), TEACHER.tolist())
    assert distance_relation(STUDENT, TEACHER).item() == pytest.approx(wanted)


def test_angles_follow_equations_7_and_8() -> None:
    wanted = naive_angles(STUDENT.tolist(), TEACHER.tolist())
    assert angle_relation(STUDENT, TEACHER).item() == pytest.approx(wanted)


def test_relations_stay_when_points_are_scaled_moved_and_turned() -> None:
    turn, _ = torch.linalg.qr(random(3, 3, seed=2))
    moved = 7 * STUDENT @ turn + 3
    assert distance_relation(moved, STUDENT).item() == pytest.approx(0, abs=1e-12)
    assert angle_relation(moved, STUDENT).item() == pytest.approx(0, abs=1e-12)


def test_examples_that_coincide_have_no_direction_and_break_no_gradient() -> None:
    student = STUDENT.float()
    student[1] = student[0]
    student.requires_grad_()
    teacher = TEACHER.float()
    (distance_relation(student, teacher) + angle_relation(student, teacher)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    collapsed = torch.ones(4, 3, requires_grad=True)
    (distance_relation(collapsed, teacher[:4]) + angle_relation(collapsed, teacher[:4])).backward()
    assert collapsed.grad is not None
    assert torch.isfinite(collapsed.grad).all()


def test_the_weights_of_both_relations_are_settings() -> None:
    loss = FEATURES["rkd"].build(Fit((3,), (7,)), {})
    pair = Pair(STUDENT, TEACHER)
    both = loss(pair, {"distance": 2.0, "angle": 3.0}).item()
    wanted = 2 * distance_relation(STUDENT, TEACHER) + 3 * angle_relation(STUDENT, TEACHER)
    assert both == pytest.approx(wanted.item())


def test_attention_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="compares vectors, not attention weights"):
        FEATURES["rkd"].build(Fit((4, 4), (4, 4), is_attention=True), {})
