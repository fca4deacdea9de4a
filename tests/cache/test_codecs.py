"""Codecs: what comes back is what went in, up to what each states."""

from __future__ import annotations

import statistics
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill_platform.cache import CODECS, DenseTarget, Encoding, SampledTarget, Target, TopKTarget, choose_encoding
from distill_platform.cache.codecs import Columns
from distill_platform.data.draws import U64, mix
from distill_platform.errors import CacheMismatch, FormatError

OF_LOGITS = [name for name, codec in CODECS.items() if codec.source == "logits"]
WIDTHS = {
    "dense": (200, 26_000),
    "planes": (200, 26_000),
    "int4": (54, 6504),
    "ternary": (28, 2612),
    "topk": (27, 34),
    "sampled": (16, 25),
}
"""Bytes of a unit at 100 and at 13,000 classes."""


def logits(*shape: int, seed: int = 0, spread: float = 4.0) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def streams(count: int) -> U64:
    return mix(np.arange(count, dtype=np.uint64))


def encode(name: str, values: Tensor, **options: int) -> tuple[Columns, Encoding]:
    encoding = choose_encoding(values.shape[-1], (), codec=name, **options)  # type: ignore[arg-type]
    return CODECS[name].encode(values, encoding, streams(len(values))), encoding


def stored(name: str, values: Tensor, **options: int) -> Target:
    columns, encoding = encode(name, values, **options)
    return CODECS[name].decode({key: torch.from_numpy(column) for key, column in columns.items()}, encoding, {})


def test_logits_beyond_half_precision_are_refused_with_advice() -> None:
    values = torch.tensor([[1.0, 2.0], [70_000.0, 0.0]])
    with pytest.raises(CacheMismatch, match=r"1 rows hold logits that float16 cannot \(first: row 1.*cache.dtype"):
        CODECS["dense"].encode(values, Encoding("dense", 2), streams(2))
    kept = CODECS["dense"].encode(values, Encoding("dense", 2, "float32"), streams(2))
    assert kept["logits"][1, 0] == 70_000.0


@pytest.mark.parametrize("name", OF_LOGITS)
def test_logits_that_are_not_finite_are_refused(name: str) -> None:
    for broken in (float("nan"), float("inf")):
        values = logits(4, 40)
        values[2, 7] = broken
        with pytest.raises(CacheMismatch, match="row 2"):
            encode(name, values)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_every_codec_states_its_columns_and_bytes(name: str) -> None:
    for num_classes, size_bytes in zip((100, 13_000), WIDTHS[name], strict=True):
        columns, encoding = encode(name, logits(10, num_classes))
        assert tuple(columns) == CODECS[name].columns
        assert set(CODECS[name].compressed) <= set(columns)
        assert {len(column) for column in columns.values()} == {10}
        assert sum(column[0].nbytes for column in columns.values()) == size_bytes
        assert CODECS[name].bytes_per_unit(encoding) == size_bytes


@pytest.mark.parametrize("name", OF_LOGITS)
@pytest.mark.parametrize("num_classes", [7, 100, 13_000])
def test_a_rows_columns_depend_on_that_row_alone(name: str, num_classes: int) -> None:
    values = logits(9, num_classes)
    together, encoding = encode(name, values)
    for rows in (slice(3, 4), slice(2, 9)):
        apart = CODECS[name].encode(values[rows], encoding, streams(9)[rows])
        assert all(np.array_equal(apart[key], together[key][rows]) for key in together)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_units_of_a_row_are_encoded_each(name: str) -> None:
    values = logits(4, 3, 50)
    columns, encoding = encode(name, values)
    assert all(column.shape[:2] == (4, 3) for column in columns.values())
    alone = CODECS[name].encode(values[1:2], encoding, streams(4)[1:2])
    assert all(np.array_equal(alone[key][0], columns[key][1]) for key in columns)
    target = stored(name, values)
    assert isinstance(target, CODECS[name].target)


def test_dense_gives_back_every_logit_and_planes_the_same() -> None:
    values = logits(20, 33, spread=30)
    dense, planes = stored("dense", values), stored("planes", values)
    assert isinstance(dense, DenseTarget)
    assert isinstance(planes, DenseTarget)
    assert torch.equal(dense.logits, values.half().float())
    assert torch.equal(planes.logits, dense.logits)


def test_high_bytes_compress_and_low_bytes_do_not() -> None:
    columns, _ = encode("planes", logits(500, 100))
    size = {name: len(zlib.compress(column.tobytes())) / column.nbytes for name, column in columns.items()}
    assert size["high"] < 0.75
    assert size["low"] > 0.95
    assert CODECS["planes"].compressed == ("high",)


@pytest.mark.parametrize("num_classes", [2, 7, 100])
def test_int4_is_within_half_a_step_of_the_rows_scale(num_classes: int) -> None:
    values = logits(50, num_classes)
    target = stored("int4", values)
    assert isinstance(target, DenseTarget)
    span = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)
    assert ((target.logits - values).abs() <= span / 30 + 0.01 * span).all()


def test_int4_of_equal_logits_is_these_logits() -> None:
    target = stored("int4", torch.full((3, 5), 2.5))
    assert isinstance(target, DenseTarget)
    assert (target.logits == 2.5).all()


@pytest.mark.parametrize("num_classes", [9, 100, 13_000, 40_001])
def test_topk_keeps_the_largest_and_sums_up_the_others(num_classes: int) -> None:
    values = logits(12, num_classes).double()
    target = stored("topk", values.float())
    assert isinstance(target, TopKTarget)
    best, ids = values.topk(8)
    assert torch.equal(target.ids, ids)
    assert torch.allclose(target.logits.double(), best - best[:, :1], atol=4e-3)
    assert (target.logits[:, 0] == 0).all()
    tail = (values - best[:, :1]).scatter(-1, ids, torch.nan)
    for row in range(12):
        others = tail[row][~tail[row].isnan()]
        assert len(others) == num_classes - 8
        assert target.tail_mean[row].item() == pytest.approx(others.mean().item(), rel=1e-3)
        assert target.tail_lse[row].item() == pytest.approx(others.exp().sum().log().item(), rel=1e-3, abs=1e-3)
        assert target.tail_lse_at_2[row].item() == pytest.approx(
            (others / 2).exp().sum().log().item(), rel=1e-3, abs=1e-3
        )


def three_levels(row: list[float], keep: int) -> tuple[list[float], float]:
    """Depths below the largest as `ternary` has them before it rounds any, and the deepest level; fp64."""
    depths = [max(row) - value for value in row]
    ranked = sorted(range(len(row)), key=lambda place: depths[place])
    others = [depths[place] for place in ranked[keep:]]
    mean = statistics.fmean(others)
    deviation = statistics.pstdev(others)
    groups: list[list[float]] = [[], [], []]
    for depth in others:
        groups[(depth >= mean - 0.612 * deviation) + (depth > mean + 0.612 * deviation)].append(depth)
    between = sum(len(group) * (statistics.fmean(group) - mean) ** 2 for group in groups if group) / len(others)
    spread = deviation**2 / between if between else 0.0
    decoded = list(depths)
    for group in filter(None, groups):
        level = mean + spread * (statistics.fmean(group) - mean)
        for place in ranked[keep:]:
            if depths[place] in group:
                decoded[place] = max(level, 0.0)
    return decoded, max(decoded)


@settings(deadline=None)
@given(st.integers(2, 130), st.integers(0, 2**16), st.sampled_from([0.05, 1.0, 4.0, 300.0]))
def test_ternary_keeps_the_largest_and_spreads_three_levels_of_the_others(
    num_classes: int, seed: int, spread: float
) -> None:
    """Within half a step of a depth: 2 / 31 of the deepest, near the largest less, and 1 / 128 of that itself."""
    values = logits(3, num_classes, seed=seed, spread=spread)
    target = stored("ternary", values)
    assert isinstance(target, DenseTarget)
    assert torch.allclose(target.logits.mean(-1), torch.zeros(3), atol=1e-5 * spread)
    for row, decoded in zip(values.double().tolist(), target.logits.double().tolist(), strict=True):
        wanted, deepest = three_levels(row, min(4, num_classes - 1))
        for want, got in zip(wanted, (max(decoded) - value for value in decoded), strict=True):
            share = min(1.0, want / deepest) ** 0.5
            assert abs(got - want) <= deepest * (share / 31 + 1 / 31**2 + 1 / 64) + 1e-4


def test_levels_of_ternary_are_the_logits_in_the_mean() -> None:
    """Where levels were the means of their classes, a line through (logit, decoded) would rise by a fifth less."""
    values = logits(2000, 100)
    target = stored("ternary", values)
    assert isinstance(target, DenseTarget)
    others = values < values.topk(4).values[:, -1:]
    exact, decoded = values[others].double(), target.logits[others].double()
    slope = ((exact - exact.mean()) * (decoded - decoded.mean())).sum() / (exact - exact.mean()).square().sum()
    assert slope.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("num_classes", [2, 5, 100])
def test_ternary_of_logits_that_are_equal_or_far_below(num_classes: int) -> None:
    equal = torch.full((2, num_classes), 2.5)
    below = torch.cat((torch.zeros(2, 1), torch.full((2, num_classes - 1), -400.0)), -1)
    for values in (equal, below):
        target = stored("ternary", values)
        assert isinstance(target, DenseTarget)
        assert torch.allclose(target.logits, values - values.mean(-1, keepdim=True), atol=1e-3)


def test_a_codec_that_was_removed_says_that_the_cache_is_to_be_built_again() -> None:
    with pytest.raises(FormatError, match="codec onebit is not read any more; build the cache again, with codec ter"):
        Encoding("onebit", 100, keep=4)


def test_topk_holds_a_tail_far_below() -> None:
    """exp(-400) is no number of fp32, nor of fp64 where it is squared."""
    values = torch.cat((torch.zeros(1, 2), torch.full((1, 30), -400.0)), -1)
    target = stored("topk", values, keep=2)
    assert isinstance(target, TopKTarget)
    assert target.tail_lse.item() == pytest.approx(-400 + np.log(30), rel=1e-3)
    assert target.tail_mean.item() == -400


def test_ids_past_int16_come_back() -> None:
    values = torch.zeros(2, 131_072)
    values[0, 131_071], values[1, 40_000] = 20.0, 20.0
    topk, sampled = stored("topk", values), stored("sampled", values)
    assert isinstance(topk, TopKTarget)
    assert isinstance(sampled, SampledTarget)
    assert topk.ids[:, 0].tolist() == [131_071, 40_000]
    heaviest = sampled.ids.gather(-1, sampled.weights.argmax(-1, keepdim=True)).flatten()
    assert heaviest.tolist() == [131_071, 40_000]


def test_head_gives_the_logits_of_the_teachers_output_layer() -> None:
    hidden, weight, bias = logits(6, 4, 16, spread=1), logits(50, 16, seed=1), logits(50, seed=2)
    encoding = choose_encoding(50, (), codec="head", hidden_size=16)
    columns = CODECS["head"].encode(hidden, encoding, streams(6))
    assert columns["hidden"][0, 0].nbytes == CODECS["head"].bytes_per_unit(encoding) == 32
    tensors = {"hidden": torch.from_numpy(columns["hidden"])}
    for constants, wanted in (
        ({"weight": weight, "bias": bias}, hidden.half().double() @ weight.double().T + bias.double()),
        ({"weight": weight}, hidden.half().double() @ weight.double().T),
    ):
        target = CODECS["head"].decode(tensors, encoding, constants)
        assert isinstance(target, DenseTarget)
        assert torch.allclose(target.logits.double(), wanted, atol=1e-4)
