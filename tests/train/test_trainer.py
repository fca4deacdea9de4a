"""Training: resumed runs end bit-identical; what is not finite stops with its step and term."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill_platform.artifact import Artifact
from distill_platform.cache import DenseTarget
from distill_platform.data.examples import open_schema, open_split
from distill_platform.data.loader import Loader
from distill_platform.data.mixing import show
from distill_platform.data.views import Views, augment
from distill_platform.errors import CacheMismatch, Corrupt, TrainingDiverged
from distill_platform.models import Network, SavedModel, Standardize, load_network
from distill_platform.objective import Objective, TeacherAnswer
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, Trainer, fit
from distill_platform.train.optim import SCHEDULES, lr_factor
from tests.factory import VIEWS, make_data, make_teacher, settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")))


class Targets:
    """A teacher that answers the same for everything; a fault can be planted at a step."""

    def __init__(self, value: float = 1.0, digest: str = "a" * 64) -> None:
        self.value, self.digest = value, digest

    def __call__(self, index: torch.Tensor, view: torch.Tensor, inputs: torch.Tensor) -> TeacherAnswer:
        return TeacherAnswer(DenseTarget(torch.tensor([[self.value, 0.0, 0.0]]).repeat(len(index), 1)))


def trainer(data: Artifact, targets: Any = None, views: Views = VIEWS, **changed: Any) -> Trainer:
    schema, given = open_schema(data), settings(**changed)
    args = {"hidden": [16], "dropout": 0.3}
    model = SavedModel("mlp", args, schema.input, schema.class_names, Standardize.of(schema))
    terms = {"task": {"weight": 1.0}}
    if targets is not None:
        terms["soft_targets"] = {"weight": 1.0, "temperature": 2.0}
    return Trainer(
        model.build(given.seed),
        Objective.of(TASKS["classification"], terms),
        Loader(open_split(data, "train"), views, given.batch_size, given.seed),
        open_split(data, "val"),
        given,
        {"train": targets, "val": targets} if targets is not None else None,
    )


class Killed(Exception):
    pass


def untimed(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in report.items() if name != "seconds"} for report in reports]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("killed_after", [1, 7, 10, 16])
def test_resumed_and_uninterrupted_training_end_bit_identical(
    data: Artifact, tmp_path: Path, optimizer: str, killed_after: int
) -> None:
    whole = trainer(data, Targets(), optimizer=optimizer)
    fit(whole, Checkpoints(LocalStorage(tmp_path / "whole")))
    checkpoints = Checkpoints(LocalStorage(tmp_path / "killed"))
    killed = trainer(data, Targets(), optimizer=optimizer)
    original = killed._train_step

    def step_or_die(batch: Any) -> None:
        if killed.step == killed_after:
            raise Killed
        original(batch)

    killed._train_step = step_or_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fit(killed, checkpoints, checkpoint_every_s=0)
    resumed = trainer(data, Targets(), optimizer=optimizer)
    fit(resumed, checkpoints, checkpoint_every_s=0)
    assert resumed.step == whole.step
    assert untimed(resumed.reports) == untimed(whole.reports)
    for name, value in whole.load_best().state_dict().items():
        assert torch.equal(value, resumed.load_best().state_dict()[name]), name


def test_a_checkpoint_goes_on_with_its_own_cache_alone(data: Artifact) -> None:
    started = trainer(data, Targets())
    started.run_epoch()
    tensors, position = started.state()
    trainer(data, Targets()).load_state(tensors, position)
    with pytest.raises(
        CacheMismatch, match=r"after step 7 was trained on cache aaaaaaaaaaaa, this run has bbbbbbbbbbbb"
    ):
        trainer(data, Targets(digest="b" * 64)).load_state(tensors, position)
    with pytest.raises(CacheMismatch, match=r"was trained on cache aaaaaaaaaaaa, this run has none"):
        trainer(data).load_state(tensors, position)
    del position["cache"]  # as release 0.1 wrote it
    trainer(data, Targets(digest="b" * 64)).load_state(tensors, position)


def test_a_flipped_byte_in_a_checkpoint_is_refused(data: Artifact, tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStorage(tmp_path))
    checkpoints.save(*trainer(data).state())
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"the bytes changed after they were written.*distill retry STEP"):
        checkpoints.load()


def test_a_checkpoint_that_no_pointer_names_does_not_count(data: Artifact, tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStorage(tmp_path))
    (tmp_path / "checkpoint-000009.safetensors").write_bytes(b"half")
    assert checkpoints.load() is None


def test_nan_stops_with_the_step_and_the_term(data: Artifact) -> None:
    broken = trainer(data, Targets(float("nan")))
    with pytest.raises(TrainingDiverged, match=r"step 0 \(epoch 0\): the loss of the term 'soft_targets' is nan"):
        broken.run_epoch()


def test_divergence_stops_training(data: Artifact) -> None:
    with pytest.raises(TrainingDiverged, match=r"Lower train.lr \(now 1e\+30\)"):
        fit(trainer(data, optimizer="sgd", lr=1e30, clip_norm=None), Checkpoints(LocalStorage(Path("/nonexistent"))))


def test_early_stopping_keeps_the_best_epoch(data: Artifact, tmp_path: Path) -> None:
    given = trainer(data, epochs=40, patience_epochs=2, lr=0.05)
    reports = fit(given, Checkpoints(LocalStorage(tmp_path)))
    assert len(reports) < 40
    assert given.epoch - 1 - given.best_epoch == 2
    best = given.best_score
    given.load_best()
    assert given.validate()["val_accuracy"] == best


def test_training_learns(data: Artifact, tmp_path: Path) -> None:
    reports = fit(trainer(data, epochs=10), Checkpoints(LocalStorage(tmp_path)))
    assert reports[-1]["val_accuracy"] > 0.85
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]


def test_gradient_shares_are_reported_at_epochs_zero_one_two_four(data: Artifact, tmp_path: Path) -> None:
    reports = fit(trainer(data, Targets(), epochs=6), Checkpoints(LocalStorage(tmp_path)))
    assert [report["epoch"] for report in reports if "shares" in report] == [0, 1, 2, 4]
    assert sum(reports[0]["shares"].values()) == pytest.approx(1.0)


def test_kl_to_teacher_ranks_at_temperature_one(data: Artifact) -> None:
    metrics = trainer(data, Targets(5.0)).validate()
    assert metrics["kl_to_teacher"] > 0.1


MIXED = Views.of(3, 0, [{"name": "noise", "std": 0.05}, {"name": "mixup", "alpha": 1.0}])


@pytest.fixture(scope="module")
def mixed_teacher(data: Artifact) -> Network:
    """A teacher trained on mixed views and their labels."""
    teacher = make_teacher(LocalStorage(Path(data.uri).parents[2]), data, MIXED)
    assert teacher.record["metrics"]["val_accuracy"] > 0.7
    return load_network(teacher.fetch_folder("model"))[1]


class Answers:
    """What a teacher says of every (example, view), asked once, in the cache's order: example-major."""

    def __init__(self, teacher: Network, inputs: torch.Tensor, num_views: int) -> None:
        self.num_views = num_views
        with torch.inference_mode():
            self.logits = teacher(inputs)["logits"].values.clone()

    def __call__(self, index: torch.Tensor, view: torch.Tensor, inputs: torch.Tensor) -> TeacherAnswer:
        return TeacherAnswer(DenseTarget(self.logits[index * self.num_views + view]))


def still(data: Artifact, network: Network, term: str, train: Answers | None = None, epochs: int = 1) -> list[float]:
    """Each epoch's training loss by one term, in steps too small to change a weight."""
    given, validation = settings(epochs=epochs, lr=1e-12, weight_decay=0.0), open_split(data, "val")
    terms = {"task": {"weight": 1.0}, "soft_targets": {"weight": 1.0, "temperature": 2.0}}
    targets: Any = {"train": train, "val": Answers(network, validation.inputs, 1)} if train is not None else None
    loader = Loader(open_split(data, "train"), MIXED, given.batch_size, given.seed)
    objective = Objective.of(TASKS["classification"], {term: terms[term]})
    still = Trainer(network, objective, loader, validation, given, targets)
    return [still.run_epoch()["train_loss"] for _ in range(epochs)]


def test_a_student_meets_mixed_inputs_with_the_teachers_answer_to_the_very_same(
    data: Artifact, mixed_teacher: Network
) -> None:
    train = open_split(data, "train")
    index = torch.arange(len(train)).repeat_interleave(MIXED.num)
    view = torch.arange(MIXED.num).repeat(len(train))
    shown = show(train, index, view, MIXED)
    for epoch in range(MIXED.num):
        for batch in Loader(train, MIXED, 32, seed=5).batches(epoch):
            assert torch.equal(batch.inputs, shown[batch.index * MIXED.num + batch.view])
    # a student that is the teacher has nothing to learn if, and only if, inputs and answers belong together
    matched = still(data, mixed_teacher, "soft_targets", Answers(mixed_teacher, shown, MIXED.num), MIXED.num)
    assert max(matched) < 1e-8
    unmixed = augment(train.inputs[index], train.keys[index], view, MIXED, train.schema.input)
    assert still(data, mixed_teacher, "soft_targets", Answers(mixed_teacher, unmixed, MIXED.num))[0] > 0.01


def test_mixed_labels_reach_the_task_loss(data: Artifact, mixed_teacher: Network) -> None:
    batches = list(Loader(open_split(data, "train"), MIXED, 32, seed=0).batches(0))
    mixed_losses, own_losses = [], []
    for batch in batches:
        assert batch.mixed is not None
        with torch.inference_mode():
            surprise = -mixed_teacher(batch.inputs)["logits"].values.double().log_softmax(-1)
        own, partner = (surprise.gather(1, labels[:, None])[:, 0] for labels in (batch.labels, batch.mixed.partner))
        mixed_losses.append((batch.mixed.weight * own + (1 - batch.mixed.weight) * partner).mean())
        own_losses.append(own.mean())
    wanted = torch.stack(mixed_losses).mean().item()
    assert still(data, mixed_teacher, "task") == pytest.approx([wanted], rel=1e-5)
    assert abs(wanted - torch.stack(own_losses).mean().item()) > 0.02


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rate_warms_up_then_follows_the_schedule(schedule: str) -> None:
    factors = [lr_factor(schedule, step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert sorted(factors[10:], reverse=True) == factors[10:]
    assert factors[99] <= (1.0 if schedule == "constant" else 0.03)
