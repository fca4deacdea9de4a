"""docs/guides.md names files, dicts and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = (ROOT / "docs" / "guides.md").read_text()
TABLES = dict(re.findall(r"(?ms)^## (Add .+?)\n(.*?)(?=^## |\Z)", GUIDES))


def cell(guide: str, row: str) -> str:
    return next(line for line in TABLES[guide].splitlines() if line.startswith(f"| {row} |"))


def test_there_is_a_guide_for_each_thing_to_add() -> None:
    added = ("a loss", "a task", "a model", "a data source", "a codec", "an example")
    assert list(TABLES) == [f"Add {each}" for each in added]


@pytest.mark.parametrize("guide", TABLES)
def test_the_files_of_a_guide_are_there(guide: str) -> None:
    named = re.findall(r"`((?:distill_platform|tests|benchmarks|examples)/[\w/.]*)", TABLES[guide])
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("guide", TABLES)
def test_the_line_of_a_guide_goes_where_it_says(guide: str) -> None:
    places = re.findall(r"`([A-Z]+)` of `([\w/.]+)`", cell(guide, "line"))
    assert places
    for name, path in places:
        assert re.search(rf"(?m)^{name}\b.*= \{{", (ROOT / path).read_text()), f"{path} has no {name}"


@pytest.mark.parametrize("guide", TABLES)
def test_the_tests_of_a_guide_are_there(guide: str) -> None:
    tests = re.findall(r"`([\w/.]+)::(\w+)`", cell(guide, "test"))
    assert tests
    for path, name in tests:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


@pytest.mark.parametrize(("page", "section"), re.findall(r"\]\((\w+\.md)#([\w-]+)\)", GUIDES))
def test_the_fuller_text_is_there(page: str, section: str) -> None:
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / "docs" / page).read_text())
    assert section in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
