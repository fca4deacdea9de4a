"""Logits put right without training: how sure a model is, and how often it names each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distill_platform.data.examples import Examples
from distill_platform.errors import DataError, ModelError
from distill_platform.models import Calibration, Network, load_network, save_model
from distill_platform.tasks import TASKS, UNLABELLED, Task, rows_per_pass
from distill_platform.tasks.calibration import bias_correction, calibrate, class_priors
from distill_platform.tasks.task import LOGITS_HELD

NONE, AUTO = "none", "auto"


def calibrate_model(
    folder: Path, validation: Examples, weights: str, scale: bool, class_bias: str | Mapping[str, float]
) -> Calibration:
    """Fit a saved model's scale, bias or both to the validation split, and write them into its folder; gives them.

    weights:    number format of the folder's weights.
    class_bias: "none"; "auto": classes are to be predicted as often as they are labelled; or class -> its share.

    Raises ModelError for shares of other classes than the model's, DataError for a split without labels.
    """
    model, network = load_network(folder)
    logits, labels = _answers(network, validation, TASKS[model.task])
    if not (labels != UNLABELLED).any():
        raise DataError("compress: the validation split has no labels to calibrate on; split labelled examples")
    priors = _priors(class_bias, labels, model.class_names)
    found = fitted(logits, labels, scale, priors)
    save_model(folder, replace(model, calibration=found), network, weights)
    return found


def fitted(logits: Tensor, labels: Tensor, scale: bool, priors: Tensor | None) -> Calibration:
    """The calibration of raw logits `[N, …, C]` by labels `[N, …]`; priors: share of each class `[C]`, None: no bias.

    The temperature is found where the bias is right already, since a class that is never named makes any confidence
    wrong; the bias is then found again at that temperature, so that the shares are met exactly.
    """
    bias = torch.zeros(logits.shape[-1], dtype=torch.float64)
    if priors is not None:
        bias = bias_correction(logits, priors)
    factor = 1 / calibrate(logits.double() + bias, labels) if scale else 1.0
    if priors is None:
        return Calibration(factor)
    if scale:
        bias = bias_correction(logits.double() * factor, priors)
    return Calibration(factor, tuple(bias.tolist()))


def _priors(class_bias: str | Mapping[str, float], labels: Tensor, class_names: tuple[str, ...]) -> Tensor | None:
    if class_bias == NONE:
        return None
    if isinstance(class_bias, str):
        return class_priors(labels, len(class_names))
    check_shares(class_bias, class_names)
    shares = torch.tensor([class_bias[name] for name in class_names], dtype=torch.float64)
    return shares / shares.sum()


def check_shares(shares: Mapping[str, float], class_names: tuple[str, ...]) -> None:
    """Raises ModelError unless there is a share for each class, and none for others."""
    if set(shares) != set(class_names):
        raise ModelError(
            f"compress.class_bias has shares of {', '.join(shares)}; wanted one for each class of the data: "
            f"{', '.join(class_names)}"
        )


@torch.inference_mode()
def _answers(network: Network, validation: Examples, task: Task) -> tuple[Tensor, Tensor]:
    """Logits and labels of the split; of one so large that its logits would not be held, of as much as may be.

    The split is in the order of hashed keys, so its first part is as good as any.
    """
    schema = validation.schema
    positions = schema.input.shape[0] if task.per_token else 1
    num = max(1, min(len(validation), LOGITS_HELD // (positions * len(schema.class_names))))
    inputs, labels = validation.inputs[:num], validation.labels[:num].long()
    rows = rows_per_pass(task, schema, torch.device("cpu"))
    return torch.cat([network(part)[task.output].values for part in inputs.split(rows)]), labels
