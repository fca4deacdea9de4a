"""docs/losses.md says of every loss what the catalogue says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill_platform.cache import CODECS, DenseTarget, SampledTarget, Target, TopKTarget
from distill_platform.objective import LOSSES, Loss
from distill_platform.objective.response import RESPONSE

DOCS = Path(__file__, "../../../docs/losses.md").resolve().read_text()
ROWS = {line.split("`")[1]: line.strip("| ").split(" | ") for line in DOCS.splitlines() if line.startswith("| `")}
KEPT: dict[str, type[Target]] = {"all": DenseTarget, "K largest": TopKTarget, "samples": SampledTarget}


def test_every_loss_has_a_row_and_every_row_a_loss() -> None:
    assert ROWS.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_names_a_source_and_every_setting_with_its_default(name: str) -> None:
    source, documented = ROWS[name][1], dict(re.findall(r"`(\w+)` \(([^)]+)\)", " ".join(ROWS[name][2:])))
    assert "arXiv:" in source or source.endswith("the same")
    defaults = {key: setting.default for key, setting in LOSSES[name].settings.items()}
    written = {key: f"{value:g}" if isinstance(value, float) else str(value).lower() for key, value in defaults.items()}
    assert documented == written


@pytest.mark.parametrize("name", RESPONSE)
def test_a_row_says_what_the_loss_is_computed_from(name: str) -> None:
    assert [KEPT[each] for each in ROWS[name][3].split(", ")] == list(RESPONSE[name].functions)


def test_the_codecs_that_keep_it_are_all_named() -> None:
    (named,) = re.findall(r"Codecs that keep all: (.+)\. The K largest: (.+)\. Samples: (.+), at", DOCS)
    found = [re.findall(r"`(\w+)`", each) for each in named]
    wanted = [[name for name, codec in CODECS.items() if codec.target is kept] for kept in KEPT.values()]
    assert [sorted(each) for each in found] == [sorted(each) for each in wanted]


def test_a_loss_of_outputs_takes_no_layers_and_one_of_layers_does() -> None:
    assert all(isinstance(loss, Loss) != loss.takes_layers for loss in LOSSES.values())
