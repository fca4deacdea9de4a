"""What the examples of a data set look like: the form of one input, the classes, and statistics of the train split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distill_platform.errors import FormatError

SCHEMA_FORMAT = 1

PADDING = {"text": 0, "audio": -(2**15), "tokens": -1}
"""Behind the end of a sequence, by kind. No text holds a zero byte; samples are kept within -32,767 and 32,767."""

UNLABELLED = -1
"""The label of what has none, an example of a transfer set or a token of padding; and the subgroup of what has none."""


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

    They are per channel over all pixels for images, and per feature for features; empty for text, audio and tokens.
    """

    input: InputSpec
    class_names: tuple[str, ...]
    """Of tokens the vocabulary, in the order of its ids."""
    counts: Mapping[str, Mapping[str, int]]
    """Labelled examples per split (train, val, test) and class name; of tokens the number of "blocks" per split."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_unlabelled: int = 0
    """Examples of train that come from `data.transfer`, in no count above."""
    num_left_out: int = 0
    """Rows of `data.transfer` that are not among them, because val or test holds the same content or group."""
    num_cut: Mapping[str, int] = field(default_factory=dict)
    """Examples per split of which only the beginning is kept, because they are longer than `data.length`."""
    subgroup_names: tuple[str, ...] = ()
    """Values of the column `data.subgroup`; empty without one."""
    tokenizer_digest: str = ""
    """Tokens: sha256 of tokenizer.json, or of the vocabulary of bytes."""

    @property
    def num_examples(self) -> dict[str, int]:
        """Examples per split, labelled or not."""
        sizes = {split: sum(per_class.values()) for split, per_class in self.counts.items()}
        return {split: size + (self.num_unlabelled if split == "train" else 0) for split, size in sizes.items()}

    def to_json(self) -> dict[str, Any]:
        """This schema as what json.dumps takes."""
        counts = {split: dict(per_class) for split, per_class in self.counts.items()}
        return {"format": SCHEMA_FORMAT, **asdict(self), "counts": counts, "num_cut": dict(self.num_cut)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        """The schema that `to_json` wrote, of this release or one before. Raises FormatError for another version."""
        if stored.get("format") != SCHEMA_FORMAT:
            raise FormatError(
                f"the data schema has format {stored.get('format')!r}, this release reads {SCHEMA_FORMAT}; "
                "prepare the data again, or use the release that wrote it"
            )
        read = {name: value for name, value in stored.items() if name != "format"}  # what is not there has its default
        input_tuples = ("shape", "feature_names", "feature_ranges")
        read["input"] = InputSpec(**{**read["input"], **{name: tuple(read["input"][name]) for name in input_tuples}})
        tuples = ("class_names", "mean", "std", "subgroup_names")
        return cls(**{**read, **{name: tuple(read[name]) for name in tuples if name in read}})
