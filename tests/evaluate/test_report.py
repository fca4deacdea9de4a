from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import pytest

from distill_platform.evaluate.evaluation import Evaluation, table
from distill_platform.evaluate.gate import judge, parse_gate
from distill_platform.evaluate.report import ReportFacts, render_report


@pytest.fixture
def facts(evaluation: Evaluation) -> ReportFacts:
    """As little as a run can have: no sweep, no curves."""
    return ReportFacts(
        title="ants & <bees>",
        run_id="run-1",
        created_at="2026-01-31 12:00 UTC",
        verdict=judge([parse_gate("accuracy >= 0.9"), parse_gate("size_bytes <= 3999")], evaluation, 100),
        evaluation=evaluation,
        warnings=[],
        sweep_trials=[],
        baseline_trials=[],
        curves={},
        term_shares=[],
        lineage=[{"step": "teacher", "key": "k" * 64, "digest": "d" * 64, "uri": "w", "seconds": 1.2, "status": "ran"}],
        winner_settings={},
        spec_text="name: </script><script>alert(1)</script>",
    )


class Page(HTMLParser):
    """The tags, the addresses they load from, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style")
        found = dict(attributes)
        self.ids += [found["id"]] if found.get("id") else []
        self.loaded += [str(found[name]) for name in ("src", "href") if name in found]

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def test_report_tells_the_verdict_line_by_line(facts: ReportFacts) -> None:
    text = Page(render_report(facts)).text
    assert "The student is not proved to pass every gate, so nothing is promoted." in text
    for check in facts.verdict.checks:
        assert f"{check.gate} {check.reason}" in text
    passed = dataclasses.replace(facts, verdict=judge([parse_gate("accuracy >= 0.9")], facts.evaluation, 100))
    assert "The student is proved to pass every gate." in Page(render_report(passed)).text


def test_report_has_every_models_figures_and_the_lineage(facts: ReportFacts) -> None:
    text = Page(render_report(facts)).text
    assert re.search(r"student 0\.9600 0\.9359–0\.9770 .* 1,000 4 kB 1\.099 1\.189", text)
    assert re.search(r"teacher 0\.9750 .* 10,000 40 kB", text)
    assert f"teacher ran 1.2 {'k' * 12} {'d' * 12} w" in text


def test_report_loads_nothing_and_holds_plotly_once(facts: ReportFacts) -> None:
    html = render_report(facts)
    assert Page(html).loaded == []
    assert html.count("* plotly.js v") == 1
    assert "default-src 'none'" in html


def test_text_of_users_is_escaped(facts: ReportFacts) -> None:
    html = render_report(dataclasses.replace(facts, warnings=["a <b>term</b> does nothing"]))
    assert "<script>alert(1)" not in html
    assert "ants &amp; &lt;bees&gt;" in html
    assert "a &lt;b&gt;term&lt;/b&gt; does nothing" in html
    classes = ("</script><script>alert(2)</script>", *facts.evaluation.class_names[1:])
    named = dataclasses.replace(facts, evaluation=dataclasses.replace(facts.evaluation, class_names=classes))
    assert "<script>alert(2)" not in render_report(named)


def test_sections_without_facts_are_left_out_and_those_with_facts_have_their_drawings(facts: ReportFacts) -> None:
    bare = Page(render_report(facts))
    assert "What the sweep found" not in bare.text
    assert "How it learned" not in bare.text
    assert "Look at this first" not in bare.text
    trials = [
        {"member": n, "status": "finished", "settings": {"temperature": float(n)}, "metrics": {"val_accuracy": 0.9},
         "num_parameters": 9, "size_bytes": 9, "seconds": 1.0, "epochs": 1}
        for n in range(3)
    ]  # fmt: skip
    curve = [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.9}]
    full = dataclasses.replace(
        facts, sweep_trials=trials, curves={"student": curve}, warnings=["look"], winner_settings={"temperature": 2 / 3}
    )
    page = Page(render_report(full))
    assert {"intervals", "confusion", "calibration", "curve-accuracy", "curve-loss", "sweep", "setting-0"} < set(
        page.ids
    )
    assert "Look at this first look" in page.text
    assert "temperature 0.6667" in page.text


def test_figures_in_the_page_are_json_without_nan(facts: ReportFacts) -> None:
    student = facts.evaluation.models["student"]
    logits = student.answers.copy()
    logits[0, 0] = math.nan
    models = {**facts.evaluation.models, "student": dataclasses.replace(student, answers=logits)}
    html = render_report(dataclasses.replace(facts, evaluation=dataclasses.replace(facts.evaluation, models=models)))
    held = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert held
    drawn = json.loads(held[1], parse_constant=lambda constant: pytest.fail(f"{constant} in the page"))
    assert set(drawn) == {"intervals", "calibration", "confusion"}


def figures_of(html: str) -> dict[str, dict[str, object]]:
    held = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert held
    drawn: dict[str, dict[str, object]] = json.loads(held[1], parse_constant=lambda name: pytest.fail(f"{name} in it"))
    return drawn


def test_a_language_models_report_has_its_own_columns_and_drawings(
    facts: ReportFacts, token_evaluation: Evaluation
) -> None:
    gates = [parse_gate("perplexity <= 1.05 * teacher", token_evaluation.measures)]
    verdict = judge(gates, token_evaluation, 50)
    html = render_report(dataclasses.replace(facts, evaluation=token_evaluation, verdict=verdict))
    page, row = Page(html), table(token_evaluation)[-1]
    ends = "–".join(f"{end:.4f}" for end in row["perplexity_interval"])
    assert f"student {row['perplexity']:.4f} {ends} {row['bits_per_byte']:.4f}" in page.text
    assert "perplexity bits per byte accuracy log loss" in page.text
    assert "60 test blocks" in page.text
    assert "blocks cut from one document are not independent" in page.text
    assert "macro" not in page.text
    assert set(figures_of(html)) == {"intervals", "loss-by-position"}
    assert set(figures_of(html)) < set(page.ids)


def test_subgroups_have_a_table_and_a_drawing(facts: ReportFacts, grouped: Evaluation) -> None:
    html = render_report(dataclasses.replace(facts, evaluation=grouped))
    text = Page(html).text
    found = grouped.by_subgroup["south"]["student"]["accuracy"]
    assert "south 100" in text
    assert f"0.8400 {found['lower']:.4f}–{found['upper']:.4f}" in text
    assert "The student's accuracy is worst on south, 0.8400" in html.replace("&#39;", "'")
    assert "subgroups" in figures_of(html)
    assert "Subgroups" not in Page(render_report(facts)).text


def test_a_subgroup_without_test_examples_is_shown_as_none(facts: ReportFacts, grouped: Evaluation) -> None:
    named = dataclasses.replace(grouped, subgroup_names=("south", "north", "<i>west</i>"))
    html = render_report(dataclasses.replace(facts, evaluation=named))
    assert "<i>west" not in html
    assert "<i>west</i> 0 – ––– " in Page(html).text
    figures_of(html)
