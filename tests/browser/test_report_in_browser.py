"""The report in a real browser: nothing overlaps, overflows or complains, wide and narrow, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_platform.evaluate.evaluation import Evaluation, ModelResult
from distill_platform.evaluate.gate import judge, parse_gate
from distill_platform.evaluate.report import ReportFacts, render_report

pytestmark = pytest.mark.browser

SIZES = [(1280, "light"), (390, "light"), (390, "dark")]

# Children of one box, and the words within one drawing, must not lie on each other. Lines of text may touch.
FIND_OVERLAPS = """
const touching = 1.5, found = [];
function compare(boxes) {
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const a = boxes[i].getBoundingClientRect(), b = boxes[j].getBoundingClientRect();
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > touching && height > touching)
      found.push([boxes[i], boxes[j]].map(box => `${box.tagName} ${box.textContent.trim().slice(0, 40)}`).join(" | "));
  }
}
for (const box of document.querySelectorAll("body, header, main, section, .figures, figure, .checks, .checks li, tr"))
  compare([...box.children].filter(child => child.getClientRects().length && child.tagName !== "SCRIPT"));
for (const plot of document.querySelectorAll(".plot"))
  compare([...plot.querySelectorAll("svg text")].filter(text => text.textContent.trim()));
return found;
"""

FIND_OVERFLOWS = """
const width = document.documentElement.clientWidth, found = [];
if (document.documentElement.scrollWidth > width) found.push(`page is ${document.documentElement.scrollWidth} wide`);
for (const box of document.querySelectorAll("header *, main *, footer *")) {
  if (box.closest(".scroll table, pre") || !box.getClientRects().length) continue;
  const place = box.getBoundingClientRect();
  if (place.right > width + 1 || place.left < -1) found.push(`${box.tagName} ${box.textContent.trim().slice(0, 40)}`);
}
for (const plot of document.querySelectorAll(".plot")) {
  const outer = plot.getBoundingClientRect();
  for (const text of plot.querySelectorAll("svg text")) {
    const place = text.getBoundingClientRect();
    const outside = place.right > outer.right + 1 || place.left < outer.left - 1 || place.bottom > outer.bottom + 1;
    if (place.width && outside)
      found.push(`${plot.id}: ${text.textContent} leaves its drawing`);
  }
}
return found;
"""


def made_facts() -> ReportFacts:
    """A crowded run: four models, ten classes, five swept settings, all statuses of trials, long names."""
    rng = np.random.default_rng(0)
    labels = np.arange(360) % 10

    def result(name: str, share_right: float, size_bytes: int) -> ModelResult:
        predicted = np.where(rng.random(360) < share_right, labels, rng.integers(10, size=360))
        logits = rng.normal(size=(360, 10)) + 4.5 * np.eye(10)[predicted]
        latency = tuple(rng.gamma(4, 0.1, size=200).tolist())
        return ModelResult(name, 64 * "a", logits.astype(np.float32), size_bytes // 4, size_bytes, latency)

    models = {
        "teacher": result("teacher", 0.99, 1_840_000),
        "baseline": result("baseline", 0.93, 48_000),
        "student": result("student", 0.965, 48_000),
        "champion": result("champion", 0.95, 61_000),
    }
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    ids = [f"{row:016x}" for row in range(360)]
    evaluation = Evaluation(ids, labels, names, 64 * "d", 1, 32, "x86-64, 2 cores, torch 2.13", models)
    gates = ["accuracy >= 0.90", "accuracy >= teacher - 0.05", "accuracy >= champion", "log_loss <= 1.2 * baseline",
             "latency_ms_p95 <= 2", "size_bytes <= 0.1 * teacher"]  # fmt: skip
    trials = [made_trial(rng, member) for member in range(32)]
    chosen = max((t for t in trials if t["status"] == "finished"), key=lambda t: t["metrics"]["val_accuracy"])
    steps = ("prepare", "teacher", "cache", "baseline", "sweep", "compress", "evaluate", "gate", "register", "promote")
    return ReportFacts(
        title="handwritten-digits-recognition-on-small-devices",
        run_id="2026-01-31T12-00-00-digits-4f1c",
        created_at="2026-01-31 12:00 UTC",
        verdict=judge([parse_gate(gate) for gate in gates], evaluation, 200),
        evaluation=evaluation,
        warnings=["objective.hint never reached 1% of the gradient (0.2% at most): its weight does nothing"],
        sweep_trials=trials,
        baseline_trials=[made_trial(rng, member, lower=0.03) for member in range(16)],
        curves={name: made_curve(top) for name, top in (("teacher", 0.99), ("baseline", 0.93), ("student", 0.96))},
        term_shares=[
            {"epoch": epoch, "term": term, "share": share}
            for epoch in range(1, 21)
            for term, share in (("task", 0.4 - epoch / 100), ("soft_targets", 0.598 + epoch / 100), ("hint", 0.002))
        ],
        lineage=[made_step(step) for step in steps],
        winner_settings=chosen["settings"],
        spec_text=f"name: digits\nobjective: {{soft_targets: {{temperature: [1, 8]}}}}  # {120 * 'x'}",
    )


def made_trial(rng: np.random.Generator, member: int, lower: float = 0.0) -> dict[str, Any]:
    width = int(rng.choice([8, 16, 32, 64, 128]))
    settings = {
        "objective.soft_targets.temperature": float(rng.uniform(1, 8)),
        "objective.soft_targets.weight": float(rng.uniform(0.1, 1)),
        "train.learning_rate": float(10 ** rng.uniform(-4, -2)),
        "student.arguments.width": width,
        "train.optimizer": str(rng.choice(["adamw", "sgd"])),
    }
    accuracy = 0.90 + 0.01 * np.log2(width) - lower + rng.normal(scale=0.01)
    status = ("finished", "finished", "stopped", "finished", "failed")[member % 5]
    metrics = {} if status == "failed" else {"val_accuracy": float(min(accuracy, 1)), "val_loss": 0.2}
    size = {"num_parameters": 900 * width, "size_bytes": 3_600 * width}
    spent = {"seconds": 3.2, "epochs": 20}
    return {"member": member, "status": status, "settings": settings, "metrics": metrics, **size, **spent}


def made_step(step: str) -> dict[str, Any]:
    uri = f"s3://bucket/artifacts/{step}/{64 * 'b'}"
    return {"step": step, "key": 64 * "b", "digest": 64 * "c", "uri": uri, "seconds": 12.3, "status": "ran"}


def made_curve(top: float) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 2.2 / epoch, "val_accuracy": top - 0.5 / epoch}
        for epoch in range(1, 21)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(made_facts()), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_report_is_drawn_without_a_word_on_the_console(browser: Any, page: Path, width: int, scheme: str) -> None:
    browser.show(page, width, scheme)
    counts = browser.run("return [...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('svg').length)")
    assert len(counts) == 12
    assert all(counts), "a drawing is empty"
    assert browser.console() == []


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_nothing_overlaps_and_nothing_leaves_the_page(browser: Any, page: Path, width: int, scheme: str) -> None:
    browser.show(page, width, scheme)
    assert browser.run("return document.documentElement.clientWidth") == width
    assert browser.run(FIND_OVERLAPS) == []
    assert browser.run(FIND_OVERFLOWS) == []


def test_the_checks_find_an_overlap_an_overflow_and_a_console_error(browser: Any, page: Path) -> None:
    browser.show(page, 390, "light")
    browser.run("document.querySelectorAll('section')[2].style.marginTop = '-60px'")
    browser.run("document.querySelector('main h2').style.width = '600px'; console.error('something broke')")
    assert any("How good it is" in found for found in browser.run(FIND_OVERLAPS))
    assert any("Verdict" in found for found in browser.run(FIND_OVERFLOWS))
    assert any("something broke" in message for message in browser.console())


def test_colours_follow_the_scheme_in_page_and_drawings(browser: Any, page: Path) -> None:
    script = """
    const ink = document.querySelector('#sweep .xtitle').style.fill;
    return [getComputedStyle(document.body).backgroundColor, ink];
    """
    browser.show(page, 1280, "light")
    light = browser.run(script)
    browser.show(page, 1280, "dark")
    dark = browser.run(script)
    assert light == ["rgb(247, 247, 245)", "rgb(29, 31, 35)"]
    assert dark == ["rgb(21, 23, 26)", "rgb(232, 233, 235)"]
