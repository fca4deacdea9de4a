"""Temperature and class bias, fitted after training, against known truths."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill_platform.tasks.calibration import TEMPERATURES, bias_correction, calibrate, class_priors


def drawn(logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Labels drawn from softmax(logits)."""
    return torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)


def made(num: int, num_classes: int = 5) -> torch.Tensor:
    return 2 * torch.randn(num, num_classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    logits = made(20_000)
    assert calibrate(logits * temperature, drawn(logits)) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_gives_the_labels_a_better_likelihood() -> None:
    logits = made(300)
    labels = drawn(logits)
    found = calibrate(3 * logits, labels)
    loss = lambda temperature: float(F.cross_entropy(3 * logits / temperature, labels))  # noqa: E731
    assert all(loss(found) < loss(found * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_half_precision_logits_of_tokens_are_calibrated_and_padding_counts_nothing() -> None:
    logits = made(2_000)
    labels = drawn(logits)
    expected = calibrate((2 * logits).half(), labels)
    blocks = torch.cat([2 * logits.view(100, 20, 5), torch.full((100, 3, 5), 7.0)], dim=1)
    padded = torch.cat([labels.view(100, 20), torch.full((100, 3), -1)], dim=1)
    assert calibrate(blocks.half(), padded) == pytest.approx(expected, rel=1e-6)


def test_certainties_end_at_the_ends() -> None:
    logits, labels = torch.eye(3), torch.arange(3)
    assert calibrate(logits, labels) == TEMPERATURES[0]
    assert calibrate(logits, (labels + 1) % 3) == TEMPERATURES[1]


def test_nothing_is_calibrated_on_nothing() -> None:
    with pytest.raises(ValueError, match="no label to calibrate on"):
        calibrate(torch.zeros(2, 3), torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="not finite"):
        calibrate(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))


def test_a_class_that_training_left_out_is_predicted_again() -> None:
    logits = made(5_000)
    labels = drawn(logits)
    biased = logits - 6.0 * torch.eye(5, dtype=torch.float64)[3]  # class 3 was never shown
    assert not (biased.argmax(1) == 3).sum() > 0.01 * len(labels)
    bias = bias_correction(biased, class_priors(labels, 5))
    repaired = biased + bias
    assert bias - bias[0] == pytest.approx(torch.tensor([0, 0, 0, 6, 0]).double(), abs=0.15)
    assert (repaired.argmax(1) == labels).double().mean() > (biased.argmax(1) == labels).double().mean() + 0.05
    assert F.cross_entropy(repaired, labels) < F.cross_entropy(biased, labels) - 0.2


def test_the_corrected_model_names_each_class_as_often_as_it_occurs() -> None:
    priors = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04], dtype=torch.float64)
    logits = made(1_000)
    bias = bias_correction(logits, priors)
    assert (logits + bias).softmax(1).mean(0) == pytest.approx(priors, abs=1e-5)
    assert float(bias.sum()) == pytest.approx(0, abs=1e-9)


def test_nothing_is_corrected_where_nothing_is_wrong() -> None:
    logits = made(1_000)
    assert bias_correction(logits, logits.softmax(1).mean(0)) == pytest.approx(torch.zeros(5), abs=1e-6)


def test_priors_are_shares_of_labels_and_none_is_zero() -> None:
    found = class_priors(torch.tensor([0, 0, 2, -1]), 4)
    assert found == pytest.approx(torch.tensor([2.5, 0.5, 1.5, 0.5]) / 5)
    with pytest.raises(ValueError, match="wanted shares above 0 that sum to 1"):
        bias_correction(torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="not finite"):
        bias_correction(torch.tensor([[math.inf, 0.0]]), torch.tensor([0.5, 0.5]))
