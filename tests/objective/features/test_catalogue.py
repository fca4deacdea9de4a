"""What holds of a feature loss by its being in FEATURES."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distill_platform.errors import ModelError
from distill_platform.objective.features import FEATURES, Fit, Pair

GUIDE = Path(__file__).parents[3] / "docs" / "losses.md"
FITS = [
    Fit((6,), (7,), num_examples=9),
    Fit((5, 6), (5, 7), num_examples=9),
    Fit((6, 4, 4), (7, 3, 5), num_examples=9),
    Fit((2, 5, 5), (3, 5, 5), is_attention=True, num_examples=9),
]


def built(name: str) -> list[tuple[Fit, nn.Module]]:
    """The loss for every kind of layer that it compares."""
    loss, found = FEATURES[name], []
    settings = {key: setting.default for key, setting in loss.settings.items()}
    for fit in FITS[:1] if loss.mode == "pooled" else FITS:
        try:
            found.append((fit, loss.build(fit, settings)))
        except ModelError as refused:
            assert "wanted" in str(refused) or "name layers" in str(refused)  # noqa: PT017
    return found


@pytest.mark.parametrize("name", FEATURES)
def test_it_compares_some_kind_of_layer_and_its_gradient_reaches_the_student(name: str) -> None:
    settings = {key: setting.default for key, setting in FEATURES[name].settings.items()}
    assert built(name)
    for fit, module in built(name):
        student = torch.rand(4, *fit.student).requires_grad_()
        value = module(Pair(student, torch.rand(4, *fit.teacher), None, torch.arange(4)), settings)
        value.backward()
        assert value.shape == ()
        assert value.item() > 0
        assert student.grad is not None
        assert (student.grad != 0).any()


@pytest.mark.parametrize("name", FEATURES)
def test_the_guide_says_its_name_its_settings_and_what_the_cache_keeps(name: str) -> None:
    (row,) = [line for line in GUIDE.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert all(f"`{setting}`" in row for setting in FEATURES[name].settings)
    assert f"| {FEATURES[name].mode} |" in row
    assert "arxiv.org/abs/" in row or "eq." in row
