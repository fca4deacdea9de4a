"""Methods side by side: the same but for the objective, and told apart with their uncertainty."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from distill_platform import load_spec
from distill_platform.cli.app import build_app
from distill_platform.compare import Comparison, Outcome, mean_interval, method_spec
from distill_platform.errors import InputError, SpecError
from distill_platform.evaluate.comparison import render_comparison

SPEC = """
name: wine
seed: 5
data: {source: "sklearn:wine", split: {by: hash, val: 0.2, test: 0.3}}
teacher: {model: {name: mlp, hidden: [16]}, train: {epochs: 6, batch_size: 16, lr: 0.01}}
student: {name: mlp, hidden: [4]}
objective:
  task: {weight: 0.5, label_smoothing: 0.1}
  soft_targets: {weight: 0.9, temperature: 3.0}
train: {epochs: 2, batch_size: 16, lr: 0.02}
sweep:
  trials: 2
  scheduler: none
  space:
    train.lr: {loguniform: [0.01, 0.03]}
    objective.soft_targets.temperature: {uniform: [1, 8]}
gates: {checks: [accuracy >= 0.1]}
"""


def outcome(method: str, seed: int, difference: float, reach: float = 0.01) -> Outcome:
    ends = {"lower": difference - reach, "upper": difference + reach}
    return Outcome(
        method,
        seed,
        0.9,
        0.8,
        0.8 + difference,
        difference,
        **ends,
        settings={},
        codecs=(),
        cache_bytes=0,
        evaluation="",
    )


def test_a_method_differs_from_the_spec_in_its_objective_alone() -> None:
    spec = load_spec(SPEC)
    found = method_spec(spec, "dkd+logit_mse", 7)
    assert list(found.objective) == ["task", "dkd", "logit_mse"]
    assert found.objective["task"] == spec.objective["task"]
    assert set(found.sweep.space) == {"objective.dkd.weight", "objective.logit_mse.weight", "train.lr"}
    same = found.model_copy(update={"objective": spec.objective, "sweep": spec.sweep, "seed": spec.seed})
    assert same == spec


def test_what_the_spec_says_of_a_loss_holds_where_it_is_the_method() -> None:
    found = method_spec(load_spec(SPEC), "soft_targets", 0)
    assert found.objective["soft_targets"].settings["temperature"] == 3.0
    assert "objective.soft_targets.temperature" in found.sweep.space


def test_no_teacher_is_a_method_too() -> None:
    found = method_spec(load_spec(SPEC), "task", 0)
    assert list(found.objective) == ["task"]
    assert list(found.sweep.space) == ["train.lr"]


def test_a_loss_that_there_is_not_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError, match="no loss is called 'dkk'; did you mean 'dkd'"):
        method_spec(load_spec(SPEC), "soft_targets+dkk", 0)


def test_a_loss_over_layers_asks_the_spec_for_them() -> None:
    with pytest.raises(SpecError, match=r"method hint.*objective.hint: layers is missing"):
        method_spec(load_spec(SPEC), "hint", 0)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([0.01, 0.03, -0.005, 0.02])
    wanted = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((wanted.low, wanted.high))
    assert mean_interval([0.1]) is None


def test_methods_are_listed_best_first_with_seeds_that_are_sure() -> None:
    outcomes = (
        outcome("weak", 0, -0.02),
        outcome("weak", 1, 0.0),
        outcome("strong", 0, 0.03),
        outcome("strong", 1, 0.005),
    )
    rows = Comparison("wine", "accuracy", True, 2, 3, outcomes).table()
    assert [(row["method"], row["better_in"], row["worse_in"]) for row in rows] == [("strong", 1, 0), ("weak", 0, 1)]
    assert rows[0]["difference"] == pytest.approx(0.0175)
    assert rows[0]["accuracy"] == pytest.approx(0.8175)


def test_the_page_shows_every_method_and_says_in_words_what_is_drawn() -> None:
    outcomes = (outcome("soft_targets", 0, 0.01), outcome("dkd", 0, -0.02))
    page = render_comparison(Comparison("wine", "accuracy", True, 2, 3, outcomes).to_json())
    assert "soft_targets +0.0100, dkd -0.0200" in page
    assert page.count('scope="row"') == 2


def test_compare_trains_every_method_and_again_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    asked = ["compare", str(tmp_path / "spec.yaml"), "--methods", "task,soft_targets", "--seeds", "1", "--json"]
    given = [*asked, "--workspace", str(tmp_path / "workspace"), "--output", str(tmp_path / "page.html")]
    first = CliRunner().invoke(build_app(), given)
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    assert {row["method"] for row in document["methods"]} == {"task", "soft_targets"}
    (alone,) = [row for row in document["outcomes"] if row["method"] == "task"]
    assert (alone["seed"], alone["difference"]) == (5, 0)
    assert "wine: methods compared" in (tmp_path / "page.html").read_text()
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "workspace").rglob("record.json")}
    again = CliRunner().invoke(build_app(), given)
    assert json.loads(again.stdout) == document
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "workspace").rglob("record.json")} == records
