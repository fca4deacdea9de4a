"""Hidden states matched token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.hidden_states import hidden_cosine, hidden_mse


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = random(2, 3, 4), random(2, 3, 4, seed=1)
TOKENS = [(STUDENT[row, token].tolist(), TEACHER[row, token].tolist()) for row in range(2) for token in range(3)]


def test_squares_follow_equation_8_token_by_token() -> None:
    wanted = sum(sum((a - b) ** 2 for a, b in zip(*token, strict=True)) / 4 for token in TOKENS) / 6
    assert hidden_mse(STUDENT, TEACHER).item() == pytest.approx(wanted)


def test_cosines_are_of_each_tokens_direction() -> None:
    cosines = [
        sum(a * b for a, b in zip(*token, strict=True)) / (math.hypot(*token[0]) * math.hypot(*token[1]))
        for token in TOKENS
    ]
    assert hidden_cosine(STUDENT, TEACHER).item() == pytest.approx(1 - sum(cosines) / 6)
    assert hidden_cosine(5 * TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-12)
    assert hidden_cosine(-TEACHER, TEACHER).item() == pytest.approx(2)


def test_a_map_is_learned_only_where_widths_differ() -> None:
    build = FEATURES["hidden_states"].build
    assert not list(build(Fit((3, 4), (3, 4)), {}).parameters())
    assert [parameter.shape for parameter in build(Fit((3, 4), (3, 6)), {}).parameters()] == [(6, 4)]


def test_the_module_maps_masks_and_matches_as_it_is_told() -> None:
    loss = FEATURES["hidden_states"].build(Fit((3, 4), (3, 6)), {}).double()
    assert isinstance(loss.map, nn.Linear)
    teacher, mask = random(2, 3, 6, seed=2), torch.tensor([[True, True, False], [True, False, False]])
    mapped = STUDENT @ loss.map.weight.T
    for match, function in {"mse": hidden_mse, "cosine": hidden_cosine}.items():
        value = loss(Pair(STUDENT, teacher, mask), {"match": match}).item()
        assert value == pytest.approx(function(mapped, teacher, mask).item())


def test_vectors_are_compared_without_the_mask_of_tokens() -> None:
    loss = FEATURES["hidden_states"].build(Fit((4,), (4,)), {})
    mask = torch.tensor([[True, False]] * 3)
    assert loss(Pair(STUDENT[0], TEACHER[0], mask), {"match": "mse"}) == hidden_mse(STUDENT[0], TEACHER[0])


@pytest.mark.parametrize("fit", [Fit((3, 4, 4), (3, 4, 4)), Fit((4,), (3, 4))])
def test_layers_that_are_no_sequences_of_one_kind_are_refused(fit: Fit) -> None:
    with pytest.raises(ModelError, match=r"cannot compare \[.*wanted two sequences \[T, D\] or two vectors"):
        FEATURES["hidden_states"].build(fit, {})
