"""The platform against torchdistill, in one run: values of losses, accuracy of students, time of a step.

    python benchmarks/distillation.py [--quick] [--json] [--fashion-mnist FOLDER] [--peer-python PATH]

torchdistill lives in an environment of its own; the platform does not depend on it:

    python -m venv ~/.cache/distill-torchdistill
    ~/.cache/distill-torchdistill/bin/pip install -r benchmarks/peers/torchdistill_requirements.txt \\
        --extra-index-url https://download.pytorch.org/whl/cpu
    python benchmarks/distillation.py --json --peer-python ~/.cache/distill-torchdistill/bin/python

Without it the platform's own side is measured, and what needs the peer is null.

accuracy_vs_torchdistill   test accuracy of ours minus that of theirs, mean over methods and seeds: same teacher, same
                           weights before the first step, same order of batches, same optimiser and schedule
step_time_vs_torchdistill  time of an optimiser step, ours with cached targets over theirs with a live teacher, by the
                           fastest way of feeding it that is known here: less than 1 is faster; `step_time_vs_each` has
                           both of ours over every arm of theirs, which the worker explains
loss_values                the same tensors through both: loss_pairs.py says where definitions differ

same_problem.py  what both are given           loss_pairs.py  our values, and what is known of theirs
peers/torchdistill_worker.py  their side, in its own process

Arms of a comparison take turns, each on one torch thread, after a round of warm-up. Times are CPU-seconds; ratios are
of medians, `of_minima` of each arm's fastest repeat. Both processes keep freed memory, so that none of them pays for
pages that another's allocator kept. Linux with glibc.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import torch
import typer
from loss_pairs import compare, made_tensors, without_counterpart
from rich.console import Console
from rich.table import Table
from same_problem import METHODS, Problem, Sizes, digits, fashion_mnist, hand_over, keep_freed_memory, make_problem
from scipy.stats import t as student_t
from timing import Seconds, empty_scratch, hardware, interleaved
from torch import Tensor

from distill_platform.artifact import library_versions
from distill_platform.evaluate.bounds import TWO_SIDED_95, paired_difference_interval
from distill_platform.storage import LocalStorage

WORKER = Path(__file__).parent / "peers" / "torchdistill_worker.py"
THEIR_ARMS = {
    "soft_targets": ("live", "live, batches", "live, batches, nhwc", "table, batches, nhwc"),
    "attention": ("live", "live, batches, nhwc"),
}
QUICK = Sizes(256, (4, 8), (4, 8), 64, 1, 1, 2, 1)
MISSING = "no --peer-python was given"


@dataclass(frozen=True)
class Peer:
    """torchdistill in its own process; `facts` are its versions."""

    process: subprocess.Popen[str]
    said: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def ask(self, do: str, **settings: Any) -> Any:
        """What it answers. Raises RuntimeError, with its last words, if it died."""
        pipe = _stream(self.process.stdin)
        pipe.write(json.dumps({"do": do, **settings}) + "\n")
        pipe.flush()
        return self.answer()

    def answer(self) -> Any:
        """Its next line of JSON; libraries print lines of their own."""
        for line in _stream(self.process.stdout):
            if line.startswith("{"):
                return json.loads(line)
        last = [line for line in self.said.read_text().splitlines() if line.strip()][-1:]
        raise RuntimeError(f"torchdistill, exit code {self.process.wait()}: {' '.join(last) or 'nothing said'}")

    def step_arm(self, arm: str, method: str) -> Callable[[], float]:
        """A call that gives the mean CPU-seconds of a step over one more epoch."""
        return lambda: float(self.ask("step", arm=arm, method=method)["cpu_s"])


def measure(sizes: Sizes, fashion_mnist_folder: Path | None, peer_python: Path | None) -> dict[str, Any]:
    """Everything, as the document that `--json` prints."""
    machine = hardware()
    source = fashion_mnist(fashion_mnist_folder, sizes.train) if fashion_mnist_folder is not None else digits()
    with empty_scratch(), tempfile.TemporaryDirectory(prefix="distill-bench-") as name:
        problem = make_problem(LocalStorage(Path(name) / "workspace"), source, sizes)
        with peer(peer_python, problem, Path(name)) as other:
            values = compare(made_tensors(), other.ask("values") if other is not None else None)
            accuracy = {method: measure_accuracy(problem, method, other) for method in METHODS}
            seconds = {method: measure_steps(problem, method, other) for method in METHODS}
            facts = other.facts if other is not None else {"missing": MISSING}
    return {
        "accuracy_vs_torchdistill": mean_difference(accuracy),
        **ratios(seconds, statistics.median),
        "of_minima": ratios(seconds, min),
        "loss_values": values,
        "losses_without_counterpart": without_counterpart(),
        "accuracy": {"teacher": share_right(problem, problem.answers(problem.teacher)), **accuracy},
        "cpu_seconds": seconds,
        "data": source.name,
        "sizes": vars(sizes),
        "peer": facts,
        "hardware": machine,
        "libraries": library_versions(),
    }


@contextmanager
def peer(python: Path | None, problem: Problem, folder: Path) -> Iterator[Peer | None]:
    """torchdistill, ready to be asked; None without a Python to run it with."""
    if python is None:
        yield None
        return
    hand_over(problem, folder)
    said, pipes = folder / "torchdistill.log", {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with said.open("w") as log:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [str(python), str(WORKER), str(folder)], **pipes, stderr=log, text=True, env=environment
        )
    try:
        found = Peer(process, said)
        found.facts.update(found.answer())
        yield found
    finally:
        process.kill()
        process.communicate()


def measure_accuracy(problem: Problem, method: str, other: Peer | None) -> dict[str, Any]:
    """Test accuracy of both for every seed, and how sure the difference is."""
    seeds = [_one_seed(problem, method, seed, other) for seed in range(problem.sizes.num_seeds)]
    differences = [each["difference"] for each in seeds] if other is not None else []
    return {
        "seeds": seeds,
        "mean_difference": statistics.mean(differences) if differences else None,
        "interval_over_seeds": interval_over_seeds(differences),
    }


def _one_seed(problem: Problem, method: str, seed: int, other: Peer | None) -> dict[str, Any]:
    own, own_loss = problem.train(method, seed)
    found: dict[str, Any] = {"ours": share_right(problem, own), "first_epoch_loss": own_loss}
    if other is None:
        return {**found, "theirs": None, "difference": None, "interval": None, "their_first_epoch_loss": None}
    said = other.ask("train", method=method, seed=seed)
    theirs, num_steps = torch.tensor(said["answers"]), len(said["losses"]) // problem.sizes.epochs
    own_right, their_right = own == problem.test_labels, theirs == problem.test_labels
    only_ours, only_theirs = int((own_right & ~their_right).sum()), int((their_right & ~own_right).sum())
    return {
        **found,
        "theirs": share_right(problem, theirs),
        "difference": (only_ours - only_theirs) / len(own),
        "interval": list(paired_difference_interval(only_ours, only_theirs, len(own), TWO_SIDED_95)),
        "their_first_epoch_loss": statistics.mean(said["losses"][:num_steps]),
    }


def measure_steps(problem: Problem, method: str, other: Peer | None) -> Seconds:
    """CPU-seconds of a step by arm, one value for each epoch."""
    arms = {"ours, live": problem.step_arm(method, is_cached=False)}
    if method == "soft_targets":
        arms = {"ours, cached": problem.step_arm(method, is_cached=True), **arms}
    if other is not None:
        arms |= {f"theirs, {arm}": other.step_arm(arm, method) for arm in THEIR_ARMS[method]}
    return interleaved(arms, problem.sizes.repeats)


def share_right(problem: Problem, answers: Tensor) -> float:
    """Accuracy on the test split, 0 to 1."""
    return float((answers == problem.test_labels).double().mean())


def interval_over_seeds(differences: Sequence[float]) -> list[float] | None:
    """Student's interval of 95% of the mean difference, seeds being what varies; None for fewer than two."""
    if len(differences) < 2:
        return None
    spread = statistics.stdev(differences) / len(differences) ** 0.5
    reach = float(student_t.ppf((1 + TWO_SIDED_95) / 2, len(differences) - 1)) * spread
    middle = statistics.mean(differences)
    return [middle - reach, middle + reach]


def mean_difference(accuracy: Mapping[str, Any]) -> float | None:
    """Over methods and seeds."""
    differences = [each["difference"] for one in accuracy.values() for each in one["seeds"]]
    return statistics.mean(differences) if None not in differences else None


def ratios(seconds: Mapping[str, Seconds], typical: Callable[[Sequence[float]], float]) -> dict[str, Any]:
    """Time of our steps over that of theirs: less than 1 is faster. The headline is against their fastest live arm."""
    against = {
        method: {
            f"{own} / {their}": typical(arms[own]) / typical(arms[their])
            for own in arms
            for their in arms
            if own.startswith("ours") and their.startswith("theirs")
        }
        for method, arms in seconds.items()
    }
    live = [value for name, value in against["soft_targets"].items() if name.startswith("ours, cached / theirs, live")]
    return {
        "step_time_vs_torchdistill": max(live, default=None),
        "step_time_vs_each": against,
    }


def as_table(document: Mapping[str, Any]) -> Table:
    """The figures; the machine as caption."""
    caption = "{cpu}, {cores} cores, {memory_gib} GiB, one torch thread, load {load_average}".format_map(
        document["hardware"]
    )
    table = Table("figure", "ours", "theirs", "difference or ratio", caption=caption)
    for name, one in document["loss_values"].items():
        table.add_row(name, _shown(one["ours"]), _shown(one["theirs"]), _shown(one["relative_difference"]))
    table.add_section()
    for method in METHODS:
        for seed, one in enumerate(document["accuracy"][method]["seeds"]):
            row = (one["ours"], one["theirs"], one["difference"])
            table.add_row(f"accuracy, {method}, seed {seed}", *map(_shown, row))
    table.add_row("accuracy_vs_torchdistill", "", "", _shown(document["accuracy_vs_torchdistill"]))
    table.add_section()
    for method, arms in document["step_time_vs_each"].items():
        for name, value in arms.items():
            table.add_row(f"step, {method}, {name}", "", "", _shown(value))
    table.add_row("step_time_vs_torchdistill", "", "", _shown(document["step_time_vs_torchdistill"]))
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything: that it runs, not how fast.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    fashion_mnist_folder: Annotated[
        Path | None, typer.Option("--fashion-mnist", help="Folder of IDX files; else scikit-learn's digits.")
    ] = None,
    peer_python: Annotated[Path | None, typer.Option(help="The Python of torchdistill's environment.")] = None,
) -> None:
    """Measure distillation against torchdistill, on the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CPU-seconds say nothing about a GPU
    keep_freed_memory()
    torch.set_num_threads(1)
    document = measure(QUICK if quick else Sizes(), fashion_mnist_folder, peer_python)
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        Console().print(as_table(document))


if __name__ == "__main__":
    typer.run(main)
