"""What the report shows, gathered from the artifacts that a verdict descends from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from distill_platform.artifact import Artifact
from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.gate import Verdict
from distill_platform.evaluate.report import ReportFacts, render_report
from distill_platform.spec.schema import Spec
from distill_platform.sweep import read_curves, read_trials

LEAST_SHARE = 0.01


def report_page(spec: Spec, verdict: Verdict, evaluation: Evaluation, lineage: Mapping[str, Artifact]) -> str:
    """The report as one HTML document. `lineage`: step name -> artifact, `evaluate` among them."""
    judged = _inputs(lineage["evaluate"], lineage)
    baseline, sweep = judged["baseline"], _inputs(judged["student"], lineage)["student"]
    winner = sweep.read_json("winner.json")
    curves = {
        "teacher": judged["teacher"].read_json("curves.json") if "teacher" in judged else [],
        "baseline": read_curves(baseline, baseline.read_json("winner.json")["member"]),
        "student": read_curves(sweep, winner["member"]),
    }
    shares = [
        {"epoch": report["epoch"], "term": term, "share": share}
        for report in curves["student"]
        for term, share in (report["shares"] or {}).items()
    ]
    return render_report(
        ReportFacts(
            title=spec.name,
            run_id=lineage["evaluate"].key[:12],
            created_at=lineage["evaluate"].record["committed_at"],
            verdict=verdict,
            evaluation=evaluation,
            warnings=[*_silent_terms(shares), *_failed_trials(sweep)],
            sweep_trials=read_trials(sweep),
            baseline_trials=read_trials(baseline),
            curves={name: found for name, found in curves.items() if found},
            term_shares=shares,
            lineage=[_lineage_row(artifact) for artifact in lineage.values()],
            winner_settings=winner["settings"],
            spec_text=yaml.safe_dump(spec.to_json(), sort_keys=False),
        )
    )


def _inputs(artifact: Artifact, lineage: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """What an artifact was made from, by the name that it had there."""
    by_key = {found.key: found for found in lineage.values()}
    inputs = artifact.record["inputs"].items()
    return {name: by_key[given["key"]] for name, given in inputs if isinstance(given, dict)}


def _silent_terms(shares: list[dict[str, Any]]) -> list[str]:
    """A warning for each term of the objective that never reached a hundredth of the gradient."""
    largest: dict[str, float] = {}
    for row in shares:
        largest[row["term"]] = max(largest.get(row["term"], 0.0), row["share"])
    return [
        f"The loss term {term!r} never reached {LEAST_SHARE:.0%} of the gradient (at most {share:.2%}): its weight "
        f"does next to nothing. Raise objective.{term}.weight, or take the term out."
        for term, share in largest.items()
        if share < LEAST_SHARE
    ]


def _failed_trials(sweep: Artifact) -> list[str]:
    failed = sweep.record["facts"]["trials"]["failed"]
    return [f"{failed} trials of the sweep failed; `distill sweep results` says why."] if failed else []


def _lineage_row(artifact: Artifact) -> dict[str, Any]:
    return {
        "step": artifact.step,
        "key": artifact.key,
        "digest": artifact.digest,
        "uri": artifact.uri,
        "seconds": artifact.record["seconds"],
        "status": "committed",
    }
