"""Transfer sets without labels: students learn from the teacher alone, and unlabelled rows reach no task loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform import load_spec, steps
from distill_platform.artifact import Artifact
from distill_platform.data.loader import Batch
from distill_platform.fits import check_fits, views_of
from distill_platform.spec import Spec, resolve, this_machine
from distill_platform.sweep.trial import MemberTrainable, TrialJob
from distill_platform.teacher import fill
from distill_platform.train.teaching import Teaching
from distill_platform.workspace import Workspace
from tests.data.small_files import write_csv

SPEC = """
name: rows
data: {{source: {folder}/rows.csv, label: kind, id: name, transfer: {folder}/more.csv, subgroup: side}}
teacher:
  model: {{name: mlp, hidden: [16]}}
  train: {{epochs: 10, lr: 0.03, batch_size: 32}}
student: {{name: mlp, hidden: [8]}}
objective: {{soft_targets: {{weight: 1.0, temperature: 2.0}}}}
train: {{epochs: 8, lr: 0.03, batch_size: 64, clip_norm: null}}
gates: {{min_examples: 10, checks: [accuracy >= 0.01]}}
"""


def rows(num: int, seed: int, labelled: bool) -> dict[str, Any]:
    """Two features whose sum says the class."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=num), rng.normal(size=num)
    columns: dict[str, Any] = {"name": [f"{seed}-{row}" for row in range(num)], "x": x, "y": y}
    if labelled:
        columns["kind"] = np.where(x + y > 0, "up", "down").tolist()
    columns["side"] = np.where(x > y, "left", "right").tolist()
    return columns


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the one worker: nothing here depends on Ray."""

    def over_this_process(make: Callable[[], Any], items: list[Any], *_: Any, **__: Any) -> Iterator[Any]:
        call = make()
        return (call(item) for item in items)

    monkeypatch.setattr(fill, "over_workers", over_this_process)
    monkeypatch.setattr(steps, "_connect", lambda workspace: None)


def member_of(folder: Path, *overrides: str) -> MemberTrainable:
    """The first member of the sweep of a spec over 150 labelled rows and 200 without, set up and not yet trained."""
    write_csv(folder / "rows.csv", rows(150, 1, labelled=True))
    write_csv(folder / "more.csv", rows(200, 2, labelled=False))
    spec: Spec = resolve(load_spec(SPEC.format(folder=folder), overrides), this_machine())
    workspace = Workspace.at(str(folder / "runs"))
    data: Artifact = steps.prepare(spec, workspace)
    check_fits(spec, data)
    cache = steps.cache(spec, data, steps.teacher(spec, data, workspace), workspace)
    base, work = steps._sweep_base(spec), workspace.storage.child("work/sweep")
    job = TrialJob(data, Teaching({"teacher": cache}), base, views_of(spec), spec.task, spec.sweep.metric, (), work, 1)
    member = MemberTrainable.__new__(MemberTrainable)
    member.setup({"number": 0, "settings": {}}, job)
    return member


def test_a_student_without_a_task_term_learns_from_labelled_and_unlabelled_rows_alike(
    alone: None, tmp_path: Path
) -> None:
    member = member_of(tmp_path)
    labels = member.trainer.loader.examples.labels
    assert int((labels == -1).sum()) == 200
    assert member.step()["done"]
    ended = member.job.ledger.result(0)
    assert ended is not None
    assert ended["status"] == "finished"
    assert [set(report["terms"]) for report in ended["reports"]] == [{"soft_targets"}] * 8
    assert ended["metrics"]["val_accuracy"] > 0.85


@pytest.mark.parametrize("override", ["train.worst_group=null", "train.worst_group={step_size: 0.5}"])
def test_unlabelled_rows_enter_the_task_loss_of_no_batch(alone: None, tmp_path: Path, override: str) -> None:
    terms = "objective={task: {weight: 0.3}, soft_targets: {weight: 0.7, temperature: 1.0}}"
    member = member_of(tmp_path, terms, override, "train.epochs=1")
    trainer, expected = member.trainer, dict.fromkeys(("task", "soft_targets"), 0.0)
    original, q = trainer._train_step, torch.full((2,), 0.5)

    def step_and_recount(batch: Batch) -> None:
        nonlocal q
        with torch.no_grad():
            log_p = trainer.network(batch.inputs)["logits"].values.double().log_softmax(-1)
        taught = trainer.teachers["train"](batch.index, batch.view, batch.inputs).target.logits.double()
        divergence = (taught.softmax(-1) * (taught.log_softmax(-1) - log_p)).sum(-1)
        labelled = batch.labels >= 0
        entropy = -log_p[torch.arange(len(log_p)), batch.labels.clamp(min=0)]
        weight = torch.ones(len(log_p), dtype=torch.float64)
        if "step_size" in override:
            groups = [labelled & (batch.subgroups == group) for group in (0, 1)]
            q = q * torch.stack([(0.5 * entropy[group].mean()).exp() for group in groups])
            q = q / q.sum()
            for number, group in enumerate(groups):
                weight[batch.subgroups == number] = q[number] * labelled.sum() / group.sum()
        expected["task"] += 0.3 * float((weight * entropy)[labelled].sum() / labelled.sum())
        expected["soft_targets"] += 0.7 * float((weight * divergence).mean())
        original(batch)

    trainer._train_step = step_and_recount
    report = trainer.run_epoch()
    found = {name: value * trainer.loader.num_batches for name, value in report["terms"].items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_sweep_may_try_training_for_the_worst_subgroup(alone: None, tmp_path: Path) -> None:
    space = "sweep={trials: 2, metric: val_worst_group_accuracy, space: {train.worst_group: {choice: [null, {}]}}}"
    member = member_of(tmp_path, space, "objective={task: {weight: 1.0}}", "train.epochs=2", "sweep.grace_epochs=1")
    for number, chosen in enumerate((None, {}), 1):
        member.reset_config({"number": number, "settings": {"train.worst_group": chosen}})
        assert member.step()["done"]
        ended = member.job.ledger.result(number)
        assert ended is not None
        assert ended["metrics"]["val_worst_group_accuracy"] == ended["score"]
        assert ("subgroup_weights" in ended["reports"][0]) == (chosen is not None)
