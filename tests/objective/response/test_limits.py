"""The limiting case of each loss that its paper states."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distill_platform.cache import DenseTarget
from distill_platform.models import Output
from distill_platform.objective.response import RESPONSE
from distill_platform.objective.response.decoupled import dkd
from distill_platform.objective.response.dist import dist
from distill_platform.objective.response.divergences import jensen_shannon, skewed_kl, skewed_reverse_kl
from distill_platform.objective.response.logits import logit_mse
from distill_platform.objective.response.soft_targets import kl, soft_targets


def logits(rows: int, classes: int, seed: int) -> Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = logits(6, 8, 0), logits(6, 8, 1)
P, Q = TEACHER.log_softmax(-1), STUDENT.log_softmax(-1)


def test_soft_targets_approach_logit_matching_at_high_temperature() -> None:
    """Hinton et al. 2015, equation 4: for zero-mean logits dC/dz is (z - v) / (N T^2), times T^2 here."""
    student, teacher = (values - values.mean(-1, keepdim=True) for values in (STUDENT, TEACHER))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_targets(student, teacher, 1000.0), student)
    assert torch.allclose(gradient, (student.detach() - teacher) / 8 / 6, rtol=0.02, atol=1e-3)


def test_soft_targets_are_exactly_zero_where_student_is_teacher() -> None:
    student = STUDENT.float()
    assert soft_targets(student, student.clone(), 4.0).item() == 0.0


def test_tiny_teacher_probabilities_do_not_underflow() -> None:
    teacher = torch.tensor([[0.0, -40.0]], dtype=torch.float16)
    student = torch.tensor([[-40.0, 0.0]], dtype=torch.float16)
    assert soft_targets(student, teacher, 1.0).item() == pytest.approx(40.0, rel=1e-3)


def test_reverse_kl_is_soft_targets_with_the_roles_exchanged() -> None:
    got = RESPONSE["reverse_kl"](Output(STUDENT), DenseTarget(TEACHER), temperature=3.0)
    assert torch.allclose(got, soft_targets(TEACHER, STUDENT, 3.0))


def test_jensen_shannon_approaches_forward_and_reverse_kl() -> None:
    """Agarwal et al. 2024, section 2: over beta as beta goes to 0, and by symmetry at the other end."""
    assert torch.allclose(jensen_shannon(P, Q, 1e-8) / 1e-8, kl(P, Q), rtol=1e-3)
    assert torch.allclose(jensen_shannon(P, Q, 1 - 1e-8) / 1e-8, kl(Q, P), rtol=1e-3)


def test_jensen_shannon_of_equal_shares_is_symmetric_and_at_most_log_2() -> None:
    assert torch.allclose(jensen_shannon(P, Q, 0.5), jensen_shannon(Q, P, 0.5))
    far = torch.tensor([[0.0, -500.0]])
    assert jensen_shannon(far, far.flip(-1), 0.5).item() == pytest.approx(math.log(2))


def test_a_sweep_never_crosses_the_jump_at_0_and_1() -> None:
    beta = RESPONSE["jensen_shannon"].settings["beta"]
    assert not any(beta.takes(end) for end in (0, 1, 0.0, 1.0))


def test_skewed_divergences_without_skew_are_the_plain_ones() -> None:
    for alpha in (0.0, torch.tensor(0.0, dtype=torch.float64)):
        assert torch.allclose(skewed_kl(P, Q, alpha), kl(P, Q))
        assert torch.allclose(skewed_reverse_kl(P, Q, alpha), kl(Q, P))


@pytest.mark.parametrize("divergence", [skewed_kl, skewed_reverse_kl])
def test_skewed_divergences_are_bounded(divergence: object) -> None:
    """Ko et al. 2024: the mixture has alpha of the first at least, so no probability is missed by more."""
    far = torch.tensor([[0.0, -500.0]])
    assert divergence(far, far.flip(-1), 0.1).item() == pytest.approx(-math.log(0.1))  # type: ignore[operator]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_with_the_teachers_own_weights_is_soft_targets(temperature: float) -> None:
    """Zhao et al. 2022, section 3.1: KL is the target part plus 1 - p(target) times the other part."""
    labels = torch.tensor([0, 3, 7, 2, 2, 5])
    others = 1 - (TEACHER / temperature).softmax(-1).gather(-1, labels[:, None])[:, 0]
    got = dkd(STUDENT, TEACHER, labels, temperature, 1.0, others)
    assert torch.allclose(got, soft_targets(STUDENT, TEACHER, temperature))


def test_unlabelled_positions_count_in_no_decoupled_loss() -> None:
    labels = torch.tensor([0, -1, 7, -1, 2, 5])
    known, values = labels != -1, STUDENT.clone().requires_grad_()
    loss = dkd(values, TEACHER, labels, 2.0, 1.0, 8.0)
    assert torch.allclose(loss, dkd(STUDENT[known], TEACHER[known], labels[known], 2.0, 1.0, 8.0))
    (gradient,) = torch.autograd.grad(loss, values)
    assert not gradient[~known].any()
    assert gradient[known].any(-1).all()
    assert dkd(STUDENT, TEACHER, torch.full((6,), -1), 2.0, 1.0, 8.0) == 0


def test_decoupled_does_not_underflow_where_the_teacher_is_sure() -> None:
    teacher = torch.tensor([[200.0, 0.0, -3.0]])
    student = torch.tensor([[0.0, 200.0, -3.0]])
    loss = dkd(student, teacher, torch.tensor([0]), 1.0, 1.0, 0.0)
    assert loss.item() == pytest.approx(200.0, rel=1e-5)


def flattened(probabilities: Tensor, share: Tensor | float) -> Tensor:
    """Logits of an affine map of probabilities: drawn towards the uniform distribution."""
    return (share * probabilities + (1 - share) / probabilities.shape[-1]).log()


def test_dist_does_not_see_affine_maps_of_what_it_correlates() -> None:
    """Huang et al. 2022, equation 4: correlation is invariant to scale and shift."""
    p = TEACHER.softmax(-1)
    share = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)[:, None]
    assert dist(flattened(p, 0.3), TEACHER, 1.0, 1.0, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert dist(flattened(p, share), TEACHER, 1.0, 1.0, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert dist(flattened(p, share), TEACHER, 1.0, 0.0, 1.0).item() > 1e-3
    assert soft_targets(flattened(p, 0.3), TEACHER, 1.0).item() > 0.1


def test_dist_of_opposites_is_at_its_largest() -> None:
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dist(teacher.flip(-1), teacher, 1.0, 1.0, 1.0).item() == pytest.approx(4.0, rel=1e-5)


def test_dist_of_one_position_has_no_relation_between_positions() -> None:
    values = STUDENT[:1].clone().requires_grad_()
    loss = dist(values, TEACHER[:1], 1.0, 0.0, 1.0)
    (gradient,) = torch.autograd.grad(loss, values)
    assert (loss.item(), gradient.abs().max().item()) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_dist_correlates_classes_that_are_all_but_impossible() -> None:
    """Probabilities of 1e-18, whose variance fp32 does not hold."""
    rare = torch.tensor([0.0] * 4 + [-40.0] * 4)
    exact = dist(STUDENT + rare, TEACHER + rare, 1.0, 0.0, 1.0)
    got = dist((STUDENT + rare).float(), (TEACHER + rare).float(), 1.0, 0.0, 1.0)
    assert got.item() == pytest.approx(exact.item(), rel=1e-4)
    shallow = dist(STUDENT[:, :4], TEACHER[:, :4], 1.0, 0.0, 1.0).item()
    assert abs(got.item() - shallow / 2) > 0.05, "the rare classes have a part in it"


def test_centred_logits_are_twice_the_limit_of_soft_targets() -> None:
    """Kim et al. 2021: as T grows without bound, T^2 KL goes to half the squared distance over C, less the offset."""
    limit = soft_targets(STUDENT, TEACHER, 1e4)
    assert logit_mse(STUDENT, TEACHER, centered=True).item() == pytest.approx(2 * limit.item(), rel=1e-3)


def test_centred_logits_have_no_offset() -> None:
    offset = torch.arange(6.0)[:, None]
    centred = logit_mse(STUDENT, TEACHER, centered=True)
    assert torch.allclose(logit_mse(STUDENT + offset, TEACHER, centered=True), centred)
    assert logit_mse(STUDENT + offset, TEACHER) > centred + 1
