"""One optimiser step and the loop around it.

Everything random is drawn from (seed, step) or (seed, epoch), so the position is the random state: a run resumed from
any step ends bit-identical to one that was never interrupted, on one kind of CPU with the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_platform.data.examples import Examples
from distill_platform.data.loader import Batch, Loader
from distill_platform.data.order import step_seed
from distill_platform.errors import CacheMismatch, TrainingDiverged
from distill_platform.models import Network
from distill_platform.models.capture import Answer, Capture, capture
from distill_platform.models.parts import freeze, joined, parameter_groups
from distill_platform.objective import Moment, Objective, kl_to_teacher
from distill_platform.objective.objective import gradient_shares
from distill_platform.tasks.task import Sums, rows_per_pass
from distill_platform.train.average import AverageTeacher
from distill_platform.train.optim import PRECISIONS, lr_factor, make_optimizer
from distill_platform.train.settings import TrainSettings
from distill_platform.train.teachers import Teacher
from distill_platform.train.worst_group import WORST_ACCURACY, WorstGroup, subgroup_sums, worst_of

EpochReport = dict[str, Any]
"""epoch, train_loss, terms, shares (at some epochs), subgroup_weights (with worst_group), val_accuracy, val_loss,
kl_to_teacher (with a cache), val_worst_group_accuracy (where it is the metric), seconds."""
MEASURED = ("val_accuracy", "val_loss", "kl_to_teacher", WORST_ACCURACY)
"""Figures of the validation split."""


class Trainer:
    """A network on its way from the first step to the last. `teachers`: who answers for the splits train and val.

    An AverageTeacher, which follows the network, answers for train alone: at validation there is none to be close to.

    metric: one of MEASURED: what early stopping and the kept weights go by.

    What an objective learns beside the network (regressors, banks) is made for the layers of both here, and is part of
    the state. Raises ModelError for layers of either that are not there or cannot be compared.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        loader: Loader,
        validation: Examples,
        settings: TrainSettings,
        teachers: Mapping[str, Teacher] | None = None,
        metric: str = "val_accuracy",
    ) -> None:
        assert teachers is not None or not objective.needs_teacher
        self.device = best_device()
        self.network = network.to(self.device)
        self.loader, self.validation, self.settings = loader, validation, settings
        self.teachers, self.metric = teachers, metric
        asked = teachers["train"] if teachers is not None else None
        self._average = asked if isinstance(asked, AverageTeacher) else None
        self._capture = (
            capture(self.network, objective.student_layers, where="objective", whose="the student")
            if objective.student_layers
            else None
        )
        self.objective = self._fitted(objective)
        factors = {part: found["lr_factor"] for part, found in settings.parts.items()}
        parts = parameter_groups(self.network, factors)
        self._frozen = freeze(self.network, factors)
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._beside = list(self.objective.modules.parameters())  # trained with the network, and never shipped
        self.optimizer = make_optimizer(
            *(settings.optimizer, joined(parts, self._beside)),
            *(settings.lr, settings.weight_decay, settings.momentum),
        )
        self.worst_group = WorstGroup.of(settings.worst_group, loader.examples.schema, objective, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")
        self.reports: list[EpochReport] = []
        self.best_weights = self._weights()
        self.step = 0  # optimiser steps done
        self._sums: dict[str, float] = {}  # of the weighted terms, over the steps of this epoch
        self._shares: dict[str, float] | None = None

    @property
    def epoch(self) -> int:
        """Number of the epoch that is next or under way."""
        return len(self.reports)

    @property
    def cache_digest(self) -> str | None:
        """Of the cache, or the teacher, that it learns from; None without one."""
        return self.teachers["train"].digest if self.teachers else None

    @property
    def best_epoch(self) -> int:
        """The first epoch with the best metric; -1 before the first."""
        scores = [self._score(report) for report in self.reports]
        return scores.index(max(scores)) if scores else -1

    @property
    def best_score(self) -> float:
        """The best epoch's metric, signed so that higher is better."""
        return self._score(self.reports[self.best_epoch])

    def best_score_after(self, epochs: int) -> float:
        """As `best_score`, after so many epochs."""
        return max(self._score(report) for report in self.reports[:epochs])

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is done, or patience has run out."""
        patience = self.settings.patience_epochs
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.settings.epochs or (patience is not None and waited >= patience)

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> EpochReport:
        """Train to the end of the epoch, validate, and report. Raises TrainingDiverged."""
        started = time.perf_counter()
        self.network.train()
        for module in self._frozen:
            module.eval()
        done_in_epoch = self.step - self.epoch * self.loader.num_batches
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for batch in self.loader.batches(self.epoch, start=done_in_epoch):
                self._train_step(batch)
                if after_step is not None:
                    after_step()
        terms = {name: total / self.loader.num_batches for name, total in self._sums.items()}
        report: EpochReport = {"epoch": self.epoch, "train_loss": sum(terms.values()), "terms": terms}
        if self._shares is not None:
            report["shares"] = self._shares
        if self.worst_group is not None:
            report["subgroup_weights"] = self.worst_group.by_name()
        report |= self.validate()
        for name in MEASURED:
            if not math.isfinite(report.get(name, 0.0)):
                raise TrainingDiverged(f"epoch {self.epoch}: {name} is {report[name]}; lower train.lr")
        report["seconds"] = round(time.perf_counter() - started, 4)
        if all(self._score(report) > self._score(earlier) for earlier in self.reports):
            self.best_weights = self._weights()
        self.reports.append(report)
        self._sums, self._shares = {}, None
        return report

    def validate(self) -> dict[str, float]:
        """Metrics on the validation split, in eval mode, on the examples as they are."""
        self.network.eval()
        totals: dict[str, tuple[float, float]] = {}
        rows = rows_per_pass(self.objective.task, self.validation.schema, self.device)
        with torch.inference_mode():
            for index in torch.arange(len(self.validation)).split(rows):
                for name, (total, counted) in self._validation_sums(index).items():
                    before = totals.get(name, (0.0, 0.0))
                    totals[name] = (before[0] + total, before[1] + counted)
        return worst_of({name: total / counted if counted else math.nan for name, (total, counted) in totals.items()})

    def _validation_sums(self, index: Tensor) -> Sums:
        """The figures of some examples of the validation split, in a row, as sums."""
        rows, task = slice(int(index[0]), int(index[-1]) + 1), self.objective.task
        inputs = self.validation.inputs[rows]
        outputs = self._forward(inputs).outputs
        labels = self.validation.labels[rows].long().to(self.device)
        sums = {f"val_{name}": found for name, found in task.metrics(outputs, labels).items()}
        if self.metric == WORST_ACCURACY:
            assert self.validation.subgroups is not None, "the spec is refused"
            sums |= subgroup_sums(task, outputs, labels, self.validation.subgroups[rows])
        if self.teachers is not None and "val" in self.teachers:
            output = outputs[task.output]
            target = self.teachers["val"](index, torch.zeros_like(index), inputs).target
            divergence = float(kl_to_teacher(output._replace(values=output.values.double()), target))
            counted = float(output.values[..., 0].numel() if output.mask is None else output.mask.sum())
            sums["kl_to_teacher"] = (divergence * counted, counted)
        return sums

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the rest of the run depends on: tensors, and what goes into JSON."""
        tensors = {f"weights.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        tensors |= {f"objective.{name}": value for name, value in self.objective.modules.state_dict().items()}
        if self.worst_group is not None:
            tensors["worst_group"] = self.worst_group.log_weights
        if self._average is not None:
            tensors |= {f"average.{name}": value for name, value in self._average.network.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
        position = {"step": self.step, "sums": self._sums, "shares": self._shares, "reports": self.reports}
        return tensors, {**position, "scaler": self.scaler.state_dict(), "cache": self.cache_digest}

    def load_state(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Continue from what `state` gave. Raises CacheMismatch if that was trained on another cache."""
        kept = position.get("cache", self.cache_digest)  # checkpoints of release 0.1 do not say
        if kept != self.cache_digest:
            got, wanted = (digest[:12] if digest else "none" for digest in (kept, self.cache_digest))
            raise CacheMismatch(
                f"a checkpoint after step {position['step']} was trained on cache {got}, this run has {wanted}; "
                "`distill retry STEP` drops the unfinished work and starts over"
            )
        self.network.load_state_dict(_under("weights.", tensors))
        self.best_weights = _under("best.", tensors)
        self.objective.modules.load_state_dict(_under("objective.", tensors))
        if self.worst_group is not None:
            self.worst_group.log_weights = tensors["worst_group"].to(self.device)
        if self._average is not None:
            self._average.network.load_state_dict(_under("average.", tensors))
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, field = name.partition(".")
            entries.setdefault(int(index), {})[field] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.scaler.load_state_dict(dict(position["scaler"]))
        self.step, self.reports = position["step"], list(position["reports"])
        self._sums, self._shares = dict(position["sums"]), position["shares"]

    def load_best(self) -> Network:
        """The network with the weights of its best epoch, on the CPU, in eval mode."""
        self.network.load_state_dict(self.best_weights)
        return self.network.cpu().eval()

    def _train_step(self, batch: Batch) -> None:
        settings = self.settings
        self._seed(step_seed(settings.seed, "step", self.step))
        num_steps = settings.epochs * self.loader.num_batches
        factor = lr_factor(settings.schedule, self.step, num_steps, settings.warmup_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * factor * group["lr_factor"]
        answer = self._forward(batch.inputs, self._capture)
        asked = self.teachers["train"] if self.teachers is not None and self.objective.needs_teacher else None
        teacher = asked(batch.index, batch.view, batch.inputs) if asked is not None else None
        mixed = batch.mixed.to(self.device) if batch.mixed is not None else None
        moment = Moment(self.step / num_steps, self.step, batch.index)
        labels = batch.labels.to(self.device)
        weight = self.worst_group.weigh(answer.outputs, labels, batch.subgroups) if self.worst_group else None
        terms = self.objective(answer, labels, teacher, mixed, moment, weight)
        if self._measures_shares():
            self._shares = gradient_shares(terms, self.parameters)
        self._check_finite(terms)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(sum(terms.values(), torch.zeros((), device=self.device))).backward()
        self.scaler.unscale_(self.optimizer)
        self._clip(self.parameters, "the sum of the terms")
        if self._beside:  # by themselves: what a regressor needs must not shorten the student's step
            self._clip(self._beside, "the objective's own parameters")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        if self._average is not None:
            self._average.follow(self.network, self.step)
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())

    def _clip(self, parameters: list[nn.Parameter], what: str) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        if not self.scaler.is_enabled() and not math.isfinite(norm):
            self._refuse("the gradient", what, float(norm))

    def _seed(self, seed: int) -> None:
        """As torch.manual_seed, which without a GPU spends a tenth of a small step on looking for one."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _forward(self, inputs: Tensor, capture: Capture | None = None) -> Answer:
        """What the network says; with its layers, if a capture of them is given."""
        dtype, inputs = PRECISIONS[self.settings.precision], inputs.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return capture.answer(inputs) if capture is not None else Answer(self.network(inputs), {})

    def _fitted(self, objective: Objective) -> Objective:
        """With what compares the layers that the network has and the teacher gives, on the device."""
        if self._capture is None or self.teachers is None:
            return objective
        self.network.eval()
        with torch.no_grad():
            layers = self._forward(self.validation.inputs[:2], self._capture).layers
        shapes = {name: tuple(values.shape[1:]) for name, values in layers.items()}
        seed, num_examples = step_seed(self.settings.seed, "objective"), len(self.loader.examples)
        fitted = objective.fitted(shapes, self.teachers["train"].layer_shapes, num_examples, seed)
        fitted.modules.to(self.device)
        return fitted

    def _measures_shares(self) -> bool:
        """At the first step of epochs 0, 1, 2, 4, 8 …: often enough to see a term that does nothing, at little cost."""
        first = self.step == self.epoch * self.loader.num_batches
        return first and len(self.objective.terms) > 1 and self.epoch & (self.epoch - 1) == 0

    def _check_finite(self, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            if not torch.isfinite(value):
                self._refuse("the loss", f"the term {name!r}", float(value.detach()))

    def _refuse(self, what: str, where: str, got: float) -> None:
        raise TrainingDiverged(
            f"step {self.step} (epoch {self.epoch}): {what} of {where} is {got}; wanted a finite number. "
            f"Lower train.lr (now {self.settings.lr:g}) or set train.clip_norm (now {self.settings.clip_norm})"
        )

    def _score(self, report: EpochReport) -> float:
        value = float(report[self.metric])
        return -value if self.metric in ("kl_to_teacher", "val_loss") else value

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def best_device() -> torch.device:
    """Where a network of this process is trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def without_timing(report: EpochReport) -> EpochReport:
    """A report as it would be on any machine."""
    return {name: value for name, value in report.items() if name != "seconds"}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
