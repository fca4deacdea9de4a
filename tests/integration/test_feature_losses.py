"""Feature losses from the spec to the student: layers are kept, learned from, counted, and refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_platform import load_spec, plan, run, steps
from distill_platform.cache import open_manifest
from distill_platform.errors import ModelError
from distill_platform.fits import views_of
from distill_platform.spec import resolve, this_machine
from distill_platform.sweep.trial import MemberTrainable, TrialJob
from distill_platform.teacher import fill
from distill_platform.train.teaching import Teaching
from distill_platform.workspace import Workspace

SPEC = """
name: digits
data:
  source: sklearn:digits
  split: {by: hash, val: 0.15, test: 0.25}
  views: {num: 2, augment: [{name: shift, pixels: 1}]}
teacher:
  model: {name: cnn, channels: [8, 16]}
  train: {epochs: 2, batch_size: 128, lr: 0.02}
cache: {layers: {"2": pooled}}
student: {name: cnn, channels: [4, 8]}
objective:
  task: {weight: 0.5}
  soft_targets: {weight: 0.5, temperature: 4.0}
  hint: {weight: {from: 0.5, to: 0.1}, layers: {"5": "5"}}
  rkd: {weight: 0.1, layers: {"9": "9"}}
train: {epochs: 2, batch_size: 128, lr: 0.02}
gates:
  min_examples: 30
  checks: [accuracy >= 0.01]
"""


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "digits.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the one worker: nothing here depends on Ray."""

    def over_this_process(make: Callable[[], Any], items: list[Any], *_: Any, **__: Any) -> Iterator[Any]:
        call = make()
        return (call(item) for item in items)

    monkeypatch.setattr(fill, "over_workers", over_this_process)
    monkeypatch.setattr(steps, "_connect", lambda workspace: None)


def test_a_student_learns_from_layers_of_the_cache(alone: None, tmp_path: Path, spec_path: Path) -> None:
    spec, workspace = resolve(load_spec(spec_path), this_machine()), Workspace.at(str(tmp_path))
    data = steps.prepare(spec, workspace)
    cache = steps.cache(spec, data, steps.teacher(spec, data, workspace), workspace)
    manifest = open_manifest(cache)
    assert manifest.modes == {"2": "pooled", "5": "whole", "9": "pooled"}
    assert manifest.layers == {"2": (8,), "5": (16, 4, 4), "9": (16,)}
    layers = 2 * (8 + 16 * 4 * 4 + 16)
    planned = plan(spec, str(tmp_path))
    assert planned["cache"]["bytes"] == cache.record["facts"]["num_rows"] * (18 + 2 * 10 + layers)
    assert {row["step"]: row["status"] for row in planned["steps"]}["cache"] == "ready"

    base = steps._sweep_base(spec)
    work = workspace.storage.child("work/sweep")
    job = TrialJob(
        data, Teaching({"teacher": cache}), base, views_of(spec), spec.task, "kl_to_teacher", (), work, num_threads=1
    )
    member = MemberTrainable.__new__(MemberTrainable)
    member.setup({"number": 0, "settings": {"objective.rkd.angle": 3.0}}, job)
    assert member.step()["done"]
    ended = job.ledger.result(0)
    assert ended is not None
    assert ended["status"] == "finished"
    terms = [report["terms"] for report in ended["reports"]]
    assert set(terms[0]) == {"task", "soft_targets", "hint", "rkd"}
    assert terms[1]["hint"] < terms[0]["hint"]
    model, network = member.model, member.trainer.load_best()
    assert network.state_dict().keys() == model.build().state_dict().keys()
    member.reset_config({"number": 1, "settings": {"student.channels": [4]}})  # fails alone
    failed = job.ledger.result(1)
    assert failed is not None
    assert "objective: no layer of the student is called '9'" in failed["reason"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('objective.hint.layers={"5": "15"}', "objective: no layer of the student is called '15'; did you mean '5'"),
        ('objective.hint.layers={"55": "5"}', "objective: no layer of the teacher is called '55'; did you mean '5'"),
        ('objective.hint.layers={"5": "9"}', r"objective.hint.layers, 5: 9: cannot compare \[8\] with \[16, 4, 4\]"),
    ],
)
def test_layers_that_cannot_be_meant_are_refused_before_the_teacher_is_trained(
    tmp_path: Path, spec_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        run(load_spec(spec_path, overrides=[override]), str(tmp_path))
    assert not (tmp_path / "artifacts" / "teacher").exists()
