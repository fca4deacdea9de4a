"""ASHA's rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill_platform.sweep.halving import keeps, rungs


def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch() -> None:
    assert rungs(20, 2, 3) == [2, 6, 18]
    assert rungs(6, 2, 3) == [2]
    assert rungs(2, 2, 3) == []


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(2, 5))
def test_the_best_always_goes_on_and_at_most_a_share_does(scores: list[int], reduction: int) -> None:
    distinct = sorted(set(scores))
    kept = [score for score in distinct if keeps(score, distinct, reduction)]
    assert max(distinct) in kept
    assert len(kept) == max(1, -(-len(distinct) // reduction))
    assert kept == distinct[-len(kept) :]


def test_the_first_to_arrive_goes_on() -> None:
    assert keeps(0.1, [0.1], 3)


def test_a_late_poor_one_is_stopped() -> None:
    assert not keeps(0.1, [0.9, 0.8, 0.1], 3)
