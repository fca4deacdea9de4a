"""Metrics of tokens against loops over tokens, and what a language model is scored by."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_platform.errors import ModelError
from distill_platform.evaluate.bounds import ONE_SIDED_95, difference_interval, metric_intervals
from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.measures import TOKENS
from distill_platform.evaluate.score import Timing, _at_labels, score_models
from distill_platform.evaluate.token_metrics import TOKEN_METRICS, each_token
from distill_platform.models import Output, load_student_folder
from distill_platform.tasks import TASKS
from tests.factory_tokens import bigram_folder, chain

TIMING = Timing(batch_size=2, threads=1, warmup=0, runs=2)


def scored(tmp_path: Path, num_blocks: int = 40, **sureness: float) -> Evaluation:
    folders = {name: bigram_folder(tmp_path / name, sure) for name, sure in sureness.items()}
    digests = {name: f"{name}-digest" for name in folders}
    ids = [f"block-{row}" for row in range(num_blocks)]
    return score_models(chain(num_blocks), ids, "data", folders, digests, TIMING, TASKS["language_modelling"])


def naive_tokens(logits: np.ndarray, labels: np.ndarray, teacher: np.ndarray) -> list[list[tuple[float, ...]]]:
    found: list[list[tuple[float, ...]]] = []
    for block in range(len(labels)):
        found.append([])
        for position, label in enumerate(labels[block]):
            if label == -1:
                found[-1].append((0.0,) * 4)
                continue
            z, t = logits[block, position], teacher[block, position]
            p, q = (np.array([math.exp(x - max(v)) for x in v]) for v in (z, t))
            p, q = p / p.sum(), q / q.sum()
            kl = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
            found[-1].append((-math.log(p[label]), float(z.argmax() == label), float(z.argmax() == t.argmax()), kl))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_each_token_equals_a_loop_and_padding_counts_nothing(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(3, 5, 7, generator=generator).to(dtype) for _ in range(2))
    labels = torch.randint(0, 7, (3, 5), generator=generator)
    labels[1, 3:] = -1
    labels[2] = -1
    found = each_token(logits, labels, teacher)
    expected = naive_tokens(logits.double().numpy(), labels.numpy(), teacher.double().numpy())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[2].abs().sum() == 0


def test_a_token_that_the_teacher_rules_out_adds_nothing_to_its_distance() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0]]])
    teacher = torch.tensor([[[1.0, 2.0, -math.inf]]])
    kl = float(each_token(logits, torch.tensor([[0]]), teacher)[0, 0, 3])
    assert kl == pytest.approx(math.log(math.exp(1) + math.exp(2) + math.exp(3)) - math.log(math.exp(1) + math.exp(2)))


def test_a_language_model_has_the_figures_of_a_loop_over_its_tokens(tmp_path: Path) -> None:
    evaluation, test = scored(tmp_path, teacher=2.5, student=1.0), chain(40)
    inputs, labels = test.inputs.numpy(), test.labels.numpy()
    nll, right, count = 0.0, 0, 0
    for block, position in np.argwhere(labels >= 0):
        following = (inputs[block, position] + 1) % 5
        hit = labels[block, position] == following
        nll += math.log(math.exp(1.0) + 4) - (1.0 if hit else 0.0)
        right, count = right + hit, count + 1
    row = evaluation.summary["student"]
    assert row["perplexity"]["value"] == pytest.approx(math.exp(nll / count))
    assert row["log_loss"]["value"] == pytest.approx(nll / count)
    assert row["accuracy"]["value"] == pytest.approx(right / count)
    assert row["bits_per_byte"]["value"] == pytest.approx(nll / math.log(2) / count)  # a letter is a byte
    assert row["teacher_agreement"]["value"] == 1
    p, q = math.exp(1.0) / (math.exp(1.0) + 4), math.exp(2.5) / (math.exp(2.5) + 4)
    kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert row["kl_to_teacher"]["value"] == pytest.approx(kl)
    assert evaluation.summary["teacher"]["kl_to_teacher"]["value"] == pytest.approx(0, abs=1e-12)


def test_loss_by_position_averages_to_the_loss(tmp_path: Path) -> None:
    evaluation, labels = scored(tmp_path, teacher=2.5), chain(40).labels.numpy()
    counts = (labels >= 0).sum(0)
    by_position = np.array(evaluation.models["teacher"].loss_by_position)
    mean = (by_position * counts).sum() / counts.sum()
    assert mean == pytest.approx(evaluation.summary["teacher"]["log_loss"]["value"])


def test_logits_are_never_held_for_more_than_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scored(tmp_path, teacher=2.5, student=1.0)
    seen: list[int] = []

    def counting(logits: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(len(logits))
        return each_token(logits, *others)

    monkeypatch.setattr("distill_platform.evaluate.score.each_token", counting)
    monkeypatch.setattr("distill_platform.tasks.task.LOGITS_HELD", 7 * 12 * 5)
    parts = scored(tmp_path, teacher=2.5, student=1.0)
    assert max(seen) == 7
    assert np.allclose(parts.models["student"].answers, whole.models["student"].answers, atol=1e-12)


def test_tokens_count_alike_in_short_and_long_blocks() -> None:
    labels = np.array([[1, 4], [99, 396]])
    sums = np.array([[5.0, 0, 0, 0], [99.0, 99, 99, 0]])
    assert TOKEN_METRICS["log_loss"].function(labels, sums) == pytest.approx(104 / 100)
    assert TOKEN_METRICS["accuracy"].function(labels, sums) == pytest.approx(0.99)
    assert TOKEN_METRICS["bits_per_byte"].function(labels, sums) == pytest.approx(104 / 400 / math.log(2))


def test_data_that_does_not_count_bytes_has_no_bits_per_byte(tmp_path: Path) -> None:
    labels, sums = np.array([[9, 0], [9, 0]]), np.ones((2, 4))
    assert math.isnan(TOKEN_METRICS["bits_per_byte"].function(labels, sums))
    found = metric_intervals(TOKENS, TOKEN_METRICS, labels, sums, ONE_SIDED_95)
    assert math.isnan(found["bits_per_byte"].lower)
    assert math.isfinite(found["perplexity"].upper)


def blocks(rng: np.random.Generator, num_blocks: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N, 2] and sums [N, 4] of blocks of 50 tokens whose losses have a part in common within a block."""
    loss = np.exp(rng.normal(0, spread, num_blocks)) * 50
    right = rng.binomial(50, np.clip(rng.beta(4, 4, num_blocks), 0, 1))
    labels = np.stack([np.full(num_blocks, 50), np.full(num_blocks, 200)], axis=1)
    return labels, np.stack([loss, right, right, loss / 9], axis=1).astype(np.float64)


def test_perplexitys_bound_covers_its_true_value_though_tokens_of_a_block_depend_on_each_other() -> None:
    rng, simulations, missed = np.random.default_rng(0), 100, 0
    for _ in range(simulations):
        labels, sums = blocks(rng, 120, 0.3)
        bound = metric_intervals(TOKENS, ["perplexity"], labels, sums, ONE_SIDED_95)["perplexity"].upper
        missed += bound < math.exp(math.exp(0.3**2 / 2))
    assert missed / simulations <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / simulations)


def test_a_ratio_to_another_model_is_paired() -> None:
    labels, theirs = blocks(np.random.default_rng(1), 100, 0.3)
    ours = theirs.copy()
    ours[:, 0] += 0.02 * 50  # perplexity exactly exp(.02) times as high, on every block
    found = difference_interval(TOKENS, "perplexity", labels, ours, theirs, math.exp(0.02), ONE_SIDED_95)
    assert found == pytest.approx((0, 0), abs=1e-9)
    alone = metric_intervals(TOKENS, ["perplexity"], labels, ours, ONE_SIDED_95)["perplexity"]
    assert alone.upper - alone.lower > 0.1


def test_a_model_of_another_vocabulary_or_order_is_refused(tmp_path: Path) -> None:
    schema = dataclasses.replace(chain(2).schema, class_names=("b", "a", "c", "d", "e"))
    folders = {
        "teacher": bigram_folder(tmp_path / "teacher", 2.0),
        "champion": bigram_folder(tmp_path / "champion", 2.0, schema),
    }
    digests = dict.fromkeys(folders, "9" * 64)
    with pytest.raises(ModelError, match="champion 999999999999 was made for 5 classes that are not, in this order"):
        score_models(chain(2), ["0", "1"], "data", folders, digests, TIMING, TASKS["language_modelling"])


def test_a_model_without_a_fault_is_not_certain_to_have_none() -> None:
    labels, sums = np.tile([50, 200], (20, 1)), np.tile([10.0, 50, 50, 1], (20, 1))
    found = metric_intervals(TOKENS, ["accuracy"], labels, sums, ONE_SIDED_95)["accuracy"]
    assert found.upper == 1
    assert 0.99 < found.lower < 1
    paired = difference_interval(TOKENS, "accuracy", labels, sums, sums, 1.0, ONE_SIDED_95)
    assert paired.lower < 0 <= paired.upper


def test_a_model_of_another_block_length_is_refused(tmp_path: Path) -> None:
    half = load_student_folder(bigram_folder(tmp_path / "teacher", 2.0))
    half.network.forward = lambda raw: {"logits": Output(torch.zeros(len(raw), 6, 5))}  # type: ignore[method-assign]
    labels = chain(2).labels
    with pytest.raises(ModelError, match="teacher gives logits at 6 positions of a block, the data has labels at 12"):
        _at_labels("teacher", half, chain(2).inputs, labels, TASKS["language_modelling"])
