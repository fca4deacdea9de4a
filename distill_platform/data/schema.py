"""What the examples of a data set look like: the form of one input, the classes, and statistics of the train split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from distill_platform.errors import FormatError

SCHEMA_FORMAT = 1

PADDING = {"text": 0, "audio": -(2**15), "tokens": -1}
"""Behind the end of a sequence, by kind. No text holds a zero byte; samples are kept within -32,767 and 32,767."""


@dataclass(frozen=True)
class InputSpec:
    """One raw input, as sources give it and as it lies on disk.

    `low` and `high` bound the raw values: what the source's format allows for images (0 to 255, the digits 0 to 16),
    what occurs in the train split for features. `feature_ranges` is high - low of each feature in the train split
    (features differ in unit, so noise has to be measured against each one's own range); it is empty for images.
    """

    kind: Literal["image", "features", "text", "audio", "tokens"]
    shape: tuple[int, ...]
    """Image [H, W, C]; features [F]; text [L] bytes of UTF-8; audio [L] samples of one channel; tokens [T] ids."""
    dtype: Literal["uint8", "float32", "int16", "int32"]
    low: float
    high: float
    feature_names: tuple[str, ...] = ()
    feature_ranges: tuple[float, ...] = ()
    sample_rate: int = 0
    """Audio: samples per second."""

    @property
    def padding(self) -> int | None:
        """The value that fills up a sequence, and stands for nothing else; None for inputs of one size."""
        return PADDING.get(self.kind)


@dataclass(frozen=True)
class Schema:
    """What `prepare_examples` found. `mean` and `std` are of the train split alone, in raw units.

    They are per channel over all pixels for images, and per feature for features.
    """

    input: InputSpec
    class_names: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Examples per split (train, val, test) and class name."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """This schema as what json.dumps takes."""
        counts = {split: dict(per_class) for split, per_class in self.counts.items()}
        return {"format": SCHEMA_FORMAT, **asdict(self), "counts": counts}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        """The schema that `to_json` wrote. Raises FormatError for another version."""
        if stored.get("format") != SCHEMA_FORMAT:
            raise FormatError(
                f"the data schema has format {stored.get('format')!r}, this release reads {SCHEMA_FORMAT}; "
                "prepare the data again, or use the release that wrote it"
            )
        tuples = ("shape", "feature_names", "feature_ranges")
        input_spec = InputSpec(**{**stored["input"], **{name: tuple(stored["input"][name]) for name in tuples}})
        return cls(
            input_spec, tuple(stored["class_names"]), stored["counts"], tuple(stored["mean"]), tuple(stored["std"])
        )
