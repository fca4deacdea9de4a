"""Sweeps on real Ray: what ended is never run again, what failed is said, the best wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import Encoding
from distill_platform.errors import NotFound, Stopped, SweepFailed
from distill_platform.models import load_student_folder
from distill_platform.storage import LocalStorage
from distill_platform.sweep import Slots, SweepPlan, parse_space, read_curves, read_trials, run_sweep
from distill_platform.sweep.ledger import Ledger
from distill_platform.teacher import fill_cache
from distill_platform.train.teaching import Teaching
from tests.factory import VIEWS, make_data, make_teacher, settings

SPACE = {
    "train.lr": {"loguniform": [1e-3, 1e-1]},
    "student.hidden": {"choice": [[8], [16]]},
    "objective.soft_targets.temperature": {"uniform": [1, 8]},
}


TWO_SLOTS = Slots(2)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    return LocalStorage(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def data(workspace: LocalStorage) -> Artifact:
    return make_data(workspace)


@pytest.fixture(scope="module")
def cache(workspace: LocalStorage, data: Artifact, ray_session: None) -> Artifact:
    teacher = make_teacher(workspace, data)
    return produce(
        workspace,
        "cache",
        1,
        {},
        {"data": data, "teacher": teacher},
        lambda draft: fill_cache(draft, teacher, data, VIEWS, Encoding("dense", 3), num_workers=2),
    )[0]


def plan(space: Mapping[str, Any] = SPACE, trials: int = 6, **changed: Any) -> SweepPlan:
    base = {
        "student": {"name": "mlp", "hidden": [8]},
        "objective": {"task": {"weight": 0.3}, "soft_targets": {"weight": 0.7, "temperature": 4.0}},
        "train": asdict(settings(epochs=6)),
    }
    given = {
        "name": "sweep",
        "trials": trials,
        "in_flight": 2,
        "search": "tpe",
        "scheduler": "asha",
        "grace_epochs": 2,
        "reduction": 3,
        "metric": "val_accuracy",
        "space": parse_space(space),
        "base": base,
        "seed": 0,
    }
    return SweepPlan(**{**given, **changed})


def sweep(
    workspace: LocalStorage,
    data: Artifact,
    cache: Artifact,
    planned: SweepPlan,
    name: str,
    prepare: Any = None,
    slots: Slots = TWO_SLOTS,
    **options: Any,
) -> Artifact:
    def body(draft: Draft) -> None:
        if prepare is not None:
            prepare(Ledger(draft.work))
        run_sweep(draft, planned, data, Teaching({"teacher": cache}), VIEWS, "classification", slots, **options)

    return produce(workspace, "sweep", 1, {"name": name}, {"data": data, "cache": cache}, body)[0]


def test_a_sweep_gives_its_best_member(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    done = sweep(workspace, data, cache, plan(), "plain")
    trials, winner = read_trials(done), done.read_json("winner.json")
    finished = [trial for trial in trials if trial["status"] == "finished"]
    assert len(trials) == 6
    assert winner["metrics"]["val_accuracy"] == max(trial["metrics"]["val_accuracy"] for trial in finished)
    assert winner["settings"] == trials[winner["member"]]["settings"]
    curves = read_curves(done, winner["member"])
    assert [row["epoch"] for row in curves] == list(range(6))
    assert set(curves[0]["terms"]) == {"task", "soft_targets"}
    student = load_student_folder(done.fetch_folder("model"))
    assert list(student.model.args["hidden"]) == winner["settings"]["student.hidden"]
    assert student.model.cache == cache.digest
    assert done.record["facts"]["trials"]["failed"] == 0
    assert workspace.list("work") == []


def untimed(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


def test_what_comes_out_does_not_depend_on_timing(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    one_by_one, at_once = (
        sweep(workspace, data, cache, plan(trials=8), name, slots=slots)
        for name, slots in (("one by one", Slots(1)), ("at once", Slots(2)))
    )
    assert untimed(read_trials(one_by_one)) == untimed(read_trials(at_once))
    assert one_by_one.digest == at_once.digest
    assert {trial["status"] for trial in read_trials(at_once)} == {"finished", "stopped"}


def test_kl_to_the_teacher_can_rank(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    done = sweep(workspace, data, cache, plan(metric="kl_to_teacher", scheduler="none", trials=3), "kl")
    trials, winner = read_trials(done), done.read_json("winner.json")
    assert winner["metrics"]["kl_to_teacher"] == min(trial["metrics"]["kl_to_teacher"] for trial in trials)


def test_members_that_ended_are_never_run_again(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    """What a killed driver left: two members over, one under way."""
    over = {
        "status": "stopped", "score": 0.1, "metrics": {}, "reports": [], "epochs": 2, "seconds": 0.5,
        "num_parameters": None, "size_bytes": None, "files": {}, "reason": "before the kill",
    }  # fmt: skip

    def left_behind(ledger: Ledger) -> None:
        for number in range(3):
            settings = {"train.lr": 0.01, "student.hidden": [8], "objective.soft_targets.temperature": 1.0 + number}
            ledger.add_member(number, settings)
        for number in range(2):
            ledger.end(number, over)

    trials = read_trials(sweep(workspace, data, cache, plan(trials=5), "resumed", left_behind))
    assert [trial["reason"] for trial in trials[:2]] == ["before the kill"] * 2
    assert trials[2]["settings"]["objective.soft_targets.temperature"] == 3.0
    assert len(trials) == 5


def test_a_diverging_member_fails_alone_and_never_wins(
    workspace: LocalStorage, data: Artifact, cache: Artifact
) -> None:
    space = {"train.lr": {"choice": [1e-2, 1e35]}}
    planned = plan(space, trials=4, scheduler="none", search="random", seed=3)
    planned.base["train"].update(optimizer="sgd", clip_norm=None)
    done = sweep(workspace, data, cache, planned, "diverging")
    failed = [trial for trial in read_trials(done) if trial["status"] == "failed"]
    assert failed
    assert all("wanted a finite number. Lower train.lr" in trial["reason"] for trial in failed)
    assert done.read_json("winner.json")["settings"]["train.lr"] == 1e-2


def test_a_sweep_without_a_finished_member_says_why(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    space = {"student.depth": {"choice": [9, 10]}}
    planned = plan(space, trials=2)
    planned.base["student"].update(name="resnet")
    with pytest.raises(SweepFailed, match=r"none of 2 trials finished:\n  trial 0: model 'resnet' has no argument"):
        sweep(workspace, data, cache, planned, "impossible")


def test_a_stopped_sweep_goes_on_where_it_was(workspace: LocalStorage, data: Artifact, cache: Artifact) -> None:
    with pytest.raises(Stopped, match=r"stopped with \d of 6 trials done; run again to continue"):
        sweep(workspace, data, cache, plan(), "stopped", should_stop=lambda: True)
    assert len(read_trials(sweep(workspace, data, cache, plan(), "stopped"))) == 6


def test_a_cache_that_cannot_be_read_stops_the_sweep_and_is_no_members_failure(
    data: Artifact, cache: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = LocalStorage(tmp_path / "workspace").child(f"artifacts/cache/{cache.key}")
    for name in cache.storage.list():
        if not name.startswith("shards/val"):
            broken.write(name, cache.storage.read(name))
    missing = Artifact(broken, cache.step, cache.key, cache.digest, cache.record)
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path / "scratch"))
    draft = Draft(LocalStorage(tmp_path / "a"), LocalStorage(tmp_path / "work"), tmp_path / "folder")
    with pytest.raises(NotFound, match="shards/val"):
        run_sweep(draft, plan(), data, Teaching({"teacher": missing}), VIEWS, "classification", TWO_SLOTS)
    assert not draft.work.list(), "no member was entered"
