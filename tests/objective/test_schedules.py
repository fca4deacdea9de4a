"""Numbers that change while a student trains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_platform.objective.schedules import SHAPES, ends, value_at


@pytest.mark.parametrize("value", [0.5, 3, True, "cosine", {"blocks.0": "stage1"}])
def test_what_is_no_schedule_stays_what_it_is(value: object) -> None:
    assert value_at(value, 0.3) is value
    assert ends(value) == (value,)


@pytest.mark.parametrize(
    ("schedule", "done", "wanted"),
    [
        ({"from": 8, "to": 1}, 0.0, 8.0),
        ({"from": 8, "to": 1}, 0.5, 4.5),
        ({"from": 8, "to": 1}, 1.0, 1.0),
        ({"from": 0, "to": 1, "until": 0.25}, 0.125, 0.5),
        ({"from": 0, "to": 1, "until": 0.25}, 0.7, 1.0),
        ({"from": 0, "to": 1, "shape": "cosine"}, 0.5, 0.5),
        ({"from": 0, "to": 1, "shape": "cosine"}, 0.25, 0.1464466),
        ({"from": 2, "to": 4, "until": 0.5, "shape": "cosine"}, 0.5, 4.0),
    ],
)
def test_a_schedule_goes_from_one_value_to_the_other(schedule: object, done: float, wanted: float) -> None:
    assert value_at(schedule, done) == pytest.approx(wanted)


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0.01, 1),
    st.sampled_from(sorted(SHAPES)),
    st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
)
def test_it_is_monotonic_and_stays_between_its_ends(
    first: float, last: float, until: float, shape: str, steps: list[float]
) -> None:
    schedule = {"from": first, "to": last, "until": until, "shape": shape}
    assert ends(schedule) == (first, last)
    early, late = (value_at(schedule, done) for done in steps)
    low, high = min(first, last), max(first, last)
    slack = 1e-9 * (1 + high)
    assert low - slack <= early <= high + slack
    assert (late - early) * (1 if last >= first else -1) >= -slack
