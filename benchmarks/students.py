"""Students trained on what a codec stored, with the platform's own losses, and how close they come to the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from made import as_streams
from problems import Problem
from torch import Tensor, nn

from distill_platform.cache import CODECS, Encoding, Target
from distill_platform.cache.choice import choose_encoding
from distill_platform.models import Output
from distill_platform.objective import LOSSES

CHUNK_ENTRIES = 1 << 24
"""Logits held at once: 64 MiB."""


@dataclass(frozen=True)
class Stored:
    """A split's outputs as a codec stores them: columns `[N, …]`."""

    columns: Mapping[str, Tensor]
    encoding: Encoding
    constants: Mapping[str, Tensor]

    @property
    def bytes_per_unit(self) -> int:
        """Before the compression of columns at rest."""
        return CODECS[self.encoding.codec].bytes_per_unit(self.encoding)

    def __call__(self, rows: Tensor) -> Target:
        """The targets of rows `[B]`."""
        taken = {name: values.index_select(0, rows) for name, values in self.columns.items()}
        return CODECS[self.encoding.codec].decode(taken, self.encoding, self.constants)


def variants(problem: Problem, keeps: Mapping[str, tuple[int, ...]]) -> list[Encoding]:
    """Every codec at its own settings, and those that keep some classes at other numbers of them."""
    hidden_size = problem.weight.shape[1]
    own = [choose_encoding(problem.num_classes, (), codec=name, hidden_size=hidden_size) for name in CODECS]
    more = [Encoding(codec, problem.num_classes, keep=keep) for codec, each in keeps.items() for keep in each]
    return list(dict.fromkeys([*own, *more]))


def carries(encoding: Encoding, temperature: float) -> bool:
    """Whether a codec is exact enough at a temperature by its own word."""
    lowest, highest = CODECS[encoding.codec].temperatures
    return lowest <= temperature <= highest


def stored(problem: Problem, encoding: Encoding) -> Stored:
    """The teacher's outputs on the training inputs, encoded a part at a time."""
    codec = CODECS[encoding.codec]
    parts, done = [], 0
    for hidden in _in_parts(problem, problem.train):
        values = hidden if codec.source == "hidden" else problem.logits(hidden)
        streams = as_streams(len(problem.train))[done : done + len(hidden)]
        parts.append(codec.encode(values, encoding, streams))
        done += len(hidden)
    columns = {name: torch.cat([torch.from_numpy(part[name]) for part in parts]) for name in codec.columns}
    return Stored(columns, encoding, {"weight": problem.weight, "bias": problem.bias})


def trained(problem: Problem, targets: Stored, temperature: float, seed: int) -> nn.Module:
    """A student after its training; of one seed, all start alike and see the same batches in the same order."""
    torch.manual_seed(seed)
    student = problem.student()
    optimizer = torch.optim.Adam([each for each in student.parameters() if each.requires_grad], lr=problem.lr)
    steps = problem.epochs * -(-len(problem.train) // problem.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, problem.lr, total_steps=steps)
    for _ in range(problem.epochs):
        for rows in torch.randperm(len(problem.train)).split(problem.batch_size):
            optimizer.zero_grad()
            output = Output(student(problem.train.index_select(0, rows)))
            LOSSES["soft_targets"](output, targets(rows), temperature=temperature).backward()
            optimizer.step()
            schedule.step()
    return student


@torch.no_grad()
def quality(problem: Problem, student: nn.Module) -> dict[str, float]:
    """On held-out inputs: kl, KL(teacher || student) at T = 1 in nats; agreement and accuracy, shares of top-1."""
    sums = {"kl": 0.0, "agreement": 0.0, "accuracy": 0.0}
    done = 0
    for hidden in _in_parts(problem, problem.held_out):
        rows = slice(done, done + len(hidden))
        exact, logits = problem.logits(hidden), student(problem.held_out[rows])
        log_teacher, log_student = exact.log_softmax(-1), logits.log_softmax(-1)
        sums["kl"] += float((log_teacher.exp() * (log_teacher - log_student)).sum())
        sums["agreement"] += float((exact.argmax(-1) == logits.argmax(-1)).sum())
        if problem.labels is not None:
            sums["accuracy"] += float((logits.argmax(-1) == problem.labels[rows]).sum())
        done += len(hidden)
    measured = sums if problem.labels is not None else {name: sums[name] for name in ("kl", "agreement")}
    return {name: value / done for name, value in measured.items()}


def _in_parts(problem: Problem, inputs: Tensor) -> Iterator[Tensor]:
    """The teacher's hidden states, for as many inputs at a time as their logits have room."""
    for part in inputs.split(max(1, CHUNK_ENTRIES // problem.num_classes)):
        yield problem.hidden(part)
