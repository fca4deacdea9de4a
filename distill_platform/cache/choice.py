"""Which codecs carry an objective, and which of those takes the fewest bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from distill_platform.cache.codecs import CODECS, Codec
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import Target
from distill_platform.errors import InputError

AUTO = "auto"


@dataclass(frozen=True)
class Demand:
    """What a distillation term asks of a codec: a target of one of these types, right at all of these temperatures."""

    accepts: tuple[type[Target], ...]
    temperatures: tuple[float, ...] = ()


def carries(codec: Codec, demand: Demand) -> bool:
    """Whether a term can be computed from what a codec keeps, at every temperature that it may have."""
    lowest, highest = codec.temperatures
    return codec.target in demand.accepts and all(lowest <= value <= highest for value in demand.temperatures)


def choose_encoding(
    num_classes: int,
    demands: Sequence[Demand],
    *,
    codec: str = AUTO,
    dtype: str = "float16",
    keep: int | Literal["auto"] = "auto",
    hidden_size: int | None = None,
) -> Encoding:
    """The encoding that a cache gets: every "auto" of a spec's `cache` resolved.

    codec "auto" is the one of fewest bytes among those that may be chosen for so many classes and carry every demand;
    dense where there is no demand. keep "auto" is the codec's own number, or all classes but one where that is less.

    Raises InputError for a `keep` that leaves no class out, and for codec head without `hidden_size`.
    """
    encoding = partial(_encoding, num_classes=num_classes, dtype=dtype, keep=keep, hidden_size=hidden_size)
    if codec != AUTO:
        return encoding(codec)
    fitting = [name for name, each in CODECS.items() if _may_be_chosen(each, num_classes, dtype, demands)]
    candidates = [encoding(name) for name in (fitting if demands else ["dense"])]
    return min(candidates, key=lambda each: CODECS[each.codec].bytes_per_unit(each))


def _may_be_chosen(codec: Codec, num_classes: int, dtype: str, demands: Sequence[Demand]) -> bool:
    if codec.automatic_classes is None or dtype not in codec.dtypes:
        return False
    fewest, most = codec.automatic_classes
    hottest = max((value for demand in demands for value in demand.temperatures), default=1.0)
    fits = fewest <= num_classes <= most and hottest <= codec.automatic_temperature
    return fits and all(carries(codec, demand) for demand in demands)


def _encoding(
    codec: str, num_classes: int, dtype: str, keep: int | Literal["auto"], hidden_size: int | None
) -> Encoding:
    own, source = CODECS[codec].keep, CODECS[codec].source
    if source == "hidden" and hidden_size is None:
        raise InputError(
            f"cache.codec {codec} keeps the teacher's last hidden state, and this teacher gives none; "
            "wanted another codec"
        )
    if own and keep != "auto" and not 1 <= keep < num_classes:
        raise InputError(
            f"cache.keep is {keep}, but there are {num_classes} classes; wanted 1 to {num_classes - 1}, or codec dense"
        )
    kept = min(own, num_classes - 1) if keep == "auto" else keep
    return Encoding(
        codec,
        num_classes,
        dtype,
        keep=kept if own else 0,
        hidden_size=hidden_size if source == "hidden" and hidden_size else 0,
    )
