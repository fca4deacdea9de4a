"""What the training of a student begins with: random weights, a saved model's, or what it can take of its teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.data.examples import open_split
from distill_platform.models import Network, inference_batch_size, load_network
from distill_platform.models.start import activation_importance, from_teacher, from_weights
from distill_platform.storage import Storage

SHOWN = 512
"""Training examples by which a teacher's channels are told apart: Muralidharan et al. 2024, section 4, take 1,024."""


@dataclass(frozen=True)
class Start:
    """How students start, by the spec's words: `how` is random, weights or teacher.

    weights:    of a saved model: the storage that holds its folder, and the names of its files
    teacher:    the artifact of the teacher
    keep:       which of its layers, None for evenly spaced ones
    importance: weights or activations
    """

    how: str = "random"
    weights: tuple[Storage, tuple[str, ...]] | None = None
    teacher: Artifact | None = None
    keep: tuple[int, ...] | None = None
    importance: str = "weights"

    def open(self, data: Artifact) -> OpenStart | None:
        """Read what students start from; None where that is nothing. Raises what `load_network` raises."""
        if self.weights is not None:
            storage, names = self.weights
            with tempfile.TemporaryDirectory(prefix="distill-start-") as folder:
                for name in names:
                    storage.download(name, Path(folder) / name)
                return OpenStart(self, load_network(Path(folder))[1], data)
        if self.teacher is not None:
            return OpenStart(self, load_network(self.teacher.fetch_folder("model"))[1], data)
        return None


RANDOM = Start()
"""Weights as they are drawn."""


@dataclass(frozen=True)
class OpenStart:
    """A start at hand, for one student after another."""

    asked: Start
    given: Network
    data: Artifact
    _found: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def apply(self, student: Network) -> None:
        """Set a student's first weights. Raises ModelError for a student that cannot start so."""
        if self.asked.how == "weights":
            state = from_weights(student, self.given)
        else:
            chosen = self._importance if self.asked.importance == "activations" else None
            state = from_teacher(student, self.given, self.asked.keep, chosen)
        student.load_state_dict(state)

    def _importance(self, teacher: Network) -> Mapping[str, Tensor]:
        if "activations" not in self._found:
            shown = open_split(self.data, "train").inputs[:SHOWN]
            batches = shown.split(inference_batch_size(shown.device))
            self._found["activations"] = activation_importance(teacher, batches)
        return self._found["activations"]
