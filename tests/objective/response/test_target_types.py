"""Losses from targets of the K largest and of samples: against naive loops, and against the loss from all logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from distill_platform.cache import CODECS, DenseTarget, SampledTarget, Target, TopKTarget, choose_encoding
from distill_platform.data.draws import mix
from distill_platform.models import Output
from distill_platform.objective import LOSSES, kl_to_teacher
from distill_platform.objective.response.soft_targets import (
    soft_targets,
    soft_targets_sampled,
    soft_targets_topk,
    tail_log_sum_exp,
)
from tests.objective.response.naive import exact_topk

soft = LOSSES["soft_targets"]


def logits(rows: int, classes: int, seed: int, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def stored(codec: str, teacher: Tensor, keep: int) -> Target:
    encoding = choose_encoding(teacher.shape[-1], (), codec=codec, keep=keep)
    columns = CODECS[codec].encode(teacher, encoding, mix(np.arange(len(teacher), dtype=np.uint64)))
    return CODECS[codec].decode({name: torch.from_numpy(column) for name, column in columns.items()}, encoding, {})


def gradient(loss: Callable[[Tensor], Tensor], student: Tensor) -> Tensor:
    values = student.clone().requires_grad_()
    loss(values).backward()
    assert values.grad is not None
    return values.grad


def naive_topk(student: Tensor, target: TopKTarget, temperature: float) -> float:
    """Bucket by bucket, in float64."""
    total, others = 0.0, target.num_classes - target.ids.shape[-1]
    for row in range(len(student)):
        ids = target.ids[row].tolist()
        b, m = 1 / temperature, float(target.tail_mean[row])
        g1 = float(target.tail_lse[row]) - math.log(others) - m
        g2 = 4 * (float(target.tail_lse_at_2[row]) - math.log(others) - m / 2)
        tail = math.exp(math.log(others) + m * b + g1 ** (2 * b - 1) * g2 ** (2 - 2 * b) * b * b)
        kept = [math.exp(value * b) for value in target.logits[row].tolist()]
        p = [value / (sum(kept) + tail) for value in [*kept, tail]]
        s = [math.exp(value * b) for value in student[row].tolist()]
        q = [s[place] / sum(s) for place in ids]
        q.append(sum(value for place, value in enumerate(s) if place not in ids) / sum(s))
        total += sum(pi * (math.log(pi) - math.log(qi)) for pi, qi in zip(p, q, strict=True))
    return total / len(student) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 1.7, 2.0, 5.0])
@pytest.mark.parametrize("keep", [1, 3, 15])
def test_topk_equals_the_naive_loop(keep: int, temperature: float) -> None:
    student, target = logits(6, 20, 0), exact_topk(logits(6, 20, 1).double(), keep)
    wanted = naive_topk(student, target, temperature)
    assert soft_targets_topk(student.double(), target, temperature).item() == pytest.approx(wanted, rel=1e-9)
    assert soft_targets_topk(student, target, temperature).item() == pytest.approx(wanted, rel=1e-4)


def test_topk_of_all_but_one_is_the_loss_from_all_logits() -> None:
    """The bucket of the others then holds one class."""
    student, teacher = logits(6, 12, 2).double(), logits(6, 12, 3).double()
    for temperature in (1.0, 2.0):
        got = soft_targets_topk(student, exact_topk(teacher, 11), temperature)
        assert got.item() == pytest.approx(soft_targets(student, teacher, temperature).item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_topk_is_zero_with_zero_gradient_where_student_is_teacher(temperature: float) -> None:
    teacher = logits(5, 200, 4).double()
    target = exact_topk(teacher, 8)
    assert soft_targets_topk(teacher, target, temperature).item() == pytest.approx(0, abs=1e-12)
    assert gradient(lambda z: soft_targets_topk(z, target, temperature), teacher).abs().max() < 1e-12


def test_as_stored_the_gradient_of_topk_is_no_more_than_the_rounding() -> None:
    teacher = logits(5, 200, 4)
    target = stored("topk", teacher, 8)
    assert isinstance(target, TopKTarget)
    assert gradient(lambda z: soft_targets_topk(z, target, 1.0), teacher).abs().max() < 2e-4 / 5


def test_topk_leaves_the_others_alone_as_long_as_their_mass_is_right() -> None:
    """Its gradient there is in proportion to the student's own probabilities, and towards the teacher's mass."""
    teacher, student = logits(4, 50, 5).double(), logits(4, 50, 6).double()
    target = exact_topk(teacher, 5)
    is_other = torch.ones_like(teacher, dtype=torch.bool).scatter_(-1, target.ids, False)
    found = gradient(lambda z: soft_targets_topk(z, target, 1.0), student) * len(student)
    ratio = (found / student.softmax(-1))[is_other].view(4, -1)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio))
    dense = student.softmax(-1) - teacher.softmax(-1)
    assert torch.allclose(found.gather(-1, target.ids), dense.gather(-1, target.ids))
    assert torch.allclose((found * is_other).sum(-1), (dense * is_other).sum(-1))


@pytest.mark.parametrize("num_classes", [100, 32_768])
def test_the_tail_is_exact_at_1_and_2_and_close_above(num_classes: int) -> None:
    teacher = logits(40, num_classes, 7).double() - torch.log(torch.arange(1.0, num_classes + 1))
    target = exact_topk(teacher, 8)
    relative = (teacher - teacher.amax(-1, keepdim=True)).scatter(-1, target.ids, -torch.inf)
    error = {
        temperature: (tail_log_sum_exp(target, temperature) - (relative / temperature).logsumexp(-1)).abs().max().item()
        for temperature in (1.0, 1.3, 2.0, 3.0, 4.0, 8.0, 1000.0)
    }
    assert max(error[1.0], error[2.0]) < 1e-9
    assert error[1000.0] < 1e-3
    assert max(error.values()) < 0.15


def test_sampled_equals_the_naive_loop() -> None:
    student, target = logits(6, 30, 8), stored("sampled", logits(6, 30, 9), 7)
    assert isinstance(target, SampledTarget)
    total = 0.0
    for row in range(6):
        z = sum(math.exp(value) for value in student[row].tolist())
        for place, weight in zip(target.ids[row].tolist(), target.weights[row].tolist(), strict=True):
            total -= weight * math.log(math.exp(float(student[row, place])) / z)
    assert soft_targets_sampled(student, target).item() == pytest.approx(total / 6, rel=1e-5)


def test_sampled_is_on_average_the_dense_loss_and_gradient() -> None:
    """Zero gradient where student is teacher; else the gradient from all logits; the value plus the entropy."""
    count, teacher, other = 20_000, logits(1, 40, 10, 1.5), logits(1, 40, 11, 1.5)
    target = stored("sampled", teacher.expand(count, -1), 6)
    p = teacher.double().softmax(-1)
    entropy = float(-(p * p.log()).sum())
    for student in (teacher, other):
        found = gradient(lambda z: soft_targets_sampled(z, target), student.expand(count, -1)) * count  # type: ignore[arg-type]
        wanted = gradient(lambda z: soft_targets(z, teacher, 1.0), student)
        z = (found.mean(0) - wanted[0]) / (found.std(0) / count**0.5)
        assert z.abs().max() < 5
        value = soft_targets_sampled(student.expand(count, -1), target)  # type: ignore[arg-type]
        assert value.item() == pytest.approx(soft_targets(student, teacher, 1.0).item() + entropy, abs=0.02)


@pytest.mark.parametrize("codec", ["topk", "sampled"])
def test_masked_positions_count_neither_in_sum_nor_in_mean(codec: str) -> None:
    student, teacher = logits(8, 20, 12).view(4, 2, 20), logits(8, 20, 13).view(4, 2, 20)
    mask = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
    target = stored(codec, teacher, 5)
    flat = stored(codec, teacher, 5)
    picked = type(flat)(
        **{name: value[mask] if isinstance(value, Tensor) else value for name, value in vars(flat).items()}
    )
    changed = student.clone()
    changed[~mask] = 50.0
    wanted = soft(Output(student[mask]), picked, temperature=1.0)
    assert torch.allclose(soft(Output(changed, mask), target, temperature=1.0), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codec", ["topk", "sampled"])
def test_students_in_short_formats_are_computed_in_fp32(codec: str, dtype: torch.dtype) -> None:
    student, target = logits(8, 300, 14).to(dtype), stored(codec, logits(8, 300, 15), 8)
    loss = soft(Output(student), target, temperature=1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(soft(Output(student.double()), target, temperature=1.0).item(), rel=1e-5)


@pytest.mark.filterwarnings("error:There is a performance drop")
def test_temperatures_of_a_pack_are_mapped_over() -> None:
    students, target = logits(3 * 4, 30, 16).view(3, 4, 30), stored("topk", logits(4, 30, 17), 5)
    temperatures = torch.tensor([1.0, 2.0, 7.0])
    mapped = torch.func.vmap(torch.func.grad(lambda z, t: soft(Output(z), target, temperature=t)), randomness="error")(
        students, temperatures
    )
    for student, temperature, found in zip(students, temperatures.tolist(), mapped, strict=True):
        alone = gradient(lambda z, t=temperature: soft(Output(z), target, temperature=t), student)  # type: ignore[misc]
        assert torch.allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize(("codec", "copies"), [("topk", 1), ("sampled", 0)])
def test_backward_holds_at_most_one_copy_of_the_students_logits(codec: str, copies: int) -> None:
    student, target = logits(4, 5000, 18).requires_grad_(), stored(codec, logits(4, 5000, 19), 8)
    held = set()

    def pack(saved: Tensor) -> Tensor:
        if saved.numel() == student.numel() and saved.data_ptr() != student.data_ptr():
            held.add(saved.data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        loss = soft(Output(student), target, temperature=1.0)
    assert len(held) <= copies
    loss.backward()


def test_sampled_targets_are_of_temperature_one() -> None:
    target = stored("sampled", logits(2, 20, 20), 4)
    with pytest.raises(AssertionError, match="T = 1"):
        soft(Output(logits(2, 20, 21)), target, temperature=2.0)


def test_students_rank_by_any_target_as_by_all_logits() -> None:
    teacher = logits(400, 60, 22)
    noise = logits(400, 60, 23, 1.0)
    students = [teacher + step * noise for step in (0.1, 0.5, 1.0, 2.0)]
    dense = [kl_to_teacher(Output(student.double()), DenseTarget(teacher)).item() for student in students]
    assert dense == sorted(dense)
    for codec in ("topk", "sampled"):
        target = stored(codec, teacher, 8)
        assert (found := [kl_to_teacher(Output(student.double()), target).item() for student in students]) == sorted(
            found
        )
        if codec == "topk":
            assert all(got <= all_logits for got, all_logits in zip(found, dense, strict=True))
