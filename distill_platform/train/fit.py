"""A Trainer run to its end, continuing from its checkpoint if there is one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from distill_platform.train.checkpoint import Checkpoints
from distill_platform.train.trainer import EpochReport, Trainer

CHECKPOINT_EVERY_S = 10.0
"""A killed run loses at most so many seconds of training; large models save less often, see PeriodicSaver."""
LARGEST_SHARE = 0.05

log = logging.getLogger(__name__)


def fit(
    trainer: Trainer,
    checkpoints: Checkpoints,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> list[EpochReport]:
    """Train to the end; a checkpoint is kept whenever `checkpoint_every_s` have passed since the last one.

    When it is kept changes nothing in the result. Gives the reports of all epochs.
    """
    if kept := checkpoints.load():
        trainer.load_state(*kept)
    for report in trainer.reports:
        if on_epoch is not None:
            on_epoch(report)
    saver = PeriodicSaver(trainer, checkpoints, checkpoint_every_s)
    while not trainer.is_finished:
        report = trainer.run_epoch(after_step=saver)
        log.info(
            "epoch %d: train loss %.4f, validation loss %.4f, validation accuracy %.4f",
            *(report[name] for name in ("epoch", "train_loss", "val_loss", "val_accuracy")),
        )
        if on_epoch is not None:
            on_epoch(report)
    return trainer.reports


class PeriodicSaver:
    """Called after every step; keeps a checkpoint when it is time to, taking at most 5% of the time for it."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, every_s: float) -> None:
        self.trainer, self.checkpoints, self.every_s = trainer, checkpoints, every_s
        self.last = time.monotonic()

    def __call__(self) -> None:
        started = time.monotonic()
        if started - self.last >= self.every_s:
            self.checkpoints.save(*self.trainer.state())
            self.last = time.monotonic()
            if self.every_s > 0:
                self.every_s = max(self.every_s, (self.last - started) / LARGEST_SHARE)
