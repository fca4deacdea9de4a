"""Search is a function of seed, number and what was told: rebuilt, it asks the same."""

from __future__ import annotations

import pytest

from distill_platform.sweep.search import SEARCHES, Search
from distill_platform.sweep.space import parse_space

SPACE = parse_space(
    {
        "train.lr": {"loguniform": [1e-4, 1e-1]},
        "student.hidden": {"choice": [[16], [32]]},
        "student.width": {"int": [1, 9]},
    }
)
BASE = {"student": {"hidden": [32], "width": 3}, "train": {"lr": 0.01}}


def score(settings: dict) -> float:  # type: ignore[type-arg]
    return -abs(settings["student.width"] - 7)


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_rebuilt_search_asks_what_the_first_one_asked(kind: str) -> None:
    first, asked = Search(kind, SPACE, BASE, 20, 0), []
    for number in range(12):
        asked.append(first.ask(number))
        first.tell(asked[-1], score(asked[-1]))
    rebuilt = Search(kind, SPACE, BASE, 20, 0)
    for settings in asked[:8]:
        rebuilt.tell(settings, score(settings))
    assert rebuilt.ask(8) == asked[8]
    assert all(range_.holds(settings[path]) for settings in asked for path, range_ in SPACE.items())


def test_the_first_member_has_the_specs_own_settings() -> None:
    assert Search("tpe", SPACE, BASE, 20, 0).ask(0) == {"train.lr": 0.01, "student.hidden": [32], "student.width": 3}


def test_tpe_finds_what_random_search_does_not() -> None:
    def mean_of_last(kind: str) -> float:
        total = 0.0
        for seed in range(5):
            search = Search(kind, SPACE, {}, 30, seed)
            for number in range(30):
                settings = search.ask(number)
                search.tell(settings, score(settings))
                total += score(settings) if number >= 20 else 0
        return total / 50

    assert mean_of_last("tpe") > mean_of_last("random") + 0.5


def test_failed_members_tell_nothing() -> None:
    search = Search("tpe", SPACE, BASE, 20, 0)
    search.tell(search.ask(0), None)
    assert search.ask(1) == Search("tpe", SPACE, BASE, 20, 0).ask(1)
