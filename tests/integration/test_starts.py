"""Students that start from a teacher or from given weights, learn in parts, and ship calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill_platform import load_spec, plan, run, steps
from distill_platform.artifact import Artifact, open_artifact
from distill_platform.errors import InputError, ModelError
from distill_platform.fits import check_fits, views_of
from distill_platform.models import load_network, save_model
from distill_platform.spec import Spec, resolve, this_machine
from distill_platform.starts import start_inputs, start_of
from distill_platform.sweep.trial import MemberTrainable, TrialJob
from distill_platform.train.teaching import Teaching
from distill_platform.workspace import Workspace

SPEC = """
name: digits
data:
  source: sklearn:digits
teacher:
  model: {name: vit, patch: 4, width: 16, heads: 2, depth: 4}
  train: {epochs: 1, batch_size: 256}
student: {name: vit, patch: 4, width: 16, heads: 2, depth: 2}
start: {from: teacher, layers: [0, 3]}
train:
  epochs: 1
  batch_size: 256
  parts: {"patches": {lr_factor: 0}, "blocks.*": {lr_factor: 0.5}}
compress: {calibrate: true}
gates:
  min_examples: 30
  checks: [accuracy >= 0.01]
"""


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "digits.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> tuple[Workspace, Artifact, Artifact]:
    """A workspace with data and a teacher."""
    spec = resolve(load_spec(spec_path), this_machine())
    workspace = Workspace.at(str(tmp_path_factory.mktemp("workspace")))
    data = steps.prepare(spec, workspace)
    return workspace, data, steps.teacher(spec, data, workspace)


def read(path: Path, *overrides: str) -> Spec:
    return resolve(load_spec(path, overrides), this_machine())


def member_of(spec: Spec, made: tuple[Workspace, Artifact, Artifact], work: str, **settings: Any) -> MemberTrainable:
    """A member of the baseline, set up and not yet trained."""
    workspace, data, teacher = made
    base = {**steps._sweep_base(spec), "objective": {"task": {"weight": 1.0}}}
    place = workspace.storage.child(f"work/{work}")
    start = start_of(spec, start_inputs(spec, teacher), place)
    job = TrialJob(data, Teaching(), base, views_of(spec), spec.task, "val_accuracy", (), place, 1, start)
    member = MemberTrainable.__new__(MemberTrainable)
    member.setup({"number": 0, "settings": settings}, job)
    return member


def test_members_start_from_the_teacher_and_one_that_cannot_fails_alone(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path
) -> None:
    member = member_of(read(spec_path), made, "layers")
    taught = load_network(made[2].fetch_folder("model"))[1].state_dict()
    begun = {name: value.clone() for name, value in member.trainer.network.state_dict().items()}
    assert torch.equal(begun["body.blocks.1.mlp.0.weight"], taught["body.blocks.3.mlp.0.weight"])
    assert torch.equal(begun["body.head.weight"], taught["body.head.weight"])
    assert member.step()["done"]
    ended = member.trainer.network.state_dict()
    frozen = {name for name, value in ended.items() if torch.equal(value, begun[name])}
    assert frozen == {"body.patches.weight", "body.patches.bias"}

    member.reset_config({"number": 1, "settings": {"student.width": 8, "student.heads": 1}})
    assert member.ended is None
    assert member.trainer.network.state_dict()["body.head.weight"].shape == (10, 8)
    member.reset_config({"number": 2, "settings": {"student.depth": 3}})
    failed = member.job.ledger.result(2)
    assert failed is not None
    assert (failed["status"], failed["reason"][:36]) == ("failed", "blocks: got layers [0, 3], wanted 3 ")


def test_activations_of_training_examples_may_say_which_channels_are_kept(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path
) -> None:
    narrow = ["student.width=8", "student.heads=1", "start.importance=activations"]
    by_values = member_of(read(spec_path, *narrow), made, "activations").trainer.network.state_dict()
    by_weights = member_of(read(spec_path, *narrow[:2]), made, "weights").trainer.network.state_dict()
    assert by_values.keys() == by_weights.keys()
    assert any(not torch.equal(value, by_weights[name]) for name, value in by_values.items())


def test_members_start_from_given_weights_which_are_part_of_the_key(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    model, network = load_network(made[2].fetch_folder("model"))
    save_model(given, model, network)
    from_weights = f"start={{from: weights, uri: {given}}}"
    spec = read(spec_path, from_weights, "student.depth=4")
    check_fits(spec, made[1])
    member = member_of(spec, made, "given")
    begun = member.trainer.network.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in network.state_dict().items())
    keys = start_inputs(spec, None)
    assert keys == start_inputs(spec, made[2])
    with torch.no_grad():
        network.body.head.bias += 1
    save_model(given, model, network)
    assert start_inputs(spec, None) != keys
    with pytest.raises(ModelError, match=r"start.uri: .*given was changed after this run began; run it again"):
        start_of(spec, keys, made[0].storage.child("work/late"))
    with pytest.raises(ModelError, match="start, from weights: the given weights do not fit the student"):
        check_fits(read(spec_path, from_weights), made[1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("start={from: weights, uri: /nowhere}", "start.uri: /nowhere holds no model.json"),
        ("start.layers=[0, 4]", r"start, from teacher: blocks: got layers \[0, 4\], wanted 2 of 0 to 3, rising"),
        (
            "student={name: mlp, hidden: [8]}",
            "start, from teacher: the student is a .*, its teacher a Vis",
        ),
        ("train.parts={blcks: {lr_factor: 0}}", "train.parts: no layer of the student is called 'blcks'; did you mean"),
        ("teacher.train.parts={heed: {lr_factor: 0}}", "teacher.train.parts: no layer .* 'heed'; did you mean 'head'"),
        ("train.parts={'*': {lr_factor: 0}}", "train.parts freezes every weight"),
        ("compress.class_bias={a: 0.5, b: 0.5}", "compress.class_bias has shares of a, b; wanted one for each class"),
    ],
)
def test_what_the_student_cannot_do_is_refused_before_the_teacher_is_trained(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_fits(read(spec_path, override), made[1])


def test_a_start_from_the_teacher_is_part_of_the_keys_of_student_and_baseline(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path
) -> None:
    def keys(*overrides: str) -> dict[str, Any]:
        planned = plan(load_spec(spec_path, overrides), made[0].storage.uri)
        return {row["step"]: row["key"] or row["status"] for row in planned["steps"]}

    from_teacher, random = keys(), keys("start={from: random}")
    assert from_teacher["teacher"] == random["teacher"] == made[2].key
    baselines = {from_teacher["baseline"], random["baseline"], keys("start.layers=[0, 2]")["baseline"]}
    assert len({*baselines, keys("train.parts={}")["baseline"]}) == 4
    other = keys("teacher.train.epochs=2")
    assert other["baseline"] == "to run, after teacher"
    assert keys("teacher.train.epochs=2", "start={from: random}")["baseline"] == random["baseline"]


def test_the_shipped_student_is_calibrated_on_the_weights_that_ship(
    made: tuple[Workspace, Artifact, Artifact], spec_path: Path
) -> None:
    workspace, data, teacher = made
    spec = read(spec_path, "compress.weights=float16", "compress.class_bias=auto")
    shipped, plain = (steps.compress(each, data, teacher, workspace) for each in (spec, read(spec_path, "compress={}")))
    assert list(shipped.record["inputs"]) == ["data", "student"]
    assert list(plain.record["inputs"]) == ["student"]
    model, network = load_network(shipped.fetch_folder("model"))
    assert network.calibration == model.calibration
    assert model.calibration is not None
    assert shipped.record["facts"]["calibration"] == {
        "scale": model.calibration.scale,
        "bias": list(model.calibration.bias or ()),
    }
    assert load_network(plain.fetch_folder("model"))[0].calibration is None


@pytest.mark.slow
def test_a_run_ships_a_calibrated_student_that_started_from_its_teacher(
    ray_session: None, tmp_path: Path, spec_path: Path
) -> None:
    done = run(load_spec(spec_path), str(tmp_path))
    entry = done.steps["compress"]
    shipped = open_artifact(Workspace.at(str(tmp_path)).storage, "compress", entry["key"], entry["digest"])
    assert shipped is not None
    assert load_network(shipped.fetch_folder("model"))[0].calibration is not None
    for step in ("baseline", "sweep"):
        swept = open_artifact(Workspace.at(str(tmp_path)).storage, step, done.steps[step]["key"])
        assert swept is not None
        assert swept.record["inputs"]["start"]["digest"] == done.steps["teacher"]["digest"]
