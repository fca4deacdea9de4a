"""What a task is: one file and one line. docs/tasks.md has the guide that this holds true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.artifact import Artifact, produce
from distill_platform.data.examples import open_schema, open_split, open_test
from distill_platform.data.loader import Loader
from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.gate import judge, parse_gate
from distill_platform.evaluate.measures import CLASSES, TOKENS, measures_of
from distill_platform.evaluate.score import Timing, score_models
from distill_platform.models import Ids, Network, Output, Outputs, SavedModel, Standardize, save_model
from distill_platform.objective import Objective
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS, UNLABELLED, Task, rows_per_pass
from distill_platform.tasks.cross_entropy import accuracy_and_loss
from distill_platform.tasks.setting import Setting
from distill_platform.teacher import train_teacher
from distill_platform.train import Checkpoints, Trainer, fit
from tests.factory import ONE_VIEW, make_data, settings
from tests.factory_tokens import Bigram, chain


def hinge(outputs: Outputs, labels: Tensor, weight: Tensor | None = None, margin: float = 1.0) -> Tensor:
    """Mean of how far each wrong class comes within `margin` of the right one; the toy task's loss."""
    each = F.multi_margin_loss(outputs["logits"].values.float(), labels, margin=margin, reduction="none")
    return each.mean() if weight is None else (each * weight).mean()


TOY = Task(
    name="toy",
    output="logits",
    kinds=("features",),
    per_token=False,
    loss=hinge,
    settings={"margin": Setting(1.0, low=0, above=True)},
    metrics=accuracy_and_loss,
)


@pytest.fixture
def data(tmp_path: Path) -> Artifact:
    return make_data(LocalStorage(tmp_path / "workspace"))


def test_a_task_is_one_file_and_one_line(data: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", TOY)
    schema, given = open_schema(data), settings(epochs=2)
    model = SavedModel("mlp", {"hidden": [16]}, schema.input, schema.class_names, Standardize.of(schema), "toy")
    trainer = Trainer(
        model.build(0),
        Objective.of(TASKS["toy"], {"task": {"weight": 1.0, "margin": 2.0}}),
        Loader(open_split(data, "train"), ONE_VIEW, given.batch_size, given.seed),
        open_split(data, "val"),
        given,
    )
    reports = fit(trainer, Checkpoints(LocalStorage(tmp_path / "checkpoints")))
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]
    assert reports[-1]["val_accuracy"] > 0.5
    for name in ("student", "teacher"):
        save_model(tmp_path / name, model, trainer.load_best())
    folders = {name: tmp_path / name for name in ("student", "teacher")}
    timing = Timing(batch_size=1, threads=1, warmup=0, runs=1)
    evaluation = score_models(*open_test(data), data.digest, folders, dict.fromkeys(folders, "d"), timing, TASKS["toy"])
    gates = [parse_gate("accuracy >= 0.4", measures_of(TOY)), parse_gate("accuracy >= teacher - 0.1")]
    assert judge(gates, evaluation, 50).passed
    loaded = Evaluation.load(
        produce(LocalStorage(tmp_path), "evaluate", 1, {}, {}, lambda draft: evaluation.save(draft.folder))[0]
    )
    assert loaded.summary == evaluation.summary


def test_a_teacher_is_trained_on_a_task_of_ones_own(
    data: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "toy", TOY)
    teacher, _ = produce(
        LocalStorage(tmp_path), "teacher", 1, {}, {"data": data},
        lambda draft: train_teacher(draft, "mlp", {"hidden": [8]}, data, ONE_VIEW, "toy", settings(epochs=1)),
    )  # fmt: skip
    assert 0 < teacher.read_json("validation.json")["num_correct"] <= 60


def test_text_and_sound_are_classified_as_images_are() -> None:
    assert {"image", "features", "text", "audio"} <= set(TASKS["classification"].kinds)
    assert measures_of(TASKS["classification"]) is CLASSES
    assert measures_of(TASKS["language_modelling"]) is TOKENS


@pytest.mark.parametrize("name", TASKS)
def test_what_is_unlabelled_counts_in_no_loss_and_no_figure(name: str) -> None:
    task, generator = TASKS[name], torch.Generator().manual_seed(0)
    lead = (4, 6) if task.per_token else (4,)
    logits = torch.randn(*lead, 5, generator=generator)
    labels = torch.randint(0, 5, lead, generator=generator)
    labels[0] = UNLABELLED
    given = outputs_of(logits), outputs_of(logits[1:])
    assert float(task.loss(given[0], labels)) == pytest.approx(float(task.loss(given[1], labels[1:])))
    whole, part = task.metrics(given[0], labels), task.metrics(given[1], labels[1:])
    assert {name: pytest.approx(sums) for name, sums in part.items()} == whole


def outputs_of(logits: Tensor) -> Outputs:
    return {"logits": Output(logits)}


def test_passes_over_tokens_are_as_small_as_their_logits_are_many() -> None:
    schema, cpu = chain(2).schema, torch.device("cpu")
    assert rows_per_pass(TASKS["classification"], schema, cpu) == 128
    assert rows_per_pass(TASKS["language_modelling"], schema, cpu) == 128
    wide = replace(schema, input=replace(schema.input, shape=(1024,)), class_names=tuple(map(str, range(8192))))
    assert rows_per_pass(TASKS["language_modelling"], wide, cpu) == 2


def test_a_language_model_learns_its_chain_and_is_ranked_by_validation_loss(tmp_path: Path) -> None:
    train, validation, given = chain(200, seed=1), chain(50, seed=2), settings(epochs=4, lr=0.3, batch_size=20)
    network = Network(Bigram(6, 5), train.schema.input, Ids(6))
    objective = Objective.of(TASKS["language_modelling"], {"task": {"weight": 1.0}})
    trainer = Trainer(
        network, objective, Loader(train, ONE_VIEW, given.batch_size, 0), validation, given, metric="val_loss"
    )
    reports = fit(trainer, Checkpoints(LocalStorage(tmp_path)))
    losses = [report["val_loss"] for report in reports]
    assert trainer.best_epoch == losses.index(min(losses))
    assert trainer.best_score == -min(losses)
    assert reports[-1]["val_accuracy"] > 0.75  # of 0.84 that can be had
