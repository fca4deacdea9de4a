"""What a student loses by what a cache saves: quality against bytes per unit, for every codec.

    python benchmarks/cache_quality.py [--quick] [--json] [--plot FILE.html] [--seeds N]

problems.py  100 classes at T = 1, 2, 4, 8, and next tokens at V = 131,072 and T = 1
students.py  encoded by the codec, decoded by the batch, trained with the platform's own soft_targets, judged

Students of one seed start alike and see the same batches, whatever the codec. Quality is taken on held-out inputs at
T = 1: KL(teacher || student) and the share of inputs on which both rank the same class first; for classes accuracy as
well. A codec is measured at the temperatures that it says it carries, and no other.

The knee, by problem and temperature, is the fewest bytes within the seeds' noise of dense: a mean KL no more than two
standard deviations of dense's over the seeds above dense's mean, and a mean agreement no more than two below. The knee
of a problem is the fewest bytes that are so at all of its temperatures. `interval` is Student's 95% interval of the
mean of the paired differences to dense.
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


def measure(quick: bool, num_seeds: int) -> dict[str, Any]:
    """Everything, as the document that `--json` prints."""
    machine = hardware()
    problems = {
        "classes": classes(512, 512, 2) if quick else classes(8000, 8000, 20),
        "tokens": tokens(1024, 256, 64, 1) if quick else tokens(131_072, 2048, 256, 4),
    }
    measured = {name: measure_problem(problem, KEEPS[name], num_seeds) for name, problem in problems.items()}
    return {
        **measured,
        "knees": {name: knees(rows) for name, rows in measured.items()},
        "units": {name: problem.unit for name, problem in problems.items()},
        "seeds": num_seeds,
        "hardware": machine,
        "libraries": library_versions(),
    }


def measure_problem(problem: Problem, keeps: Mapping[str, tuple[int, ...]], num_seeds: int) -> list[Row]:
    """A row for each codec, number of kept classes and temperature; dense first."""
    dense: dict[float, Row] = {}
    rows = []
    for encoding in variants(problem, keeps):
        targets = stored(problem, encoding)
        lossless = encoding.codec == "planes"
        if lossless:
            _check_lossless(problem, targets)
        for temperature in (each for each in problem.temperatures if carries(encoding, each)):
            measures = dense[temperature]["seeds"] if lossless else _seeds(problem, targets, temperature, num_seeds)
            row = {
                "codec": encoding.codec,
                "keep": encoding.keep,
                "bytes": targets.bytes_per_unit,
                "temperature": temperature,
                "seeds": measures,
                **{name: statistics.fmean(one[name] for one in measures) for name in measures[0]},
            }
            reference = dense.setdefault(temperature, row)
            row["interval"] = {name: interval(measures, reference["seeds"], name) for name in measures[0]}
            row["within_noise"] = within_noise(row, reference)
            rows.append(row)
    return rows


def _seeds(problem: Problem, targets: Stored, temperature: float, num_seeds: int) -> list[dict[str, float]]:
    return [quality(problem, trained(problem, targets, temperature, seed)) for seed in range(num_seeds)]


def _check_lossless(problem: Problem, targets: Stored) -> None:
    """`planes` is dense in another order of bytes, so dense's students stand for its own; here that is looked at."""
    rows = torch.arange(min(64, len(problem.train)))
    target, wanted = targets(rows), problem.logits(problem.hidden(problem.train[rows])).half().float()
    assert isinstance(target, DenseTarget)
    assert torch.equal(target.logits, wanted), "planes gave other logits than fp16 holds"


def interval(
    measures: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]], name: str
) -> list[float]:
    """95% interval of the mean difference to dense over paired seeds; all of one value where seeds do not differ."""
    differences = [one[name] - other[name] for one, other in zip(measures, reference, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return [mean, mean]
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return [mean - half, mean + half]


def within_noise(row: Row, dense: Row) -> bool:
    """Whether a codec's students are as good as dense's, as far as these seeds can tell: see the module's docstring."""

    def noise(name: str) -> float:
        values = [one[name] for one in dense["seeds"]]
        return 2 * statistics.stdev(values) if len(values) > 1 else 0.0

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
        "T", "codec", "keep", "bytes", "KL, nats", "agreement", "KL - dense's, 95%", "", caption=f"knee {caption}"
    )
    for row in sorted(document[name], key=lambda row: (row["temperature"], row["bytes"])):
        low, high = row["interval"]["kl"]
        table.add_row(
            *(f"{row['temperature']:g}", row["codec"], str(row["keep"] or ""), f"{row['bytes']:,}"),
            *(f"{row['kl']:.4f}", f"{row['agreement']:.3f}", f"{low:+.4f} to {high:+.4f}"),
            "as dense" if row["within_noise"] else "",
        )
    return table


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Little of everything: that it runs, not what it says.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the plot to this HTML file.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Students of each kind.")] = 3,
) -> None:
    """Measure what students lose by what each codec saves, on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document = measure(quick, seeds)
    if plot is not None:
        from quality_plot import draw

        plot.write_text(draw(document), encoding="utf-8")
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        for name in KEEPS:
            Console().print(as_table(document, name))


if __name__ == "__main__":
    typer.run(main)
