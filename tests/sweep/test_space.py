"""Ranges and dotted paths."""

from __future__ import annotations

from typing import Any

import pytest

from distill_platform.errors import SpecError
from distill_platform.sweep.space import Range, apply_settings, parse_space, settings_of

BASE = {"student": {"name": "mlp", "hidden": [32]}, "train": {"lr": 0.01, "epochs": 3}}


def test_settings_are_put_at_their_paths_and_the_base_is_left() -> None:
    applied = apply_settings(BASE, {"student.hidden": [8], "train.lr": 0.1})
    assert applied == {"student": {"name": "mlp", "hidden": [8]}, "train": {"lr": 0.1, "epochs": 3}}
    assert BASE["student"]["hidden"] == [32]


def test_a_path_into_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="sweep.space: objective.task.weight leads nowhere"):
        apply_settings(BASE, {"objective.task.weight": 1})


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Range("uniform", (0, 1)), [0, 0.5, 1], [-0.1, 1.1, "a", True]),
        (Range("int", (1, 8)), [1, 8, 3.0], [0, 9, 2.5]),
        (Range("logint", (1, 8)), [4], [4.5]),
        (Range("loguniform", (0.1, 1)), [0.1], [0.01]),
        (Range("choice", ([16], [32])), [[16]], [[8], 16]),
    ],
)
def test_a_range_holds_what_lies_in_it(range_: Range, inside: list[Any], outside: list[Any]) -> None:
    assert all(range_.holds(value) for value in inside)
    assert not any(range_.holds(value) for value in outside)


def test_the_specs_own_settings_are_a_point_of_the_space() -> None:
    space = parse_space({"student.hidden": {"choice": [[16], [32]]}, "train.lr": {"loguniform": [0.001, 0.1]}})
    assert settings_of(BASE, space) == {"student.hidden": [32], "train.lr": 0.01}
    assert settings_of(BASE, parse_space({"train.lr": {"uniform": [0.5, 1]}})) is None
    assert settings_of(BASE, parse_space({"student.width": {"int": [1, 2]}})) is None
