"""The sampled estimate: unbiased, of fixed width, and no noisier than fifty independent draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from distill_platform.cache import CODECS, SampledTarget, choose_encoding
from distill_platform.cache.codecs.sampled import TOTAL, resample, round_weights
from distill_platform.data.draws import mix

NUM_DRAWS = 50


def estimates(row: Tensor, count: int, keep: int | str = "auto") -> Tensor:
    """`count` independent estimates of one row's distribution, as they come back from storage, `[count, C]` fp64."""
    encoding = choose_encoding(len(row), (), codec="sampled", keep=keep)  # type: ignore[arg-type]
    columns = CODECS["sampled"].encode(row.expand(count, -1), encoding, mix(np.arange(count, dtype=np.uint64)))
    target = CODECS["sampled"].decode({"draws": torch.from_numpy(columns["draws"])}, encoding, {})
    assert isinstance(target, SampledTarget)
    assert torch.allclose(target.weights.sum(-1), torch.ones(count), atol=1e-6)
    return torch.zeros(count, len(row), dtype=torch.float64).scatter_add_(-1, target.ids, target.weights.double())


def zipf(num_classes: int, exponent: float) -> Tensor:
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(0))
    return -exponent * torch.log(torch.arange(1.0, num_classes + 1))[order]


CASES = pytest.mark.parametrize(
    ("num_classes", "keep", "spread"),
    [(3, 2, 1.0), (40, 1, 1.0), (40, 6, 0.5), (257, 11, 2.0), (600, 11, 3.0), (20_000, 3, 2.0)],
)


@CASES
def test_averaged_over_the_uniform_number_an_estimate_is_the_distribution(
    num_classes: int, keep: int, spread: float
) -> None:
    """A class is drawn on one interval of the number, or two: a grid of n misses its share by 2 / n of a weight."""
    row = spread * torch.randn(num_classes, generator=torch.Generator().manual_seed(num_classes))
    grid, mean = 2000, torch.zeros(num_classes, dtype=torch.float64)
    for uniform in ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid).split(100):
        ids, weights = resample(row.expand(100, -1), keep, uniform)
        assert torch.allclose(weights.sum(-1), torch.ones(100, dtype=torch.float64))
        mean += torch.zeros_like(mean).index_add_(0, ids.flatten(), weights.flatten()) / grid
    assert (mean - row.double().softmax(-1)).abs().max() <= 2 / grid * weights.min() + 1e-7


@CASES
def test_the_mean_over_many_rows_is_the_teachers_distribution(num_classes: int, keep: int, spread: float) -> None:
    row = spread * torch.randn(num_classes, generator=torch.Generator().manual_seed(num_classes))
    p, count = row.double().softmax(-1), 400 if num_classes > 1000 else 4000
    drawn = estimates(row, count, keep)
    seen = p > 20 / count  # below it too few draws for a normal bound
    z = (drawn.mean(0) - p) / (drawn.std(0) / count**0.5 + 1e-9)
    assert z[seen].abs().max() < 5 if seen.any() else True
    rare = drawn[:, ~seen].sum(-1)
    assert abs(rare.mean() - p[~seen].sum()) <= 5 * rare.std() / count**0.5 + 1e-6


def test_of_a_large_vocabulary_the_mass_of_every_region_is_unbiased() -> None:
    row = zipf(131_072, 1.3)
    p, count = row.double().softmax(-1), 200
    drawn = estimates(row, count)
    by_region = drawn.unflatten(-1, (64, -1)).sum(-1)
    z = (by_region.mean(0) - p.unflatten(-1, (64, -1)).sum(-1)) / (by_region.std(0) / count**0.5)
    assert z.abs().max() < 5


@pytest.mark.parametrize("exponent", [1.8, 1.7])
def test_thirty_bytes_have_at_most_the_variance_of_fifty_draws(exponent: float) -> None:
    row = zipf(131_072, exponent)
    p = row.double().softmax(-1)
    distinct = float((1 - (1 - p) ** NUM_DRAWS).sum())
    assert distinct == pytest.approx(12.7, abs=1)
    variance = float((estimates(row, 96) - p).square().sum(-1).mean())
    assert variance <= 0.6 * float(1 - p.square().sum()) / NUM_DRAWS
    encoding = choose_encoding(131_072, (), codec="sampled")
    assert CODECS["sampled"].bytes_per_unit(encoding) <= 30


def test_no_estimate_of_as_many_classes_has_less_variance() -> None:
    """Against the formula of Fearnhead and Clifford, with c found by bisection: c times the rest, less its squares."""
    logits = 2 * torch.randn(80, generator=torch.Generator().manual_seed(3))
    p, keep = logits.double().softmax(-1), 9
    low, high = 0.0, 1.0
    for _ in range(100):
        c = (low + high) / 2
        low, high = (c, high) if (p / c).clamp(max=1).sum() > keep else (low, c)
    rest = p[p < c]
    wanted = float(c * rest.sum() - rest.square().sum())
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ids, weights = resample(logits.expand(4000, -1), keep, uniform)
    drawn = torch.zeros(4000, 80, dtype=torch.float64).scatter_add_(-1, ids, weights)
    assert (drawn - p).square().sum(-1).mean().item() == pytest.approx(wanted, rel=0.06)
    assert ((drawn > 0).sum(-1) == keep).all()
    assert torch.allclose(drawn[:, p >= c], p[p >= c].expand(4000, -1), atol=1e-6)


def test_rounded_weights_sum_up_and_are_unbiased() -> None:
    weights = torch.tensor([0.5, 0.3, 0.15, 0.049, 0.001], dtype=torch.float64)
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = round_weights(weights.expand(10_000, -1), uniform)
    assert (counts.sum(-1) == TOTAL).all()
    assert (counts >= 0).all()
    assert torch.allclose(counts.double().mean(0) / TOTAL, weights, atol=2e-4)
    assert ((counts - weights * TOTAL).abs() < 1).all()


def test_a_certain_teacher_is_kept_as_it_is() -> None:
    row = torch.full((50,), -1000.0)
    row[17] = 0.0
    assert (estimates(row, 20)[:, 17] == 1).all()


def test_units_of_a_row_and_rows_draw_independently() -> None:
    encoding = choose_encoding(1000, (), codec="sampled")
    logits = torch.zeros(2, 3, 1000)
    draws = CODECS["sampled"].encode(logits, encoding, mix(np.arange(2, dtype=np.uint64)))["draws"].reshape(6, -1)
    assert len(np.unique(draws, axis=0)) == 6
