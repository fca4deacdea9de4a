"""Every file of examples/ is read, planned and run to a promoted student, on small data of the form that it wants.

A new example needs an entry in `REDUCED`: what makes its data, and what makes its models small.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_platform import load_spec, load_student, plan, run, steps
from distill_platform.models.optional import optional_library
from distill_platform.spec import resolve, this_machine
from distill_platform.spec.schema import Spec
from distill_platform.workspace import Workspace
from tests.data.small_files import write_csv, write_idx, write_tokenizer

EXAMPLES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))}
INTENTS = ("card_lost", "exchange", "top_up")


def messages(folder: Path) -> list[str]:
    """Texts of three intents, as CSV for training and for the test."""
    for name, num in (("train", 90), ("test", 45)):
        intents = [INTENTS[number % 3] for number in range(num)]
        texts = [f'"{name} {number}, about my {intent}"' for number, intent in enumerate(intents)]
        write_csv(folder / f"{name}.csv.gz", {"text": texts, "category": intents})
    return [f"data.source={folder}/train.csv.gz", f"data.split.test={folder}/test.csv.gz"]


def recordings(folder: Path) -> list[str]:
    """Tones of two digits by two speakers, of different lengths, as Parquet for training and for the test."""
    rng = np.random.default_rng(0)
    for name, num in (("train", 80), ("test", 80)):
        digits = [number % 2 for number in range(num)]
        waves = [np.sin(np.arange(rng.integers(500, 900)) * (0.2 + 0.6 * digit)) * 9000 for digit in digits]
        noisy = [(wave + rng.normal(scale=300, size=len(wave))).astype(np.int16) for wave in waves]
        columns = {
            "audio": pa.array(noisy, pa.list_(pa.int16())),
            "label": pa.array(digits, pa.uint8()),
            "speaker": [("ann", "bob")[number // 2 % 2] for number in range(num)],
            "take": pa.array(range(num), pa.int16()),
            "sample_rate": pa.array([8000] * num, pa.int32()),
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return [f"data.source={folder}/train.parquet", f"data.split.test={folder}/test.parquet"]


def plays(folder: Path) -> list[str]:
    """A text of 20 kB, gzipped: too short for blocks of 128 tokens that go on from one another."""
    rng = np.random.default_rng(0)
    words = rng.choice(["to", "be", "or", "not", "that", "is", "the", "question,", "\n"], 5000)
    (folder / "input.txt.gz").write_bytes(gzip.compress(" ".join(words).encode()))
    short = ["data.length=16", "data.split={by: hash, val: 0.2, test: 0.2}"]
    return [f"data.source=text:{folder}/input.txt.gz", *short]


def garments(folder: Path) -> list[str]:
    """Images of the MNIST family."""
    return [f"data.source={write_idx(folder)}"]


def messages_and_bert(folder: Path) -> list[str]:
    """As `messages`, with a model that transformers has saved, weights drawn at random."""
    with optional_library("the tests", "hf"):
        from transformers import BertConfig, BertModel
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**sizes, vocab_size=300, max_position_embeddings=48)).save_pretrained(folder / "bert")
    write_tokenizer(folder / "bert")
    return [*messages(folder), f"teacher.model.name=hf:{folder}/bert"]


def bundled(folder: Path) -> list[str]:
    """Data that scikit-learn brings along."""
    return []


@dataclass(frozen=True)
class Reduced:
    """data: puts files into a folder, and gives the overrides that point to them. small: overrides of sizes."""

    data: Callable[[Path], list[str]]
    small: tuple[str, ...] = ()


REDUCED = {
    "digits": Reduced(bundled, ("teacher.model.channels=[4, 8]", "data.views.num=2")),
    "fashion_mnist": Reduced(garments, ("teacher.model.channels=[4, 8]", "data.split.val=0.4")),
    "hf": Reduced(messages_and_bert),
    "language_model": Reduced(
        plays,
        (
            "teacher.model={name: transformer, width: 16, depth: 1, heads: 2}",
            "student={name: transformer, width: 8, depth: 1, heads: 2}",
        ),
    ),
    "multi_teacher": Reduced(
        bundled, ("teacher.model.channels=[4, 8]", "teachers.dense.model.hidden=[16]", "data.views.num=2")
    ),
    "self_distillation": Reduced(bundled, ("teacher.model.channels=[4, 8]", "student.channels=[4, 8]")),
    "spoken_digits": Reduced(recordings, ("teacher.model.channels=[8, 8]", "student.channels=[4, 4]")),
    "text_intents": Reduced(
        messages,
        ("teacher.model={name: ngrams, buckets: 64, width: 8}", "student={name: ngrams, buckets: 32, width: 4}"),
    ),
}
KINDS = {"hf": "text", "text_intents": "text", "language_model": "tokens", "spoken_digits": "audio"}
QUICK = ("language_model",)
"""Goes through every step in the quick suite. A run starts half a dozen processes, so those of others are `slow`."""
SHORT = (
    "teacher.train.epochs=1",
    "teacher.floor=0",
    "train.epochs=1",
    "sweep.trials=1",
    "evaluate={latency_warmup: 0, latency_runs: 80}",
    "gates.min_examples=20",
    "resources={cache_workers: 1, concurrent_trials: 1}",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Name of an example -> the overrides that point to its data, which is made once."""
    made: dict[str, list[str]] = {}

    def of(name: str) -> list[str]:
        if name not in made:
            made[name] = REDUCED[name].data(tmp_path_factory.mktemp(name))
        return made[name]

    return of


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("workspace"))


def reduced(name: str, source: list[str]) -> Spec:
    """The example's spec, at a size that is run in seconds, with gates that hold nothing against a student."""
    overrides = [*source, *SHORT, *REDUCED[name].small]
    spec = load_spec(EXAMPLES[name], overrides)
    overrides += [f"teachers.{each}.{short}" for each in spec.teachers for short in ("train.epochs=1", "floor=0")]
    return load_spec(EXAMPLES[name], [*overrides, f"gates.checks=[{', '.join(map(loosened, spec.gates.checks))}]"])


def loosened(check: str) -> str:
    """A gate about the same metric and model that everything passes."""
    metric, sign, limit = check.split(" ", 2)
    model = re.search("teacher|baseline|champion", limit)
    if model is None:
        return f"{metric} {sign} {0 if sign == '>=' else 1e9}"
    return f"{metric} {sign} {model[0]} - 1" if sign == ">=" else f"{metric} {sign} 1e9 * {model[0]}"


def test_every_example_is_tested() -> None:
    assert REDUCED.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_data_of_its_form(name: str, sources: Callable[[str], list[str]], workspace: str) -> None:
    spec = load_spec(EXAMPLES[name], sources(name))
    steps.prepare(resolve(spec, this_machine()), Workspace.at(workspace))
    planned = plan(spec, workspace)  # which builds and calls every model that the spec names
    assert planned["steps"][0]["status"] == "ready"
    assert planned["steps"][1]["status"] == "to run"
    assert planned["cache"]["exact"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EXAMPLES]
)
def test_an_example_runs_to_a_promoted_student(
    name: str, sources: Callable[[str], list[str]], workspace: str, ray_session: None
) -> None:
    spec = reduced(name, sources(name))
    result = run(spec, workspace)
    assert result.verdict["passed"], result.verdict["checks"]
    assert [row["model"] for row in result.table] == ["teacher", "baseline", "student"]
    assert result.promotion is not None
    assert result.promotion["status"] == "champion"
    assert not set(numbers_missing(result.to_json()["metrics"]))
    assert not re.search(r"\b(nan|NaN|None|inf|undefined)\b", shown(Path(result.report)))
    student = load_student(f"models:/{spec.name}@champion", workspace=workspace)
    assert student.input.kind == KINDS.get(name, "image")


def numbers_missing(value: Any, path: str = "") -> Iterator[str]:
    """Where a figure is None or no finite number."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from numbers_missing(below, f"{path}.{key}")
    elif value is None or (isinstance(value, float) and not np.isfinite(value)):
        yield path


def shown(report: Path) -> str:
    """The words of a report that a reader sees."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|script)\b.*?</\1>", " ", report.read_text()))


def test_the_other_way_that_self_distillation_names_fits_too(workspace: str) -> None:
    commented = re.search(r"(?m)^# (teacher: \{ema.*?\})", EXAMPLES["self_distillation"].read_text())
    assert commented
    section = commented[1].replace(": ", "=", 1)
    gates = "gates.checks=[accuracy >= 0.93, accuracy >= baseline - 0.02]"
    spec = load_spec(EXAMPLES["self_distillation"], [section, "sweep.generations=1", gates])
    assert "teacher" not in [row["step"] for row in plan(spec, workspace)["steps"]]
