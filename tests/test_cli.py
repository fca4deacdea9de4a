"""The `distill` command: what it prints where, and the exit codes it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distill_platform.cli.app import build_app
from distill_platform.runs import Run
from distill_platform.spec import load_spec
from distill_platform.storage import open_storage

DISTILL = [sys.executable, "-c", "from distill_platform.cli import main; main()"]
HEAVY = ("torch", "ray", "mlflow", "pandas", "numpy", "pyarrow", "sklearn", "pydantic")

SPEC = """\
name: wine
data: {source: sklearn:wine}
teacher:
  model: {name: mlp, hidden: [32]}
  train: {epochs: 8, lr: 0.01}
student: {name: mlp, hidden: [4]}
train: {epochs: 4, lr: 0.01}
sweep: {trials: 2, scheduler: none, search: random, space: {train.lr: {loguniform: [0.005, 0.05]}}}
evaluate: {latency_warmup: 1, latency_runs: 20}
gates: {min_examples: 10, checks: [accuracy >= 0.01]}
"""

Distill = Callable[..., Result]


@pytest.fixture
def distill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distill:
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    app = build_app()
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run under way in ./runs, with one step done and one that failed."""
    under_way = Run(open_storage(str(tmp_path / "runs")), "wine-20260101-000000-abcd", load_spec(SPEC).to_json())
    under_way.storage.create("prepare.json", json.dumps(_entry("prepare", "reused")).encode())
    under_way.storage.create("teacher.failed.json", json.dumps(_entry("teacher", "failed")).encode())
    under_way.storage.create("teacher.log", b"epoch 1\nepoch 2\n")
    return under_way


def _entry(step: str, status: str) -> dict[str, Any]:
    return {"step": step, "status": status, "seconds": 1.5, "uri": f"/runs/{step}", "key": "k", "digest": "d"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from distill_platform.cli import main\n"
        "try:\n    sys.argv = ['distill', '--help']; main()\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Run a spec" in done.stdout
    assert done.stderr.strip() == "[]"


def test_init_writes_a_spec_once(distill, tmp_path):
    first = distill("init", "mine.yaml")
    assert (first.exit_code, "wrote mine.yaml; next: distill plan mine.yaml" in first.stdout) == (0, True)
    assert load_spec(tmp_path / "mine.yaml").name == "digits"
    second = distill("init", "mine.yaml")
    assert (second.exit_code, second.stderr) == (2, "distill: mine.yaml exists; name another file\n")
    assert distill("init", "no/such/folder.yaml").stderr == "distill: no/such is no folder; make it first\n"


def test_a_wrong_spec_ends_with_2_and_one_message(distill, tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC + "seed: -1\n")
    done = distill("run", "spec.yaml", "--set", "train.lr=fast")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == (
        "distill:\n"
        "  spec.yaml:11  seed: got -1 (an integer), wanted an integer >= 0\n"
        '  --set  train.lr: got "fast" (a string), wanted a number > 0\n'
    )


def test_debug_shows_where_an_error_came_from(distill):
    assert "Traceback" not in distill("run", "no.yaml").stderr
    done = distill("run", "no.yaml", "--debug")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("distill: no.yaml: no such file; `distill init no.yaml` writes a spec to start from\n")


def test_schema_is_one_json_document(distill):
    assert json.loads(distill("schema").stdout)["properties"]["teacher"]["description"] == "The accurate, costly model."


def test_status_lists_runs_and_shows_one(distill, run):
    listed = distill("status")
    assert run.id in listed.stdout
    assert json.loads(distill("status", "--json").stdout)[0]["status"] == "running"
    shown = distill("status", run.id)
    assert f"{run.id}: running" in shown.stdout
    assert [line.split()[:3] for line in shown.stdout.splitlines() if "1.5" in line] == [
        ["prepare", "reused", "1.5"],
        ["teacher", "failed", "1.5"],
    ]
    document = json.loads(distill("status", run.id, "--json").stdout)
    assert (document["run"], document["steps"]["prepare"]["status"]) == (run.id, "reused")


def test_a_run_that_is_not_there(distill, run):
    done = distill("status", "other")
    assert done.exit_code == 2
    assert f"has no run other; newest: {run.id}" in done.stderr


def test_logs_of_the_newest_run(distill, run):
    assert distill("logs").stdout == "epoch 1\nepoch 2\n"
    assert distill("logs", run.id, "--step", "prepare").stdout == ""
    assert "no step is called 'taecher'" in distill("logs", "--step", "taecher").stderr


def test_stop_leaves_a_request_that_the_run_will_see(distill, run):
    assert json.loads(distill("stop", "--json").stdout) == {"run": run.id, "stop": "requested"}
    assert run.storage.exists("stop.json")


def test_a_run_under_way_is_not_retried(distill, run):
    done = distill("retry", "sweep")
    assert (done.exit_code, f"run {run.id} is still at work; `distill stop {run.id}` first" in done.stderr) == (2, True)


def test_a_report_that_is_not_there(distill, run):
    done = distill("report")
    assert done.exit_code == 1
    assert f"run {run.id} has no report: it is running, and the gate step writes it" in done.stderr


def test_a_report_is_copied(distill, run, tmp_path):
    run.storage.write("report.html", b"<html>")
    assert distill("report").stdout.strip() == f"{run.storage.uri}/report.html"
    assert distill("report", "--output", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").read_bytes() == b"<html>"


def test_a_sweep_that_has_not_run(distill, run):
    done = distill("sweep", "results")
    assert done.exit_code == 2
    assert f"run {run.id} (running) has no sweep yet; it has: prepare, teacher" in done.stderr


def test_the_workspace_may_come_from_the_environment(distill, run, monkeypatch):
    monkeypatch.setenv("DISTILL_WORKSPACE", "./elsewhere")
    assert run.id not in distill("status").stdout


def test_doctor_says_what_fails_and_what_to_do(distill):
    done = distill("doctor", "--workspace", "s3://", "--json")
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert found["storage"]["detail"] == "s3:// names no bucket; wanted s3://bucket/prefix"
    assert found["storage"]["advice"].startswith("correct --workspace")
    assert found["registry"]["status"] == "failed"
    assert (found["scratch"]["status"], found["ray"]["status"]) == ("ok", "ok")


def test_doctor_leaves_nothing_behind(distill, tmp_path):
    done = distill("doctor")
    assert done.exit_code == 0, done.stdout
    assert open_storage(str(tmp_path / "runs")).list() == []


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """The environment in which another package brings `distill greet`."""
    info = tmp_path / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[distill_platform.cli]\ngreet = greeter:app\n")
    (tmp_path / "greeter.py").write_text(
        "import sys, typer\n"
        "print('greeter is loaded', file=sys.stderr)\n"
        "app = typer.Typer()\n"
        "@app.callback()\n"
        "def main(): pass\n"
        "@app.command()\n"
        "def hello(name: str, twice: bool = False):\n"
        "    print('hello ' * (1 + twice) + name)\n"
        "    raise typer.Exit(7)\n"
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_a_plugin_is_listed_without_being_loaded_and_runs_with_its_own_options(plugin):
    shown = subprocess.run([*DISTILL, "--help"], env=plugin, capture_output=True, text=True, check=True)
    assert "Commands of greeter" in shown.stdout
    assert "greeter is loaded" not in shown.stderr
    done = subprocess.run([*DISTILL, "greet", "hello", "you", "--twice"], env=plugin, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "hello hello you\n")
    usage = subprocess.run([*DISTILL, "greet", "hello", "--help"], env=plugin, capture_output=True, text=True)
    assert "--twice" in usage.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, session_scratch: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with a workspace in which SPEC was run by the command, and the document that it printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "spec.yaml").write_text(SPEC)
    done = _distill_in(folder, session_scratch, "run", "spec.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def _distill_in(folder: Path, scratch: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DISTILL_SCRATCH": str(scratch), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run([*DISTILL, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_run_prints_one_json_document(finished):
    _, document = finished
    assert list(document["steps"]) == [
        "prepare",
        "teacher",
        "cache",
        "baseline",
        "sweep",
        "compress",
        "evaluate",
        "gate",
        "register",
        "promote",
    ]
    assert all({"status", "seconds", "uri", "key", "digest"} <= set(step) for step in document["steps"].values())
    assert set(document["metrics"]) == {"teacher", "baseline", "student"}
    assert document["verdict"]["passed"] is True
    assert (document["model"]["name"], document["model"]["version"]) == ("wine", 1)
    assert "champion" in document["model"]["aliases"]
    assert Path(document["report"]).is_file()


def test_what_a_run_made_is_found_by_the_other_commands(finished, distill, monkeypatch):
    folder, document = finished
    monkeypatch.chdir(folder)
    trials = json.loads(distill("sweep", "results", "--json").stdout)
    assert trials["digest"] == document["steps"]["sweep"]["digest"]
    assert [trial["member"] for trial in trials["trials"]] in ([0, 1], [1, 0])
    assert trials["trials"][0]["score"] >= trials["trials"][1]["score"]
    cache = json.loads(distill("cache", "inspect", "--json").stdout)
    assert cache["encoding"]["num_classes"] == 3
    rows = sum(split["num_examples"] for split in cache["splits"].values())
    assert json.loads(distill("cache", "verify", "--json").stdout)["rows"] == rows
    (listed,) = json.loads(distill("models", "list", "--json").stdout)
    assert (listed["model"], listed["number"], listed["aliases"]) == ("wine", 1, ["champion"])
    assert json.loads(distill("models", "show", "wine", "--json").stdout)["verdict"]["passed"] is True
    assert json.loads(distill("models", "history", "wine", "--json").stdout)[0]["action"] == "promote"
    assert json.loads(distill("models", "sync", "wine", "--json").stdout) == {"champion": 1}
    assert distill("models", "promote", "wine", "1").stdout == "wine: version 1 is champion\n"
    assert distill("models", "rollback", "wine", "--reason", "slow").exit_code == 1
    assert "(running)" not in distill("status", document["run"]).stdout


def test_a_changed_byte_in_the_cache_is_found(finished, distill, monkeypatch):
    folder, document = finished
    monkeypatch.chdir(folder)
    shard = next(Path(document["steps"]["cache"]["uri"]).rglob("*.parquet"))
    intact = shard.read_bytes()
    shard.write_bytes(intact[:50] + bytes([intact[50] ^ 1]) + intact[51:])
    done = distill("cache", "verify")
    shard.write_bytes(intact)
    assert (done.exit_code, shard.name in done.stderr) == (1, True)


def test_what_a_run_refers_to_is_no_garbage(finished, session_scratch, distill, monkeypatch):
    folder, document = finished
    monkeypatch.chdir(folder)
    collected = json.loads(distill("cache", "gc", "--delete", "--grace-hours", "0", "--json").stdout)
    assert (collected["deleted"], collected["garbage"]) == (True, [])
    again = _distill_in(folder, session_scratch, "run", "spec.yaml", "--json")
    steps = json.loads(again.stdout)["steps"]
    assert {steps[step]["status"] for step in list(steps)[:8]} == {"reused"}
    assert steps["cache"]["digest"] == document["steps"]["cache"]["digest"]


def test_plan_says_what_is_there(finished, distill, monkeypatch):
    folder, document = finished
    monkeypatch.chdir(folder)
    planned = json.loads(distill("plan", "spec.yaml", "--json").stdout)
    assert {row["step"]: row["status"] for row in planned["steps"]}["sweep"] == "ready"
    assert planned["cache"]["bytes"] > 0
    assert planned["trials"]["sweep"] == 2
    changed = distill("plan", "spec.yaml", "--set", "train.epochs=5").stdout
    assert "to run" in changed
    assert "2 with the teacher and 2 without, of 5 epochs at most" in changed
    done = distill("retry", "sweep", "--run", document["run"])
    assert f"step sweep of run {document['run']} is done; there is nothing to retry" in done.stderr


def test_a_gate_that_is_not_reached_ends_with_3_and_promotes_nothing(finished, session_scratch):
    folder, _ = finished
    done = _distill_in(folder, session_scratch, "run", "spec.yaml", "--set", "gates.checks=[num_parameters <= 3]")
    assert done.returncode == 3, done.stderr
    assert "FAIL  num_parameters <= 3\n" in done.stdout
    assert "verdict: FAILED: nothing is registered or promoted" in done.stdout
    assert "step sweep: reused" in done.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_in_order_and_ends_with_130(finished, session_scratch, by):
    folder, _ = finished
    environment = {**os.environ, "DISTILL_SCRATCH": str(session_scratch), "OMP_NUM_THREADS": "1"}
    command = [*DISTILL, "run", "spec.yaml", "--workspace", f"./cut-{by}", "--set", "teacher.train.epochs=100000"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    log = ""
    try:
        assert process.stderr is not None
        while "step teacher: start" not in log:
            line = process.stderr.readline()
            assert line, log
            log += line
        time.sleep(1)
        process.send_signal(by)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, log + rest
    assert "distill: interrupted; the same command continues where this one was" in rest
    assert "Traceback" not in rest
    (end,) = (folder / f"cut-{by}").glob("runs/*/end.json")
    assert json.loads(end.read_text())["status"] == "stopped"
