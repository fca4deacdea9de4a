from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, norm

from distill_platform.evaluate.bounds import (
    ONE_SIDED_95,
    TWO_SIDED_95,
    clustered_proportion_interval,
    difference_interval,
    metric_intervals,
    paired_difference_interval,
    proportion_interval,
    quantile_interval,
    samples_needed,
)
from distill_platform.evaluate.measures import CLASSES
from distill_platform.evaluate.metrics import METRICS


def predictions(labels: np.ndarray, right: np.ndarray, num_classes: int) -> np.ndarray:
    """Logits [N, C] of a model that is right where told and says the next class elsewhere."""
    return np.eye(num_classes)[np.where(right, labels, (labels + 1) % num_classes)]


def monte_carlo_limit(rate: float, simulations: int) -> float:
    return rate + 3 * math.sqrt(rate * (1 - rate) / simulations)


def test_proportion_interval_is_clopper_and_pearsons_beta_quantiles() -> None:
    found = proportion_interval(350, 360, ONE_SIDED_95)
    assert found.lower == pytest.approx(beta.ppf(0.05, 350, 11), abs=1e-9)
    assert found.upper == pytest.approx(beta.ppf(0.95, 351, 10), abs=1e-9)
    assert proportion_interval(10, 10, ONE_SIDED_95) == (pytest.approx(0.05**0.1), 1.0)


def naive_tango(only_first: int, only_second: int, trials: int, confidence: float) -> tuple[float, float]:
    """Differences that the score test does not reject, on a grid, the nuisance probability found numerically."""
    accepted = []
    for difference in np.linspace(-0.9995, 0.9995, 4_000):
        # Each log-likelihood that the constraint p_first - p_second = difference leaves possible.
        low, high = max(0.0, -difference), (1 - difference) / 2

        def loss(second: float, difference: float = difference) -> float:
            both_or_none = trials - only_first - only_second
            parts = (
                (only_first, second + difference),
                (only_second, second),
                (both_or_none, 1 - 2 * second - difference),
            )
            return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

        second = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        variance = (2 * second + difference - difference**2) / trials
        distance = abs((only_first - only_second) / trials - difference)
        if distance <= norm.ppf((1 + confidence) / 2) * math.sqrt(max(variance, 0)):
            accepted.append(difference)
    return min(accepted), max(accepted)


@pytest.mark.parametrize(("only_first", "only_second", "trials"), [(9, 2, 60), (0, 1, 44), (0, 0, 30), (3, 3, 20)])
def test_tango_interval_equals_a_grid_of_numerical_score_tests(only_first: int, only_second: int, trials: int) -> None:
    expected = naive_tango(only_first, only_second, trials, TWO_SIDED_95)
    found = paired_difference_interval(only_first, only_second, trials, TWO_SIDED_95)
    assert found == pytest.approx(expected, abs=1.1e-3)


def test_tango_interval_of_models_that_never_differ_still_has_width() -> None:
    z2 = norm.ppf(0.95) ** 2
    limit = z2 / (100 + z2)  # closed form where nothing is discordant
    assert paired_difference_interval(0, 0, 100, ONE_SIDED_95) == pytest.approx((-limit, limit), abs=1e-8)


def test_tango_interval_mirrors_when_the_models_change_places_and_reaches_the_ends() -> None:
    first, second = paired_difference_interval(7, 1, 50, 0.9), paired_difference_interval(1, 7, 50, 0.9)
    assert first == pytest.approx((-second.upper, -second.lower), abs=1e-8)
    assert paired_difference_interval(5, 0, 5, 0.9).upper == 1
    assert paired_difference_interval(0, 5, 5, 0.9).lower == -1


@pytest.mark.parametrize(("margin", "discordant"), [(0.02, 0.06), (0.05, 0.10), (0.05, 0.20)])
def test_tango_bound_passes_a_student_at_the_margin_one_time_in_twenty_at_most(
    margin: float, discordant: float
) -> None:
    trials, simulations = 360, 1_000
    only_student, only_teacher = (discordant - margin) / 2, (discordant + margin) / 2
    counts = np.random.default_rng(1).multinomial(
        trials, [only_student, only_teacher, 1 - discordant], size=simulations
    )
    lower = functools.cache(lambda ours, theirs: paired_difference_interval(ours, theirs, trials, ONE_SIDED_95).lower)
    passed = sum(lower(int(ours), int(theirs)) >= -margin for ours, theirs, _ in counts)
    assert passed / simulations <= monte_carlo_limit(0.05, simulations)
    assert passed > 0  # the bound is not just far away


@pytest.mark.parametrize("accuracy", [0.9, 0.99])
def test_bootstrap_bound_of_macro_recall_is_wrong_one_time_in_20_at_most(accuracy: float) -> None:
    # With as many examples of each class, macro recall's true value is the accuracy.
    rng, simulations, labels = np.random.default_rng(2), 200, np.arange(200) % 4
    wrong = 0
    for _ in range(simulations):
        logits = predictions(labels, rng.random(200) < accuracy, 4)
        bound = metric_intervals(CLASSES, ["macro_recall"], labels, logits, ONE_SIDED_95)["macro_recall"].lower
        wrong += bound > accuracy
    assert wrong / simulations <= monte_carlo_limit(0.05, simulations)
    assert accuracy > 0.95 or wrong > 0


def test_bootstrap_bound_of_log_loss_covers_its_true_value() -> None:
    rng, simulations = np.random.default_rng(3), 200
    missed = 0
    for _ in range(simulations):
        probability = rng.uniform(0.2, 0.9, 200)  # of the label: -log has the mean below
        logits = np.stack([np.log(probability), np.log(1 - probability)], axis=1)
        bound = metric_intervals(CLASSES, ["log_loss"], np.zeros(200, np.int64), logits, ONE_SIDED_95)["log_loss"].upper
        truth = -((0.9 * math.log(0.9) - 0.9) - (0.2 * math.log(0.2) - 0.2)) / 0.7
        missed += bound < truth
    assert missed / simulations <= monte_carlo_limit(0.06, simulations)  # a percentile interval is approximate


@pytest.mark.parametrize("name", METRICS)
def test_metric_interval_agrees_with_resampling_one_example_at_a_time(name: str) -> None:
    rng, labels = np.random.default_rng(4), np.arange(400) % 4
    logits = 2 * predictions(labels, rng.random(400) < 0.85, 4) + rng.normal(size=(400, 4))
    values = []
    for _ in range(2_000):
        chosen = rng.integers(400, size=400)
        values.append(METRICS[name].function(labels[chosen], logits[chosen]))
    expected = np.quantile(values, [0.025, 0.975])
    found = metric_intervals(CLASSES, [name], labels, logits, TWO_SIDED_95)[name]
    assert found == pytest.approx(tuple(expected), abs=0.15 * (expected[1] - expected[0]) + 1 / 400)


@pytest.mark.parametrize("name", ["macro_f1", "macro_recall", "macro_precision"])
def test_a_model_without_a_fault_is_bounded_like_an_exact_proportion(name: str) -> None:
    labels = np.arange(60) % 3
    found = metric_intervals(CLASSES, [name], labels, predictions(labels, np.full(60, True), 3), ONE_SIDED_95)[name]
    assert found.upper == 1
    assert found.lower == pytest.approx(0.05 ** (1 / 60), abs=0.01)


@pytest.mark.parametrize("name", METRICS)
def test_metric_interval_holds_the_measured_value_and_is_the_same_again(name: str) -> None:
    rng, labels = np.random.default_rng(5), np.arange(90) % 3
    logits = rng.normal(size=(90, 3)) + predictions(labels, rng.random(90) < 0.9, 3)
    found = metric_intervals(CLASSES, [name], labels, logits, TWO_SIDED_95)
    assert found[name].lower <= METRICS[name].function(labels, logits) <= found[name].upper
    assert found == metric_intervals(CLASSES, [name], labels, logits, TWO_SIDED_95)


def test_intervals_do_not_depend_on_how_many_weights_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, labels = np.random.default_rng(6), np.arange(90) % 3
    logits = rng.normal(size=(90, 3))
    at_once = metric_intervals(CLASSES, METRICS, labels, logits, TWO_SIDED_95)
    monkeypatch.setattr("distill_platform.evaluate.bounds.CHUNK_WEIGHTS", 1_000)
    assert metric_intervals(CLASSES, METRICS, labels, logits, TWO_SIDED_95) == at_once


def test_accuracy_difference_is_tangos() -> None:
    labels = np.arange(100) % 4
    ours, theirs = np.arange(100) >= 12, (np.arange(100) >= 15) | (np.arange(100) < 5)
    found = difference_interval(
        CLASSES, "accuracy", labels, predictions(labels, ours, 4), predictions(labels, theirs, 4), 1.0, ONE_SIDED_95
    )
    assert found == paired_difference_interval(3, 5, 100, ONE_SIDED_95)


def test_paired_bootstrap_is_narrower_than_models_taken_apart_and_agrees_with_tango() -> None:
    rng, labels = np.random.default_rng(7), np.arange(400) % 4
    ours = rng.random(400) < 0.8
    theirs = np.where(np.arange(400) < 8, ~ours, ours)
    first, second = predictions(labels, ours, 4), predictions(labels, theirs, 4)
    paired = difference_interval(CLASSES, "macro_recall", labels, first, second, 1.0, ONE_SIDED_95)
    alone = metric_intervals(CLASSES, ["macro_recall"], labels, first, ONE_SIDED_95)["macro_recall"]
    assert paired.upper - paired.lower < 0.6 * (alone.upper - alone.lower)
    exact = difference_interval(CLASSES, "accuracy", labels, first, second, 1.0, ONE_SIDED_95)
    assert paired == pytest.approx(exact, abs=0.006)


def test_difference_with_a_factor_is_that_share_of_the_other_model() -> None:
    rng, labels = np.random.default_rng(8), np.arange(400) % 4
    logits = rng.normal(size=(400, 4))
    found = difference_interval(CLASSES, "log_loss", labels, logits, logits, 0.5, ONE_SIDED_95)
    alone = metric_intervals(CLASSES, ["log_loss"], labels, logits, ONE_SIDED_95)["log_loss"]
    assert found == pytest.approx((alone.lower / 2, alone.upper / 2), rel=1e-6)


def test_logits_that_are_not_finite_have_no_bound() -> None:
    labels, good = np.array([0, 1]), np.eye(2)
    bad = np.array([[1.0, math.nan], [0.0, 1.0]])
    assert all(
        math.isnan(end) for ends in metric_intervals(CLASSES, METRICS, labels, bad, 0.9).values() for end in ends
    )
    assert all(math.isnan(end) for end in difference_interval(CLASSES, "accuracy", labels, good, bad, 1.0, 0.9))
    assert all(math.isnan(end) for end in quantile_interval([1.0, math.nan], 0.5, 0.9))
    assert all(math.isnan(end) for end in quantile_interval([], 0.5, 0.9))


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantile_bounds_hold_for_a_skewed_distribution(quantile: float) -> None:
    rng, simulations = np.random.default_rng(9), 2_000
    truth = -math.log(1 - quantile)  # of the exponential distribution
    found = [quantile_interval(rng.exponential(size=200).tolist(), quantile, ONE_SIDED_95) for _ in range(simulations)]
    too_low = np.mean([interval.upper < truth for interval in found])
    too_high = np.mean([interval.lower > truth for interval in found])
    assert 0.01 < too_low <= monte_carlo_limit(0.05, simulations)
    assert 0.01 < too_high <= monte_carlo_limit(0.05, simulations)


def test_quantile_bound_is_infinite_for_one_sample_fewer_than_needed() -> None:
    assert samples_needed(0.95, ONE_SIDED_95) == 59
    samples = [float(call) for call in range(59)]
    assert quantile_interval(samples, 0.95, ONE_SIDED_95).upper == 58
    assert quantile_interval(samples[:-1], 0.95, ONE_SIDED_95).upper == math.inf


def residuals(right: np.ndarray, size: int) -> float:
    return float(((right - right.mean()) ** 2).sum()) if size else 0.0


def test_a_share_of_clustered_trials_is_clopper_and_pearsons_where_trials_are_their_own_clusters() -> None:
    found = clustered_proportion_interval(350, 360, 360, 350 * 10 / 360, ONE_SIDED_95)
    assert found == proportion_interval(350, 360, ONE_SIDED_95)


def test_a_share_of_clusters_that_are_all_right_or_all_wrong_counts_the_clusters() -> None:
    # 40 clusters of 25 that agree within: as much evidence as 40 trials, but for the degrees of freedom
    found = clustered_proportion_interval(30 * 25, 1_000, 40, 30 * (6.25**2) + 10 * (18.75**2), ONE_SIDED_95)
    alone = proportion_interval(30, 40, ONE_SIDED_95)
    assert found == pytest.approx(alone, abs=0.01)
    assert found.lower < alone.lower


def test_the_bound_of_a_clustered_share_is_wrong_one_time_in_twenty_at_most_and_a_plain_one_more_often() -> None:
    rng, simulations, missed, plain = np.random.default_rng(10), 300, 0, 0
    for _ in range(simulations):
        right = rng.binomial(50, rng.beta(6, 4, size=60))
        counts = (int(right.sum()), 3_000)
        missed += clustered_proportion_interval(*counts, 60, residuals(right, 50), ONE_SIDED_95).lower > 0.6
        plain += proportion_interval(*counts, ONE_SIDED_95).lower > 0.6
    assert missed / simulations <= monte_carlo_limit(0.05, simulations)
    assert plain / simulations > 0.2


def test_one_cluster_says_nothing_and_a_faultless_teacher_is_as_sure_as_its_clusters_are_many() -> None:
    assert clustered_proportion_interval(90, 100, 1, 0.0, ONE_SIDED_95) == (0, 1)
    assert clustered_proportion_interval(0, 0, 0, 0.0, ONE_SIDED_95) == (0, 1)
    found = clustered_proportion_interval(1_000, 1_000, 20, 0.0, ONE_SIDED_95)
    assert 0.8 < found.lower < 0.05 ** (1 / 20)
