from __future__ import annotations

from typing import Any

import pytest

from distill_platform.evaluate import figures, quality_figures
from distill_platform.evaluate.evaluation import Evaluation


def trial(member: int, accuracy: float, size_bytes: int, status: str = "finished", **settings: Any) -> dict[str, Any]:
    metrics = {} if status == "failed" else {"val_accuracy": accuracy, "val_loss": 0.1}
    return {"member": member, "status": status, "settings": settings, "metrics": metrics, "size_bytes": size_bytes}


def test_pareto_front_keeps_the_trials_that_none_beats_smallest_first() -> None:
    trials = [trial(0, 0.95, 300), trial(1, 0.90, 100), trial(2, 0.85, 200), trial(3, 0.92, 100), trial(4, 0.95, 400)]
    assert [kept["member"] for kept in figures.pareto_front(trials)] == [3, 0]
    assert figures.pareto_front([]) == []


def test_sweep_caption_tells_the_counts_the_front_and_the_choice() -> None:
    trials = [
        trial(0, 0.90, 1_000, width=8),
        trial(1, 0.97, 20_000, width=64),
        trial(2, 0.99, 1_500, status="stopped", width=9),
        trial(3, 0.0, 500, status="failed", width=4),
    ]
    (drawing,) = figures.draw_sweep(trials, [trial(0, 0.88, 1_000, width=8)], {"width": 64})
    assert drawing.caption == (
        "Of 4 distilled trials 2 finished, 1 stopped early (open circles), 1 failed. "
        "The front runs from 0.9000 at 1 kB to 0.9700 at 20 kB. Chosen: member 1, 0.9700 at 20 kB."
    )
    lines = {trace.name: trace for trace in drawing.figure.data}
    assert list(lines["Pareto front"].y) == [0.90, 0.97]
    assert list(lines["chosen"].x) == [20_000]


def test_a_front_of_one_trial_runs_nowhere() -> None:
    (drawing,) = figures.draw_sweep([trial(0, 0.90, 1_000), trial(1, 0.80, 1_000)], [], {})
    assert "No other is both as right and as small as 0.9000 at 1 kB." in drawing.caption


def test_a_setting_is_drawn_only_if_the_sweep_varied_it() -> None:
    trials = [trial(n, 0.9 + n / 100, 100, temperature=float(n), width=8, optimizer="ab"[n % 2]) for n in range(5)]
    drawings = figures.draw_settings(trials)
    assert [drawing.title for drawing in drawings] == ["temperature", "optimizer"]
    assert drawings[0].caption == "Rank correlation with accuracy over 5 trials: +1.00."
    assert drawings[1].caption == "Best accuracy: a 0.9400, b 0.9300."


def test_trials_that_all_reach_the_same_have_no_correlation() -> None:
    (drawing,) = figures.draw_settings([trial(n, 0.9, 100, temperature=n) for n in range(1, 4)])
    assert drawing.caption == "All 3 trials reach the same accuracy, 0.9000."


def test_confusion_caption_names_what_is_taken_for_what(evaluation: Evaluation) -> None:
    drawing = quality_figures.draw_confusion(evaluation)  # rows 0 to 15 are wrong, each by one class
    assert drawing.caption == (
        "The student is wrong on 16 of 400 examples; most often it takes "
        "ant for bee 4 times, bee for cat 4 times, cat for dog 4 times."
    )


def test_interval_and_calibration_captions_give_the_numbers(evaluation: Evaluation) -> None:
    found = evaluation.summary["student"]
    interval = f"student 0.9600 ({found['accuracy']['lower']:.4f} to {found['accuracy']['upper']:.4f})"
    assert interval in quality_figures.draw_intervals(evaluation).caption
    error = f"{found['expected_calibration_error']['value']:.4f} for the student"
    assert error in quality_figures.draw_calibration(evaluation).caption


def test_curve_captions_tell_the_best_epoch_and_the_last_loss() -> None:
    rows = [
        {"epoch": 1, "train_loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.7},
        {"epoch": 2, "train_loss": 1.0, "val_loss": 0.9, "val_accuracy": 0.9},
        {"epoch": 3, "train_loss": 0.5, "val_loss": 1.1, "val_accuracy": 0.8},
    ]
    accuracy, loss = figures.draw_curves({"student": rows, "baseline": []})
    assert accuracy.caption == "Best validation accuracy: student 0.9000 at epoch 2."
    assert "At the end: student 1.1 (training 0.5)." in loss.caption


def test_term_shares_are_told_as_ranges() -> None:
    rows = [{"epoch": e, "term": t, "share": s} for e, t, s in ((1, "task", 0.9), (2, "task", 0.8), (1, "hint", 0.001))]
    (drawing,) = figures.draw_term_shares(rows)
    assert "task 80.0% to 90.0%, hint 0.1% to 0.1%" in drawing.caption


def test_nothing_is_drawn_of_nothing() -> None:
    assert figures.draw_curves({}) == figures.draw_term_shares([]) == figures.draw_settings([]) == []
    assert figures.draw_sweep([trial(0, 0, 1, status="failed")], [], {}) == []


@pytest.mark.parametrize(("size", "shown"), [(12, "12 B"), (1_500, "1.5 kB"), (48_000, "48 kB"), (1.84e6, "1.84 MB")])
def test_bytes_are_shown_for_people(size: float, shown: str) -> None:
    assert figures.show_bytes(size) == shown


def test_loss_by_position_is_told_from_the_beginning_to_the_end(token_evaluation: Evaluation) -> None:
    drawing = quality_figures.draw_loss_by_position(token_evaluation)
    assert "student 2.020 to 1.530" in drawing.caption
    assert list(drawing.figure.data[0].x)[:2] == [1, 2]


def test_long_blocks_are_drawn_in_bins_and_positions_without_tokens_left_out() -> None:
    losses = [float(position // 3) for position in range(150)] + [float("nan")] * 3
    places, binned = quality_figures._binned(losses)
    assert places == [2.0 + 3 * n for n in range(50)]
    assert binned == [float(n) for n in range(50)]
    assert quality_figures._binned([]) == ([], [])


def test_subgroups_are_drawn_worst_first(grouped: Evaluation) -> None:
    (drawing,) = quality_figures.draw_subgroups(grouped)
    assert list(drawing.figure.data[2].x) == [0.84, 1.0]
    assert list(drawing.figure.data[2].y) == ["south", "north"]
    assert "best on north, 1.0000" in drawing.caption
