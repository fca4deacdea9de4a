"""Examples without labels: which of a transfer set may be trained on beside a val and a test split.

What val or test hold stays out of train however it comes in: by equal content, and by the group, where groups are
named.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


class HeldOut:
    """What rows of val and test hold. They are all added before rows of a transfer set are asked about.

    Kept in memory: 16 bytes of each such row, and the names of its groups.
    """

    def __init__(self) -> None:
        self._contents: list[pa.Array] = []
        self._groups: set[str] = set()
        self.num_kept = self.num_left_out = 0

    def add(self, rows: pa.Table) -> None:
        """Take note of labelled rows, if they carry what tells equal content."""
        held_out = rows.filter(pc.and_(pc.not_equal(rows["split"], "train"), pc.is_valid(rows["content"])))
        self._contents += held_out["content"].chunks
        named = held_out.filter(pc.not_equal(held_out["group"], held_out["id"]))
        self._groups.update(named["group"].to_pylist())

    def without(self, rows: pa.Table) -> pa.Table:
        """Rows of a transfer set without those that are held out, counted."""
        if self._contents:
            contents = pa.concat_arrays(self._contents)
            self._contents = [contents]
            held_out = pc.or_(
                pc.is_in(rows["content"], contents), pc.is_in(rows["group"], pa.array(self._groups, pa.string()))
            )
            kept = rows.filter(pc.invert(held_out))
        else:
            kept = rows
        self.num_kept += len(kept)
        self.num_left_out += len(rows) - len(kept)
        return kept
