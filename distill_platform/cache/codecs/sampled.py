"""An unbiased estimate of the teacher's distribution at temperature 1 with few support points.

Optimal resampling, Fearnhead and Clifford 2003 (J. R. Stat. Soc. B 65(4), 887-899, section 3.2): of all unbiased
estimates with K support points it has the least E||estimate - p||^2. With c such that sum_i min(1, p_i / c) = K, every
class with p_i >= c is kept with its own weight, and of all others as many as are left are drawn without repetition,
each with probability p_i / c and with weight c. Weights are then rounded to multiples of 1 / TOTAL, at random and
without bias, so that they still sum to 1.

Anshumann et al. 2025 (Sparse Logit Sampling, arXiv:2503.16870) draw independently and store how often each class came
up. Independent draws spend most of their number on classes that are certain to come up, and their number of distinct
classes varies from row to row; here a row has K classes and a fixed width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.bits import Widths, pack, packed_size_bytes, unpack
from distill_platform.cache.codecs.codec import BLOCK, Codec, Columns, as_columns, chunks, in_blocks, largest
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import SampledTarget
from distill_platform.data.draws import U64, draw_many, substream
from distill_platform.errors import CacheMismatch

COUNT_BITS = 6
TOTAL = 2**COUNT_BITS - 1
"""What the counts of a unit sum to. Rounding to 1/63 adds 3% to the variance of eleven classes; a byte each would
cost three more bytes a unit for those 3%."""
STREAM = 2**32
"""Of the draws, among a row's substreams; an augmentation takes those from 0 on."""


def encode_sampled(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """`draws`: K classes in ascending order with their counts, packed.

    Sorted ids are stored as Elias and Fano do (Elias 1974, J. ACM 21(2), 246-260): of each its lower bits beside its
    count, and the upper bits of all as one string, in which bit `(id >> lower) + k` is set for the k-th. At 131,072
    classes that takes 15 bits a class for 17, and so leaves room for one class more.

    Raises CacheMismatch for logits that make no distribution (NaN, +inf, or -inf throughout).
    """
    rows = logits.flatten(0, -2)
    uniform, slot = _uniforms(streams, len(rows)).to(rows.device), torch.arange(encoding.keep, device=rows.device)
    widths, lower = _layout(encoding)
    parts, done = [], 0
    for part in chunks(rows):
        ids, weights = resample(part, encoding.keep, uniform[done : done + len(part), 0])
        counts = round_weights(weights, uniform[done : done + len(part), 1])
        ids, order = ids.sort(-1)
        upper = torch.zeros((len(part), len(widths) - encoding.keep), dtype=torch.int64, device=rows.device)
        upper.scatter_(-1, (ids >> lower) + slot, 1)
        lows = (ids & ((1 << lower) - 1)) << COUNT_BITS
        parts.append(pack(torch.cat((lows + counts.gather(-1, order), upper), -1), widths))
        done += len(part)
    return as_columns({"draws": torch.cat(parts)}, logits.shape[:-1])


def decode_sampled(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> SampledTarget:
    """Packed draws -> class ids, ascending, and weights that sum to 1."""
    widths, lower = _layout(encoding)
    lows, upper = unpack(columns["draws"], widths).split((encoding.keep, len(widths) - encoding.keep), -1)
    places = upper.nonzero()[:, -1].view(lows.shape)  # K of each unit, ascending
    ids = ((places - torch.arange(encoding.keep, device=places.device)) << lower) + (lows >> COUNT_BITS)
    return SampledTarget(ids, (lows & TOTAL).float() / TOTAL, encoding.num_classes)


def resample(logits: Tensor, keep: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The classes and weights of a K-point estimate: int64 and fp64 `[N, K]`; weights sum to 1.

    logits: `[N, C]` fp32. uniform: `[N]` fp64 in [0, 1).

    Draws are systematic: points one c apart on the line on which the remaining probabilities lie end to end. The line
    starts with those of the K largest that are not kept; then come blocks of classes, of which only those that a point
    falls into are looked at in detail.
    """
    probabilities = logits.softmax(-1)
    top, top_ids = largest(probabilities, keep)
    if not torch.isfinite(top).all():
        row = int(torch.nonzero(~torch.isfinite(top).all(-1))[0])
        raise CacheMismatch(f"row {row} of a batch is no distribution: its logits are not finite; look at the teacher")
    top = top.double()
    blocks = in_blocks(probabilities.scatter_(-1, top_ids, 0.0), 0.0)
    block_mass = blocks.sum(-1).double()
    rest = top.flip(-1).cumsum(-1).flip(-1) + block_mass.sum(-1, keepdim=True)  # left once the first A are kept
    slot = torch.arange(keep, device=top.device)
    num_kept = ((keep - slot) * top > rest).cumprod(-1).sum(-1, keepdim=True)  # A: first where none left is above c
    kept = slot < num_kept
    line = torch.cat((torch.where(kept, 0.0, top), block_mass), -1).cumsum(-1)
    step = line[:, -1:] / (keep - num_kept)
    points = ((slot - num_kept).clamp(min=0) + uniform[:, None]) * step
    drawn = _places(blocks, line, points, top_ids)
    ids = torch.where(kept, top_ids, drawn)
    weights = torch.where(kept, top, step)
    return ids, weights / weights.sum(-1, keepdim=True)


def round_weights(weights: Tensor, uniform: Tensor) -> Tensor:
    """Weights `[N, K]` that sum to 1 -> int64 counts that sum to TOTAL; each count's mean is TOTAL times its weight.

    Systematic rounding: how many of the numbers n + `uniform` lie between one running sum and the next.
    """
    ends = weights.cumsum(-1) * TOTAL
    ends[:, -1] = TOTAL
    marks = (ends + uniform[:, None]).floor().long()
    counts: Tensor = marks.diff(dim=-1, prepend=torch.zeros_like(marks[:, :1]))
    return counts


def _places(blocks: Tensor, line: Tensor, points: Tensor, top_ids: Tensor) -> Tensor:
    """The class under each point `[N, K]` of a line `[N, K + number of blocks]` of running sums."""
    keep = top_ids.shape[-1]
    piece = torch.searchsorted(line, points, right=True).clamp(max=line.shape[-1] - 1)
    block = (piece - keep).clamp(min=0)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK)).double().cumsum(-1)
    start = torch.where(piece > 0, line.gather(-1, (piece - 1).clamp(min=0)), 0.0)
    share = (points - start) / (line.gather(-1, piece) - start)  # sums of a block in two orders differ in the last bit
    offset = torch.searchsorted(within, share[:, :, None] * within[:, :, -1:], right=True).squeeze(-1)
    offset = torch.minimum(offset, (within < within[:, :, -1:]).sum(-1))  # the last class that has any probability
    found: Tensor = torch.where(piece < keep, top_ids.gather(-1, piece.clamp(max=keep - 1)), block * BLOCK + offset)
    return found


def _layout(encoding: Encoding) -> tuple[Widths, int]:
    """Widths of what is packed (K lower parts with counts, then single bits), and the number of lower bits of an id."""
    lower = (encoding.num_classes // encoding.keep).bit_length() - 1
    num_bits = encoding.keep + ((encoding.num_classes - 1) >> lower)
    return (lower + COUNT_BITS,) * encoding.keep + (1,) * num_bits, lower


def _uniforms(streams: U64, num_units: int) -> Tensor:
    """Two numbers in [0, 1) for each unit, fp64 `[N, 2]`: functions of the row's stream and the unit's place in it."""
    per_row = 2 * num_units // max(1, len(streams))
    bits = draw_many(substream(streams, STREAM), per_row) >> np.uint64(11)
    return torch.from_numpy(bits.astype(np.float64) * 2.0**-53).reshape(num_units, 2)


SAMPLED = Codec(
    encode=encode_sampled,
    decode=decode_sampled,
    columns=("draws",),
    target=SampledTarget,
    bytes_per_unit=lambda encoding: packed_size_bytes(_layout(encoding)[0]),
    temperatures=(1.0, 1.0),
    keep=11,
    automatic_classes=(1000, float("inf")),
)
