"""Whom students learn from beside their labels: caches, live models, or their own average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill_platform.artifact import Artifact
from distill_platform.data.examples import Examples, open_split
from distill_platform.data.order import Order
from distill_platform.data.views import Views
from distill_platform.models import load_network
from distill_platform.objective.combination import Combination
from distill_platform.train.panel import Panel, fixed_weights, layers_of
from distill_platform.train.teachers import LiveTeacher, Teacher, open_teacher
from distill_platform.train.trainer import best_device

MODEL_FOLDER = "model"
SAMPLE = 2
"""Inputs that a live teacher is shown to find the shapes of its layers."""


@dataclass(frozen=True)
class Teaching:
    """Teachers of a sweep, by name; at most one of caches, models and ema is there, and nothing for a baseline.

    caches:      teachers' outputs at rest
    models:      artifacts with a model that is asked itself; `precision` is the number format of its arithmetic
    ema:         decay of the student's own average, which is then the teacher
    combination: how several become one
    """

    caches: Mapping[str, Artifact] = field(default_factory=dict)
    models: Mapping[str, Artifact] = field(default_factory=dict)
    ema: float | None = None
    combination: Combination | None = None
    precision: str = "float32"

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """What it takes its answers from, by teacher."""
        return {**self.caches, **self.models}

    @property
    def digest(self) -> str | None:
        """Of the cache, or the model, that is learned from; several joined by +."""
        return "+".join(artifact.digest for artifact in self.artifacts.values()) or None

    def open(
        self,
        data: Artifact,
        split: str,
        examples: Examples,
        views: Views,
        order: Order | None = None,
        layers: Mapping[str, str] | None = None,
    ) -> Teacher | None:
        """Who answers for a split; None where nobody does, or the student's average, which its trainer makes.

        layers: name or pattern -> "pooled" or "whole", of several teachers `<teacher>/<name>`. Raises CacheMismatch and
        ModelError as `open_teacher` and LiveTeacher do.
        """
        members = self._members(data, split, examples, views, order, layers or {})
        if self.combination is None:
            return next(iter(members.values()), None)
        validation, asked = examples, members
        if split != "val":
            validation = open_split(data, "val")
            asked = self._members(data, "val", validation, views, None, {})
        return Panel(members, self.combination, examples, fixed_weights(self.combination, asked, validation))

    def _members(
        self,
        data: Artifact,
        split: str,
        examples: Examples,
        views: Views,
        order: Order | None,
        layers: Mapping[str, str],
    ) -> dict[str, Teacher]:
        several = self.combination is not None
        members: dict[str, Teacher] = {}
        for name, cache in self.caches.items():
            wanted = layers_of(name, layers) if several else dict(layers)
            members[name] = open_teacher(cache, data, split, examples, views, order, wanted)
        for name, model in self.models.items():
            wanted = layers_of(name, layers) if several else dict(layers)
            _, network = load_network(model.fetch_folder(MODEL_FOLDER))
            sample = open_split(data, "val").inputs[:SAMPLE]
            members[name] = LiveTeacher(network.to(best_device()), model.digest, wanted, sample, self.precision)
        return members
