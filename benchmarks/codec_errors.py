"""What each codec costs and what it loses: bytes of a unit, errors by temperature, variance of `sampled`, speed.

    python benchmarks/codec_errors.py [--json] [--students]

Logits are of held-out examples: `digits` (scikit-learn's, 10 classes), `classes` and `many classes` (100 and 1,000 made
classes that overlap within groups of 5 and 10), each of a trained MLP; and `tokens` (32,768 classes, made: Zipf's law
and a context of 64 dimensions, where 50 draws hold about 12 distinct ones). Errors are means over units:

    kl        KL(teacher || decoded) of the softened distributions, nats; of `topk` over its K + 1 buckets
    gradient  norm of the difference to the dense gradient of a student's logits, over that gradient's norm; the student
              is the teacher times 0.7 plus Gaussian noise of deviation 1
    variance  of `sampled`: E||estimate - p||^2 over that of 50 independent draws, by K

--students trains small students on `classes` from each codec, six seeds each, by distillation alone: test accuracy with
its standard error (minutes).
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from timing import hardware
from torch import Tensor, nn

from distill_platform.cache import CODECS, DenseTarget, Encoding, Target, TopKTarget, choose_encoding
from distill_platform.cache.codecs.sampled import TOTAL, resample, round_weights
from distill_platform.data.draws import mix
from distill_platform.models import Output
from distill_platform.objective import LOSSES
from distill_platform.objective.response.soft_targets import bucket_log_probabilities

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
NUM_DRAWS = 50
VOCABULARY = 131_072
NUM_TRAIN = 10_000
OF_LOGITS = [name for name, codec in CODECS.items() if codec.source == "logits"]


def digits() -> Tensor:
    """Logits `[797, 10]` of an MLP trained on 1,000 digits."""
    inputs, labels = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(inputs).float() / 16, torch.from_numpy(labels)
    return teacher_logits(inputs, labels, 1000, hidden=64)[1000:]


@functools.cache
def made_classes(num_classes: int, per_group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `[N, 32]`, labels and the logits of an MLP trained on the first 10,000; it is right on four of five."""
    rng = torch.Generator().manual_seed(0)
    groups = torch.randn(num_classes // per_group, 32, generator=rng).repeat_interleave(per_group, 0)
    centres = groups + 0.6 * torch.randn(num_classes, 32, generator=rng)
    labels = torch.randint(num_classes, (22_000,), generator=rng)
    inputs = centres[labels] + 1.3 * torch.randn(22_000, 32, generator=rng)
    return inputs, labels, teacher_logits(inputs, labels, NUM_TRAIN, hidden=512)


def tokens(num_rows: int, vocabulary: int = 32_768) -> Tensor:
    """Made next-token logits `[N, V]`: Zipf's law, a context, and rows of different sharpness."""
    rng = torch.Generator().manual_seed(0)
    words = torch.randn(vocabulary, 64, generator=rng) / 8
    sharpness = 7 * torch.exp(0.3 * torch.randn(num_rows, 1, generator=rng))
    context = torch.randn(num_rows, 64, generator=rng) * sharpness
    return context @ words.T - torch.log(torch.arange(1.0, vocabulary + 1))[torch.randperm(vocabulary, generator=rng)]


def codec_errors(logits: Tensor) -> list[dict[str, Any]]:
    """A row for each codec and temperature: bytes of a unit, kl, gradient."""
    student = 0.7 * logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    rows = []
    for name in OF_LOGITS:
        target = stored(name, logits)(slice(None))
        for temperature in TEMPERATURES if name != "sampled" else (1.0,):
            rows.append(
                {
                    "codec": name,
                    "bytes": unit_bytes(name, logits.shape[-1]),
                    "temperature": temperature,
                    "kl": kl(logits, target, temperature),
                    "gradient": gradient_error(logits, target, student, temperature),
                }
            )
    return rows


def variance_ratios(
    logits: Tensor, keeps: tuple[int, ...] = tuple(range(6, 13)), num_seeds: int = 32
) -> dict[str, Any]:
    """Of `sampled` by K: squared error over that of 50 independent draws; and how many of those are distinct."""
    p = logits.double().softmax(-1)
    independent = float((1 - p.square().sum(-1)).mean()) / NUM_DRAWS
    rng = torch.Generator().manual_seed(2)
    ratios = {}
    for keep in keeps:
        total = 0.0
        for _ in range(num_seeds):
            uniform = torch.rand(len(logits), 2, generator=rng, dtype=torch.float64)
            ids, weights = resample(logits, keep, uniform[:, 0])
            weights = round_weights(weights, uniform[:, 1]).double() / TOTAL
            at = p.gather(-1, ids)  # ||estimate - p||^2 differs from ||p||^2 at the ids alone
            total += float(((weights - at).square() - at.square()).sum(-1).mean() + p.square().sum(-1).mean())
        ratios[keep] = total / num_seeds / independent
    return {"distinct_of_50": float((1 - (1 - p) ** NUM_DRAWS).sum(-1).mean()), "ratio": ratios}


def speeds(num_rows: int = 64) -> list[dict[str, Any]]:
    """Units per CPU-second at V = 131,072, beside the softmax that no codec of probabilities can do without."""
    logits = tokens(num_rows, VOCABULARY)
    softmax = seconds(lambda: [part.softmax(-1) for part in logits.split(8)])
    return [{"codec": "softmax", "encode": num_rows / softmax}, *(speed(name, logits) for name in OF_LOGITS)]


def speed(name: str, logits: Tensor) -> dict[str, Any]:
    codec, encoding = CODECS[name], encoding_of(name, logits.shape[-1])
    streams = mix(np.arange(len(logits), dtype=np.uint64))
    columns = {key: torch.from_numpy(value) for key, value in codec.encode(logits, encoding, streams).items()}
    return {
        "codec": name,
        "encode": len(logits) / seconds(lambda: codec.encode(logits, encoding, streams)),
        "decode": len(logits) / seconds(lambda: codec.decode(columns, encoding, {})),
    }


def students(num_seeds: int = 6) -> list[dict[str, Any]]:
    """Test accuracy of students of a small MLP on `classes`, mean and standard error, by codec and temperature."""
    inputs, labels, logits = made_classes(100, 5)
    rows = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        for name in ("dense", "int4", "ternary", "topk", "sampled"):
            if name == "sampled" and temperature != 1:
                continue
            targets = stored(name, logits[:NUM_TRAIN])
            found = [student_accuracy(inputs, labels, targets, temperature, seed) for seed in range(num_seeds)]
            figures = {"accuracy": float(np.mean(found)), "se": float(np.std(found, ddof=1) / num_seeds**0.5)}
            rows.append({"codec": name, "bytes": unit_bytes(name, 100), "temperature": temperature, **figures})
    return rows


def student_accuracy(
    inputs: Tensor, labels: Tensor, targets: Callable[[Any], Target], temperature: float, seed: int
) -> float:
    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        return LOSSES["soft_targets"](Output(network(inputs[batch])), targets(batch), temperature=temperature)

    network = trained(mlp(32, 64, 100, seed), loss, NUM_TRAIN, epochs=25)
    with torch.no_grad():
        return float((network(inputs[NUM_TRAIN:]).argmax(-1) == labels[NUM_TRAIN:]).float().mean())


def teacher_logits(inputs: Tensor, labels: Tensor, num_train: int, hidden: int) -> Tensor:
    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(network(inputs[batch]), labels[batch])

    network = trained(mlp(inputs.shape[1], hidden, int(labels.max()) + 1, 0), loss, num_train, epochs=20)
    with torch.no_grad():
        logits: Tensor = network(inputs)
    return logits


def mlp(num_inputs: int, hidden: int, num_classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


def trained(network: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], num_train: int, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-num_train // 128))
    for _ in range(epochs):
        for batch in torch.randperm(num_train).split(128):
            optimizer.zero_grad()
            loss(network, batch).backward()
            optimizer.step()
            schedule.step()
    return network


def encoding_of(name: str, num_classes: int) -> Encoding:
    return choose_encoding(num_classes, (), codec=name)


def unit_bytes(name: str, num_classes: int) -> int:
    return CODECS[name].bytes_per_unit(encoding_of(name, num_classes))


def stored(name: str, logits: Tensor) -> Callable[[Any], Target]:
    """What a cache of these logits hands out for given rows."""
    codec, encoding = CODECS[name], encoding_of(name, logits.shape[-1])
    columns = codec.encode(logits, encoding, mix(np.arange(len(logits), dtype=np.uint64)))
    tensors = {key: torch.from_numpy(value) for key, value in columns.items()}
    return lambda rows: codec.decode({key: value[rows] for key, value in tensors.items()}, encoding, {})


def kl(logits: Tensor, target: Target, temperature: float) -> float | None:
    exact = (logits.double() / temperature).log_softmax(-1)
    if isinstance(target, DenseTarget):
        decoded = (target.logits.double() / temperature).log_softmax(-1)
    elif isinstance(target, TopKTarget):
        others = exact.scatter(-1, target.ids, -torch.inf).logsumexp(-1, keepdim=True)
        exact = torch.cat((exact.gather(-1, target.ids), others), -1)
        decoded = bucket_log_probabilities(target, temperature).double()
    else:
        return None
    return float((exact.exp() * (exact - decoded)).sum(-1).mean())


def gradient_error(logits: Tensor, target: Target, student: Tensor, temperature: float) -> float:
    wanted, got = (gradient(student.double(), each, temperature) for each in (DenseTarget(logits.double()), target))
    return float(((got - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean())


def gradient(student: Tensor, target: Target, temperature: float) -> Tensor:
    values = student.clone().requires_grad_()
    LOSSES["soft_targets"](Output(values), target, temperature=temperature).backward()
    assert values.grad is not None
    return values.grad


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """CPU-seconds of a call, after one that only warms up."""
    work()
    started = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started) / repeats


def measure(with_students: bool) -> dict[str, Any]:
    """The document of `--json`."""
    logits = {
        "digits": digits(),
        "classes": made_classes(100, 5)[2][NUM_TRAIN:][:2000],
        "many classes": made_classes(1000, 10)[2][NUM_TRAIN:][:2000],
        "tokens": tokens(128),
    }
    return {
        "hardware": hardware(),
        "bytes": {
            name: {count: unit_bytes(name, count) for count in (10, 100, 1000, VOCABULARY)} for name in OF_LOGITS
        },
        "errors": {name: codec_errors(values) for name, values in logits.items()},
        "variance": variance_ratios(tokens(128, VOCABULARY)),
        "units_per_cpu_second": speeds(),
        **({"students": students()} if with_students else {}),
    }


def show(document: dict[str, Any]) -> None:
    for data, rows in document["errors"].items():
        print(f"\n{data:12s} bytes " + "".join(f"{f'T = {t:g}: kl, gradient':>24s}" for t in TEMPERATURES))
        for name in OF_LOGITS:
            of = {row["temperature"]: row for row in rows if row["codec"] == name}
            cells = [[of[t][figure] if t in of else None for figure in ("kl", "gradient")] for t in TEMPERATURES]
            text = "".join(
                "".join(f"{'-' if value is None else f'{value:.1e}':>12s}" for value in cell) for cell in cells
            )
            print(f"{name:10s} {of[1.0]['bytes']:7d} {text}")
    print("\nbytes", document["bytes"], "\nvariance", document["variance"])
    for row in [*document["units_per_cpu_second"], *document.get("students", ())]:
        print({key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--students", action="store_true", help="train students too (minutes)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = measure(arguments.students)
    if arguments.json:
        print(json.dumps(measured, indent=1))
    else:
        show(measured)
