from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_platform.data.ids import content_ids, keys_of
from distill_platform.data.splits import parse_split, split_by_hash
from distill_platform.errors import DataError

NAMES = st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=40)


@given(NAMES, NAMES, st.integers(0, 100))
def test_adding_examples_moves_no_other(names: list[str], more: list[str], seed: int) -> None:
    alone = dict(zip(names, split_by_hash(names, 0.2, 0.3, seed), strict=True))
    mixed = [*more, *names]
    together = dict(zip(mixed, split_by_hash(mixed, 0.2, 0.3, seed), strict=True))
    assert alone == {name: together[name] for name in names}


def test_shares_are_those_asked_for_and_the_seed_salts_them() -> None:
    names = [str(number) for number in range(20_000)]
    splits = split_by_hash(names, 0.15, 0.25, 0)
    assert [splits.count(split) / 20_000 for split in ("train", "val", "test")] == pytest.approx(
        [0.6, 0.15, 0.25], abs=0.01
    )
    agree = np.mean([one == other for one, other in zip(splits, split_by_hash(names, 0.15, 0.25, 1), strict=True)])
    assert agree == pytest.approx(0.6**2 + 0.15**2 + 0.25**2, abs=0.02)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"by": "row"}, "data.split.by is 'row'; wanted hash, column or sources"),
        ({"by": "hash", "val": 0.1}, "data.split.test is None; wanted a fraction between 0 and 1"),
        ({"by": "hash", "val": 1.5, "test": 0.1}, "data.split.val is 1.5; wanted a fraction"),
        ({"by": "hash", "val": 0.6, "test": 0.5}, "val 0.6 and test 0.5 leave nothing for train"),
        ({"by": "column"}, "data.split.column has to name the column"),
        ({"by": "column", "column": "s", "val": 0.1}, "data.split.by: column takes column, not val"),
    ],
)
def test_a_faulty_split_says_what_is_wanted(split: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        parse_split(split)
    assert said in str(error.value)


def test_equal_content_has_one_id() -> None:
    inputs = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]], np.float32)
    first, second, third = content_ids(inputs)
    assert first == second != third


def test_a_key_is_the_start_of_the_sha256_of_the_id() -> None:
    assert keys_of(["abc", ""]).tolist()[0] == list(bytes.fromhex("ba7816bf8f01cfea414140de5dae2223"))
    assert keys_of([]).shape == (0, 16)
