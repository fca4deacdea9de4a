"""The teacher is asked again, and what it says is held against what a cache keeps.

Before a cache is sealed a sample of its rows is compared (parity); an audit compares a fresh one whenever somebody
wants to know. Both read the stored bytes, decode them, and recompute: from the example through its view to the
teacher's float32 answer, in other batches than those that filled the cache.

A row may differ by what its codec loses on that very answer, and by what the arithmetic's number format loses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_platform.artifact import Artifact, library_versions
from distill_platform.cache.codecs import CODECS, Columns
from distill_platform.cache.manifest import Manifest, require
from distill_platform.cache.reader import read_constants
from distill_platform.cache.targets import DenseTarget, SampledTarget, Target, TopKTarget
from distill_platform.cache.writer import LAYER, ShardRange, draw_streams, identify, shard_ranges
from distill_platform.data.columns import read_columns
from distill_platform.data.examples import Examples, open_split
from distill_platform.errors import CacheMismatch
from distill_platform.teacher.answers import Answers
from distill_platform.train.trainer import best_device

Shapes = dict[str, tuple[int, ...]]

TOLERANCES = {"float32": 1e-3, "float16": 0.01, "bfloat16": 0.06}
"""By the number format of the arithmetic: how far an answer may be from the teacher's float32 one, relative to the
row's largest magnitude. Three times the worst of 1,797 rows of ResNet-56 trained on the digits (float16 .0032, bfloat16
.020; ResNet-20, a CNN and an MLP stay below .0017 and .014). float32 differs by the order of sums alone: 1e-6 to 1e-4
on another machine. Neighbouring rows, of two examples, are at least .03 apart, and half of them more than 1."""
REDRAWN_TV, REDRAWN_SHARE = 0.5, 0.05
"""Codecs that draw: a row counts as drawn anew where more than half of its weight lies on other classes (total
variation), and so many rows may be: a class next to a boundary falls to either side by the last bit of an answer."""
ROWS_AT_ONCE = 32
"""Rows whose answers are held at a time."""
MOST_NAMED = 5
"""Rows that are told one by one when a comparison fails."""


@dataclass(frozen=True)
class Comparison:
    """Rows compared. Deviations are relative to the row's largest magnitude.

    worst:       the largest deviation from the teacher's float32 answer, the codec's own loss included.
    num_redrawn: rows that were drawn anew, of codecs that draw.
    num_wrong:   rows that are not what they should be; `wrong` tells of the first.
    """

    num_rows: int
    worst: float
    tolerance: float
    num_redrawn: int
    num_wrong: int
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether rows were compared, and all are what they should be."""
        return self.num_rows > 0 and self.num_wrong == 0 and self.num_redrawn <= max(1, REDRAWN_SHARE * self.num_rows)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found; see Comparison. `libraries`: name -> versions when the cache was built and now."""

    num_rows: int
    num_shards: int
    worst_deviation: float
    tolerance: float
    precision: str
    num_redrawn: int
    num_wrong: int
    wrong: tuple[str, ...]
    libraries: dict[str, tuple[str, str]]
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def audit_cache(cache: Artifact, data: Artifact, teacher: Artifact, num_rows: int = 256, seed: int = 0) -> AuditReport:
    """Ask the teacher again about random rows of a committed cache, the same ones for the same seed.

    Raises CacheMismatch if the cache was built from other data or another teacher, or does not say by which views.
    """
    manifest = require(cache, data=data.digest, teacher=teacher.digest)
    if manifest.views is None:
        raise CacheMismatch(f"{cache.uri} was written by release 0.1, which did not keep its views; build it again")
    splits = {split: open_split(data, split) for split in manifest.splits}
    shards = [shard for split, cached in manifest.splits.items() for shard in shard_ranges(split, cached)]
    answers = Answers.of(teacher, manifest.encoding, manifest.modes, splits["train"].inputs[:2]).to(best_device())
    constants, sample = read_constants(cache), _random_rows(shards, num_rows, seed)
    found = merged(
        compare_stored(cache, shard, rows, splits[shard.split], answers, manifest, constants)[0]
        for shard, rows in sample.items()
    )
    now = library_versions()
    return AuditReport(
        num_rows=found.num_rows,
        num_shards=len(sample),
        worst_deviation=found.worst,
        tolerance=found.tolerance,
        precision=manifest.precision,
        num_redrawn=found.num_redrawn,
        num_wrong=found.num_wrong,
        wrong=found.wrong,
        libraries={name: (then, now.get(name, "none")) for name, then in cache.record["libraries"].items()},
        passed=found.passed,
    )


def compare_stored(
    source: Artifact,
    shard: ShardRange,
    rows: Tensor,
    examples: Examples,
    answers: Answers,
    manifest: Manifest,
    constants: Mapping[str, Tensor],
) -> tuple[Comparison, Shapes]:
    """Rows `[n]` of a shard, numbered in their split, against the teacher; and the shapes of the layers stored there.

    Raises Corrupt if the stored bytes are not those that were written.
    """
    assert manifest.views is not None
    with tempfile.TemporaryDirectory(prefix="distill-compare-") as folder:
        stored = read_columns(source.local_copy(shard.name, Path(folder)))
        shapes = {name.removeprefix(LAYER): values.shape[1:] for name, values in stored.items() if LAYER in name}
        num_stored = len(stored["key"])
        taken = {name: values[(rows - shard.first_row).clamp(max=num_stored - 1)] for name, values in stored.items()}
    compared = []
    for part in torch.arange(len(rows)).split(ROWS_AT_ONCE):
        wanted, inputs = identify(rows[part], shard.num_views, examples, manifest.views)
        exact = answers(inputs, "float32")
        same = exact if manifest.precision == "float32" else answers(inputs, manifest.precision)
        where = [f"split {shard.split!r}, row {row} ({shard.name})" for row in rows[part].tolist()]
        stored = {name: values[part] for name, values in taken.items()}
        compared.append(compare_rows(stored, wanted, exact, same, manifest, constants, where))
    found = merged(compared)
    if num_stored != shard.num_rows:
        said = f"{shard.name} holds {num_stored} rows, wanted {shard.num_rows}"
        found = replace(found, num_wrong=found.num_wrong + 1, wrong=(said, *found.wrong))
    return found, shapes


def compare_rows(
    stored: Columns,
    wanted: Columns,
    exact: Mapping[str, Tensor],
    same: Mapping[str, Tensor],
    manifest: Manifest,
    constants: Mapping[str, Tensor],
    where: Sequence[str],
) -> Comparison:
    """Rows of a cache against the teacher computed again: whose they are, and what it said.

    stored: the rows' columns as they were read. wanted: the columns that say whose they should be. exact, same: the
    teacher's answers (see Answers) in float32, and in the cache's own precision. where: what each row is called.
    """
    codec, encoding, tolerance = CODECS[manifest.encoding.codec], manifest.encoding, TOLERANCES[manifest.precision]
    answer = {name: values.float().cpu() for name, values in exact.items()}
    encoded = codec.encode(same[codec.source].float(), encoding, draw_streams(wanted))
    kept, fresh = (codec.decode(_tensors(columns, codec.columns), encoding, constants) for columns in (stored, encoded))
    redrawn = torch.zeros(len(where), dtype=torch.bool)
    if isinstance(kept, SampledTarget) and isinstance(fresh, SampledTarget):
        # nothing of a draw can be held against an answer; what can be is the answer that it was drawn from
        redrawn = _total_variation(kept, fresh) > REDRAWN_TV
        deviation = _relative(same["logits"].float().cpu() - answer["logits"], answer["logits"])
        lost = torch.zeros_like(deviation)
    else:
        deviation, lost = _deviation(kept, answer["logits"]), _deviation(fresh, answer["logits"])
    for name in filter(lambda name: name.startswith(LAYER), answer):
        values, kept_layer = answer[name], torch.from_numpy(stored[name]).float()
        deviation = torch.maximum(deviation, _relative(kept_layer - values, values))
        lost = torch.maximum(lost, _relative(values.half().float() - values, values))
    wrong = _foreign(stored, wanted, where)
    for row in torch.nonzero(~(deviation <= lost + tolerance)).flatten().tolist():  # so that NaN is wrong
        wrong.setdefault(
            row,
            f"{where[row]}, key {_key(wanted, row)}, view {int(wanted['view'][row])}: what is stored is "
            f"{float(deviation[row]):.3g} away from the teacher's answer, as a share of its magnitude; wanted at most "
            f"{float(lost[row]) + tolerance:.3g}",
        )
    named = tuple(wrong[row] for row in sorted(wrong)[:MOST_NAMED])
    return Comparison(len(where), float(deviation.max()), tolerance, int(redrawn.sum()), len(wrong), named)


def merged(compared: Iterable[Comparison]) -> Comparison:
    """Several comparisons as one."""
    parts = list(compared)
    return Comparison(
        num_rows=sum(part.num_rows for part in parts),
        worst=max(part.worst for part in parts),
        tolerance=max(part.tolerance for part in parts),
        num_redrawn=sum(part.num_redrawn for part in parts),
        num_wrong=sum(part.num_wrong for part in parts),
        wrong=tuple(said for part in parts for said in part.wrong)[:MOST_NAMED],
    )


def _random_rows(shards: Sequence[ShardRange], num_rows: int, seed: int) -> dict[ShardRange, Tensor]:
    """`num_rows` different rows, or all, drawn evenly from all shards, by shard, in order."""
    ends = torch.tensor([shard.num_rows for shard in shards]).cumsum(0)
    num_all = int(ends[-1])
    chosen = np.random.default_rng(seed).choice(num_all, min(num_rows, num_all), replace=False)
    drawn = torch.from_numpy(np.sort(chosen))
    owner = torch.searchsorted(ends, drawn, right=True)
    return {
        shards[number]: drawn[owner == number] - ends[number] + shards[number].num_rows + shards[number].first_row
        for number in owner.unique().tolist()
    }


def _deviation(target: Target, logits: Tensor) -> Tensor:
    """[n] how far each row's decoded target is from raw logits `[n, …, C]`, relative to their largest magnitude."""
    if isinstance(target, DenseTarget):
        return _relative(target.logits - logits, logits)
    assert isinstance(target, TopKTarget), f"no comparison is known for {type(target).__name__}"
    own = logits.gather(-1, target.ids)
    top, num_others = own[..., :1], logits.shape[-1] - own.shape[-1]
    rest = logits.scatter(-1, target.ids, -torch.inf)
    tail_lse = rest.logsumexp(-1, keepdim=True) - top
    tail_mean = (logits.sum(-1, keepdim=True) - own.sum(-1, keepdim=True)) / num_others - top
    passed_over = (rest.amax(-1, keepdim=True) - own.amin(-1, keepdim=True)).clamp(min=0)
    differences = (
        own - top - target.logits,
        tail_lse - target.tail_lse[..., None],
        tail_mean - target.tail_mean[..., None],
        passed_over,
    )
    return _relative(torch.cat(differences, -1), logits)


def _relative(difference: Tensor, values: Tensor) -> Tensor:
    """[n] the largest difference of each row over the row's largest magnitude."""
    scale = values.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    return difference.flatten(1).abs().amax(1) / scale


def _total_variation(kept: SampledTarget, fresh: SampledTarget) -> Tensor:
    """[n] half the sum of |difference of weights| over classes; of a row with several units, the mean."""

    def spread(target: SampledTarget) -> Tensor:
        empty = torch.zeros(*target.ids.shape[:-1], target.num_classes)
        return empty.scatter_add(-1, target.ids, target.weights)

    return (spread(kept) - spread(fresh)).abs().sum(-1).div(2).reshape(len(kept.ids), -1).mean(1)


def _foreign(stored: Columns, wanted: Columns, where: Sequence[str]) -> dict[int, str]:
    """Rows that are another example's, another view's, or mixed otherwise: row -> what is said of it."""
    found: dict[int, str] = {}
    for name, values in wanted.items():
        if name not in stored:
            return dict.fromkeys(range(len(where)), f"{where[0]}: has no column {name!r}")
        same = (stored[name] == values).reshape(len(values), -1).all(1)
        for row in np.flatnonzero(~same).tolist():
            got, own = (_key(of, row) if name == "key" else str(of[name][row]) for of in (stored, wanted))
            found.setdefault(row, f"{where[row]}: {name} is {got}, wanted {own}")
    return found


def _key(columns: Columns, row: int) -> str:
    return bytes(columns["key"][row]).hex()[:12]


def _tensors(columns: Columns, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(columns[name])) for name in names}
