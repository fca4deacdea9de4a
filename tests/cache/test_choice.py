"""auto: the fewest bytes among the codecs that carry what the objective asks, at every temperature it may take."""

from __future__ import annotations

from typing import Any

import pytest

from distill_platform.cache import CODECS, Demand, DenseTarget, Encoding, SampledTarget, TopKTarget, choose_encoding
from distill_platform.errors import InputError

ANY = (DenseTarget, TopKTarget, SampledTarget)


def demand(*temperatures: float, accepts: tuple[Any, ...] = ANY) -> list[Demand]:
    return [Demand(accepts, temperatures)]


@pytest.mark.parametrize(
    ("num_classes", "demands", "codec", "size_bytes"),
    [
        (10, demand(4.0), "dense", 20),
        (10, demand(1.0), "dense", 20),
        (100, demand(1.0), "topk", 27),
        (100, demand(1.0, 2.0), "topk", 27),
        (100, demand(1.0, 4.0), "ternary", 28),
        (100, demand(1.0, 8.0), "ternary", 28),
        (32, demand(1.0), "ternary", 14),
        (128, demand(8.0), "ternary", 34),
        (100, demand(1.0, 9.0), "dense", 200),
        (100, demand(0.5), "dense", 200),
        (1000, demand(1.0, 2.0), "dense", 2000),
        (1000, demand(1.0, 4.0), "dense", 2000),
        (131_072, demand(1.0), "sampled", 30),
        (131_072, demand(1.0) + demand(1.5), "dense", 262_144),
        (131_072, demand(1.0, accepts=(DenseTarget,)), "dense", 262_144),
        (100, demand(1.0, accepts=(DenseTarget, TopKTarget)), "topk", 27),
        (131_072, [], "dense", 262_144),
    ],
)
def test_auto_is_the_smallest_that_loses_nothing(
    num_classes: int, demands: list[Demand], codec: str, size_bytes: int
) -> None:
    chosen = choose_encoding(num_classes, demands)
    assert chosen.codec == codec
    assert CODECS[codec].bytes_per_unit(chosen) == size_bytes


def test_auto_stores_float32_where_it_is_asked_to() -> None:
    assert choose_encoding(131_072, demand(1.0), dtype="float32") == Encoding("dense", 131_072, "float32")


def test_head_is_chosen_by_name_alone() -> None:
    assert choose_encoding(131_072, demand(4.0), hidden_size=64).codec == "dense"
    assert choose_encoding(131_072, demand(4.0), codec="head", hidden_size=64) == Encoding(
        "head", 131_072, hidden_size=64
    )
    with pytest.raises(InputError, match="last hidden state, and this teacher gives none"):
        choose_encoding(131_072, demand(4.0), codec="head")


def test_keep_is_the_codecs_own_number_or_what_there_is() -> None:
    assert choose_encoding(100, (), codec="topk").keep == 8
    assert choose_encoding(5, (), codec="topk").keep == 4
    assert choose_encoding(100, (), codec="topk", keep=99).keep == 99
    assert choose_encoding(100, (), codec="dense").keep == 0


@pytest.mark.parametrize("codec", ["topk", "sampled", "ternary", "auto"])
def test_a_keep_that_leaves_no_class_out_is_refused(codec: str) -> None:
    with pytest.raises(InputError, match=r"cache.keep is 100, but there are 100 classes; wanted 1 to 99"):
        choose_encoding(100, demand(1.0), codec=codec, keep=100)
