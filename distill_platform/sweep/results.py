"""The winner of a sweep, and every trial and epoch as Parquet."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_platform.artifact import TIMINGS, Artifact, Draft
from distill_platform.errors import Corrupt
from distill_platform.fingerprint import sha256_bytes
from distill_platform.storage import Storage
from distill_platform.sweep.ledger import LedgerState, Result
from distill_platform.train.trainer import MEASURED

TRIALS_FILE, CURVES_FILE, WINNER_FILE, MODEL_FOLDER = "trials.parquet", "curves.parquet", "winner.json", "model"
SECONDS_FILE = f"{TIMINGS}trials.parquet"

_TRIAL_SCHEMA = pa.schema(
    {
        "member": pa.int64(),
        "status": pa.string(),
        "settings": pa.string(),
        "val_accuracy": pa.float64(),
        "val_loss": pa.float64(),
        "kl_to_teacher": pa.float64(),
        "val_worst_group_accuracy": pa.float64(),
        "score": pa.float64(),
        "epochs": pa.int64(),
        "num_parameters": pa.int64(),
        "size_bytes": pa.int64(),
        "reason": pa.string(),
    }
)
_CURVE_SCHEMA = pa.schema(
    {
        "member": pa.int64(),
        "epoch": pa.int64(),
        "train_loss": pa.float64(),
        "val_loss": pa.float64(),
        "val_accuracy": pa.float64(),
        "kl_to_teacher": pa.float64(),
        "terms": pa.string(),
        "shares": pa.string(),
        "val_worst_group_accuracy": pa.float64(),
        "subgroup_weights": pa.string(),
    }
)
_SECONDS_SCHEMA = pa.schema({"member": pa.int64(), "seconds": pa.float64()})


def winner(state: LedgerState) -> int:
    """The finished member with the best score; of equals the one with the lower validation loss, then the earlier."""
    finished = [number for number, result in state.results.items() if result["status"] == "finished"]
    return min(
        finished,
        key=lambda number: (-state.results[number]["score"], state.results[number]["metrics"]["val_loss"], number),
    )


def write_results(draft: Draft, metric: str, state: LedgerState, work: Storage) -> None:
    """Write winner.json, model/, trials.parquet, curves.parquet and timings/trials.parquet into the draft."""
    best = winner(state)
    result = state.results[best]
    for name, entry in result["files"].items():
        draft.write(f"{MODEL_FOLDER}/{name}", _read_file(work.child(f"models/{best:06d}"), entry))
    rows = [_trial_row(number, state.members[number], result) for number, result in sorted(state.results.items())]
    pq.write_table(pa.Table.from_pylist(rows, _TRIAL_SCHEMA), draft.path(TRIALS_FILE))
    seconds = [{"member": number, "seconds": result["seconds"]} for number, result in sorted(state.results.items())]
    pq.write_table(pa.Table.from_pylist(seconds, _SECONDS_SCHEMA), draft.path(SECONDS_FILE))
    curves = [
        _curve_row(number, report) for number, result in sorted(state.results.items()) for report in result["reports"]
    ]
    pq.write_table(pa.Table.from_pylist(curves, _CURVE_SCHEMA), draft.path(CURVES_FILE))
    draft.write_json(
        WINNER_FILE,
        {"member": best, "settings": state.members[best], "metric": metric, "metrics": result["metrics"]},
    )
    draft.metrics.update(result["metrics"])
    draft.facts["trials"] = {
        status: sum(result["status"] == status for result in state.results.values())
        for status in ("finished", "stopped", "failed")
    }


def read_trials(sweep: Artifact) -> list[dict[str, Any]]:
    """Every trial of a sweep artifact, as the columns of trials.parquet, metrics gathered in a dict."""
    rows = pq.read_table(sweep.fetch(TRIALS_FILE)).to_pylist()
    seconds = {row["member"]: row["seconds"] for row in pq.read_table(sweep.fetch(SECONDS_FILE)).to_pylist()}
    return [
        {
            **{name: value for name, value in row.items() if name not in MEASURED},
            "settings": json.loads(row["settings"]),
            "seconds": seconds[row["member"]],
            "metrics": {name: row[name] for name in MEASURED if row.get(name) is not None},
        }
        for row in rows
    ]


def read_curves(sweep: Artifact, member: int) -> list[dict[str, Any]]:
    """The epochs of one member, in order."""
    rows = pq.read_table(sweep.fetch(CURVES_FILE), filters=[("member", "=", member)]).to_pylist()
    return [
        {**row, **{name: json.loads(row[name]) for name in ("terms", "shares", "subgroup_weights") if name in row}}
        for row in sorted(rows, key=lambda row: row["epoch"])
    ]


def _trial_row(number: int, settings: dict[str, Any], result: Result) -> dict[str, Any]:
    plain = {name: result[name] for name in ("status", "score", "epochs", "num_parameters", "size_bytes", "reason")}
    return {"member": number, "settings": json.dumps(settings, sort_keys=True), **plain, **result["metrics"]}


def _curve_row(number: int, report: dict[str, Any]) -> dict[str, Any]:
    return {
        **report,
        "member": number,
        "terms": json.dumps(report["terms"]),
        "shares": json.dumps(report.get("shares")),
        "subgroup_weights": json.dumps(report.get("subgroup_weights")),
    }


def _read_file(folder: Storage, entry: dict[str, Any]) -> bytes:
    data = folder.read(entry["path"])
    if sha256_bytes(data) != entry["sha256"]:
        raise Corrupt(
            f"{folder.uri}/{entry['path']}: the winner's bytes changed after they were written; "
            "`distill retry STEP` drops the unfinished sweep and starts it over"
        )
    return data
