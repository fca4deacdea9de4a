"""One member trained, in a Ray actor that stays warm from member to member."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from distill_platform.artifact import Artifact, put_file
from distill_platform.data.examples import Examples, open_schema, open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.order import Order, WindowedOrder, make_order
from distill_platform.data.pool import PooledColumn
from distill_platform.data.views import Views
from distill_platform.errors import InputError, TrainingDiverged
from distill_platform.models import Network, SavedModel, preprocess_for, save_model
from distill_platform.objective import Objective
from distill_platform.storage import Storage
from distill_platform.sweep.ledger import Ledger, Result
from distill_platform.sweep.space import Settings, apply_settings
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, Trainer, TrainSettings
from distill_platform.train.average import AverageTeacher
from distill_platform.train.fit import CHECKPOINT_EVERY_S, PeriodicSaver
from distill_platform.train.start import RANDOM, Start
from distill_platform.train.teachers import Teacher
from distill_platform.train.teaching import SAMPLE, Teaching
from distill_platform.train.trainer import MEASURED, best_device


@dataclass(frozen=True)
class TrialJob:
    """What every member of a sweep shares. `base` holds student, objective and train as plain nested values."""

    data: Artifact
    teaching: Teaching
    base: Mapping[str, Any]
    views: Views
    task: str
    metric: str
    rungs: tuple[int, ...]
    work: Storage
    num_threads: int
    start: Start = RANDOM
    checkpoint_every_s: float = CHECKPOINT_EVERY_S

    @property
    def ledger(self) -> Ledger:
        """Where members are entered."""
        return Ledger(self.work)

    @property
    def teacher_layers(self) -> dict[str, str]:
        """Name or pattern of each layer of the teacher that members learn from -> "pooled" or "whole"."""
        return Objective.of(TASKS[self.task], self.base.get("objective", {})).teacher_layers

    def check_readable(self) -> None:
        """Open what members will open, so that what is wrong with it is said once, and not entered as their failure.

        Raises StorageError, CacheMismatch or FormatError.
        """
        train = self.base["train"]
        TrainingData.open(self, make_order(train["order"], train["window_examples"])).close()
        if teacher := self.teaching.open(self.data, "val", open_split(self.data, "val"), self.views):
            teacher.close()


@dataclass(frozen=True)
class TrainingData:
    """The training split and the teacher's answers for it, mapped, or with a windowed order read ahead."""

    order: Order
    examples: Examples
    teacher: Teacher | None
    readers: tuple[PooledColumn | Teacher, ...]

    @classmethod
    def open(cls, job: TrialJob, order: Order) -> TrainingData:
        """Open what the members of a sweep train on."""
        pooled: tuple[PooledColumn, ...] = ()
        if isinstance(order, WindowedOrder):
            examples, inputs = open_windowed(job.data, "train", order)
            pooled = (inputs,)
        else:
            examples = open_split(job.data, "train")
        teacher = job.teaching.open(job.data, "train", examples, job.views, order, job.teacher_layers)
        return cls(order, examples, teacher, pooled if teacher is None else (*pooled, teacher))

    def close(self) -> None:
        """Give back what pools hold."""
        for reader in self.readers:
            reader.close()


class MemberTrainable(tune.Trainable):
    """A Tune trial is a member. One `step` trains to the next rung, or to the end.

    What counts goes into the ledger before Tune hears of it, so a driver that is killed loses no finished member.
    """

    job: TrialJob
    number: int
    trainer: Trainer
    saver: PeriodicSaver
    model: SavedModel
    ended: Result | None
    undecided: int | None
    """The rung where halving has still to say whether this member goes on."""

    def setup(self, config: dict[str, Any], job: TrialJob | None = None) -> None:
        """Open data and cache; they are mapped, and stay so for the members that follow."""
        assert job is not None
        self.job = job
        torch.set_num_threads(job.num_threads)
        self.schema = open_schema(job.data)
        self.validation = open_split(job.data, "val")
        self.validation_teacher = job.teaching.open(job.data, "val", self.validation, job.views)
        self.training: TrainingData | None = None
        self.start = job.start.open(job.data)
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another member in the same process."""
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung or the end; gives the score so far, higher is better."""
        if self.ended is not None:
            return self._ended(self.ended)
        if self.undecided is not None:
            return self._at_rung()
        try:
            while not self.trainer.is_finished:
                self.trainer.run_epoch(after_step=self.saver)
                if self.trainer.epoch in self.job.rungs and not self.trainer.is_finished:
                    self.undecided = self.trainer.epoch
                    return self._at_rung()
        except TrainingDiverged as error:
            return self._ended(self._end("failed", str(error)))
        except InputError as error:  # layers of which only a batch shows that they cannot be compared
            return self._ended(self._end("failed", str(error)))
        except RuntimeError as error:  # torch's word for shapes that do not fit and for memory that does not suffice
            return self._ended(self._end("failed", f"{type(error).__name__}: {error}"))
        return self._ended(self._end("finished", ""))

    def _at_rung(self) -> dict[str, Any]:
        epochs, self.undecided = self.undecided, None
        assert epochs is not None
        score = self.trainer.best_score_after(epochs)
        self.job.ledger.report(self.number, epochs, score)
        return {"number": self.number, "epochs": epochs, "score": score, "done": False}

    def _start(self, config: dict[str, Any]) -> None:
        self.number = config["number"]
        self.ended = self.job.ledger.result(self.number)
        self.undecided = None
        if self.ended is None:
            try:
                self.trainer = self._make_trainer(config["settings"])
            except InputError as error:  # a width or depth that builder or start refuses fails this member alone
                self.ended = self.job.ledger.end(self.number, _failure(str(error)))

    def _make_trainer(self, settings: Settings) -> Trainer:
        job, schema = self.job, self.schema
        applied = apply_settings(job.base, settings)
        train = TrainSettings(**applied["train"])
        args = {name: value for name, value in applied["student"].items() if name != "name"}
        self.model = SavedModel(
            applied["student"]["name"],
            args,
            schema.input,
            schema.class_names,
            preprocess_for(applied["student"]["name"], args, schema),
            job.task,
            cache=job.teaching.digest,
        )
        opened = self._training_data(make_order(train.order, train.window_examples))
        network = self.model.build(train.seed)
        if self.start is not None:
            self.start.apply(network)
        trainer = Trainer(
            network,
            Objective.of(TASKS[job.task], applied["objective"]),
            Loader(opened.examples, job.views, train.batch_size, train.seed, opened.order, opened.readers),
            self.validation,
            train,
            self._teachers(opened, network, train.precision),
            job.metric,
        )
        checkpoints = Checkpoints(job.work.child(f"checkpoints/{self.number:06d}"))
        if kept := checkpoints.load():
            trainer.load_state(*kept)
            # the process may have ended between report and decision; deciding again comes to the same
            self.undecided = max((rung for rung in job.rungs if rung <= trainer.epoch), default=None)
        self.saver = PeriodicSaver(trainer, checkpoints, job.checkpoint_every_s)
        return trainer

    def _teachers(self, opened: TrainingData, network: Network, precision: str) -> dict[str, Teacher] | None:
        """Who answers for which split; None in a baseline."""
        if (decay := self.job.teaching.ema) is not None:
            network.to(best_device())
            sample = self.validation.inputs[:SAMPLE]
            return {"train": AverageTeacher(network, decay, self.job.teacher_layers, sample, precision)}
        if opened.teacher is None or self.validation_teacher is None:
            return None
        return {"train": opened.teacher, "val": self.validation_teacher}

    def _training_data(self, order: Order) -> TrainingData:
        """The training split as this order reads it; it stays open for the members that follow."""
        if self.training is None or self.training.order != order:
            if self.training is not None:
                self.training.close()
            self.training = TrainingData.open(self.job, order)
        return self.training

    def _end(self, status: str, reason: str) -> Result:
        trainer = self.trainer
        if status == "failed":
            return self.job.ledger.end(self.number, {**_failure(reason), "reports": trainer.reports})
        best = trainer.reports[trainer.best_epoch]
        network = trainer.load_best()
        with tempfile.TemporaryDirectory(prefix="distill-member-") as folder:
            save_model(Path(folder), self.model, network)
            models = self.job.work.child(f"models/{self.number:06d}")
            files = {path.name: put_file(models, path.name, path) for path in sorted(Path(folder).iterdir())}
        result = {
            "status": status,
            "score": trainer.best_score,
            "metrics": {name: best[name] for name in MEASURED if name in best},
            "reports": trainer.reports,
            "epochs": trainer.epoch,
            "seconds": round(sum(report["seconds"] for report in trainer.reports), 4),
            "num_parameters": network.num_parameters,
            "size_bytes": sum(entry["size_bytes"] for entry in files.values()),
            "files": files,
            "reason": reason,
        }
        return self.job.ledger.end(self.number, result)

    def _ended(self, result: Result) -> dict[str, Any]:
        return {"number": self.number, "epochs": result["epochs"], "score": result["score"], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: members keep their own checkpoints, and Tune restores none."""

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing, as `save_checkpoint`."""


def _failure(reason: str) -> dict[str, Any]:
    """The result of a member that cannot win."""
    return {
        "status": "failed",
        "score": None,
        "metrics": {},
        "reports": [],
        "epochs": 0,
        "seconds": 0.0,
        "num_parameters": None,
        "size_bytes": None,
        "files": {},
        "reason": reason,
    }


def stopped_result(number: int, job: TrialJob, epochs: int, score: float) -> Result:
    """Enter a member that halving stopped; its score at that rung still tells the search something."""
    reason = f"halving stopped it after {epochs} epochs"
    return job.ledger.end(number, {**_failure(reason), "status": "stopped", "score": score, "epochs": epochs})


def lost_result(number: int, job: TrialJob, reason: str) -> Result:
    """Enter a member whose process was lost more often than retries allow."""
    return job.ledger.end(number, _failure(reason))
