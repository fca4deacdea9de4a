"""Tables of models on the console."""

from __future__ import annotations

from typing import Any

import pytest

from distill_platform.cli import console


def row(**changed: Any) -> dict[str, Any]:
    given = {"digest": "d", "num_parameters": 1_000, "size_bytes": 4_000, "latency_ms_p50": 1.0, "latency_ms_p95": 2.0}
    return {**given, **changed}


def test_classifiers_are_shown_by_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    models = {"student": row(accuracy=0.9, accuracy_interval=[0.88, 0.92], macro_f1=0.85, macro_precision=None)}
    console.print_models(models)
    shown = capsys.readouterr().out
    assert "0.9000 [0.8800, 0.9200]" in shown
    assert "F1" in shown
    assert "perplexity" not in shown


def test_language_models_are_shown_by_perplexity(capsys: pytest.CaptureFixture[str]) -> None:
    figures = row(perplexity=4.5, perplexity_interval=[4.4, 4.6], accuracy=0.5, bits_per_byte=None)
    console.print_models({"student": figures})
    shown = capsys.readouterr().out
    assert "4.5000 [4.4000, 4.6000]" in shown
    assert "bits/byte" in shown
    assert "0.5000 [" not in shown


def test_subgroups_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    south = {"num_examples": 100, "accuracy": 0.84, "accuracy_interval": [0.75, 0.9]}
    console.print_models(
        {
            "student": row(
                accuracy=0.9, accuracy_interval=[0.88, 0.92], worst_group_accuracy=0.84,
                worst_group_accuracy_interval=[0.75, 0.89], subgroups={"south": south},
            )
        }
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "accuracy by subgroup" in shown
    assert "0.8400 [0.7500, 0.9000]" in shown
    assert "0.8400 [0.7500, 0.8900]" in shown


def test_below_means_worse_in_the_figure_that_ranks() -> None:
    assert console.is_below({"accuracy": 0.8}, {"accuracy": 0.9})
    assert console.is_below({"accuracy": 0.8, "perplexity": 5.0}, {"accuracy": 0.7, "perplexity": 4.0})
    assert not console.is_below({"accuracy": None}, {"accuracy": 0.9})
