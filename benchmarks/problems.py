"""Two problems on which to see what a codec costs a student: 100 classes, and next tokens of a large vocabulary.

classes  100 classes in 20 groups that overlap, as classes of real data do; the teacher is an MLP trained on 20,000
         labelled examples, the student a sixteenth of it, trained on the teacher alone.
tokens   the made teacher of teachers.py; the student is a small MLP below the teacher's own output layer, which stays
         as it is: so do draft models for speculative decoding (Medusa, EAGLE), and so few tokens teach it something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from teachers import HIDDEN, PIXELS_PER_TOKEN, random_tokens, token_teacher
from torch import Tensor, nn

FEATURES = 32


@dataclass(frozen=True)
class Problem:
    """What a student learns from, and is judged on.

    train, held_out: its inputs `[N, F]`. hidden: inputs -> the teacher's last hidden states `[N, H]`; weight `[C, H]`
    and bias `[C]` make logits of them. labels: of held-out examples, where there are any. student: a new one.
    temperatures, epochs, batch_size, lr: of its training.
    """

    unit: str
    train: Tensor
    held_out: Tensor
    labels: Tensor | None
    hidden: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor
    student: Callable[[], nn.Module]
    temperatures: tuple[float, ...]
    epochs: int
    batch_size: int
    lr: float

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """The teacher's `[N, C]`, fp32."""
        return F.linear(hidden, self.weight, self.bias)


def classes(num_train: int, num_held_out: int, epochs: int) -> Problem:
    """100 classes; the teacher's own training examples are others than the student's."""
    rng = torch.Generator().manual_seed(0)
    groups = torch.randn(20, FEATURES, generator=rng).repeat_interleave(5, 0)
    centres = groups + 0.6 * torch.randn(100, FEATURES, generator=rng)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(100, (number,), generator=rng)
        return centres[labels] + 0.7 * torch.randn(number, FEATURES, generator=rng), labels

    body = nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
    output = nn.Linear(64, 100)
    _fit(nn.Sequential(body, output), *draw(20_000))
    (train, _), (held_out, labels) = draw(num_train), draw(num_held_out)

    @torch.no_grad()
    def hidden(inputs: Tensor) -> Tensor:
        return body(inputs)  # type: ignore[no-any-return]

    return Problem(
        "example",
        train,
        held_out,
        labels,
        hidden,
        output.weight.detach(),
        output.bias.detach(),
        lambda: nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, 100)),
        temperatures=(1.0, 2.0, 4.0, 8.0),
        epochs=epochs,
        batch_size=128,
        lr=5e-3,
    )


def tokens(vocabulary: int, num_train: int, num_held_out: int, epochs: int) -> Problem:
    """Next tokens; at T = 1 alone, which `sampled` carries too."""
    teacher = token_teacher(vocabulary, num_tokens=256)

    def as_features(raw: Tensor) -> Tensor:
        return (raw.float() - 127.5) / 73.9

    def hidden(inputs: Tensor) -> Tensor:
        return teacher.hidden(inputs * 73.9 + 127.5)

    def student() -> nn.Module:
        output = nn.Linear(HIDDEN, vocabulary)
        output.load_state_dict({"weight": teacher.weight, "bias": teacher.bias})
        return nn.Sequential(
            nn.Linear(PIXELS_PER_TOKEN, 32), nn.GELU(), nn.Linear(32, HIDDEN), output.requires_grad_(False)
        )

    return Problem(
        "token",
        as_features(random_tokens(num_train, seed=2)),
        as_features(random_tokens(num_held_out, seed=3)),
        None,
        hidden,
        teacher.weight,
        teacher.bias,
        student,
        temperatures=(1.0,),
        epochs=epochs,
        batch_size=64,
        lr=3e-2,
    )


def _fit(network: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """The teacher's training: cross-entropy over 20 epochs."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(20):
        for rows in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[rows]), labels[rows]).backward()
            optimizer.step()
