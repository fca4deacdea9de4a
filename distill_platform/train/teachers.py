"""Where a student's training takes a teacher's answers from: a cache, or the teacher itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache import CachedTargets, DenseTarget, open_targets
from distill_platform.cache.layers import CachedLayers, kept_layers, open_layer_rows
from distill_platform.data.examples import Examples
from distill_platform.data.order import Blocks, Order
from distill_platform.data.views import Views
from distill_platform.models import Network
from distill_platform.models.capture import ATTENTION, capture, matching_layers
from distill_platform.objective import TeacherAnswer
from distill_platform.train.optim import PRECISIONS


class Teacher(Protocol):
    """What is asked for a batch of one split. `digest` says whose answers they are."""

    @property
    def digest(self) -> str: ...

    @property
    def layer_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of each layer that answers hold -> shape of its values of one example."""

    def __call__(self, index: Tensor, view: Tensor, inputs: Tensor) -> TeacherAnswer:
        """The answer to examples `index` `[B]` as seen in `view` `[B]`, which are raw inputs `[B, *shape]`."""

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """What will be asked for next; changes how long calls take, and nothing else."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True)
class CachedTeacher:
    """What a cache holds of a teacher: its outputs, and layers if some are wanted."""

    targets: CachedTargets
    layers: CachedLayers | None = None

    @property
    def digest(self) -> str:
        """Of the cache."""
        return self.targets.digest

    @property
    def layer_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of each layer that answers hold -> shape of its values of one example."""
        return self.layers.shapes if self.layers is not None else {}

    def __call__(self, index: Tensor, view: Tensor, inputs: Tensor) -> TeacherAnswer:
        """The cached rows; inputs are not looked at."""
        layers = self.layers(index, view) if self.layers is not None else {}
        return TeacherAnswer(self.targets(index, view), layers)

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """What will be asked for next."""
        self.targets.prefetch(reads)
        if self.layers is not None:
            self.layers.prefetch(reads)

    def close(self) -> None:
        """Stop reading ahead; it cannot be asked any more."""
        self.targets.close()
        if self.layers is not None:
            self.layers.close()


def open_teacher(
    cache: Artifact,
    data: Artifact,
    split: str,
    examples: Examples,
    views: Views,
    order: Order | None = None,
    layers: Mapping[str, str] | None = None,
) -> CachedTeacher:
    """The cached teacher of a split. layers: name or pattern -> "pooled" or "whole".

    Raises CacheMismatch as `open_targets` and `open_layer_rows`, ModelError for layers that the cache does not keep.
    """
    targets = open_targets(cache, data, split, examples, views, order)
    wanted = _matching(cache, layers) if layers else {}
    return CachedTeacher(
        targets, open_layer_rows(cache, data, split, wanted, examples, views, order) if wanted else None
    )


class LiveTeacher:
    """A teacher that is asked itself, for what no cache can serve: views without number, students that teach.

    network:   on the device where it runs; in eval mode from here on.
    digest:    says which teacher it is.
    layers:    name or pattern -> "pooled" or "whole".
    sample:    raw inputs `[N, *shape]` to find the layers' shapes with.
    precision: number format of its arithmetic.

    Raises ModelError for layers that it does not have.
    """

    def __init__(
        self, network: Network, digest: str, layers: Mapping[str, str], sample: Tensor, precision: str = "float32"
    ) -> None:
        self.network, self.digest, self.precision = network.eval(), digest, precision
        self._capture = capture(network, layers)
        self.device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        index = torch.arange(len(sample))
        answer = self(index, 0 * index, sample)
        self.layer_shapes = {name: tuple(values.shape[1:]) for name, values in answer.layers.items()}

    @torch.no_grad()
    def __call__(self, index: Tensor, view: Tensor, inputs: Tensor) -> TeacherAnswer:
        """The answer to raw inputs `[B, *shape]`, computed now; which examples they are of does not matter."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            answer = self._capture.answer(inputs.to(self.device, non_blocking=True))
        return TeacherAnswer(DenseTarget(answer.outputs["logits"].values.float()), answer.layers)

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _matching(cache: Artifact, layers: Mapping[str, str]) -> dict[str, str]:
    """Names and patterns -> the layers of the cache that they stand for."""
    kept, found = kept_layers(cache), dict[str, str]()
    for pattern, mode in layers.items():
        suffix = ATTENTION if pattern.endswith(ATTENTION) else ""
        names = [name.removesuffix(ATTENTION) for name in kept if name.endswith(ATTENTION) == bool(suffix)]
        for name in matching_layers(pattern.removesuffix(ATTENTION), names, "objective", "the teacher's cache"):
            found[name + suffix] = "whole" if "whole" in (mode, found.get(name + suffix)) else mode
    return found
