"""What a student loses by what a cache saves: quality against bytes per unit, for every codec.

    python benchmarks/cache_quality.py [--quick] [--json] [--plot FILE.html] [--seeds N] [--teachers N]
    python benchmarks/cache_quality.py --problem classes --codec ternary --teachers 16     # one codec beside dense

problems.py  100 classes at T = 1, 2, 4, 8, and next tokens at V = 131,072 and T = 1
students.py  encoded by the codec, decoded by the batch, trained with the platform's own soft_targets, judged

Students of one seed start alike and see the same batches, whatever the codec. Quality is taken on held-out inputs at
T = 1: KL(teacher || student) and the share of inputs on which both rank the same class first; for classes accuracy as
well. A codec is measured at the temperatures that it says it carries, and no other. What a codec costs differs from
teacher to teacher, so of classes there are several: the same network from other first weights.

The knee, by problem and temperature, is the fewest bytes within the seeds' noise of dense: a mean KL no more than two
standard deviations of dense's over the seeds of a teacher above dense's mean, and a mean agreement no more than two
below. The knee of a problem is the fewest bytes that are so at all of its temperatures. `interval` is Student's 95%
interval of the mean of the differences to dense, paired by teacher and seed.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from problems import Problem, classes, tokens
from rich.console import Console
from rich.table import Table
from scipy import stats
from students import Stored, carries, quality, stored, trained, variants
from timing import hardware

from distill_platform.artifact import library_versions
from distill_platform.cache import DenseTarget

KEEPS = {"classes": {"topk": (2, 4, 16, 32), "sampled": (2, 5, 25)}, "tokens": {"topk": (32,), "sampled": (4, 40)}}
Row = dict[str, Any]
Document = dict[str, Any]


def measure(quick: bool, num_seeds: int, num_teachers: int, names: Sequence[str], codecs: Sequence[str]) -> Document:
    """Everything, as the document that `--json` prints: of the problems of these names, and of these codecs or all."""
    machine = hardware()
    problems = {name: _problems(name, quick, num_teachers) for name in names}
    measured = {name: measure_problem(each, KEEPS[name], num_seeds, codecs) for name, each in problems.items()}
    return {
        **measured,
        "knees": {name: knees(rows) for name, rows in measured.items()},
        "units": {name: each[0].unit for name, each in problems.items()},
        "seeds": num_seeds,
        "teachers": {name: len(each) for name, each in problems.items()},
        "hardware": machine,
        "libraries": library_versions(),
    }


def _problems(name: str, quick: bool, num_teachers: int) -> list[Problem]:
    """A problem with each of its teachers."""
    if name == "tokens":
        return [tokens(1024, 256, 64, 1) if quick else tokens(131_072, 2048, 256, 4)]
    found = []
    for seed in range(num_teachers):
        torch.manual_seed(seed)
        found.append(classes(512, 512, 2) if quick else classes(8000, 8000, 20))
    return found


def measure_problem(
    problems: Sequence[Problem], keeps: Mapping[str, tuple[int, ...]], num_seeds: int, codecs: Sequence[str]
) -> list[Row]:
    """A row for each codec, number of kept classes and temperature; dense first."""
    dense: dict[float, Row] = {}
    rows = []
    for encoding in variants(problems[0], keeps):
        if codecs and encoding.codec not in ("dense", *codecs):
            continue
        targets = [stored(problem, encoding) for problem in problems]
        lossless = encoding.codec == "planes"
        if lossless:
            _check_lossless(problems[0], targets[0])
        for temperature in (each for each in problems[0].temperatures if carries(encoding, each)):
            measures = dense[temperature]["seeds"] if lossless else _seeds(problems, targets, temperature, num_seeds)
            row = {
                "codec": encoding.codec,
                "keep": encoding.keep,
                "bytes": targets[0].bytes_per_unit,
                "temperature": temperature,
                "seeds": measures,
                **{name: statistics.fmean(one[name] for one in measures) for name in measures[0]},
            }
            reference = dense.setdefault(temperature, row)
            row["interval"] = {name: interval(measures, reference["seeds"], name) for name in measures[0]}
            row["within_noise"] = within_noise(row, reference, len(problems))
            rows.append(row)
    return rows


def _seeds(
    problems: Sequence[Problem], targets: Sequence[Stored], temperature: float, num_seeds: int
) -> list[dict[str, float]]:
    """Of each student its quality: all seeds of the first teacher, then those of the next."""
    return [
        quality(problem, trained(problem, of_teacher, temperature, seed))
        for problem, of_teacher in zip(problems, targets, strict=True)
        for seed in range(num_seeds)
    ]


def _check_lossless(problem: Problem, targets: Stored) -> None:
    """`planes` is dense in another order of bytes, so dense's students stand for its own; here that is looked at."""
    rows = torch.arange(min(64, len(problem.train)))
    target, wanted = targets(rows), problem.logits(problem.hidden(problem.train[rows])).half().float()
    assert isinstance(target, DenseTarget)
    assert torch.equal(target.logits, wanted), "planes gave other logits than fp16 holds"


def interval(
    measures: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]], name: str
) -> list[float]:
    """95% interval of the mean difference to dense over paired students; all of one value where they do not differ."""
    differences = [one[name] - other[name] for one, other in zip(measures, reference, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return [mean, mean]
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return [mean - half, mean + half]


def within_noise(row: Row, dense: Row, num_teachers: int = 1) -> bool:
    """Whether a codec's students are as good as dense's, as far as these seeds can tell: see the module's docstring."""

    def noise(name: str) -> float:
        values = [one[name] for one in dense["seeds"]]
        num_seeds = len(values) // num_teachers
        of_teachers = [values[first : first + num_seeds] for first in range(0, len(values), num_seeds)]
        return 2 * statistics.fmean(map(statistics.variance, of_teachers)) ** 0.5 if num_seeds > 1 else 0.0

    no_further = row["kl"] <= dense["kl"] + noise("kl")
    return bool(no_further and row["agreement"] >= dense["agreement"] - noise("agreement"))


def knees(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By temperature, and over all of them: codec, keep and bytes of the knee."""
    temperatures = sorted({row["temperature"] for row in rows})
    found = {f"T = {each:g}": _fewest([row for row in rows if row["temperature"] == each]) for each in temperatures}
    at_all = [row for row in rows if row["within_noise"] and _good_at(row, rows) == temperatures]
    return {**found, "all": _fewest(at_all)}


def _good_at(row: Row, rows: Sequence[Row]) -> list[float]:
    same = [each for each in rows if (each["codec"], each["keep"]) == (row["codec"], row["keep"])]
    return sorted(each["temperature"] for each in same if each["within_noise"])


def _fewest(rows: Sequence[Row]) -> dict[str, Any]:
    """Dense is within its own noise, so there is one."""
    row = min((row for row in rows if row["within_noise"]), key=lambda row: row["bytes"])
    return {name: row[name] for name in ("codec", "keep", "bytes")}


def as_table(document: Mapping[str, Any], name: str) -> Table:
    """The rows of a problem by temperature and bytes; knees are marked."""
    caption = ", ".join(f"{at}: {knee['codec']} {knee['bytes']} B" for at, knee in document["knees"][name].items())
    table = Table(
        *("T", "codec", "keep", "bytes", "KL, nats", "agreement", "KL - dense's, 95%", "accuracy - dense's, 95%", ""),
        caption=f"knee {caption}",
    )
    for row in sorted(document[name], key=lambda row: (row["temperature"], row["bytes"])):
        intervals = [row["interval"].get(name) for name in ("kl", "accuracy")]
        table.add_row(
            *(f"{row['temperature']:g}", row["codec"], str(row["keep"] or ""), f"{row['bytes']:,}"),
            *(f"{row['kl']:.4f}", f"{row['agreement']:.3f}"),
            *(f"{each[0]:+.4f} to {each[1]:+.4f}" if each else "" for each in intervals),
            "as dense" if row["within_noise"] else "",
        )
    return table


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Little of everything: that it runs, not what it says.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the plot to this HTML file.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Students of each kind and teacher.")] = 3,
    teachers: Annotated[int, typer.Option(min=1, help="Teachers of the problem classes.")] = 1,
    problem: Annotated[list[str] | None, typer.Option(help="This problem alone: classes or tokens.")] = None,
    codec: Annotated[list[str] | None, typer.Option(help="This codec and dense alone; may be repeated.")] = None,
) -> None:
    """Measure what students lose by what each codec saves, on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document = measure(quick, seeds, teachers, problem or list(KEEPS), codec or [])
    if plot is not None:
        from quality_plot import draw

        plot.write_text(draw(document), encoding="utf-8")
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        for name in problem or KEEPS:
            Console().print(as_table(document, name))


if __name__ == "__main__":
    typer.run(main)
