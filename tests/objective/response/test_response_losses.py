"""What holds for every response loss: a new one is tested by being in the catalogue, and by its naive loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill_platform.cache import DenseTarget, TopKTarget
from distill_platform.models import Output
from distill_platform.objective.loss import Loss
from distill_platform.objective.response import RESPONSE
from tests.objective.response.naive import exact_topk, naive

CASES = [
    pytest.param(name, {flag: True} if flag else {}, id=f"{name}-{flag}" if flag else name)
    for name, loss in RESPONSE.items()
    for flag in (None, *(key for key, setting in loss.settings.items() if setting.default is False))
]
"""Every loss, and every loss with each of its switches on."""
OVER_BUCKETS = [name for name, loss in RESPONSE.items() if TopKTarget in loss.functions]


def numbers_of(loss: Loss, generator: torch.Generator) -> dict[str, float]:
    """Values of its number settings, somewhere within their bounds."""
    return {
        name: max(setting.low, 0.3) + (min(setting.high, 4.0) - max(setting.low, 0.3)) * uniform(generator)
        for name, setting in loss.settings.items()
        if setting.is_number
    }


def uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def drawn(name: str, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Logits of a student and a teacher, labels of which one is none, and settings."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    labels.view(-1)[-1] = -1
    return student, teacher, labels, numbers_of(RESPONSE[name], generator)


def value(name: str, student: Tensor, teacher: Tensor, labels: Tensor, mask: Tensor | None = None, **given: Any) -> Any:
    return RESPONSE[name](Output(student, mask), DenseTarget(teacher), labels, **given)


@pytest.mark.parametrize(("name", "flags"), CASES)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(3, 6), classes=st.integers(4, 8), seed=st.integers(0, 10_000))
def test_it_equals_the_papers_formula(name: str, flags: dict[str, bool], rows: int, classes: int, seed: int) -> None:
    student, teacher, labels, numbers = drawn(name, rows, classes, seed=seed)
    given = {**defaults(name), **numbers, **flags}
    wanted = naive(name, student, teacher, labels, **given)
    got = value(name, student, teacher, labels, **given)
    assert got.dtype == torch.float64
    smoothed = name == "dist" or "standardize" in flags  # by what keeps constant logits from dividing by 0
    assert got.item() == pytest.approx(wanted, rel=1e-4 if smoothed else 1e-6, abs=1e-7 if smoothed else 1e-12)
    in_fp32 = value(name, student.float(), teacher.float(), labels, **given)
    assert in_fp32.item() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def defaults(name: str) -> dict[str, Any]:
    return {key: setting.default for key, setting in RESPONSE[name].settings.items()}


@pytest.mark.parametrize(("name", "flags"), CASES)
def test_it_is_zero_with_zero_gradient_where_student_is_teacher(name: str, flags: dict[str, bool]) -> None:
    student, _, labels, numbers = drawn(name, 5, 7)
    values = student.clone().requires_grad_()
    loss = value(name, values, student, labels, **{**numbers, **flags})
    (gradient,) = torch.autograd.grad(loss, values)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize(("name", "flags"), CASES)
def test_its_gradient_is_right_for_the_student_and_for_every_number(name: str, flags: dict[str, bool]) -> None:
    student, teacher, labels, numbers = drawn(name, 3, 5, seed=1)

    def loss(values: Tensor, *given: Tensor) -> Tensor:
        return value(name, values, teacher, labels, **dict(zip(numbers, given, strict=True)), **flags)

    given = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers.values()]
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), *given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "flags"), CASES)
def test_short_formats_are_computed_in_fp32(name: str, flags: dict[str, bool], dtype: torch.dtype) -> None:
    student, teacher, labels, numbers = drawn(name, 6, 30, seed=2)
    student, teacher = student.to(dtype), teacher.to(dtype)
    got = value(name, student, teacher, labels, **numbers, **flags)
    assert got.dtype == torch.float32
    wanted = naive(name, student, teacher, labels, **{**defaults(name), **numbers, **flags})
    assert got.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("garbage", [0.0, 1e4, -3e38, 3e38])
@pytest.mark.parametrize(("name", "flags"), CASES)
def test_what_is_masked_changes_nothing(name: str, flags: dict[str, bool], garbage: float) -> None:
    student, teacher, labels, numbers = drawn(name, 4, 3, 6, seed=3)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
    given = {**numbers, **flags}
    wanted = value(name, student[mask], teacher[mask], labels[mask], **given)
    values, other = student.float(), teacher.float()
    for tensor in (values, other):
        tensor[~mask] = garbage * torch.tensor([1, -1, 0.5, 1, 0, -1])
    got = value(name, values.requires_grad_(), other, labels, mask, **given)
    (gradient,) = torch.autograd.grad(got, values)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.isfinite(gradient).all()
    assert not gradient[~mask].any()
    assert gradient[mask].any()


@pytest.mark.parametrize("garbage", [0.0, -3e38, 3e38])
@pytest.mark.parametrize("name", OVER_BUCKETS)
def test_what_is_masked_changes_nothing_over_buckets(name: str, garbage: float) -> None:
    student, teacher, labels, numbers = drawn(name, 4, 8, seed=4)
    numbers["temperature"] = 2.0
    mask = torch.tensor([True, False, True, True])
    wanted = RESPONSE[name](Output(student[mask]), exact_topk(teacher[mask], 3), labels[mask], **numbers)
    target = exact_topk(teacher.float(), 3)
    for tensor in (target.logits, target.tail_lse, target.tail_lse_at_2, target.tail_mean, values := student.float()):
        tensor[1] = garbage
    got = RESPONSE[name](Output(values.requires_grad_(), mask), target, labels, **numbers)
    (gradient,) = torch.autograd.grad(got, values)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.isfinite(gradient).all()
    assert not gradient[1].any()


@pytest.mark.parametrize(("name", "flags"), CASES)
def test_where_nothing_counts_there_is_no_loss(name: str, flags: dict[str, bool]) -> None:
    student, teacher, labels, numbers = drawn(name, 3, 5, seed=5)
    values = student.requires_grad_()
    loss = value(name, values, teacher, labels, torch.zeros(3, dtype=torch.bool), **numbers, **flags)
    (gradient,) = torch.autograd.grad(loss, values)
    assert (loss.item(), gradient.abs().max().item()) == (0, 0)


@pytest.mark.parametrize("name", RESPONSE)
@settings(max_examples=10, deadline=None)
@given(leading=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_positions_are_counted_alike_however_they_are_laid_out(name: str, leading: list[int], seed: int) -> None:
    """A token counts the same in a long text and in a short one: one mean over all of a batch."""
    student, teacher, labels, numbers = drawn(name, *leading, 5, seed=seed)
    flat = value(name, student.flatten(0, -2), teacher.flatten(0, -2), labels.flatten(), **numbers)
    assert value(name, student, teacher, labels, **numbers).item() == pytest.approx(flat.item(), rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.parametrize(
    ("name", "flags", "keep"),
    [*(pytest.param(*case.values, 0, id=case.id) for case in CASES), *((name, {}, 3) for name in OVER_BUCKETS)],
)
def test_settings_may_be_mapped_over(name: str, flags: dict[str, bool], keep: int) -> None:
    """A pack: each member has a student and numbers of its own, and all have the batch in common."""
    _, teacher, labels, _ = drawn(name, 4, 8)
    target = exact_topk(teacher, keep) if keep else DenseTarget(teacher)
    mask = torch.tensor([True, True, False, True])
    members = [drawn(name, 4, 8, seed=seed) for seed in (1, 2, 3)]
    students = torch.stack([member[0] for member in members])
    numbers = {key: torch.tensor([member[3][key] for member in members], dtype=torch.float64) for key in members[0][3]}

    def loss(values: Tensor, given: dict[str, Any]) -> Tensor:
        return RESPONSE[name](Output(values, mask), target, labels, **given, **flags)

    mapped = torch.func.vmap(torch.func.grad(loss))(students, numbers)
    for place, (student, _, _, own) in enumerate(members):
        assert torch.allclose(mapped[place], torch.func.grad(loss)(student, own), atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", OVER_BUCKETS)
def test_over_all_but_one_class_it_is_the_loss_from_all_logits(name: str, temperature: float) -> None:
    """The bucket of the others then holds one class."""
    student, teacher, labels, numbers = drawn(name, 6, 9, seed=6)
    numbers["temperature"] = temperature
    got = RESPONSE[name](Output(student), exact_topk(teacher, 8), labels, **numbers)
    assert got.item() == pytest.approx(value(name, student, teacher, labels, **numbers).item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", OVER_BUCKETS)
def test_over_few_classes_it_has_no_gradient_where_student_is_teacher(name: str, temperature: float) -> None:
    student, teacher, labels, numbers = drawn(name, 6, 200, seed=7)
    numbers["temperature"], values = temperature, teacher.clone().requires_grad_()
    loss = RESPONSE[name](Output(values), exact_topk(teacher, 8), labels, **numbers)
    (gradient,) = torch.autograd.grad(loss, values)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12
    apart = RESPONSE[name](Output(student), exact_topk(teacher, 8), labels, **numbers)
    assert 0 < apart.item() <= value(name, student, teacher, labels, **numbers).item()


@pytest.mark.parametrize("name", [name for name, loss in RESPONSE.items() if loss.dense_only])
def test_standardised_logits_are_compared_whatever_their_scale_and_offset(name: str) -> None:
    """Sun et al. 2024, section 4: the student keeps its own range of logits."""
    student, teacher, labels, numbers = drawn(name, 5, 8, seed=8)
    rescaled = 3.7 * student + torch.arange(5.0)[:, None]
    one = value(name, student, teacher, labels, standardize=True, **numbers).item()
    assert value(name, rescaled, teacher, labels, standardize=True, **numbers).item() == pytest.approx(one, rel=1e-6)
    assert value(name, rescaled, teacher, labels, **numbers).item() != pytest.approx(one, rel=1e-2)


@pytest.mark.parametrize(("name", "flags"), CASES)
def test_a_student_that_tells_no_class_from_another_still_learns(name: str, flags: dict[str, bool]) -> None:
    """As after a last layer that starts at zero."""
    _, teacher, labels, numbers = drawn(name, 4, 6, seed=9)
    values = torch.zeros(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(name, values, teacher.float(), labels, **numbers, **flags), values)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", [name for name, loss in RESPONSE.items() if loss.dense_only])
def test_a_switch_that_needs_every_logit_narrows_what_is_accepted(name: str) -> None:
    loss = RESPONSE[name]
    assert loss.accepts() == tuple(loss.functions)
    assert loss.accepts({"standardize": True}) == (DenseTarget,)


@pytest.mark.parametrize("name", [name for name in RESPONSE if name != "dist"])
def test_a_mask_of_numbers_says_how_much_each_position_counts(name: str) -> None:
    """All but `dist`, whose correlation over positions is of all that count at all."""
    student, teacher, labels, numbers = drawn(name, 4, 6)
    labels = labels.clamp(min=0)
    counts = torch.tensor([0.5, 0.0, 2.0, 0.25], dtype=torch.float64)
    single = [value(name, student[[row]], teacher[[row]], labels[[row]], **numbers) * counts[row] for row in range(4)]
    got = value(name, student, teacher, labels, mask=counts, **numbers)
    assert got.item() == pytest.approx(float(sum(single) / counts.sum()), rel=1e-9)
